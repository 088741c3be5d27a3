"""LN and BN as TF1 computes them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from rstg_tf.common import devices
from rstg_tf.layers.normalization import BatchNorm, JointLayerNorm, normalization_layer


def test_joint_layer_norm_takes_one_mean_over_nodes_and_channels():
    values = np.array([[[0, 2], [4, 6]]], np.float32)  # mean 3, variance 5
    np.testing.assert_allclose(
        JointLayerNorm(trailing_axes=2)(values)[0], np.array([[-3, -1], [1, 3]]) / 5**0.5, rtol=1e-6
    )
    np.testing.assert_allclose(JointLayerNorm(trailing_axes=1)(values)[0], [[-1, 1], [-1, 1]], rtol=1e-6)


def test_per_step_layer_norm_leaves_time_out_where_it_would_be_in():
    values = np.array([[[[1], [3]], [[10], [30]]]], np.float32)  # [B=1, T=2, N=2, C=1]: means of the steps 2 and 20
    over_clip, over_step = (
        normalization_layer(kind, trailing_axes=3, per_step=False, unbiased=True, name="norm")
        for kind in ("LN", "LN_per_step")
    )
    np.testing.assert_allclose(over_step(values)[0, :, :, 0], [[-1, 1], [-1, 1]], rtol=1e-6)
    np.testing.assert_allclose(over_clip(values), (values - 11) / values.std(), rtol=1e-6)
    # Inside a space stage the axes never hold T: both are one.
    inside = [
        normalization_layer(kind, trailing_axes=2, per_step=True, unbiased=False, name="norm")(values)
        for kind in ("LN", "LN_per_step")
    ]
    np.testing.assert_array_equal(inside[0], inside[1])


def test_layer_norm_without_scale_has_no_gamma():
    layer = JointLayerNorm(trailing_axes=1, scale=False)
    layer(np.zeros((1, 3), np.float32))
    assert [weight.shape for weight in layer.weights] == [(3,)]


def test_statistics_of_bfloat16_values_are_float32():
    values = np.full((1, 4096), 1.0, np.float32)
    values[0, ::2] = 1.0078125  # the next bfloat16: a bfloat16 sum of 4096 of them would stop at 256
    output = JointLayerNorm(trailing_axes=1)(tf.cast(values, tf.bfloat16))
    np.testing.assert_allclose(tf.cast(output[0, :2], tf.float32), [1, -1], atol=0.01)


def test_a_training_batch_is_normalised_by_itself_and_moves_the_averages():
    layer = BatchNorm(epsilon=0.0)
    output = layer(np.array([[[1.0], [5.0]]], np.float32), training=True)  # mean 3, variance 4
    np.testing.assert_allclose(output[0, :, 0], [-1, 1])
    np.testing.assert_allclose(layer.moving_mean, [0.01 * 3], rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, [0.99 + 0.01 * 4 * 2 / 1], rtol=1e-5)  # n/(n-1) = 2


def test_per_step_statistics_move_the_averages_once_per_step_in_order():
    layer = BatchNorm(per_step=True, unbiased=False, epsilon=0.0)
    values = np.array([[[1.0], [10.0]], [[3.0], [30.0]]], np.float32)  # [B=2, T=2, C=1]: means 2, 20; variances 1, 100
    output = layer(values, training=True)
    np.testing.assert_allclose(output[..., 0], [[-1, -1], [1, 1]])
    np.testing.assert_allclose(layer.moving_mean, [0.99 * (0.01 * 2) + 0.01 * 20], rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, [0.99 * (0.99 + 0.01 * 1) + 0.01 * 100], rtol=1e-5)


def test_inference_uses_the_stored_statistics_and_leaves_them():
    layer = BatchNorm(epsilon=0.0)
    layer.build((None, 1))
    layer.moving_mean.assign([2.0])
    layer.moving_variance.assign([4.0])
    np.testing.assert_allclose(layer(np.array([[6.0]], np.float32)), [[2.0]])
    np.testing.assert_array_equal(layer.moving_mean, [2.0])


def test_batch_statistics_run_over_all_replicas():
    strategy = devices.cpu_strategy(2)
    with strategy.scope():
        layer = BatchNorm()
        layer.build((None, 1))
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([[[1.0], [2.0]], [[5.0], [9.0]]][context.replica_id_in_sync_group])
    )
    outputs = strategy.run(tf.function(lambda part: layer(part, training=True)), args=(values,))
    together = BatchNorm()
    expected = together(np.array([[1.0], [2.0], [5.0], [9.0]], np.float32), training=True)
    np.testing.assert_allclose(np.concatenate(strategy.experimental_local_results(outputs)), expected, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, together.moving_variance, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer_class", "arguments", "weights"),
    [
        (JointLayerNorm, {"trailing_axes": 2, "epsilon": 1e-6, "scale": True}, 2),
        (BatchNorm, {"per_step": True, "unbiased": False, "momentum": 0.9, "epsilon": 1e-3}, 4),
    ],
)
def test_both_keep_the_rules_of_layers(layer_class, arguments, weights):
    values = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    check_layer(layer_class, arguments, values, output_shape=(2, 3, 4, 5), weights=weights)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="normalization='GN': expected 'LN', 'LN_per_step', 'BN' or 'none'"):
        normalization_layer("GN", trailing_axes=1, per_step=False, unbiased=True, name="norm")
