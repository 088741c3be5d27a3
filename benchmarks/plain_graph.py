"""RSTG's graph written the obvious way, in TensorFlow: what the layers are timed against, and checked with.

It computes what the authors' release computes, the way one writes it down first: frame by frame, every message from the
N×N concatenation of sender and receiver, the LSTM fed with [x_t, h] step by step. It takes the weights of a
`RecurrentSpaceTimeGraph`, under the release's names, for the options that the release's configurations use.
"""

from __future__ import annotations

import tensorflow as tf

from rstg_tf.layers import regions
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.release import entry_tensors
from rstg_tf.release.name_parts import LSTM_CELL
from rstg_tf.release.names import graph_entries

_ONLY = {
    "share_stages": False,
    "attention_heads": 1,
    "neighbourhood": "soft",
    "time_stages": "all",
    "stage_norm": False,
    "residual_stages": False,
    "node_reduction": "sum",
    "output": "vector",
    "forget_bias": 0.0,
}


class PlainGraph(tf.Module):
    """features [B, T, H, W, C] -> vector [B, C'], like the given graph; float32; B and T must be known when traced.

    Raises ValueError for a graph with options that no configuration of the release has, or batch norm inside.
    """

    def __init__(self, graph: RecurrentSpaceTimeGraph):
        super().__init__()
        self.config = graph.get_config()
        wrong = [f"{name}={self.config[name]!r}" for name, value in _ONLY.items() if self.config[name] != value]
        if self.config["normalization"] not in ("none", "LN"):
            wrong.append(f"normalization={self.config['normalization']!r}")
        if wrong:
            raise ValueError(f"the plain graph has no {', '.join(wrong)}.")
        self.weights = {name: tf.Variable(value) for name, value in entry_tensors(graph_entries("", graph)).items()}
        self.adjacency = tf.constant(graph.adjacency, tf.float32)
        self.positions = None if graph.positions is None else tf.constant(graph.positions, tf.float32)

    def __call__(self, features, training: bool = False):
        clips, steps, height, width, channels = features.shape
        pooling = tf.constant(regions.pooling_weights(self.config["num_scales"], height, width), tf.float32)
        nodes = [
            tf.matmul(pooling, tf.reshape(features[:, t], [clips, height * width, channels])) for t in range(steps)
        ]  # T × [B, N, C]
        nodes = self._enter(nodes, training)
        for k in range(self.config["space_iterations"]):
            if k < 3:
                nodes = self._lstm(nodes, LSTM_CELL)
            nodes = [self._space_stage(step) for step in nodes]
        nodes = self._lstm(nodes, f"time_update_extern/{LSTM_CELL}")
        if "project_back_to_i3d/kernel" in self.weights:
            nodes = [self._dense(step, "project_back_to_i3d") for step in nodes]
        return tf.reduce_sum(tf.reduce_mean(tf.stack(nodes, axis=1), axis=1), axis=1)

    def _enter(self, nodes, training):
        if "project_i3d/kernel" in self.weights:
            nodes = [self._dense(step, "project_i3d") for step in nodes]
        joined = tf.stack(nodes, axis=1)  # [B, T, N, C]
        if self.config["input_batch_norm"]:
            joined = self._batch_norm(joined, training)
        return tf.unstack(self._layer_norm(joined, "before_graf_ln"), axis=1)

    def _dense(self, values, name: str):
        kernel = self.weights[f"{name}/kernel"]
        matrix = tf.reshape(kernel, kernel.shape[-2:])
        rows = tf.reshape(values, [-1, values.shape[-1]])
        return tf.reshape(tf.matmul(rows, matrix) + self.weights[f"{name}/bias"], [*values.shape[:-1], matrix.shape[1]])

    def _batch_norm(self, values, training):
        mean, variance = (
            self.weights["batch_normalization/moving_mean"],
            self.weights["batch_normalization/moving_variance"],
        )
        if training:
            mean, variance = tf.nn.moments(values, [0, 1, 2])
        return tf.nn.batch_normalization(
            values,
            mean,
            variance,
            self.weights["batch_normalization/beta"],
            self.weights["batch_normalization/gamma"],
            1e-3,
        )

    def _layer_norm(self, values, name: str):
        """Over every axis but the batch (the release's); the values themselves where the graph has no such norm."""
        if f"{name}/gamma" not in self.weights:
            return values
        mean, variance = tf.nn.moments(values, list(range(1, len(values.shape))), keepdims=True)
        return tf.nn.batch_normalization(
            values, mean, variance, self.weights[f"{name}/beta"], self.weights[f"{name}/gamma"], 1e-12
        )

    def _lstm(self, nodes, name: str):
        kernel, bias = self.weights[f"{name}/kernel"], self.weights[f"{name}/bias"]
        hidden = carry = tf.zeros([*nodes[0].shape[:2], kernel.shape[1] // 4])
        outputs = []
        for step in nodes:
            joined = tf.concat([step, hidden], axis=-1)
            gates = tf.matmul(tf.reshape(joined, [-1, joined.shape[-1]]), kernel) + bias
            take, candidate, keep, show = tf.split(tf.reshape(gates, [*step.shape[:2], -1]), 4, axis=-1)
            carry = tf.sigmoid(keep) * carry + tf.sigmoid(take) * tf.tanh(candidate)
            hidden = tf.sigmoid(show) * tf.tanh(carry)
            outputs.append(hidden)
        return outputs

    def _space_stage(self, nodes):
        """One step's nodes: [B, N, C] -> [B, N, C]."""
        heard = self._listen(nodes, self._messages(nodes))
        values = tf.concat([nodes, heard], axis=-1)
        scalewise = self.config["scalewise_update"]
        scope = f"update_node_mlp{'_' if scalewise else ''}/update"
        sizes = [size * size for size in regions.grid_sizes(self.config["num_scales"])]
        parts = tf.split(values, sizes, axis=1) if scalewise else [values]
        updated = []
        for scale, part in enumerate(parts, start=1):
            for layer in range(1, self.config["update_layers"] + 1):
                part = tf.nn.relu(self._dense(part, f"{scope}_conv{layer}{f'_type{scale}' if scalewise else ''}"))
            updated.append(part)
        return self._layer_norm(tf.concat(updated, axis=1), f"{scope}_ln")

    def _messages(self, nodes):
        """m_ij of every pair: [B, N (receiver i), N (sender j), C]."""
        clips, count, _ = nodes.shape
        if self.positions is not None:
            nodes = tf.concat([nodes, tf.tile(self.positions[None], [clips, 1, 1])], axis=-1)
        sender = tf.tile(nodes[:, None, :, :], [1, count, 1, 1])
        receiver = tf.tile(nodes[:, :, None, :], [1, 1, count, 1])
        pairs = tf.concat([sender, receiver], axis=-1)  # [B, N, N, 2·C]
        hidden = tf.nn.relu(self._dense(pairs, "send_messages_mlp/send_conv1"))
        return self._layer_norm(
            tf.nn.relu(self._dense(hidden, "send_messages_mlp/send_conv2")), "send_messages_mlp/message_ln"
        )

    def _listen(self, nodes, messages):
        simple = self.config["attention"] == "simple"
        scope = "my_attn" if simple else "dot_product_attn"
        receiver, sender = self._dense(nodes, f"{scope}/att_conv1"), self._dense(nodes, f"{scope}/att_conv2")
        if simple:
            pairs = self.adjacency * receiver + self.adjacency * tf.transpose(sender, [0, 2, 1])
            scores = tf.nn.leaky_relu(pairs, alpha=0.2) + self.adjacency
        else:
            scores = self.adjacency * tf.matmul(receiver, sender, transpose_b=True)
        weights = tf.nn.softmax(scores)  # [B, N, N]
        heard = tf.reduce_sum(weights[..., None] * messages, axis=2) + self.weights[f"{scope}/att_bias/biases"]
        return tf.nn.relu(self._layer_norm(heard, f"{scope}/att_ln") if simple else heard)
