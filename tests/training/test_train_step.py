"""The training step: replicas, traces, faults, interruptions."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras
from toy_batches import toy_batches

from rstg_tf import flags
from rstg_tf.common import devices
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.interrupts import StopSignals
from rstg_tf.common.keras_compat import optimizer_variables
from rstg_tf.model import build_model
from rstg_tf.runs.weight_average import WeightAverage
from rstg_tf.training import train_step
from rstg_tf.training.optimizers import build_optimizer


@dataclasses.dataclass
class Trainer:
    strategy: tf.distribute.Strategy
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    average: WeightAverage | None
    step: train_step.TrainStep

    def run(self, clips, steps: int) -> train_step.StepMetrics:
        batches = iter(self.strategy.experimental_distribute_dataset(clips))
        return train_step.StepMetrics(*(value.numpy() for value in self.step(batches, tf.constant(steps))))

    def state(self) -> list[np.ndarray]:
        """Everything that a step changes."""
        variables = [
            *self.model.weights,
            *optimizer_variables(self.optimizer),
            *(self.average.values if self.average else ()),
        ]
        return [variable.numpy() for variable in variables]


def _trainer(settings: dict, *, replicas: int = 1, build=build_model) -> Trainer:
    config = flags.config_from_settings(settings)
    keras.utils.set_random_seed(config.train.seed)
    strategy = devices.cpu_strategy(replicas)
    with strategy.scope():
        model = build(config.model)
        optimizer = build_optimizer(config.train, total_steps=100, variables=model.trainable_variables)
        momentum = config.train.ema_momentum
        average = WeightAverage(model.trainable_variables, momentum) if momentum else None
    step = train_step.TrainStep(
        strategy=strategy, model=model, optimizer=optimizer, config=config.train, average=average
    )
    return Trainer(strategy, model, optimizer, average, step)


def test_the_loss_falls_and_the_clips_are_told_apart(toy_settings):
    trainer = _trainer(toy_settings)
    first = trainer.run(toy_batches(), 1)
    last = trainer.run(toy_batches(1), 60)
    assert last.loss < 0.5 * first.loss
    assert trainer.run(toy_batches(61), 5).correct == 5 * 8


def test_all_calls_share_one_trace_whatever_their_number_of_steps(toy_settings):
    trainer = _trainer(toy_settings)
    for start, steps in ((0, 0), (0, 1), (1, 5), (6, 2)):
        assert trainer.run(toy_batches(start), steps).steps == steps
    assert trainer.step.__call__.experimental_get_tracing_count() == 1
    assert int(trainer.optimizer.iterations.numpy()) == 8


def test_the_model_starts_when_the_clock_has_told_that_the_batch_was_there(toy_settings):
    trainer = _trainer(toy_settings)
    batches = iter(trainer.strategy.experimental_distribute_dataset(toy_batches()))
    traced = trainer.step.__call__.get_concrete_function(batches, tf.constant(1)).graph.as_graph_def()
    (body,) = (
        function.node_def
        for function in traced.library.function
        if sum(node.op == "PyFunc" for node in function.node_def) == 2
    )
    inputs = {node.name: [name.lstrip("^").split(":")[0] for name in node.input] for node in body}

    def needs(name):
        found, open_names = set(), [name]
        while open_names:
            new = {source for source in inputs.get(open_names.pop(), ()) if source not in found}
            found |= new
            open_names += new
        return found

    clocks = {node.name for node in body if node.op == "PyFunc"}
    convolutions = [node.name for node in body if node.op == "Conv2D"]
    assert convolutions and all(clocks <= needs(name) for name in convolutions)


@pytest.mark.slow
def test_one_two_and_four_replicas_of_the_same_global_batch_learn_the_same(toy_settings):
    losses, statistics = {}, {}
    for replicas in (1, 2, 4):
        trainer = _trainer({**toy_settings, "optimizer": "nesterov", "clip_norm": 1.0}, replicas=replicas)
        losses[replicas] = trainer.run(toy_batches(), 20).loss
        statistics[replicas] = [variable.numpy() for variable in trainer.model.non_trainable_weights]
    assert len(statistics[1]) >= 2
    for replicas in (2, 4):
        np.testing.assert_allclose(losses[replicas], losses[1], rtol=1e-5)
        for ours, alone in zip(statistics[replicas], statistics[1]):
            np.testing.assert_allclose(ours, alone, rtol=1e-4, atol=1e-5)


def test_many_steps_in_a_call_equal_single_ones_bit_for_bit(toy_settings):
    settings = {**toy_settings, "ema_momentum": 0.9, "classification_dropout": 0.3}
    together, alone = _trainer(settings), _trainer(settings)
    together.run(toy_batches(), 6)
    for number in range(6):
        alone.run(toy_batches(number), 1)
    for ours, theirs in zip(together.state(), alone.state()):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("replicas", "bad_clip"), [(1, 0), (2, 7)])
def test_nan_in_any_replica_leaves_everything_as_it_was_and_ends_the_call(toy_settings, replicas, bad_clip):
    trainer = _trainer({**toy_settings, "ema_momentum": 0.9, "classification_dropout": 0.3}, replicas=replicas)
    trainer.run(toy_batches(), 3)
    before = trainer.state()
    sums = trainer.run(toy_batches(3, bad_step=3, bad_clip=bad_clip), 9)
    assert (sums.steps, bool(sums.finite)) == (0, False)
    for ours, expected in zip(trainer.state(), before):
        np.testing.assert_array_equal(ours, expected)


class _RootModel(keras.Model):
    """Logits ±√w with w = 0: a finite loss whose gradient is infinite."""

    def build(self, input_shape=None):
        self.weight = self.add_weight(name="weight", shape=(1,), initializer="zeros")
        self.built = True

    def call(self, video, training=False):
        root = tf.sqrt(self.weight) * tf.ones([tf.shape(video)[0], 1])
        return tf.concat([root, -root], axis=1)


def test_an_infinite_gradient_of_a_finite_loss_is_refused(toy_settings):
    def build(config):
        model = _RootModel()
        model.build()
        return model

    trainer = _trainer({**toy_settings, "optimizer": "nesterov"}, build=build)
    sums = trainer.run(toy_batches(), 4)
    assert np.isfinite(sums.loss)
    assert (sums.steps, bool(sums.finite)) == (0, False)
    np.testing.assert_array_equal(trainer.model.trainable_variables[0], [0.0])


def test_the_mean_loss_at_a_rate_is_the_sum_at_a_rate_divided_by_the_batch(toy_settings):
    common = {**toy_settings, "optimizer": "nesterov"}
    mean = _trainer({**common, "loss_reduction": "mean", "learning_rate": 0.08})
    summed = _trainer({**common, "loss_reduction": "sum", "learning_rate": 0.01})
    losses = mean.run(toy_batches(), 3).loss, summed.run(toy_batches(), 3).loss
    np.testing.assert_allclose(losses[1], 8 * losses[0], rtol=1e-4)
    for ours, theirs in zip(mean.model.trainable_variables, summed.model.trainable_variables):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_reported_norm_is_that_before_clipping_and_the_step_that_after(toy_settings):
    settings = {**toy_settings, "optimizer": "nesterov", "momentum": 0.0, "learning_rate": 1.0}
    free, clipped = _trainer(settings), _trainer({**settings, "clip_norm": 0.01})
    start = [variable.numpy() for variable in clipped.model.trainable_variables]
    norms = free.run(toy_batches(), 1).gradient_norm, clipped.run(toy_batches(), 1).gradient_norm
    assert norms[0] == norms[1] > 0.01
    moved = [after.numpy() - before for after, before in zip(clipped.model.trainable_variables, start)]
    np.testing.assert_allclose(np.sqrt(sum((change**2).sum() for change in moved)), 0.01, rtol=1e-3)


def test_bfloat16_keeps_float32_weights_and_learns(toy_settings):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    trainer = _trainer(toy_settings)
    assert {tf.as_dtype(variable.dtype) for variable in trainer.model.trainable_variables} == {tf.float32}
    first = trainer.run(toy_batches(), 1).loss
    assert trainer.run(toy_batches(1), 60).loss < 0.5 * first


@pytest.mark.slow
def test_compiling_with_xla_changes_the_loss_by_rounding_only(toy_settings):
    plain = _trainer({**toy_settings, "optimizer": "nesterov"})
    compiled = _trainer({**toy_settings, "optimizer": "nesterov", "jit_compile": True})
    np.testing.assert_allclose(compiled.run(toy_batches(), 5).loss, plain.run(toy_batches(), 5).loss, rtol=1e-4)


def test_compiling_with_several_replicas_is_refused(toy_settings):
    with pytest.raises(ConfigError, match="--jit_compile"):
        _trainer({**toy_settings, "jit_compile": True}, replicas=2)


def test_a_signal_ends_a_call_of_many_steps_after_the_step_that_it_is_in(toy_settings):
    trainer = _trainer(toy_settings)
    trainer.run(toy_batches(), 0)
    far_away = 20_000
    with StopSignals(trainer.step.stop) as signals:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        sums = trainer.run(toy_batches(), far_away)
        assert signals.received == "SIGTERM"
    assert 0 < sums.steps < far_away
    assert int(trainer.optimizer.iterations.numpy()) == sums.steps
