"""The small convnet that the paper uses on SyncMNIST (`simple_c2d` in the release)."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.rows import bias_gradient

SIDE = 3  # pixels of a kernel
PIXEL_CHANNELS = 3  # a map with no more than these is a picture: grey or RGB
WIDE = 256  # channels from which on matrix products are the faster gradient of a kernel


@keras.utils.register_keras_serializable("rstg")
class SmallConvnet(keras.layers.Layer):
    """`layers` times a 3×3 convolution (VALID, stride 1, relu) and a 2×2 max pool (VALID, stride 2), on each frame.

    video [B, T, H, W, C] float -> [B, T, H', W', filters]; with 3 layers 64 -> 31 -> 14 -> 6.
    Source: release, section 4.
    Raises ValueError for frames that leave no pixel.
    """

    def __init__(self, *, filters: int = 512, layers: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.layers = layers
        self.convolutions = [keras.layers.Conv2D(filters, SIDE, name=f"conv{index}", dtype=self.dtype_policy)
                             for index in range(layers)]
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
            raise ValueError(f"{self.name}: frames of {input_shape[2]}×{input_shape[3]} pixels are too small for "
                             f"{self.layers} layers of 3×3 convolution and 2×2 pooling.")
        channels = input_shape[-1]
        for convolution in self.convolutions:
            convolution.build((None, None, None, channels))
            channels = self.filters
        super().build(input_shape)

    def call(self, video, training=False):
        steps = video.shape[1]
        length = tf.shape(video)[1] if steps is None else steps
        frames = tf.reshape(video, [-1, *video.shape[2:]])  # [B·T, H, W, C]
        for layer in self.convolutions:
            kernel, bias = tf.cast(layer.kernel, frames.dtype), tf.cast(layer.bias, frames.dtype)
            # Pool, then relu: both orders have the same values and gradients, but this relu sees a quarter of the map.
            frames = tf.nn.relu(tf.nn.max_pool2d(_convolve(frames, kernel, bias), 2, 2, padding="VALID"))
        return tf.reshape(frames, [-1, length, *frames.shape[1:]])  # [B, T, H', W', filters]

    def looks_ahead(self) -> list[str]:
        """Nothing does; see `streaming`."""
        return []

    def state_shapes(self, video_shape) -> dict[str, tuple[int, ...]]:
        """It remembers nothing."""
        return {}

    def step(self, frame, state):
        """The next frame of running clips: [B, H, W, C] -> (map [B, H', W', filters], None: of every clip, state)."""
        return self(frame[:, None])[:, 0], None, state

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "layers": self.layers}


@tf.custom_gradient
def _convolve(frames, kernel, bias):
    """Convolution (VALID, stride 1) and bias, whose gradients are computed in the way that is fastest on a CPU."""
    def gradient(upstream):
        of_frames = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(frames), 1, padding="VALID")
        if frames.shape[-1] <= PIXEL_CHANNELS:
            return of_frames, *_pixel_gradients(frames, upstream)
        if min(kernel.shape[2:]) < WIDE or tf.config.list_physical_devices("GPU"):
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(input=frames, filter_sizes=tf.shape(kernel),
                                                        out_backprop=upstream, strides=[1] * 4, padding="VALID")
        else:
            with tf.control_dependencies([of_frames]):  # each uses all cores: side by side they take longer
                of_kernel = _kernel_gradient_by_products(frames, upstream)
        return of_frames, of_kernel, bias_gradient(upstream)

    return tf.nn.bias_add(tf.nn.conv2d(frames, kernel, 1, padding="VALID"), bias), gradient


def _kernel_gradient_by_products(frames, upstream):
    """∂/∂kernel[y, x] = Σ frames[…, y:, x:]ᵀ · upstream, as nine matrix products: [3, 3, C, filters].

    TensorFlow's own kernel takes 1.1 times as long in float32 and 1.3 to 1.7 times in bfloat16 at 512 channels, but
    half as long at 64.
    """
    height, width, filters = upstream.shape[1:]
    rows = tf.reshape(upstream, [-1, filters])  # [B·T·H'·W', filters]
    products = []
    for y in range(SIDE):
        for x in range(SIDE):
            with tf.control_dependencies(products[-2:-1]):  # no more than two shifted copies of the frames at a time
                shifted = tf.reshape(frames[:, y:y + height, x:x + width], [-1, frames.shape[-1]])
            products.append(tf.matmul(shifted, rows, transpose_a=True))  # [C, filters]
    return tf.reshape(tf.stack(products), [SIDE, SIDE, frames.shape[-1], filters])


def _pixel_gradients(frames, upstream):
    """Those of kernel and bias, as one matrix product: [3, 3, C, filters], [filters].

    With one channel TensorFlow's own kernel takes five times as long on a CPU, in float32, and uses one thread: a third
    of a training step at 64 filters.
    """
    height, width, filters = upstream.shape[1:]
    channels = tf.unstack(frames, axis=-1)  # C × [B·T, H, W]
    shifted = [tf.reshape(channel[:, y:y + height, x:x + width], [-1])
               for y in range(SIDE) for x in range(SIDE) for channel in channels]
    rows = tf.stack([*shifted, tf.ones_like(shifted[0])])  # [9·C + 1, B·T·H'·W']
    sums = tf.matmul(rows, tf.reshape(upstream, [-1, filters]))  # [9·C + 1, filters]
    return tf.reshape(sums[:-1], [SIDE, SIDE, len(channels), filters]), sums[-1]
