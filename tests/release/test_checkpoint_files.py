"""What counts as a checkpoint: every way to name one, and what is refused with what is there."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from weights_on_disk import save_run, save_tf1

from rstg_tf import build_model
from rstg_tf.common.errors import ConfigError
from rstg_tf.release.checkpoint_files import find_weights
from rstg_tf.release.warm_start import restore_weights


def test_every_way_to_name_a_run_and_its_checkpoints_is_understood(toy_config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    save_run(run, toy_config)
    for path, checkpoint in (
        (run, None),
        (run / "checkpoints", None),
        (run / "checkpoints" / "best", "best"),
        (run / "checkpoints" / "ckpt-0", "ckpt-0"),
        (run / "checkpoints" / "ckpt-0.index", "ckpt-0"),
        (run / "checkpoints" / "best" / "ckpt-0", "best"),
    ):
        found = find_weights(str(path))
        assert (found.run.path, found.run.checkpoint) == (run, checkpoint), path
    monkeypatch.chdir(run / "checkpoints")
    for path, checkpoint in (("ckpt-0", "ckpt-0"), (".", None), ("best", "best"), ("..", None)):
        found = find_weights(path)
        assert (str(found.run.path), found.run.checkpoint) == ("..", checkpoint)
        assert restore_weights(build_model(toy_config.model), path, say=lambda line: None) == 0


def test_every_way_to_name_a_tf1_checkpoint_is_understood(tmp_path):
    folder = tmp_path / "weights"
    prefix = save_tf1(folder, {"a": np.zeros(2, np.float32)})
    for path in (
        prefix,
        f"{prefix}.index",
        f"{prefix}.data-00000-of-00001",
        f"{prefix}.meta",
        str(folder),
        f"{folder}/",
    ):
        found = find_weights(path)
        assert found.run is None and pathlib.Path(found.prefix) == pathlib.Path(prefix), path
    (folder / "checkpoint").write_text('model_checkpoint_path: "/their/machine/model_12.ckpt"\n')
    assert find_weights(str(folder)).prefix == prefix  # a folder that was moved
    (folder / "checkpoint").unlink()
    assert find_weights(str(folder)).prefix == prefix  # the only one there


def test_what_is_no_checkpoint_is_refused_with_what_is_there(toy_config, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    with pytest.raises(ConfigError, match="no checkpoint there.*checkpoints in it: none"):
        find_weights(str(folder))
    with pytest.raises(ConfigError, match="nowhere: no checkpoint there; expected the folder of a run"):
        find_weights(str(tmp_path / "nowhere"))
    for step in (1, 2):
        prefix = save_tf1(folder, {"a": np.zeros(2, np.float32)}, step=step)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model_3.ckpt"\n')
    with pytest.raises(ConfigError, match="model_3.ckpt, which is not there; checkpoints in it: model_1.ckpt, model_2"):
        find_weights(str(folder))
    pathlib.Path(f"{prefix}.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ConfigError, match="--restore_dir=.*model_2.ckpt cannot be read as a checkpoint"):
        restore_weights(build_model(toy_config.model), prefix)


def test_a_checkpoint_of_ours_without_its_settings_is_refused(toy_config, tmp_path):
    save_run(tmp_path / "run", toy_config)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(ConfigError, match="no config.json says which model; give the folder of the run"):
        restore_weights(build_model(toy_config.model), str(tmp_path / "run" / "checkpoints" / "ckpt-0"))
