"""The space stage: messages between regions, attention over them, update of the nodes. Paper, section 3.2.

All layers take nodes [B, T, N, C] and work on the B·T frames at once; i is the receiving node, j the sending one.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.normalization import FactorAndShift, apply_norm, factored_norm, normalization_layer
from rstg_tf.pairs import Pairs
from rstg_tf.rows import RowsDense, add_bias, multiply_rows
from rstg_tf.weights import weight_in

ATTENTION_KINDS = ("simple", "dot")
NEIGHBOURHOODS = ("soft", "masked")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError that names the argument, what it was and what it may be."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}.")


@keras.utils.register_keras_serializable("rstg")
class PairwiseMessages(keras.layers.Layer):
    """What every node tells every other: [B, T, N, C] -> [B, T, N (receiver i), N (sender j), width].

    m_ij = norm(relu(W2 relu(W1 [x_j, p_j ; x_i, p_i] + b1) + b2)), p the constant positional maps, `positions_width`
    wide (0: none). W1 acts on the sender's and the receiver's half apart, so the first layer costs N products, not N².

    A call returns the messages before their norm, `norm_of` what the norm does with them: attention sums them first, so
    that the norm passes over N sums in the place of N² messages.

    Source: paper, equations 1 and 2; release, section 2. LN runs over (N, N, C) jointly, BN over each step apart.
    """

    def __init__(self, *, width: int, positions_width: int = 0, normalization: str = "none", **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.positions_width = positions_width
        self.normalization = normalization
        self.second = RowsDense(width, activation="relu", name="second", dtype=self.dtype_policy)
        self.norm = normalization_layer(normalization, trailing_axes=3, per_step=True, unbiased=True, name="norm")

    def build(self, input_shape):
        one_side = input_shape[-1] + self.positions_width
        self.first_kernel = self.add_weight(name="first_kernel", shape=(2 * one_side, self.width),
                                            initializer="glorot_uniform")
        self.first_bias = self.add_weight(name="first_bias", shape=(self.width,), initializer="zeros")
        self.second.build((None, self.width))
        if self.norm is not None:
            self.norm.build((None, None, None, None, self.width))
        super().build(input_shape)

    def call(self, nodes, positions=None, pairs: Pairs | None = None):
        """`pairs`: only these messages, [B, T, E, width]. A norm would lack the others: none may be there."""
        sent, received = self._project(nodes, positions)
        if pairs is None:
            sums = tf.expand_dims(sent, 2) + tf.expand_dims(received, 3)  # [B, T, N, N, width]
        else:
            sums = pairs.add_up(sent, received)  # [B, T, E, width]
        return self.second(tf.nn.relu(sums))

    def norm_of(self, messages, training=False) -> FactorAndShift | None:
        """The norm of these messages; None where there is none."""
        return factored_norm(self.norm, messages, training)

    def _project(self, nodes, positions):
        """Both halves of W1 [x_j, p_j ; x_i, p_i] + b1: two [B, T, N, width]."""
        sizes = [nodes.shape[-1], self.positions_width] * 2
        sender, sender_place, receiver, receiver_place = tf.split(weight_in(nodes.dtype, self.first_kernel), sizes)
        sent = multiply_rows(nodes, sender)
        if positions is None:
            return sent, multiply_rows(nodes, receiver, self.first_bias)
        where = tf.cast(positions, nodes.dtype)
        received = multiply_rows(nodes, receiver) + multiply_rows(where, receiver_place, self.first_bias)
        return sent + multiply_rows(where, sender_place), received

    def get_config(self):
        return {**super().get_config(), "width": self.width, "positions_width": self.positions_width,
                "normalization": self.normalization}


@keras.utils.register_keras_serializable("rstg")
class NeighbourAttention(keras.layers.Layer):
    """How much every node listens to each other, and what it hears: weights α [B, T, N, N] and g [B, T, N, width].

    simple   e_ij = leaky_relu(A_ij (a1·x_i + c1) + A_ij (a2·x_j + c2), 0.2) + A_ij; g_i = relu(norm(Σ_j α_ij m_ij + b))
    dot      e_ij = A_ij (Wq x_i + bq)·(Wk x_j + bk), unscaled; g_i = relu(Σ_j α_ij m_ij + b), no norm
    `heads`  (dot only) α^h from queries and keys of width query_width / heads; messages projected to width / heads per
             head; relu per head, heads concatenated. The returned α is the mean over the heads. 'simple' ignores it.

    α is the softmax of e over all j. With neighbourhood 'soft' a region that is no neighbour keeps e = 0, hence weight
    exp(0), as in the release, whose checkpoints need it; with 'masked' only neighbours take part, as the paper
    describes, and a node without any hears 0.

    Source: paper, equation 3; release, section 2. Deviation: the norm of the messages and the heads' projections, being
    linear, are applied to the weighted sums instead of to the N² messages.
    """

    def __init__(self, *, width: int, query_width: int, kind: str = "simple", heads: int = 1,
                 neighbourhood: str = "soft", normalization: str = "none", **kwargs):
        super().__init__(**kwargs)
        require_choice("kind", kind, ATTENTION_KINDS)
        require_choice("neighbourhood", neighbourhood, NEIGHBOURHOODS)
        if heads < 1 or (kind == "dot" and (width % heads or query_width % heads)):
            raise ValueError(f"heads={heads}: expected a divisor of the message width {width} and of the node width "
                             f"{query_width}.")
        self.width, self.query_width, self.kind, self.heads = width, query_width, kind, heads
        self.neighbourhood, self.normalization = neighbourhood, normalization
        scores = 1 if kind == "simple" else query_width
        self.receiver = RowsDense(scores, name="receiver", dtype=self.dtype_policy)
        self.sender = RowsDense(scores, name="sender", dtype=self.dtype_policy)
        self.norm = None
        if kind == "simple":
            self.norm = normalization_layer(normalization, trailing_axes=2, per_step=True, unbiased=False, name="norm")

    @property
    def projects_messages(self) -> bool:
        return self.kind == "dot" and self.heads > 1

    def build(self, input_shape):
        self.receiver.build((None, input_shape[-1]))
        self.sender.build((None, input_shape[-1]))
        self.bias = self.add_weight(name="bias", shape=(self.width,), initializer="zeros")
        if self.projects_messages:
            head_width = self.width // self.heads
            # One Glorot draw per head, like the dense layer that each head has in the release.
            self.head_kernels = [self.add_weight(name=f"head_kernel_{head}", shape=(self.width, head_width),
                                                 initializer=keras.initializers.GlorotUniform())
                                 for head in range(self.heads)]
            for head, kernel in enumerate(self.head_kernels):
                setattr(self, f"head_kernel_{head}", kernel)  # Keras 3: a checkpoint does not find weights in lists
            self.head_bias = self.add_weight(name="head_bias", shape=(self.width,), initializer="zeros")
        if self.norm is not None:
            self.norm.build((None, None, None, self.width))
        super().build(input_shape)

    def call(self, nodes, messages, adjacency, training=False, masked: bool = False, pairs: Pairs | None = None,
             message_norm: FactorAndShift | None = None):
        """adjacency: float [N, N] of 0 and 1. Returns (g, α); α is float32. `masked` overrules a soft neighbourhood.

        `pairs`: which ones the messages [B, T, E, width] belong to; all others have α = 0. `message_norm`: m_ij is this
        norm of a message, the same for all of a step.
        """
        adjacency = tf.cast(adjacency, tf.float32)
        scores = self._simple_scores(nodes, adjacency) if self.kind == "simple" else self._dot_scores(nodes, adjacency)
        masked = masked or self.neighbourhood == "masked"
        weights = _masked_softmax(scores, adjacency) if masked else tf.nn.softmax(scores)  # [B, T, heads, N, N]
        heard = self._weighted_sum(weights, messages, pairs, message_norm)  # [B, T, N, width]
        heard = add_bias(heard, weight_in(heard.dtype, self.bias))
        return tf.nn.relu(apply_norm(self.norm, heard, training)), tf.reduce_mean(weights, axis=2)

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
        sums = tf.matmul(cast, messages) if pairs is None else pairs.weighted_sum(cast, messages)
        # α sums to 1, or to 0 where a node hears nobody: what is added to a message counts as often.
        total = tf.reduce_sum(weights, axis=-1, keepdims=True)  # [B, T, N, heads, 1]
        if message_norm is not None:
            sums = message_norm.of_weighted_sum(sums, total)
        if not self.projects_messages:
            return sums[:, :, :, 0]
        kernels = [weight_in(sums.dtype, kernel) for kernel in self.head_kernels]
        heads = [tf.tensordot(part, kernel, 1) for part, kernel in zip(tf.unstack(sums, axis=3), kernels)]
        bias = tf.repeat(total[..., 0], self.width // self.heads, axis=-1) * weight_in(tf.float32, self.head_bias)
        return tf.concat(heads, axis=-1) + tf.cast(bias, sums.dtype)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "query_width": self.query_width, "kind": self.kind,
                "heads": self.heads, "neighbourhood": self.neighbourhood, "normalization": self.normalization}


def _masked_softmax(scores, adjacency):
    """Softmax over the neighbours alone; zeros in the rows of nodes without any."""
    excluded = tf.where(adjacency > 0, 0.0, -1e9)
    has_neighbour = tf.reduce_max(adjacency, axis=-1, keepdims=True)
    return tf.nn.softmax(scores + excluded) * has_neighbour


@keras.utils.register_keras_serializable("rstg")
class NodeUpdate(keras.layers.Layer):
    """x_i ← norm(MLP([x_i ; g_i])): `layers` dense + relu layers of `width`, one MLP or one per scale.

    `scale_sizes` (e.g. [9, 4, 1]) gives every scale an MLP of its own; the norm then sees all nodes together.
    Source: paper, equation 4; release, section 2.
    """

    def __init__(self, *, width: int, message_width: int, layers: int = 2, scale_sizes: list[int] | None = None,
                 normalization: str = "none", **kwargs):
        super().__init__(**kwargs)
        if layers < 1:
            raise ValueError(f"layers={layers}: the update needs at least 1.")
        self.width, self.message_width, self.layers, self.normalization = width, message_width, layers, normalization
        self.scale_sizes = None if scale_sizes is None else list(scale_sizes)
        self.branches = [
            [RowsDense(width, activation="relu", name=f"layer_{layer}_scale_{scale}", dtype=self.dtype_policy)
             for layer in range(layers)]
            for scale in range(len(scale_sizes or [0]))]
        for layer in sum(self.branches, []):
            setattr(self, layer.name, layer)  # Keras 3: a checkpoint does not find layers in lists
        self.norm = normalization_layer(normalization, trailing_axes=2, per_step=True, unbiased=False, name="norm")

    def build(self, input_shape):
        for branch in self.branches:
            inputs = input_shape[-1] + self.message_width
            for layer in branch:
                layer.build((None, inputs))
                inputs = self.width
        if self.norm is not None:
            self.norm.build((None, None, None, self.width))
        super().build(input_shape)

    def call(self, nodes, heard, training=False, region_axis: int = 2):
        """`region_axis`: the axis that holds the regions, 2 in space rounds, 1 where the steps take their place."""
        values = tf.concat([nodes, heard], axis=-1)
        parts = [values] if self.scale_sizes is None else tf.split(values, self.scale_sizes, axis=region_axis)
        updated = []
        for part, branch in zip(parts, self.branches):
            for layer in branch:
                part = layer(part)
            updated.append(part)
        updated = updated[0] if len(updated) == 1 else tf.concat(updated, axis=region_axis)
        return apply_norm(self.norm, updated, training)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "message_width": self.message_width,
                "layers": self.layers, "scale_sizes": self.scale_sizes, "normalization": self.normalization}


@keras.utils.register_keras_serializable("rstg")
class SpatialStage(keras.layers.Layer):
    """One round of message passing within each frame: messages -> attention -> update, [B, T, N, C] -> [B, T, N, C]."""

    def __init__(self, *, node_width: int, message_width: int, attention: str = "simple", attention_heads: int = 1,
                 neighbourhood: str = "soft", normalization: str = "none", update_layers: int = 2,
                 scale_sizes: list[int] | None = None, positions_width: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.node_width, self.message_width = node_width, message_width
        self.attention_kind, self.attention_heads, self.neighbourhood = attention, attention_heads, neighbourhood
        self.normalization, self.update_layers, self.scale_sizes = normalization, update_layers, scale_sizes
        self.positions_width = positions_width
        self.messages = PairwiseMessages(width=message_width, positions_width=positions_width,
                                         normalization=normalization, name="messages", dtype=self.dtype_policy)
        self.attention = NeighbourAttention(width=message_width, query_width=node_width, kind=attention,
                                            heads=attention_heads, neighbourhood=neighbourhood,
                                            normalization=normalization, name="attention", dtype=self.dtype_policy)
        self.update = NodeUpdate(width=node_width, message_width=message_width, layers=update_layers,
                                 scale_sizes=scale_sizes, normalization=normalization, name="update",
                                 dtype=self.dtype_policy)

    def build(self, input_shape):
        for part in (self.messages, self.attention, self.update):
            part.build(input_shape)
        super().build(input_shape)

    def call(self, nodes, adjacency, positions=None, training=False, over_time: bool = False):
        """Returns (nodes, α [B, T, N, N]). `positions` broadcasts against [B, T, N, P].

        `over_time`: nodes [B, N, T, C] and adjacency [T, T] instead, the steps of a region in the place of the regions
        of a step, always masked.
        """
        pairs = None
        if self.neighbourhood == "masked" and self.messages.norm is None and not over_time:
            pairs = Pairs.of_neighbours(adjacency)
        messages = self.messages(nodes, positions, pairs=pairs)
        heard, weights = self.attention(nodes, messages, adjacency, training=training, masked=over_time, pairs=pairs,
                                        message_norm=self.messages.norm_of(messages, training))
        return self.update(nodes, heard, training=training, region_axis=1 if over_time else 2), weights

    def get_config(self):
        return {**super().get_config(), "node_width": self.node_width, "message_width": self.message_width,
                "attention": self.attention_kind, "attention_heads": self.attention_heads,
                "neighbourhood": self.neighbourhood, "normalization": self.normalization,
                "update_layers": self.update_layers, "scale_sizes": self.scale_sizes,
                "positions_width": self.positions_width}
