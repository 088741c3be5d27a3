"""The checkpoints of a run: exact round trips, what a kill leaves, what is damaged or missing."""

from __future__ import annotations

import os
import pathlib
import resource
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from rstg_tf import flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.keras_compat import optimizer_variables
from rstg_tf.runs import checkpoints
from rstg_tf.runs.checkpoints import CheckpointError, Checkpoints, restore_for_inference
from rstg_tf.runs.run_folder import RunFolder
from rstg_tf.runs.weight_average import WeightAverage


class Parts:
    """A model with every kind of state: weights, statistics, slots, a step, averages."""

    def __init__(self, *, averaged: bool = True):
        self.model = keras.Sequential(
            [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
        )
        self.optimizer = keras.optimizers.Adam(0.1)
        self.optimizer.build(self.model.trainable_variables)
        self.average = WeightAverage(self.model.trainable_variables, 0.9) if averaged else None

    def step(self) -> None:
        inputs = tf.random.stateless_normal([5, 3], [int(self.optimizer.iterations.numpy()), 1])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.model(inputs, training=True) ** 2)
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        if self.average:
            self.average.update(variables, self.optimizer.iterations)

    def state(self) -> list[np.ndarray]:
        variables = [
            *self.model.weights,
            *optimizer_variables(self.optimizer),
            *(self.average.values if self.average else ()),
        ]
        return [variable.numpy() for variable in variables]

    def in_folder(self, folder: RunFolder, keep: int = 2) -> Checkpoints:
        return Checkpoints(folder, model=self.model, optimizer=self.optimizer, average=self.average, keep=keep)


@pytest.fixture
def folder(tmp_path):
    with RunFolder(str(tmp_path / "run"), flags.config_from_settings({"num_steps": 9})) as entered:
        yield entered


def _names(folder: RunFolder) -> set[str]:
    return {name for name in os.listdir(folder.checkpoint_dir) if name != "best"}


def _assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_gives_back_every_bit_and_the_next_steps_are_the_same(folder):
    first = Parts()
    for _ in range(3):
        first.step()
    first.in_folder(folder).save()
    second = Parts()
    assert second.in_folder(folder).restore() == 3
    _assert_same(first.state(), second.state())
    first.step()
    second.step()
    _assert_same(first.state(), second.state())


def test_a_new_run_has_nothing_to_restore(folder):
    assert Parts().in_folder(folder).restore() is None


def test_the_newest_n_and_the_best_are_kept(folder):
    parts = Parts()
    saved = parts.in_folder(folder, keep=2)
    for score, is_best in ((0.5, True), (0.75, True), (0.75, False), (0.25, False)):
        parts.step()
        saved.save()
        assert saved.save_best(score) is is_best
    steps = {name.split(".")[0] for name in _names(folder) if name.startswith("ckpt")}
    assert steps == {"ckpt-3", "ckpt-4"}
    best = {name for name in os.listdir(folder.best_dir) if name.endswith(".index")}
    assert best == {"ckpt-2.index"}
    again = Parts().in_folder(folder)
    assert again.best_top1() == 0.75


def test_what_a_killed_save_leaves_is_swept_and_nothing_else(folder):
    parts = Parts()
    parts.step()
    parts.in_folder(folder).save()
    good = _names(folder)
    directory = folder.checkpoint_dir
    (directory / "ckpt-2_temp").mkdir()
    (directory / "ckpt-2_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    (directory / "checkpoint.tmp0123456789abcdef").write_text("half")
    (directory / "ckpt-2.data-00000-of-00001").write_bytes(b"renamed, but without its index")
    (directory / "notes.txt").write_text("mine")
    removed = checkpoints.sweep_stale(directory)
    assert removed == ["checkpoint.tmp0123456789abcdef", "ckpt-2.data-00000-of-00001", "ckpt-2_temp"]
    assert _names(folder) == good | {"notes.txt"}


def test_checkpoints_without_a_state_file_are_not_swept(folder):
    parts = Parts()
    parts.step()
    parts.in_folder(folder).save()
    os.remove(os.path.join(folder.checkpoint_dir, "checkpoint"))
    assert checkpoints.sweep_stale(folder.checkpoint_dir) == []


def _flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [_flip_a_byte, lambda content: content[:100], lambda content: b""],
    ids=["a flipped byte", "shortened", "empty"],
)
def test_a_damaged_newest_checkpoint_is_announced_and_the_one_before_it_taken(folder, damage):
    parts = Parts()
    saved = parts.in_folder(folder)
    parts.step()
    saved.save()
    expected = parts.state()
    parts.step()
    damaged = pathlib.Path(f"{saved.save()}.data-00000-of-00001")
    damaged.write_bytes(damage(damaged.read_bytes()))
    said = []
    again = Parts()
    restored = again.in_folder(folder)
    assert restored.restore(said.append) == 1
    assert len(said) == 1 and "ckpt-2 cannot be restored" in said[0]
    _assert_same(again.state(), expected)
    again.step()
    restored.save()  # writes step 2 again, whole
    assert Parts().in_folder(folder).restore() == 2


