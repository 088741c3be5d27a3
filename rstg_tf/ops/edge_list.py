"""Which ordered pairs of nodes exchange messages, where not all of them do."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from rstg_tf.ops.dense import dense


@dataclasses.dataclass(frozen=True, eq=False)  # no tuple: Keras 3 would make tensors of what a layer is given in one
class EdgeList:
    """E ordered pairs of N nodes; row e of each matrix is 1 at its node: float32 [E, N].

    Nodes are picked and messages collected by matrix products: as fast as gathers at 512 channels and faster at 64,
    and the gradient of a gather is slower than either.
    """

    sender: np.ndarray
    receiver: np.ndarray

    @classmethod
    def of_neighbours(cls, adjacency) -> EdgeList | None:
        """Those with A_ij = 1, [N, N]; None where A is not known when traced, or empty."""
        known = tf.get_static_value(adjacency)
        if known is None or not known.any():
            return None
        receivers, senders = np.nonzero(known)
        nodes = np.eye(len(known), dtype=np.float32)
        return cls(sender=nodes[senders], receiver=nodes[receivers])

    def gather_sum(self, sent, received):
        """sent_j + received_i of every pair: two [B, T, N, C] -> [B, T, E, C]."""
        count, channels = sent.shape[2:]
        both = tf.reshape(tf.concat([sent, received], axis=2), [-1, 2 * count, channels])  # [B·T, 2·N, C]
        pick = tf.constant(np.concatenate([self.sender, self.receiver], axis=1), sent.dtype)  # [E, 2·N]
        picked = tf.matmul(pick, both)  # [B·T, E, C]
        return tf.reshape(picked, [-1, tf.shape(sent)[1], len(self.sender), channels])

    def aggregate(self, weights, messages):
        """Σ_j α_ij m_ij over the pairs (i, j): [B, T, N, heads, N], [B, T, E, C] -> [B, T, N, heads, C]."""
        count, heads = weights.shape[2:4]
        of_pairs = dense(weights, self.sender.T) * self.receiver.T[:, None]  # [B, T, N, heads, E]
        steps, pairs, channels = tf.shape(messages)[1], *messages.shape[2:]
        sums = tf.matmul(tf.reshape(of_pairs, [-1, steps, count * heads, pairs]), messages)  # [B, T, N·heads, C]
        return tf.reshape(sums, [-1, steps, count, heads, channels])
