"""Convolutions with fewer multiplications: the same sums as by definition."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.ops import winograd
from rstg_tf.ops.conv3x3 import WIDE, convolve


def by_definition(frames, kernel):
    """Σ over 3×3 pixels and all channels, one place in the kernel after the other."""
    height, width = frames.shape[1] - 2, frames.shape[2] - 2
    return sum(frames[:, y : y + height, x : x + width] @ kernel[y, x] for y in range(3) for x in range(3))


def plain(frames, kernel):
    return tf.nn.conv2d(frames, kernel, 1, "VALID")


def random(*shape):
    return np.random.default_rng(shape).normal(size=shape)


def test_four_sums_of_three_products_take_six_multiplications():
    into, to_kernel, out = winograd.matrices(6)
    assert (into.shape, to_kernel.shape, out.shape) == ((6, 6), (6, 3), (4, 6))
    found = out @ ((to_kernel @ [1, 10, 100]) * (into @ [1, 2, 3, 4, 5, 6]))
    np.testing.assert_allclose(found, [321, 432, 543, 654], rtol=1e-12)  # 1·1 + 10·2 + 100·3, and so on


def test_the_share_of_products_is_a_half_where_four_rows_fit_and_more_elsewhere():
    assert winograd.share_of_products(14) == 6 * 3 / (3 * 12) == 0.5  # 12 rows out: three tiles
    assert winograd.share_of_products(31) == pytest.approx(16 / 29)  # 29 rows out: eight tiles, for 32
    assert winograd.share_of_products(3) == 2  # one row out, of four


@pytest.mark.parametrize("height", [3, 4, 5, 6, 7, 8, 9, 10, 14, 31])
def test_the_sums_are_those_of_the_definition(height):
    frames, kernel = random(2, height, 5, 3), random(3, 3, 3, 4)
    found = winograd.convolve(tf.constant(frames), tf.constant(kernel), plain)
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, by_definition(frames, kernel), rtol=0, atol=1e-13)


def test_gradients_are_those_of_the_definition_for_an_unknown_number_of_frames():
    frames, kernel, upstream = random(2, 9, 5, 3), random(3, 3, 3, 4), random(2, 7, 3, 4)

    def gradients(convolution, frames):
        with tf.GradientTape() as tape:
            factors = tf.constant(kernel)
            tape.watch([frames, factors])
            sums = convolution(frames, factors)
        return tape.gradient(sums, [frames, factors], tf.constant(upstream))

    function = tf.function(
        lambda frames: gradients(lambda *given: winograd.convolve(*given, plain), frames),
        input_signature=[tf.TensorSpec([None, 9, 5, 3], tf.float64)],
    )
    for found, expected in zip(function(frames), gradients(plain, tf.constant(frames))):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def one_product_after_the_other(frames, kernel):
    """The same in float32 with one sum for each output, which rounds alike on every processor."""
    height, width = frames.shape[1] - 2, frames.shape[2] - 2
    sums = np.zeros((len(frames), height, width, kernel.shape[-1]), np.float32)
    for y in range(3):
        for x in range(3):
            for channel, factors in enumerate(kernel[y, x]):
                sums += frames[:, y : y + height, x : x + width, channel, None] * factors
    return sums


def test_in_float32_the_error_is_less_than_twice_that_of_one_product_after_the_other():
    frames, kernel = np.maximum(random(2, 31, 12, 256), 0).astype(np.float32), random(3, 3, 256, 32).astype(np.float32)
    exact = by_definition(frames.astype(np.float64), kernel.astype(np.float64))
    found = winograd.convolve(tf.constant(frames), tf.constant(kernel), plain).numpy()
    error, bound = (
        np.sqrt(np.mean((sums - exact) ** 2)) for sums in (found, one_product_after_the_other(frames, kernel))
    )
    # Not beside TensorFlow's own sums, whose error depends on how its kernels cut them: oneDNN's has that of one
    # product after the other, Eigen's a third of it. This one is 1.55 and 0.94 times as large by these two kernels.
    assert error < 2 * bound


@pytest.mark.parametrize(
    ("dtype", "width", "height", "fewer", "parts"),
    [
        ("float32", WIDE, 6, True, 6),
        ("float32", WIDE, 6, False, 1),
        ("float32", WIDE, 4, True, 1),
        ("float32", WIDE - 1, 6, True, 1),
        ("bfloat16", WIDE, 6, True, 1),
    ],
)
def test_only_wide_float32_maps_of_enough_rows_are_convolved_in_six_parts(dtype, width, height, fewer, parts):
    function = tf.function(lambda *inputs: convolve(*inputs, fewer_products=fewer), autograph=False)
    shapes = [None, height, 7, width], [3, 3, width, WIDE], [WIDE]
    graph = function.get_concrete_function(*(tf.TensorSpec(shape, dtype) for shape in shapes)).graph
    assert sum(op.type == "Conv2D" for op in graph.get_operations()) == parts
    assert graph.outputs[0].shape.as_list() == [None, height - 2, 5, WIDE]


def test_the_gradient_of_a_wide_bfloat16_kernel_stays_within_a_hundredth_of_float32_s():
    frames, kernel = (tf.cast(random(*shape), tf.bfloat16) for shape in ((2, 6, 7, WIDE), (3, 3, WIDE, WIDE)))

    def gradients(convolution, dtype):
        inputs = [tf.cast(value, dtype) for value in (frames, kernel, tf.zeros([WIDE]))]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            sums = convolution(*inputs)
        upstream = tf.cast(tf.cast(random(*sums.shape), tf.bfloat16), dtype)
        return [tf.cast(gradient, tf.float32) for gradient in tape.gradient(sums, inputs, upstream)]

    def parts(*inputs):
        return convolve(*inputs, fewer_products=False)

    of_frames, of_kernel, of_bias = gradients(parts, "bfloat16")
    _, exact_of_kernel, exact_of_bias = gradients(parts, "float32")
    for found, expected in ((of_kernel, exact_of_kernel), (of_bias, exact_of_bias)):
        assert np.linalg.norm(found - expected) < 1e-2 * np.linalg.norm(expected)
    # TensorFlow's own op: 0.2 hundredths off by oneDNN, 1.9 by Eigen, which adds in bfloat16.
    np.testing.assert_array_equal(of_frames, gradients(lambda *inputs: plain(*inputs[:2]) + inputs[2], "bfloat16")[0])


def test_a_convnet_computes_the_same_with_and_without_fewer_products():
    video = tf.random.stateless_uniform([2, 2, 18, 14, 1], seed=[0, 1])
    layers = [SmallConvnet(filters=WIDE, layers=2, fewer_products=fewer) for fewer in (True, False)]
    for layer in layers:
        layer.build(video.shape)
    layers[1].set_weights(layers[0].get_weights())
    results = []
    for layer in layers:
        with tf.GradientTape() as tape:
            maps = layer(video)
            loss = tf.reduce_sum(tf.sin(3.0 * maps))
        results.append([maps, *tape.gradient(loss, layer.trainable_weights)])
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))
    assert not np.array_equal(results[0][0], results[1][0])  # they did take different ways
