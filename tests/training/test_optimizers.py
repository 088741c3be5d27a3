"""Optimisers by hand, rates over a run, clipping, decay and averages."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import tensorflow as tf

from rstg_tf.common import devices
from rstg_tf.common.choices import OPTIMIZERS
from rstg_tf.common.keras_compat import apply_summed_gradients
from rstg_tf.config import TrainConfig
from rstg_tf.runs import weight_average
from rstg_tf.training import optimizers


def _two_variables():
    """A weight matrix and a bias."""
    return [tf.Variable([[1.0, 2.0]]), tf.Variable([3.0])]


def _steps(config: TrainConfig, gradients, steps: int, replicas: int = 1):
    """The variables after updates with the same gradients, under a strategy and inside a condition, as in training."""
    strategy = devices.cpu_strategy(replicas)
    with strategy.scope():
        variables = _two_variables()
        optimizer = optimizers.build_optimizer(config, total_steps=steps, variables=variables)

    def update():
        apply_summed_gradients(optimizer, [tf.constant(gradient) for gradient in gradients], variables)

    @tf.function
    def step():
        tf.cond(tf.constant(True), lambda: [strategy.run(update), 0][1], lambda: 0)

    for _ in range(steps):
        step()
    assert int(optimizer.iterations.numpy()) == steps
    return [variable.numpy() for variable in variables]


def test_six_nesterov_steps_equal_the_releases_rule():
    weight, velocity = 3.0, 0.0
    for _ in range(6):
        velocity = 0.9 * velocity + 2.0
        weight -= 0.1 * (2.0 + 0.9 * velocity)
    config = TrainConfig(optimizer="nesterov", momentum=0.9, learning_rate=0.1)
    _, bias = _steps(config, ([[0.0, 0.0]], [2.0]), 6)
    np.testing.assert_allclose(bias, [weight], rtol=1e-6)
    # The first two by hand: v = 2, w = 3 - 0.1·(2 + 1.8) = 2.62; v = 3.8, w = 2.62 - 0.1·(2 + 3.42) = 2.078.
    np.testing.assert_allclose(_steps(config, ([[0.0, 0.0]], [2.0]), 2)[1], [2.078], rtol=1e-6)


def test_adam_moves_by_the_rate_against_the_sign_of_a_constant_gradient():
    weights, bias = _steps(TrainConfig(optimizer="adam", learning_rate=0.01), ([[5.0, -0.1]], [2.0]), 3)
    np.testing.assert_allclose(weights, [[1.0 - 0.03, 2.0 + 0.03]], atol=1e-5)
    np.testing.assert_allclose(bias, [3.0 - 0.03], atol=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "sgdw"])
def test_weight_decay_shrinks_matrices_and_spares_biases(optimizer, replicas):
    config = TrainConfig(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    weights, bias = _steps(config, ([[0.0, 0.0]], [0.0]), 3, replicas)
    np.testing.assert_allclose(weights, np.array([[1.0, 2.0]]) * (1 - 0.1 * 0.5) ** 3, rtol=1e-6)
    np.testing.assert_array_equal(bias, [3.0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_that_are_summed_already_are_not_summed_again(optimizer):
    config = TrainConfig(optimizer=optimizer, learning_rate=0.1)
    one, two = (_steps(config, ([[0.3, -0.2]], [0.5]), 3, replicas) for replicas in (1, 2))
    for alone, together in zip(one, two):
        np.testing.assert_array_equal(alone, together)


def test_sgdw_equals_the_one_of_tensorflow_addons():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its end of life, and imports what Python deprecates
        addons = pytest.importorskip("tensorflow_addons", reason="tensorflow-addons is not installed")
        reference = addons.optimizers.SGDW(weight_decay=0.1 * 0.5, learning_rate=0.1, momentum=0.9, nesterov=True)
    variables = _two_variables()
    gradients = [tf.constant([[0.3, -0.2]]), tf.constant([0.5])]
    for _ in range(4):
        reference.apply_gradients(zip(gradients, variables), decay_var_list=variables[:1])
    config = TrainConfig(optimizer="sgdw", learning_rate=0.1, weight_decay=0.5)
    found = _steps(config, ([[0.3, -0.2]], [0.5]), 4)
    for ours, theirs in zip(found, variables):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def _rates(steps, **arguments):
    schedule = optimizers.RateSchedule(rate=2.0, total_steps=100, **arguments)
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


def test_rates_over_a_run_follow_their_formulas():
    assert _rates([0, 99], schedule="constant") == [2.0, 2.0]
    assert _rates([0, 1, 3, 4, 50], schedule="constant", warmup_steps=4) == [0.5, 1.0, 2.0, 2.0, 2.0]
    halfway, end = 1.0 + math.cos(math.pi * 40 / 80), 1.0 + math.cos(math.pi * 79 / 80)
    np.testing.assert_allclose(
        _rates([19, 20, 60, 99], schedule="cosine", warmup_steps=20), [2.0, 2.0, halfway, end], atol=1e-6
    )
    np.testing.assert_allclose(
        _rates([49, 50, 74, 75], schedule="step", decay_at=(0.5, 0.75), decay_factor=0.1),
        [2.0, 0.2, 0.2, 0.02],
        rtol=1e-6,
    )


def test_the_schedule_survives_its_config():
    schedule = optimizers.RateSchedule(
        rate=2.0, schedule="step", total_steps=9, warmup_steps=2, decay_at=(0.5,), decay_factor=0.3
    )
    again = optimizers.RateSchedule.from_config(schedule.get_config())
    for step in range(9):
        assert float(schedule(step)) == float(again(step))


def test_the_rate_is_that_of_the_step_also_beyond_the_exact_integers_of_float32():
    schedule = optimizers.RateSchedule(rate=1.0, schedule="step", total_steps=2**26, decay_at=(0.5,), decay_factor=0.0)
    assert float(schedule(tf.constant(2**25 - 1, tf.int64))) == 1.0
    assert float(schedule(tf.constant(2**25, tf.int64))) == 0.0


def test_clipping_shortens_all_gradients_together_and_leaves_short_ones():
    gradients = [tf.constant([3.0, 0.0]), tf.constant([[4.0]])]  # norm 5
    clipped, norm = optimizers.clip_by_global_norm(gradients, 1.0)
    assert float(norm) == 5.0
    np.testing.assert_allclose(clipped[0], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped[1], [[0.8]], rtol=1e-6)
    for limit in (0.0, 5.0, 9.0):
        same, norm = optimizers.clip_by_global_norm(gradients, limit)
        assert float(norm) == 5.0
        np.testing.assert_array_equal(same[0], gradients[0])


def test_the_average_follows_the_weights_and_swaps_with_them():
    weight = tf.Variable([1.0])
    average = weight_average.WeightAverage([weight], momentum=0.5)
    weight.assign([5.0])
    average.update([weight], tf.constant(1, tf.int64))  # d = min(0.5, 2/11): 2/11·1 + 9/11·5 = 47/11
    np.testing.assert_allclose(average.values[0], [47 / 11], rtol=1e-6)
    average.update([weight], tf.constant(100, tf.int64))  # d = min(0.5, 101/110) = 0.5
    expected = 0.5 * 47 / 11 + 0.5 * 5
    np.testing.assert_allclose(average.values[0], [expected], rtol=1e-6)
    before = average.values[0].numpy()
    with weight_average.swapped(average, [weight]):
        np.testing.assert_array_equal(weight, before)
    np.testing.assert_array_equal(weight, [5.0])
    np.testing.assert_array_equal(average.values[0], before)
    average.reset([weight])
    np.testing.assert_array_equal(average.values[0], [5.0])


def test_weights_come_back_when_the_work_on_their_averages_fails():
    weight = tf.Variable([1.0])
    average = weight_average.WeightAverage([weight], momentum=0.5)
    weight.assign([2.0])
    with pytest.raises(KeyError), weight_average.swapped(average, [weight]):
        raise KeyError("work failed")
    np.testing.assert_array_equal(weight, [2.0])
