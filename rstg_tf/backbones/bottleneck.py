"""The block of a ResNet-50: three convolutions beside a shortcut. He et al., CVPR 2016."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.backbones.frozen_norm import FrozenNormConvolution
from rstg_tf.common.keras_layer import Layer, input_spec


@keras.utils.register_keras_serializable("rstg")
class Bottleneck(Layer):
    """relu(shortcut(x) + 1×1(relu(3×3(relu(1×1(x)))))): [B, T, H, W, C] -> [B, T, H', W', outer].

    The first convolution spans `temporal_kernel` frames, the second carries the stride. The shortcut is x itself, or a
    1×1 convolution with the stride where channels or size change. Every convolution has its norm.

    Example:

    >>> tuple(Bottleneck(inner=2, outer=8, stride=2)(tf.zeros([1, 3, 6, 6, 4])).shape)
    (1, 3, 3, 3, 8)
    """

    def __init__(self, *, inner: int, outer: int, temporal_kernel: int = 1, stride: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.outer, self.temporal_kernel, self.stride = inner, outer, temporal_kernel, stride
        self.reduce = FrozenNormConvolution(filters=inner, kernel_size=(temporal_kernel, 1, 1), name="reduce")
        self.spatial = FrozenNormConvolution(filters=inner, kernel_size=(1, 3, 3), stride=stride, name="spatial")
        self.expand = FrozenNormConvolution(filters=outer, name="expand")
        self.shortcut = None

    def build(self, input_shape):
        self.input_spec = input_spec(5, input_shape[-1])
        channels = input_shape[-1]
        self.reduce.build((None, None, None, None, channels))
        self.spatial.build((None, None, None, None, self.inner))
        self.expand.build((None, None, None, None, self.inner))
        if (channels, self.stride) != (self.outer, 1):
            self.shortcut = FrozenNormConvolution(filters=self.outer, stride=self.stride, name="shortcut")
            self.shortcut.build((None, None, None, None, channels))
        super().build(input_shape)

    def call(self, features):
        hidden = tf.nn.relu(self.reduce(features))
        hidden = tf.nn.relu(self.spatial(hidden))
        kept = features if self.shortcut is None else self.shortcut(features)
        return tf.nn.relu(self.expand(hidden) + kept)

    def get_config(self):
        return {
            **super().get_config(),
            "inner": self.inner,
            "outer": self.outer,
            "temporal_kernel": self.temporal_kernel,
            "stride": self.stride,
        }
