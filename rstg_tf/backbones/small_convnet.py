"""The small convnet that the paper uses on SyncMNIST (`simple_c2d` in the release)."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_compat import track_kernel
from rstg_tf.common.keras_layer import Layer, build_part, input_spec
from rstg_tf.ops.conv3x3 import SIDE, convolve


@keras.utils.register_keras_serializable("rstg")
class SmallConvnet(Layer):
    """`layers` times a 3×3 convolution (VALID, stride 1, relu) and a 2×2 max pool (VALID, stride 2), on each frame.

    video [B, T, H, W, C] float -> [B, T, H', W', filters]; with 3 layers 64 -> 31 -> 14 -> 6.
    fewer_products: on a CPU, in float32, wide convolutions take Winograd's form; see `convolutions`.
    Source: docs/release.md, 'simple_c2d'.
    Raises ValueError for frames that leave no pixel.

    Example:

    >>> tuple(SmallConvnet(filters=4, layers=3)(tf.zeros([1, 2, 64, 64, 1])).shape)
    (1, 2, 6, 6, 4)
    """

    def __init__(self, *, filters: int = 512, layers: int = 3, fewer_products: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.layers = layers
        self.fewer_products = fewer_products
        self.convolutions = [
            keras.layers.Conv2D(filters, SIDE, name=f"conv{index}", dtype=self.dtype_policy) for index in range(layers)
        ]
        for convolution in self.convolutions:
            setattr(self, convolution.name, convolution)  # Keras 3: a checkpoint does not find layers in lists

    def map_shape(self, video_shape):
        """Shape of the map for a video of this shape."""
        clips, steps, *sides, _ = video_shape
        for _ in range(self.layers):
            sides = [(side - 2) // 2 for side in sides]
        return (clips, steps, *sides, self.filters)

    def build(self, input_shape):
        if min(self.map_shape(input_shape)[2:4]) < 1:
            raise ValueError(
                f"{self.name}: frames of {input_shape[2]}×{input_shape[3]} pixels are too small for "
                f"{self.layers} layers of 3×3 convolution and 2×2 pooling."
            )
        self.input_spec = input_spec(5, input_shape[-1])
        channels = input_shape[-1]
        for convolution in self.convolutions:
            build_part(convolution, (None, None, None, channels))
            track_kernel(convolution)
            channels = self.filters
        super().build(input_shape)

    def call(self, video, states=None, training=False):
        steps = video.shape[1]
        length = tf.shape(video)[1] if steps is None else steps
        frames = tf.reshape(video, [-1, *video.shape[2:]])  # [B·T, H, W, C]
        for layer in self.convolutions:
            kernel, bias = tf.cast(layer.kernel, frames.dtype), tf.cast(layer.bias, frames.dtype)
            # Pool, then relu: both orders have the same values and gradients, but this relu sees a quarter of the map.
            frames = convolve(frames, kernel, bias, fewer_products=self.fewer_products)
            frames = tf.nn.relu(tf.nn.max_pool2d(frames, 2, 2, padding="VALID"))
        features = tf.reshape(frames, [-1, length, *frames.shape[1:]])  # [B, T, H', W', filters]
        return features if states is None else (features, {})

    def chunks(self, video) -> list:
        """A running clip's next frames as chunks that can be its next ones: any number of frames can."""
        return [video]

    def arrived(self, states, steps: int | None):
        """Which clips' maps mean something: None, all."""
        return None

    def noncausal_reasons(self) -> list[str]:
        """Nothing looks ahead; see `streaming_state`."""
        return []

    def state_shapes(self, video_shape) -> dict[str, tuple[int, ...]]:
        """It remembers nothing."""
        return {}

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "layers": self.layers,
            "fewer_products": self.fewer_products,
        }
