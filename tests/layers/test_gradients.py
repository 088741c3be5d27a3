"""The gradients that the layers write down themselves equal those of plain differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from rstg_tf import TemporalStage
from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.layers.normalization import BatchNorm, JointLayerNorm, apply_norm, factored_norm
from rstg_tf.layers.temporal_stage import UNROLLED_STEPS
from rstg_tf.ops.conv3x3 import WIDE


def gradients(function, inputs, weights):
    """Of a weighted sum of function(inputs), for the inputs and the weights."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = function(inputs)
        total = tf.reduce_sum(output * tf.random.stateless_normal(output.shape, seed=[1, 2]))
    return tape.gradient(total, [inputs, *weights])


def assert_gradients_equal(function, other, inputs, weights, *, atol=1e-5):
    """`atol`: a share of the largest value."""
    expected = gradients(other, inputs, weights)
    for compiled in (function, tf.function(function)):
        for one, two in zip(gradients(compiled, inputs, weights), expected):
            np.testing.assert_allclose(one, two, rtol=0, atol=atol * max(1.0, np.abs(two).max()))


@pytest.mark.parametrize("steps", [1, 4, UNROLLED_STEPS + 1])
def test_of_the_time_stage(steps):
    stage = TemporalStage(units=5, fused=False)
    nodes = tf.random.stateless_normal([2, steps, 3, 4], seed=[0, 1])
    stage(nodes)
    of_keras = TemporalStage(units=5, fused=True)
    of_keras.lstm, of_keras.built = stage.lstm, True
    assert_gradients_equal(stage, of_keras, nodes, stage.trainable_weights)


def test_of_the_time_stage_in_bfloat16_stay_within_three_hundredths_of_float32():
    stage, half = (TemporalStage(units=32, fused=False, dtype=policy) for policy in ("float32", "mixed_bfloat16"))
    nodes = tf.random.stateless_normal([2, 6, 3, 16], seed=[0, 4])
    for layer in (stage, half):
        layer.build(nodes.shape)
    half.set_weights(stage.get_weights())
    found = gradients(lambda nodes: tf.cast(half(nodes), tf.float32), nodes, half.trainable_weights)
    for one, exact in zip(found, gradients(stage, nodes, stage.trainable_weights)):
        assert np.linalg.norm(one - exact) < 3e-2 * np.linalg.norm(exact)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_of_the_joint_layer_norm(axes):
    layer = JointLayerNorm(trailing_axes=axes, epsilon=1e-3)
    values = 3.0 + tf.random.stateless_normal([2, 3, 4, 5], seed=[0, 2])
    layer.build(values.shape)
    layer.gamma.assign(np.linspace(-1, 2, 5))
    layer.beta.assign(np.linspace(1, -1, 5))

    def plain(values):
        mean, variance = tf.nn.moments(values, list(range(-axes, 0)), keepdims=True)
        return (values - mean) / tf.sqrt(variance + 1e-3) * tf.convert_to_tensor(layer.gamma) + layer.beta

    assert_gradients_equal(layer, plain, values, layer.trainable_weights)


@pytest.mark.parametrize(
    "norm",
    [
        JointLayerNorm(trailing_axes=3, epsilon=1e-3),
        JointLayerNorm(trailing_axes=1),
        JointLayerNorm(trailing_axes=2, scale=False),
        BatchNorm(per_step=True),
        BatchNorm(),
    ],
    ids=["joint", "each", "no_gamma", "batch_per_step", "batch"],
)
def test_of_a_norm_as_factor_and_shift(norm):
    values = 3.0 + tf.random.stateless_normal([2, 3, 4, 4, 5], seed=[0, 3])
    norm.build(values.shape)
    for place, weight in enumerate(norm.trainable_weights):
        weight.assign(np.linspace(-1, 2, 5) + place)

    def factored(values):
        found = factored_norm(norm, values, training=True)
        return found.factor * values + found.shift

    np.testing.assert_allclose(factored(values), apply_norm(norm, values, True), atol=1e-5)
    assert_gradients_equal(factored, lambda values: apply_norm(norm, values, True), values, norm.trainable_weights)


@pytest.mark.parametrize(("channels", "filters"), [(1, 6), (3, 6), (4, 6), (1, WIDE)])
def test_of_the_convnet_whose_relu_follows_the_pool(channels, filters):
    layer = SmallConvnet(filters=filters, layers=2)
    video = tf.random.stateless_uniform([2, 2, 14, 12, channels], seed=[0, channels])
    layer(video)

    def plain(video):
        frames = tf.reshape(video, [4, 14, 12, channels])
        for convolution in layer.convolutions:
            frames = tf.nn.relu(tf.nn.conv2d(frames, convolution.kernel, 1, "VALID") + convolution.bias)
            frames = tf.nn.max_pool2d(frames, 2, 2, "VALID")
        return tf.reshape(frames, [2, 2, *frames.shape[1:]])

    np.testing.assert_allclose(layer(video), plain(video), atol=1e-6)
    assert_gradients_equal(layer, plain, video, layer.trainable_weights)
