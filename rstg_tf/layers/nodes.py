"""Feature map <-> nodes: [B, T, H, W, C] <-> [B, T, N, C]. Paper, sections 3.1 and 3.4 (RSTG-to-map)."""

from __future__ import annotations

import functools

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_layer import Layer
from rstg_tf.layers import regions

# Shared by the layers of all graphs: a weight matrix depends on sizes alone.
_pooling_weights = functools.lru_cache(maxsize=64)(regions.pooling_weights)
_projection_weights = functools.lru_cache(maxsize=64)(regions.projection_weights)


@keras.utils.register_keras_serializable("rstg")
class NodesFromMap(Layer):
    """Mean of the feature map over each region, with fractional overlap at the edges.

    node_i = Σ_p weights[i, p] · map_p, `regions.pooling_weights`; [B, T, H, W, C] -> float32 [B, T, N, C]. B and T may
    be unknown when traced; H and W decide the weights and must be known.

    float32 whatever the map: means of many pixels differ little beside what they share, which the norms behind them
    take away, and bfloat16 would round the difference.

    Source: docs/release.md, 'Nodes' (area resize, as one matrix product over H·W like the release's filters).

    Example:

    >>> features = tf.reshape(tf.range(4.0), [1, 1, 2, 2, 1])
    >>> NodesFromMap(num_scales=2)(features).numpy().ravel().tolist()
    [0.0, 1.0, 2.0, 3.0, 1.5]
    """

    def __init__(self, *, num_scales: int, **kwargs):
        super().__init__(**kwargs)
        self.num_scales = num_scales

    def call(self, features):
        if features.shape.rank != 5:
            raise ValueError(f"expected features [B, T, H, W, C], got {tuple(features.shape)}.")
        _, steps, height, width, channels = features.shape
        weights = tf.constant(_pooling_weights(self.num_scales, height, width), tf.float32)
        pixels = tf.cast(tf.reshape(features, [-1, height * width, channels]), tf.float32)  # [B·T, H·W, C]
        nodes = tf.matmul(weights, pixels)  # [B·T, N, C]
        steps = tf.shape(features)[1] if steps is None else steps
        return tf.reshape(nodes, [-1, steps, weights.shape[0], channels])  # [B, T, N, C]

    def get_config(self):
        return {**super().get_config(), "num_scales": self.num_scales}


@keras.utils.register_keras_serializable("rstg")
class MapFromNodes(Layer):
    """Every node spread over its region, the scales summed: [B, T, N, C] -> [B, T, height, width, C].

    map_p = Σ_i weights[p, i] · node_i, `regions.projection_weights`: per scale the same area interpolation, enlarging.
    Source: docs/release.md, 'Readouts'.

    Example:

    >>> nodes = tf.reshape(tf.constant([0.0, 1.0, 2.0, 3.0, 10.0]), [1, 1, 5, 1])
    >>> MapFromNodes(num_scales=2)(nodes, height=2, width=2).numpy().ravel().tolist()
    [10.0, 11.0, 12.0, 13.0]
    """

    def __init__(self, *, num_scales: int, **kwargs):
        super().__init__(**kwargs)
        self.num_scales = num_scales

    def call(self, nodes, *, height: int, width: int):
        _, steps, count, channels = nodes.shape
        weights = tf.constant(_projection_weights(self.num_scales, height, width), nodes.dtype)
        pixels = tf.matmul(weights, tf.reshape(nodes, [-1, count, channels]))  # [B·T, H·W, C]
        steps = tf.shape(nodes)[1] if steps is None else steps
        return tf.reshape(pixels, [-1, steps, height, width, channels])  # [B, T, H, W, C]

    def get_config(self):
        return {**super().get_config(), "num_scales": self.num_scales}
