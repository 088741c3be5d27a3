"""The training step and the loop: replicas, traces, faults, interruptions, averages."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from rstg_tf import flags
from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.common import devices
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.interrupts import StopSignals
from rstg_tf.common.keras_compat import optimizer_variables
from rstg_tf.config import TrainConfig
from rstg_tf.model import build_model
from rstg_tf.runs import checkpoints
from rstg_tf.runs.weight_average import WeightAverage
from rstg_tf.training import loop, train_step
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
        variables = [*self.model.weights, *optimizer_variables(self.optimizer),
                     *(self.average.values if self.average else ())]
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
    step = train_step.TrainStep(strategy=strategy, model=model, optimizer=optimizer, config=config.train,
                                average=average)
    return Trainer(strategy, model, optimizer, average, step)


def _clips(start: int = 0, *, bad_step: int | None = None, bad_clip: int = 0, batch_size: int = 8) -> tf.data.Dataset:
    """Batches by their number alone: the bright half of the frames tells the class; one clip may be NaN."""
    half = np.zeros((2, 1, 12, 12, 1), np.float32)
    half[0, :, :6], half[1, :, 6:] = 120, 120

    def batch(number):
        seed = tf.stack([number, 7])
        label = tf.random.stateless_uniform([batch_size], seed, 0, 2, tf.int32)
        video = tf.random.stateless_uniform([batch_size, 4, 12, 12, 1], seed, 0.0, 60.0) + tf.gather(half, label)
        if bad_step is not None:
            broken = tf.one_hot(bad_clip, batch_size, on_value=np.nan, off_value=0.0)[:, None, None, None, None]
            video = tf.where(number == bad_step, video + broken, video)
        return {"video": video, "label": label}

    return tf.data.Dataset.range(start, 2**40).map(batch)


def test_the_loss_falls_and_the_clips_are_told_apart(toy_settings):
    trainer = _trainer(toy_settings)
    first = trainer.run(_clips(), 1)
    last = trainer.run(_clips(1), 60)
    assert last.loss < 0.5 * first.loss
    assert trainer.run(_clips(61), 5).correct == 5 * 8


def test_all_calls_share_one_trace_whatever_their_number_of_steps(toy_settings):
    trainer = _trainer(toy_settings)
    for start, steps in ((0, 0), (0, 1), (1, 5), (6, 2)):
        assert trainer.run(_clips(start), steps).steps == steps
    assert trainer.step.__call__.experimental_get_tracing_count() == 1
    assert int(trainer.optimizer.iterations.numpy()) == 8


def test_the_model_starts_when_the_clock_has_told_that_the_batch_was_there(toy_settings):
    trainer = _trainer(toy_settings)
    batches = iter(trainer.strategy.experimental_distribute_dataset(_clips()))
    traced = trainer.step.__call__.get_concrete_function(batches, tf.constant(1)).graph.as_graph_def()
    body, = (function.node_def for function in traced.library.function
             if sum(node.op == "PyFunc" for node in function.node_def) == 2)
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
        losses[replicas] = trainer.run(_clips(), 20).loss
        statistics[replicas] = [variable.numpy() for variable in trainer.model.non_trainable_variables]
    assert len(statistics[1]) >= 2
    for replicas in (2, 4):
        np.testing.assert_allclose(losses[replicas], losses[1], rtol=1e-5)
        for ours, alone in zip(statistics[replicas], statistics[1]):
            np.testing.assert_allclose(ours, alone, rtol=1e-4, atol=1e-5)


def test_many_steps_in_a_call_equal_single_ones_bit_for_bit(toy_settings):
    settings = {**toy_settings, "ema_momentum": 0.9, "classification_dropout": 0.3}
    together, alone = _trainer(settings), _trainer(settings)
    together.run(_clips(), 6)
    for number in range(6):
        alone.run(_clips(number), 1)
    for ours, theirs in zip(together.state(), alone.state()):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("replicas", "bad_clip"), [(1, 0), (2, 7)])
def test_nan_in_any_replica_leaves_everything_as_it_was_and_ends_the_call(toy_settings, replicas, bad_clip):
    trainer = _trainer({**toy_settings, "ema_momentum": 0.9, "classification_dropout": 0.3}, replicas=replicas)
    trainer.run(_clips(), 3)
    before = trainer.state()
    sums = trainer.run(_clips(3, bad_step=3, bad_clip=bad_clip), 9)
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
    sums = trainer.run(_clips(), 4)
    assert np.isfinite(sums.loss)
    assert (sums.steps, bool(sums.finite)) == (0, False)
    np.testing.assert_array_equal(trainer.model.trainable_variables[0], [0.0])


def test_the_mean_loss_at_a_rate_is_the_sum_at_a_rate_divided_by_the_batch(toy_settings):
    common = {**toy_settings, "optimizer": "nesterov"}
    mean = _trainer({**common, "loss_reduction": "mean", "learning_rate": 0.08})
    summed = _trainer({**common, "loss_reduction": "sum", "learning_rate": 0.01})
    losses = mean.run(_clips(), 3).loss, summed.run(_clips(), 3).loss
    np.testing.assert_allclose(losses[1], 8 * losses[0], rtol=1e-4)
    for ours, theirs in zip(mean.model.trainable_variables, summed.model.trainable_variables):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_reported_norm_is_that_before_clipping_and_the_step_that_after(toy_settings):
    settings = {**toy_settings, "optimizer": "nesterov", "momentum": 0.0, "learning_rate": 1.0}
    free, clipped = _trainer(settings), _trainer({**settings, "clip_norm": 0.01})
    start = [variable.numpy() for variable in clipped.model.trainable_variables]
    norms = free.run(_clips(), 1).gradient_norm, clipped.run(_clips(), 1).gradient_norm
    assert norms[0] == norms[1] > 0.01
    moved = [after.numpy() - before for after, before in zip(clipped.model.trainable_variables, start)]
    np.testing.assert_allclose(np.sqrt(sum((change**2).sum() for change in moved)), 0.01, rtol=1e-3)


def test_bfloat16_keeps_float32_weights_and_learns(toy_settings):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    trainer = _trainer(toy_settings)
    assert {tf.as_dtype(variable.dtype) for variable in trainer.model.trainable_variables} == {tf.float32}
    first = trainer.run(_clips(), 1).loss
    assert trainer.run(_clips(1), 60).loss < 0.5 * first


@pytest.mark.slow
def test_compiling_with_xla_changes_the_loss_by_rounding_only(toy_settings):
    plain = _trainer({**toy_settings, "optimizer": "nesterov"})
    compiled = _trainer({**toy_settings, "optimizer": "nesterov", "jit_compile": True})
    np.testing.assert_allclose(compiled.run(_clips(), 5).loss, plain.run(_clips(), 5).loss, rtol=1e-4)


def test_compiling_with_several_replicas_is_refused(toy_settings):
    with pytest.raises(ConfigError, match="--jit_compile"):
        _trainer({**toy_settings, "jit_compile": True}, replicas=2)


def test_a_signal_ends_a_call_of_many_steps_after_the_step_that_it_is_in(toy_settings):
    trainer = _trainer(toy_settings)
    trainer.run(_clips(), 0)
    far_away = 20_000
    with StopSignals(trainer.step.stop) as signals:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        sums = trainer.run(_clips(), far_away)
        assert signals.received == "SIGTERM"
    assert 0 < sums.steps < far_away
    assert int(trainer.optimizer.iterations.numpy()) == sums.steps


class ToyData:
    """Endless batches of `_clips`, 40 clips an epoch; `evaluate` and `sample` as a test needs them."""

    num_clips, manifests = 40, {}

    def __init__(self, *, evaluate=None, sample=lambda: None, bad_step=None):
        self.evaluate, self.sample, self._bad_step = evaluate, sample, bad_step

    def batches(self, start_step):
        return _clips(start_step, bad_step=self._bad_step)


def _train(settings, run_dir, **data):
    return loop.train(flags.config_from_settings(settings), str(run_dir), ToyData(**data))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_evaluation_which_the_same_command_begins_anew(number, toy_settings, tmp_path):
    begun = []

    def evaluate(model, stopped):
        begun.append(len(begun))
        if len(begun) > 1:
            return 0.5
        assert not stopped()
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 60
        while not stopped():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return None

    settings = {**toy_settings, "num_steps": 4, "eval_every": 2}
    result = _train(settings, tmp_path, evaluate=evaluate)
    assert (result.step, result.interrupted, result.best_top1) == (2, signal.Signals(number).name, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = _train(settings, tmp_path, evaluate=evaluate)
    assert (result.step, result.interrupted, result.best_top1) == (4, None, 0.5)
    assert len(begun) == 3  # at step 2 twice


def test_of_two_signals_the_first_is_named_and_without_one_nothing_is_stopped():
    with StopSignals(tf.Variable(False)) as signals:
        assert not signals.stopped()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert signals.stopped() and signals.received == "SIGTERM"


def test_epochs_are_counted_in_clips_and_the_effective_rate_per_clip_is_stated(toy_settings, tmp_path, capsys):
    settings = {**toy_settings, "num_steps": 0, "num_epochs": 1.5, "learning_rate": 0.008}
    result = _train(settings, tmp_path)  # 60 clips in steps of 8
    assert (result.step, result.total_steps) == (8, 8)
    printed = capsys.readouterr().out
    assert "loss: mean of the cross-entropies of 8 clips" in printed
    assert "adam at 0.008, which is 0.001 per clip" in printed


def test_evaluation_sees_the_averaged_weights_and_chooses_the_best(toy_settings, tmp_path):
    seen, scores = {}, iter([0.5, 0.75, 0.25])

    def evaluate(model, stopped):
        seen[len(seen)] = [weight.numpy() for weight in model.trainable_variables]
        return next(scores)

    result = _train({**toy_settings, "num_steps": 6, "eval_every": 2, "ema_momentum": 0.9}, tmp_path, evaluate=evaluate)
    assert result.best_top1 == 0.75
    config = flags.config_from_settings(toy_settings)
    for checkpoint, number in (("best", 1), (None, 2)):
        model = build_model(config.model)
        assert checkpoints.restore_for_inference(model, str(tmp_path), checkpoint) == 2 * (number + 1)
        for weight, expected in zip(model.trainable_variables, seen[number]):
            np.testing.assert_array_equal(weight, expected)


def test_a_run_starts_from_the_weights_of_another_run(toy_settings, tmp_path):
    _train({**toy_settings, "num_steps": 5}, tmp_path / "first")
    model = build_model(flags.config_from_settings(toy_settings).model)
    checkpoints.restore_for_inference(model, str(tmp_path / "first"))
    expected = [weight.numpy() for weight in model.trainable_variables]
    _train({**toy_settings, "num_steps": 1, "learning_rate": 1e-30, "restore_dir": str(tmp_path / "first"),
            "ema_momentum": 0.9}, tmp_path / "second")
    assert checkpoints.restore_for_inference(model, str(tmp_path / "second")) == 1
    for weight, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(weight, value, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("backbone, earlier_step, warned", [
    (ResNet50(variant="c2d"), None, True), (ResNet50(variant="c2d"), 3, False),
    (SmallConvnet(filters=2, layers=1), None, False)])
def test_only_a_resnet_that_starts_from_random_weights_is_warned_of(backbone, earlier_step, warned, capsys):
    checkpoints = types.SimpleNamespace(restore=lambda say: earlier_step)
    loop._restore(checkpoints, types.SimpleNamespace(backbone=backbone), None, TrainConfig())
    assert ("starts from random weights" in capsys.readouterr().out) == warned


def test_weights_that_are_neither_a_run_nor_a_checkpoint_are_refused(toy_settings, tmp_path):
    with pytest.raises(ConfigError, match="--restore_dir=.*nowhere"):
        _train({**toy_settings, "restore_dir": str(tmp_path / "nowhere")}, tmp_path / "run")


def test_a_diverging_run_says_at_which_step_and_keeps_its_last_good_checkpoint(toy_settings, tmp_path):
    settings = {**toy_settings, "num_steps": 20, "save_every": 2}
    config = flags.config_from_settings(settings)
    with pytest.raises(train_step.NonFiniteError, match="step 6: .*nan"):
        _train(settings, tmp_path, bad_step=5)
    model = build_model(config.model)
    assert checkpoints.restore_for_inference(model, str(tmp_path)) == 4
    assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)


def test_the_board_has_scalars_and_a_histogram_of_the_attention(toy_settings, tmp_path):
    _train({**toy_settings, "num_steps": 4, "print_every": 2}, tmp_path,
           sample=lambda: np.zeros((2, 4, 12, 12, 1), np.uint8))
    tags: dict[str, set[int]] = {}
    for path in (tmp_path / "tensorboard").iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                tags.setdefault(value.tag, set()).add(event.step)
    assert tags["train/loss"] == tags["train/accuracy"] == tags["train/clips_per_second"] == {2, 4}
    assert 2 in tags["attention_entropy/final"]