def test_only_damaged_checkpoints_are_an_error_not_a_new_run(folder):
    parts = Parts()
    parts.step()
    path = parts.in_folder(folder).save()
    pathlib.Path(f"{path}.index").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="none of the 1 checkpoints"):
        Parts().in_folder(folder).restore(lambda line: None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_never_saved(folder, value):
    parts = Parts()
    saved = parts.in_folder(folder)
    parts.step()
    saved.save()
    names = _names(folder)
    parts.step()
    slot = optimizer_variables(parts.optimizer)[-1]
    slot.assign(tf.fill(slot.shape, value))
    with pytest.raises(CheckpointError, match="step 2: not saved.*NaN or Inf"):
        saved.save()
    assert _names(folder) == names


def test_a_disk_that_refuses_leaves_the_checkpoint_before_and_no_rubbish(folder):
    parts = Parts()
    saved = parts.in_folder(folder)
    parts.step()
    saved.save()
    expected, names = parts.state(), _names(folder)
    parts.step()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # no file above 200 bytes: as if the disk were full
    try:
        with pytest.raises(CheckpointError, match="step 2: the checkpoint could not be written.*ckpt-1") as refusal:
            saved.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(refusal.value)
    assert _names(folder) == names
    again = Parts()
    assert again.in_folder(folder).restore() == 1
    _assert_same(again.state(), expected)


@pytest.mark.parametrize("averaged", [True, False])
def test_inference_loads_the_averages_where_the_run_keeps_them(folder, averaged):
    parts = Parts(averaged=averaged)
    saved = parts.in_folder(folder, keep=3)
    for _ in range(3):
        parts.step()
        saved.save()
    expected = [value.numpy() for value in (parts.average.values if averaged else parts.model.trainable_variables)]
    model = Parts().model
    assert restore_for_inference(model, folder.path) == 3
    _assert_same([weight.numpy() for weight in model.trainable_variables], expected)
    _assert_same(
        [value.numpy() for value in model.non_trainable_weights],
        [value.numpy() for value in parts.model.non_trainable_weights],
    )
    assert restore_for_inference(model, folder.path, "2") == 2
    assert restore_for_inference(model, folder.path, "ckpt-1") == 1


def test_a_checkpoint_that_is_not_there_is_refused_with_what_is(folder):
    parts = Parts()
    with pytest.raises(ConfigError, match="there are: none"):
        restore_for_inference(parts.model, folder.path)
    saved = parts.in_folder(folder)
    parts.step()
    saved.save()
    saved.save_best(0.5)
    with pytest.raises(ConfigError, match=r"--checkpoint=7: not in .*there are: 1, best \(1\)"):
        restore_for_inference(parts.model, folder.path, "7")


def test_a_checkpoint_of_another_model_is_refused(folder):
    parts = Parts()
    parts.step()
    parts.in_folder(folder).save()
    other = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(4)])
    with pytest.raises(ConfigError, match="does not fit this model"):
        restore_for_inference(other, folder.path)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\0" * 90,
        b"\xff\xfe\xfd",
        b'model_checkpoint_path: "ckpt-9"\n',
        b'model_checkpoint_path: "ckpt-1"\n',
    ],
    ids=["missing", "empty", "zeros", "no text", "names one that is not there", "names the older one"],
)
def test_whatever_the_state_file_says_the_run_goes_on_from_the_newest_checkpoint(content, tmp_path, capsys):
    config = flags.config_from_settings({"num_steps": 9})
    with RunFolder(tmp_path / "run", config) as folder:
        parts = Parts()
        saved = parts.in_folder(folder)
        for _ in range(2):
            parts.step()
            saved.save()
        state, names = folder.checkpoint_dir / "checkpoint", _names(folder)
    state.unlink() if content is None else state.write_bytes(content)
    with RunFolder(tmp_path / "run", config) as folder:
        again = Parts()
        assert again.in_folder(folder).restore() == 2
        _assert_same(again.state(), parts.state())
        assert _names(folder) == names
    is_readable = content is not None and content.startswith(b"model")
    assert (f"{state} is missing or damaged" in capsys.readouterr().out) is not is_readable


def test_a_clock_that_was_set_back_hides_no_checkpoint(tmp_path, monkeypatch):
    config, present = flags.config_from_settings({"num_steps": 9}), time.time()
    with RunFolder(tmp_path / "run", config) as folder:
        parts = Parts()
        parts.step()
        parts.in_folder(folder).save()
    monkeypatch.setattr(time, "time", lambda: present - 10 * 365 * 86_400.0)
    with RunFolder(tmp_path / "run", config) as folder:
        assert Parts().in_folder(folder).restore() == 1


def test_a_damaged_best_checkpoint_is_announced_and_replaced(folder, capsys):
    parts = Parts()
    parts.step()
    parts.in_folder(folder).save_best(0.75)
    (folder.best_dir / "ckpt-1.index").write_bytes(b"nonsense")
    parts.step()
    saved = parts.in_folder(folder)
    assert saved.best_top1() == -1.0
    assert f"{folder.best_dir / 'ckpt-1'} is damaged" in capsys.readouterr().out
    assert saved.save_best(0.5) is True
    assert parts.in_folder(folder).best_top1() == 0.5
