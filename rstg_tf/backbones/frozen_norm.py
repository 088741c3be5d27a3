"""A convolution and the batch norm behind it, whose statistics never change, as one convolution."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_layer import Layer, input_spec
from rstg_tf.ops.dense import add_bias

EPSILON = 1e-5


@keras.utils.register_keras_serializable("rstg")
class FrozenNormConvolution(Layer):
    """Convolution, then batch norm with its stored statistics, in training too: [B,T,H,W,C] -> [B,T,H',W',filters].

        y = gamma·(K∗x + b - mean) / sqrt(variance + 1e-5) + beta
          = (s·K)∗x + s·(b - mean) + beta,   s = gamma / sqrt(variance + 1e-5)

    The second form is what runs: one convolution with a bias, and no map to keep between the convolution and its norm
    for the gradient of gamma. Kernel, gamma, beta (and b) are trained, mean and variance are not. Weights are folded in
    float32, the convolution runs in the dtype of its inputs.

    Zeros around: half the kernel on every side, so that stride 1 keeps the size and stride 2 (of H and W) halves it,
    rounding up. Source: docs/release.md, 'ResNet-50'; TF1 pads explicitly, which differs from 'SAME' under stride 2.

    Args:
      filters: channels of the result.
      kernel_size: (time, height, width), odd numbers.
      stride: of height and width.
      use_bias: has a b of its own before the norm.
      gamma_initializer: 'zeros' for a branch that is to add nothing at first.

    Example:

    >>> convolution = FrozenNormConvolution(filters=8, kernel_size=(1, 3, 3), stride=2)
    >>> tuple(convolution(tf.zeros([1, 3, 5, 6, 4])).shape)
    (1, 3, 3, 3, 8)
    """

    def __init__(
        self,
        *,
        filters: int,
        kernel_size: tuple[int, int, int] = (1, 1, 1),
        stride: int = 1,
        use_bias: bool = False,
        gamma_initializer: str = "ones",
        **kwargs,
    ):
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        self.filters = filters
        self.kernel_size = tuple(kernel_size)
        self.stride = stride
        self.use_bias = use_bias
        self.gamma_initializer = gamma_initializer

    def build(self, input_shape):
        self.input_spec = input_spec(5, input_shape[-1])
        self.kernel = self.add_weight(
            name="kernel", shape=(*self.kernel_size, input_shape[-1], self.filters), initializer="glorot_uniform"
        )
        width = (self.filters,)
        self.bias = self.add_weight(name="bias", shape=width, initializer="zeros") if self.use_bias else None
        self.gamma = self.add_weight(name="gamma", shape=width, initializer=self.gamma_initializer)
        self.beta = self.add_weight(name="beta", shape=width, initializer="zeros")
        self.moving_mean = self.add_weight(name="moving_mean", shape=width, initializer="zeros", trainable=False)
        self.moving_variance = self.add_weight(name="moving_variance", shape=width, initializer="ones", trainable=False)
        super().build(input_shape)

    def call(self, inputs):
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + EPSILON)
        centre = -self.moving_mean if self.bias is None else self.bias - self.moving_mean
        kernel = tf.cast(self.kernel * scale, inputs.dtype)
        shift = tf.cast(scale * centre + self.beta, inputs.dtype)
        return add_bias(self._convolve(inputs, kernel), shift)

    def _convolve(self, inputs, kernel):
        # One Conv3D for every kernel: on CPU as fast as the 2-D form for 1×3×3, and 'SAME' has the faster gradient.
        if self.stride == 1:
            return tf.nn.conv3d(inputs, kernel, strides=[1] * 5, padding="SAME")
        margins = [[0, 0], *([size // 2] * 2 for size in self.kernel_size), [0, 0]]
        if max(self.kernel_size) > 1:
            inputs = tf.pad(inputs, margins)
        return tf.nn.conv3d(inputs, kernel, strides=[1, 1, self.stride, self.stride, 1], padding="VALID")

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "use_bias": self.use_bias,
            "gamma_initializer": self.gamma_initializer,
        }
