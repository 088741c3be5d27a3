"""Attention over the nodes' messages. Paper, section 3.2; i is the receiving node, j the sending one."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.choices import ATTENTIONS, NEIGHBOURHOODS, require_choice
from rstg_tf.common.keras_layer import Layer, input_spec
from rstg_tf.layers.normalization import Affine, apply_norm, normalization_layer
from rstg_tf.ops.dense import FlatDense, add_bias
from rstg_tf.ops.edge_list import EdgeList


@keras.utils.register_keras_serializable("rstg")
class NeighbourAttention(Layer):
    """How much every node listens to each other, and what it hears: weights α [B, T, N, N] and g [B, T, N, width].

    simple   e_ij = leaky_relu(A_ij (a1·x_i + c1) + A_ij (a2·x_j + c2), 0.2) + A_ij; g_i = relu(norm(Σ_j α_ij m_ij + b))
    dot      e_ij = A_ij (Wq x_i + bq)·(Wk x_j + bk), unscaled; g_i = relu(Σ_j α_ij m_ij + b), no norm
    `heads`  (dot only) α^h from queries and keys of width query_width / heads; messages projected to width / heads per
             head; relu per head, heads concatenated. The returned α is the mean over the heads. 'simple' ignores it.

    α is the softmax of e over all j. With neighbourhood 'soft' a region that is no neighbour keeps e = 0, hence weight
    exp(0), as in the release, whose checkpoints need it; with 'masked' only neighbours take part, as the paper
    describes, and a node without any has α = 0 and g = relu(norm(b)), for 'dot' relu(b).

    Source: paper, equation 3; docs/release.md, 'Attention'. Deviation: the heads' projections and the norm of the
    messages, affine once its statistics are known, are applied to the weighted sums instead of to the N² messages.

    Example:

    >>> attention = NeighbourAttention(width=6, query_width=4)
    >>> messages, neighbours = tf.zeros([1, 1, 2, 2, 6]), tf.constant([[0.0, 1.0], [1.0, 0.0]])
    >>> aggregated, weights = attention(tf.zeros([1, 1, 2, 4]), messages, neighbours)
    >>> print(weights[0, 0].numpy().round(2))  # of equal nodes: exp(0) and exp(1), as fractions of their sum
    [[0.27 0.73]
     [0.73 0.27]]
    """

    def __init__(
        self,
        *,
        width: int,
        query_width: int,
        kind: str = "simple",
        heads: int = 1,
        neighbourhood: str = "soft",
        normalization: str = "none",
        **kwargs,
    ):
        super().__init__(**kwargs)
        require_choice("kind", kind, ATTENTIONS)
        require_choice("neighbourhood", neighbourhood, NEIGHBOURHOODS)
        if heads < 1 or (kind == "dot" and (width % heads or query_width % heads)):
            raise ValueError(
                f"heads={heads}: expected a divisor of the message width {width} and of query_width {query_width}, "
                "which in a graph is its node_width."
            )
        self.width, self.query_width, self.kind, self.heads = width, query_width, kind, heads
        self.neighbourhood, self.normalization = neighbourhood, normalization
        scores = 1 if kind == "simple" else query_width
        self.receiver = FlatDense(scores, name="receiver", dtype=self.dtype_policy)
        self.sender = FlatDense(scores, name="sender", dtype=self.dtype_policy)
        self.norm = None
        if kind == "simple":
            self.norm = normalization_layer(normalization, trailing_axes=2, per_step=True, unbiased=False, name="norm")

    @property
    def projects_messages(self) -> bool:
        return self.kind == "dot" and self.heads > 1

    def build(self, input_shape):
        self.input_spec = input_spec(4, input_shape[-1])
        self.receiver.build((None, input_shape[-1]))
        self.sender.build((None, input_shape[-1]))
        self.bias = self.add_weight(name="bias", shape=(self.width,), initializer="zeros")
        if self.projects_messages:
            head_width = self.width // self.heads
            # One Glorot draw per head, like the dense layer that each head has in the release.
            self.head_kernels = [
                self.add_weight(
                    name=f"head_kernel_{head}",
                    shape=(self.width, head_width),
                    initializer=keras.initializers.GlorotUniform(),
                )
                for head in range(self.heads)
            ]
            for head, kernel in enumerate(self.head_kernels):
                setattr(self, f"head_kernel_{head}", kernel)  # Keras 3: a checkpoint does not find weights in lists
            self.head_bias = self.add_weight(name="head_bias", shape=(self.width,), initializer="zeros")
        if self.norm is not None:
            self.norm.build((None, None, None, self.width))
        super().build(input_shape)

    def call(
        self,
        nodes,
        messages,
        adjacency,
        training=False,
        masked: bool = False,
        pairs: EdgeList | None = None,
        message_norm: Affine | None = None,
    ):
        """adjacency: float [N, N] of 0 and 1. Returns (g, α); α is float32. `masked` overrules a soft neighbourhood.

        `pairs`: which ones the messages [B, T, E, width] belong to; all others have α = 0. `message_norm`: m_ij is this
        norm of a message, the same for all of a step.
        """
        adjacency = tf.cast(adjacency, tf.float32)
        scores = self._simple_scores(nodes, adjacency) if self.kind == "simple" else self._dot_scores(nodes, adjacency)
        masked = masked or self.neighbourhood == "masked"
        weights = _masked_softmax(scores, adjacency) if masked else tf.nn.softmax(scores)  # [B, T, heads, N, N]
        aggregated = self._weighted_sum(weights, messages, pairs, message_norm)  # [B, T, N, width]
        aggregated = add_bias(aggregated, tf.cast(self.bias, aggregated.dtype))
        return tf.nn.relu(apply_norm(self.norm, aggregated, training)), tf.reduce_mean(weights, axis=2)

    def _simple_scores(self, nodes, adjacency):
        """[B, T, 1, N, N]"""
        receiver = tf.cast(self.receiver(nodes), tf.float32)  # [B, T, N, 1]
        sender = tf.linalg.matrix_transpose(tf.cast(self.sender(nodes), tf.float32))  # [B, T, 1, N]
        scores = tf.nn.leaky_relu(adjacency * (receiver + sender), alpha=0.2) + adjacency
        return scores[:, :, None]

    def _dot_scores(self, nodes, adjacency):
        """[B, T, heads, N, N]"""
        queries, keys = self._split_heads(self.receiver(nodes)), self._split_heads(self.sender(nodes))
        return tf.cast(tf.matmul(queries, keys, transpose_b=True), tf.float32) * adjacency

    def _split_heads(self, values):
        """[B, T, N, heads·D] -> [B, T, heads, N, D]"""
        steps, count = tf.shape(values)[1], values.shape[2]
        count = tf.shape(values)[2] if count is None else count
        split = tf.reshape(values, [-1, steps, count, self.heads, self.query_width // self.heads])
        return tf.transpose(split, [0, 1, 3, 2, 4])

    def _weighted_sum(self, weights, messages, pairs, message_norm):
        """Σ_j α_ij m_ij, through the norm of the messages and the heads' projections: [B, T, N, width]."""
        weights = tf.transpose(weights, [0, 1, 3, 2, 4])  # [B, T, N, heads, N]
        cast = tf.cast(weights, messages.dtype)
        # [B, T, N, heads, width]
        sums = tf.matmul(cast, messages) if pairs is None else pairs.aggregate(cast, messages)
        # α sums to 1, or to 0 where a node has no neighbour: what is added to a message counts as often.
        total = tf.reduce_sum(weights, axis=-1, keepdims=True)  # [B, T, N, heads, 1]
        if message_norm is not None:
            sums = message_norm.of_weighted_sum(sums, total)
        if not self.projects_messages:
            return sums[:, :, :, 0]
        kernels = [tf.cast(kernel, sums.dtype) for kernel in self.head_kernels]
        heads = [tf.tensordot(part, kernel, 1) for part, kernel in zip(tf.unstack(sums, axis=3), kernels)]
        bias = tf.repeat(total[..., 0], self.width // self.heads, axis=-1) * tf.cast(self.head_bias, tf.float32)
        return tf.concat(heads, axis=-1) + tf.cast(bias, sums.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "query_width": self.query_width,
            "kind": self.kind,
            "heads": self.heads,
            "neighbourhood": self.neighbourhood,
            "normalization": self.normalization,
        }


def _masked_softmax(scores, adjacency):
    """Softmax over the neighbours alone; zeros in the rows of nodes without any."""
    excluded = tf.where(adjacency > 0, 0.0, -1e9)
    has_neighbour = tf.reduce_max(adjacency, axis=-1, keepdims=True)
    return tf.nn.softmax(scores + excluded) * has_neighbour
