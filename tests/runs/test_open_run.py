"""Which run and which checkpoint a command means."""

from __future__ import annotations

import dataclasses
import os

import pytest

from rstg_tf import runs
from rstg_tf.common.errors import ConfigError


@pytest.mark.parametrize(
    "checkpoint", ["", "5", "ckpt-5", "{run}/checkpoints/ckpt-5", "{run}/checkpoints/ckpt-5.index"]
)
def test_a_checkpoint_is_named_by_step_or_path(small_run, checkpoint):
    path = checkpoint.format(run=small_run.path)
    found = runs.open_run("" if os.sep in path else small_run.path, path)
    assert found.path == small_run.path
    assert found.load_model()[1] == 5


def test_a_checkpoint_path_of_another_run_is_refused(small_run, tmp_path):
    with pytest.raises(ConfigError, match="names another"):
        runs.open_run(str(tmp_path), os.path.join(small_run.path, "checkpoints", "ckpt-5"))
    best = os.path.join(small_run.path, "checkpoints", "best", "ckpt-4")
    assert runs.open_run("", best).checkpoint == "best"


@pytest.mark.parametrize(
    ("settings", "step", "total"),
    [
        ({"num_steps": 9}, 8, 9),
        ({"num_steps": 9}, 9, None),
        ({"num_steps": 0, "num_epochs": 2.0, "batch_size": 8}, 4, 5),  # 20 clips: 2 · 20 / 8
        ({"num_steps": 0, "num_epochs": 2.0, "batch_size": 8}, 5, None),
    ],
)
def test_a_newest_checkpoint_before_the_last_step_is_warned_of(small_run, settings, step, total):
    train = dataclasses.replace(small_run.config.train, **settings)
    run = dataclasses.replace(small_run, config=dataclasses.replace(small_run.config, train=train))
    warning = run.left_to_train(step)
    assert warning is None if total is None else f"is trained to step {step} of {total};" in warning
    assert dataclasses.replace(run, checkpoint="best").left_to_train(step) is None  # chosen
    (run.path / "train_dataset.json").unlink()
    assert settings["num_steps"] or run.left_to_train(step) is None  # nobody knows


def test_a_kept_manifest_without_shards_is_refused_by_name_where_epochs_are_counted(small_run):
    train = dataclasses.replace(small_run.config.train, num_steps=0, num_epochs=2.0)
    run = dataclasses.replace(small_run, config=dataclasses.replace(small_run.config, train=train))
    (run.path / "train_dataset.json").write_text('{"shards": [{"file": "a"}]}')
    with pytest.raises(ConfigError, match="train_dataset.json: lists no shards"):
        run.left_to_train(1)
