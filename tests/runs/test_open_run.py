"""Which run and which checkpoint a command means."""

from __future__ import annotations

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
