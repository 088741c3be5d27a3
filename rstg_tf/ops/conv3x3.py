"""3×3 convolutions with bias, each computed and differentiated in the way that is fastest for its shape on a CPU.

| convolution of | forward, and gradient of the frames | gradient of the kernel |
|---|---|---|
| pictures (grey, RGB) | TensorFlow's | one product with nine shifted pictures |
| less than 256 channels in or out | TensorFlow's | TensorFlow's |
| wide maps, bfloat16, or float32 with few rows | TensorFlow's | nine products, one for each place in the kernel |
| wide maps, float32 | `winograd`'s | `winograd`'s, three products for each of its six parts |

With a GPU all but pictures go to TensorFlow's own ops, that is to cuDNN.
"""

from __future__ import annotations

import tensorflow as tf

from rstg_tf.common.devices import has_gpu
from rstg_tf.ops import winograd
from rstg_tf.ops.dense import add_bias

SIDE = 3  # pixels of a kernel
PIXEL_CHANNELS = 3  # a map with no more than these is a picture: grey or RGB
WIDE = 256  # channels, in and out, from which on matrix products and `winograd` are the faster ways
WORTHWHILE = 0.75  # share of the multiplications up to which Winograd's additions are paid for


def convolve(frames, kernel, bias, *, fewer_products: bool = True):
    """VALID convolution of stride 1, and bias: [F, H, W, C], [3, 3, C, D], [D] -> [F, H-2, W-2, D], of one dtype.

    fewer_products: by `winograd` where it pays; equal up to rounding, whose error is about twice a plain sum's.
    """
    if frames.shape[-1] <= PIXEL_CHANNELS:
        return _convolve_pictures(frames, kernel, bias)
    if fewer_products and _winograd_pays(frames, kernel):
        return add_bias(winograd.convolve(frames, kernel, _convolve), bias)
    return add_bias(_convolve(frames, kernel), bias)


def _winograd_pays(frames, kernel) -> bool:
    return (
        frames.dtype == tf.float32
        and _products_pay(kernel)
        and winograd.share_of_products(frames.shape[1]) <= WORTHWHILE
    )


def _products_pay(kernel) -> bool:
    return min(kernel.shape[2:]) >= WIDE and not has_gpu()


@tf.custom_gradient
def _convolve(frames, kernel):
    """[F, H, W, C] × [y, x, C, D] -> [F, H-y+1, W-x+1, D]."""

    def gradient(upstream):
        of_frames = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(frames), 1, padding="VALID")
        if not _products_pay(kernel):
            return of_frames, tf.raw_ops.Conv2DBackpropFilter(
                input=frames, filter_sizes=tf.shape(kernel), out_backprop=upstream, strides=[1] * 4, padding="VALID"
            )
        with tf.control_dependencies([of_frames]):  # both use all cores, and take longer side by side
            return of_frames, _kernel_gradient_by_products(frames, upstream, kernel.shape)

    return tf.nn.conv2d(frames, kernel, 1, padding="VALID"), gradient


def _kernel_gradient_by_products(frames, upstream, shape):
    """∂/∂kernel[y, x] = Σ frames[…, y:, x:]ᵀ · upstream, as a matrix product for each y and x: `shape` [y, x, C, D].

    TensorFlow's own op takes 1.1 times as long in float32 and 1.3 to 1.7 times in bfloat16 at 512 channels, but
    half as long at 64.
    """
    height, width, filters = upstream.shape[1:]
    rows = tf.reshape(upstream, [-1, filters])  # [F·H'·W', D]
    products = []
    for y in range(shape[0]):
        for x in range(shape[1]):
            with tf.control_dependencies(products[-2:-1]):  # no more than two shifted copies at a time
                shifted = tf.reshape(frames[:, y : y + height, x : x + width], [-1, frames.shape[-1]])
            products.append(tf.matmul(shifted, rows, transpose_a=True))  # [C, D]
    return tf.reshape(tf.stack(products), shape)


@tf.custom_gradient
def _convolve_pictures(frames, kernel, bias):
    """`_convolve`, plus a bias whose gradient is a by-product of the kernel's."""

    def gradient(upstream):
        of_frames = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(frames), 1, padding="VALID")
        return of_frames, *_picture_gradients(frames, upstream)

    return tf.nn.bias_add(tf.nn.conv2d(frames, kernel, 1, padding="VALID"), bias), gradient


def _picture_gradients(frames, upstream):
    """Those of kernel and bias, as one matrix product: [3, 3, C, D], [D].

    With one channel TensorFlow's own op takes five times as long on a CPU, in float32, and uses one thread: a third
    of a training step at 64 filters.
    """
    height, width, filters = upstream.shape[1:]
    channels = tf.unstack(frames, axis=-1)  # C × [F, H, W]
    shifted = [
        tf.reshape(channel[:, y : y + height, x : x + width], [-1])
        for y in range(SIDE)
        for x in range(SIDE)
        for channel in channels
    ]
    rows = tf.stack([*shifted, tf.ones_like(shifted[0])])  # [9·C + 1, F·H'·W']
    sums = tf.matmul(rows, tf.reshape(upstream, [-1, filters]))  # [9·C + 1, D]
    return tf.reshape(sums[:-1], [SIDE, SIDE, len(channels), filters]), sums[-1]
