"""Messages between two nodes. Paper, section 3.2; i is the receiving node, j the sending one."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_layer import Layer, input_spec
from rstg_tf.layers.normalization import Affine, factored_norm, normalization_layer
from rstg_tf.ops.dense import FlatDense, dense
from rstg_tf.ops.edge_list import EdgeList


@keras.utils.register_keras_serializable("rstg")
class PairwiseMessages(Layer):
    """What every node tells every other: [B, T, N, C] -> [B, T, N (receiver i), N (sender j), width].

    m_ij = norm(relu(W2 relu(W1 [x_j, p_j ; x_i, p_i] + b1) + b2)), p the constant positional maps, `positions_width`
    wide (0: none). W1 acts on the sender's and the receiver's half apart, so the first layer costs N products, not N².

    A call returns the messages before their norm, `norm_of` what the norm does with them: attention sums them first, so
    that the norm passes over N sums in the place of N² messages.

    Source: paper, equations 1 and 2; docs/release.md, 'Messages'. LN runs over (N, N, C) jointly, BN over each step
    apart.

    Example:

    >>> messages = PairwiseMessages(width=6)
    >>> tuple(messages(tf.zeros([2, 3, 5, 4])).shape)
    (2, 3, 5, 5, 6)
    """

    def __init__(self, *, width: int, positions_width: int = 0, normalization: str = "none", **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.positions_width = positions_width
        self.normalization = normalization
        self.second = FlatDense(width, activation="relu", name="second", dtype=self.dtype_policy)
        self.norm = normalization_layer(normalization, trailing_axes=3, per_step=True, unbiased=True, name="norm")

    def build(self, input_shape):
        self.input_spec = input_spec(4, input_shape[-1])
        one_side = input_shape[-1] + self.positions_width
        self.first_kernel = self.add_weight(
            name="first_kernel", shape=(2 * one_side, self.width), initializer="glorot_uniform"
        )
        self.first_bias = self.add_weight(name="first_bias", shape=(self.width,), initializer="zeros")
        self.second.build((None, self.width))
        if self.norm is not None:
            self.norm.build((None, None, None, None, self.width))
        super().build(input_shape)

    def call(self, nodes, positions=None, pairs: EdgeList | None = None):
        """`pairs`: only these messages, [B, T, E, width]. A norm would lack the others: none may be there."""
        sent, received = self._project(nodes, positions)
        if pairs is None:
            sums = tf.expand_dims(sent, 2) + tf.expand_dims(received, 3)  # [B, T, N, N, width]
        else:
            sums = pairs.gather_sum(sent, received)  # [B, T, E, width]
        return self.second(tf.nn.relu(sums))

    def norm_of(self, messages, training=False) -> Affine | None:
        """The norm of these messages; None where there is none."""
        return factored_norm(self.norm, messages, training)

    def _project(self, nodes, positions):
        """Both halves of W1 [x_j, p_j ; x_i, p_i] + b1: two [B, T, N, width]."""
        sizes = [nodes.shape[-1], self.positions_width] * 2
        sender, sender_place, receiver, receiver_place = tf.split(tf.cast(self.first_kernel, nodes.dtype), sizes)
        sent = dense(nodes, sender)
        if positions is None:
            return sent, dense(nodes, receiver, self.first_bias)
        where = tf.cast(positions, nodes.dtype)
        received = dense(nodes, receiver) + dense(where, receiver_place, self.first_bias)
        return sent + dense(where, sender_place), received

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "positions_width": self.positions_width,
            "normalization": self.normalization,
        }
