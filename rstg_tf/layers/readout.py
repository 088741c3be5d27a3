"""Nodes or maps -> vector -> logits: pooling, dropout and the classifier; views are averaged by `evaluation`."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_compat import FIRST_REPLICA, track_kernel
from rstg_tf.common.keras_layer import Layer, build_part


def vector_from_nodes(nodes, node_reduction: str = "sum"):
    """Mean over T, then sum (the release) or mean over N, in float32: [B, T, N, C] -> [B, C]."""
    over_time = tf.reduce_mean(tf.cast(nodes, tf.float32), axis=1)  # [B, N, C]
    vector = tf.reduce_sum(over_time, axis=1) if node_reduction == "sum" else tf.reduce_mean(over_time, axis=1)
    return tf.cast(vector, nodes.dtype)


@keras.utils.register_keras_serializable("rstg")
class CountedDropout(Layer):
    """Dropout whose masks are a function of (seed, calls so far, replica); the count is a weight that checkpoints hold.

    Keras' own layer draws from a generator that no checkpoint restores: an interrupted run would not resume to the same
    bits. Training: each value is 0 with probability `rate`, else divided by 1 - rate. Otherwise the identity.

    Example:

    >>> CountedDropout(rate=0.5)(tf.constant([1.0, 2.0])).numpy().tolist()  # not in training
    [1.0, 2.0]
    """

    def __init__(self, *, rate: float, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate={rate}: expected a share in [0, 1).")
        self.rate = rate
        self.seed = seed

    def build(self, input_shape):
        # float32, because Keras 3 gives integer weights no distribution strategy; exact up to 2^24 calls.
        self.calls = self.add_weight(
            name="calls", shape=(), dtype="float32", initializer="zeros", trainable=False, aggregation=FIRST_REPLICA
        )
        super().build(input_shape)

    def call(self, inputs, training=False):
        if not training or self.rate == 0.0:
            return inputs
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        count = tf.cast(tf.convert_to_tensor(self.calls), tf.int32)
        seed = tf.random.experimental.stateless_fold_in(tf.stack([self.seed, count]), replica)
        kept = tf.random.stateless_uniform(tf.shape(inputs), seed) >= self.rate
        self.calls.assign_add(1.0)
        return tf.where(kept, inputs / (1.0 - self.rate), tf.zeros_like(inputs))

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.utils.register_keras_serializable("rstg")
class Classifier(Layer):
    """Dropout, a dense layer to classes, mean over the positions that remain: [B, …, C] -> float32 [B, classes].

    float32 whatever the policy, so that the softmax is exact enough.

    Example:

    >>> tuple(Classifier(num_classes=5)(tf.zeros([2, 3, 3, 8])).shape)
    (2, 5)
    """

    def __init__(self, *, num_classes: int, dropout: float = 0.0, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.num_classes = num_classes
        self.rate = dropout
        self.dropout = CountedDropout(rate=dropout, name="dropout", dtype="float32")
        self.dense = keras.layers.Dense(num_classes, name="logits", dtype="float32")

    def build(self, input_shape):
        # Built for vectors, it also takes maps: any number of positions may stand between.
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: input_shape[-1]})
        self.dropout.build(input_shape)
        build_part(self.dense, (None, input_shape[-1]))
        track_kernel(self.dense)
        super().build(input_shape)

    def call(self, features, training=False):
        logits = self.dense(self.dropout(tf.cast(features, tf.float32), training=training))
        positions = list(range(1, logits.shape.rank - 1))
        return tf.reduce_mean(logits, axis=positions) if positions else logits

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes, "dropout": self.rate}
