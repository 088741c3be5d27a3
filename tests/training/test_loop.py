"""The loop around the step: reports, evaluations, signals, where a run starts."""

from __future__ import annotations

import os
import signal
import time
import types

import numpy as np
import pytest
import tensorflow as tf
from toy_batches import toy_batches

from rstg_tf import flags
from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.interrupts import StopSignals
from rstg_tf.config import TrainConfig
from rstg_tf.model import build_model
from rstg_tf.runs import checkpoints
from rstg_tf.training import loop, train_step


class ToyData:
    """Endless batches of `toy_batches`, 40 clips an epoch; `evaluate` and `sample` as a test needs them."""

    num_clips, manifests = 40, {}

    def __init__(self, *, evaluate=None, sample=lambda: None, bad_step=None):
        self.evaluate, self.sample, self._bad_step = evaluate, sample, bad_step

    def batches(self, start_step):
        return toy_batches(start_step, bad_step=self._bad_step)


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
    _train(
        {
            **toy_settings,
            "num_steps": 1,
            "learning_rate": 1e-30,
            "restore_dir": str(tmp_path / "first"),
            "ema_momentum": 0.9,
        },
        tmp_path / "second",
    )
    assert checkpoints.restore_for_inference(model, str(tmp_path / "second")) == 1
    for weight, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(weight, value, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "backbone, earlier_step, warned",
    [
        (ResNet50(variant="c2d"), None, True),
        (ResNet50(variant="c2d"), 3, False),
        (SmallConvnet(filters=2, layers=1), None, False),
    ],
)
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
    _train(
        {**toy_settings, "num_steps": 4, "print_every": 2},
        tmp_path,
        sample=lambda: np.zeros((2, 4, 12, 12, 1), np.uint8),
    )
    tags: dict[str, set[int]] = {}
    for path in (tmp_path / "tensorboard").iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                tags.setdefault(value.tag, set()).add(event.step)
    assert tags["train/loss"] == tags["train/accuracy"] == tags["train/clips_per_second"] == {2, 4}
    assert 2 in tags["attention_entropy/final"]
