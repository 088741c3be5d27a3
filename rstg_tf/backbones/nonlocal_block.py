"""The non-local block: every position of a clip looks at all others. Wang et al., CVPR 2018, equation 6."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.backbones.frozen_norm import FrozenNormConvolution
from rstg_tf.common.keras_compat import track_kernel
from rstg_tf.common.keras_layer import Layer, build_part, input_spec
from rstg_tf.ops.dense import dense


@keras.utils.register_keras_serializable("rstg")
class NonLocalBlock(Layer):
    """y = x + norm(W_out softmax(θ(x) φ(x↓)ᵀ / sqrt(C/2)) g(x↓)): [B, T, H, W, C] -> [B, T, H, W, C].

    θ, φ, g are dense layers to C/2 on every position; x↓ is x max-pooled 2×2 in space, so that a position attends to
    T·⌊H/2⌋·⌊W/2⌋ others. The softmax is float32. The norm has stored statistics and a gamma that starts at 0: a new
    block adds nothing.

    Source: docs/release.md, 'ResNet-50'. Raises ValueError for an odd C or a map below 2×2.

    Example:

    >>> tuple(NonLocalBlock()(tf.zeros([1, 3, 4, 6, 8])).shape)
    (1, 3, 4, 6, 8)
    """

    def build(self, input_shape):
        height, width, channels = input_shape[2:]
        if channels % 2 or min(height, width) < 2:
            raise ValueError(
                f"{self.name}: expected a map of at least 2×2 with an even number of channels, got "
                f"{height}×{width}×{channels}."
            )
        self.input_spec = input_spec(5, channels)
        inner = channels // 2
        self.theta, self.phi, self.g = (
            keras.layers.Conv3D(inner, 1, name=name, dtype=self.dtype_policy) for name in ("theta", "phi", "g")
        )
        self.out = FrozenNormConvolution(filters=channels, use_bias=True, gamma_initializer="zeros", name="out")
        for layer in (self.theta, self.phi, self.g):
            build_part(layer, (None, None, None, None, channels))
            track_kernel(layer)
        self.out.build((None, None, None, None, inner))
        super().build(input_shape)

    def call(self, features):
        pooled = tf.nn.max_pool3d(features, [1, 1, 2, 2, 1], [1, 1, 2, 2, 1], padding="VALID")
        query = _dense(features, self.theta)  # [B, T, H, W, C/2]
        keys, values = (_positions(_dense(pooled, layer)) for layer in (self.phi, self.g))
        queries = _positions(query)
        scores = tf.cast(tf.matmul(queries, keys, transpose_b=True), tf.float32) * queries.shape[-1] ** -0.5
        attended = tf.matmul(tf.cast(tf.nn.softmax(scores), values.dtype), values)  # [B, T·H·W, C/2]
        return features + self.out(tf.reshape(attended, tf.shape(query)))


def _dense(features, layer):
    """The layer's 1×1×1 convolution."""
    return dense(features, tf.reshape(layer.kernel, layer.kernel.shape[-2:]), layer.bias)


def _positions(features):
    """[B, T, H, W, C] -> [B, T·H·W, C]"""
    return tf.reshape(features, [tf.shape(features)[0], -1, features.shape[-1]])
