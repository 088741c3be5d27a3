"""The folder of a run: its lock, its manifests, and the settings that may not change."""

from __future__ import annotations

import errno
import os
import pathlib

import pytest

from rstg_tf import config, flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.runs.run_folder import RunFolder


def _config(**settings):
    return flags.config_from_settings({"num_steps": 9, **settings})


def test_a_folder_that_cannot_be_made_is_a_wrong_flag_but_not_on_a_full_disk(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="cannot be made"), RunFolder("/dev/null/run", _config()):
        pass

    def refuse(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    with pytest.raises(OSError, match="No space left"), RunFolder(tmp_path / "run", _config()):
        pass


def test_a_second_trainer_in_the_folder_is_refused_until_the_first_has_gone(tmp_path):
    path = str(tmp_path / "run")
    with RunFolder(path, _config()):
        with pytest.raises(ConfigError, match=f"another trainer .*process {os.getpid()}"), RunFolder(path, _config()):
            pass
    with RunFolder(path, _config()):
        pass


def test_a_state_file_that_names_checkpoints_elsewhere_is_refused_and_those_stay(tmp_path):
    victim = tmp_path / "other" / "checkpoints"
    victim.mkdir(parents=True)
    for name in ("ckpt-1.index", "ckpt-1.data-00000-of-00001"):
        (victim / name).write_text("precious")
    path = tmp_path / "run"
    with RunFolder(path, _config()) as folder:
        pass
    (folder.checkpoint_dir / "checkpoint").write_text(
        f'model_checkpoint_path: "{victim}/ckpt-1"\nall_model_checkpoint_paths: "{victim}/ckpt-1"\n'
    )
    with (
        pytest.raises(ConfigError, match="expected checkpoints ckpt-STEP of this folder alone"),
        RunFolder(path, _config()),
    ):
        pass
    assert sorted(os.listdir(victim)) == ["ckpt-1.data-00000-of-00001", "ckpt-1.index"]


def test_a_lock_that_is_a_link_or_a_pipe_is_refused_and_what_it_points_to_stays(tmp_path):
    path = tmp_path / "run"
    with RunFolder(path, _config()):
        pass
    (tmp_path / "victim").write_text("precious")
    (path / "lock").unlink()
    (path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match="lock cannot be opened as a file of its own"), RunFolder(path, _config()):
        pass
    assert (tmp_path / "victim").read_text() == "precious"
    (path / "lock").unlink()
    os.mkfifo(path / "lock")
    with pytest.raises(ConfigError, match="lock is no regular file"), RunFolder(path, _config()):
        pass


def test_other_settings_are_refused_by_name_and_leave_the_run_as_it_was(tmp_path):
    path = str(tmp_path / "run")
    with RunFolder(path, _config()):
        pass
    before = pathlib.Path(path, "config.json").read_text()
    other = _config(learning_rate=0.5, num_scales=2, use_norm="LN")
    with pytest.raises(ConfigError) as refusal, RunFolder(path, other):
        pass
    for part in ("--learning_rate=0.5 (run: 1e-06)", "--num_scales=2 (run: 3)", "--use_norm=LN (run: none)"):
        assert part in str(refusal.value)
    assert pathlib.Path(path, "config.json").read_text() == before


def test_the_length_of_a_run_and_how_it_reports_may_change(tmp_path):
    path = str(tmp_path / "run")
    with RunFolder(path, _config()):
        pass
    longer = _config(num_steps=50, print_every=1, save_every=2, steps_per_call=3, keep_checkpoints=7)
    with RunFolder(path, longer):
        pass
    assert config.ExperimentConfig.from_json(pathlib.Path(path, "config.json").read_text()) == longer


def test_the_length_of_a_run_may_not_change_where_the_schedule_stretches_over_it(tmp_path):
    path = str(tmp_path / "run")
    with RunFolder(path, _config(schedule="cosine")):
        pass
    with pytest.raises(ConfigError, match="--num_steps=50"), RunFolder(path, _config(schedule="cosine", num_steps=50)):
        pass


def test_a_run_keeps_its_manifests_and_refuses_other_records(tmp_path):
    path = str(tmp_path / "run")
    manifest = '{"shards": [{"sha256": "aa"}], "made_by": "one"}'
    with RunFolder(path, _config(), {"train_dataset": manifest}):
        pass
    assert pathlib.Path(path, "train_dataset.json").read_text() == manifest
    with RunFolder(path, _config(), {"train_dataset": manifest.replace("one", "another")}):
        pass
    with pytest.raises(ConfigError, match="--train_dataset"):
        with RunFolder(path, _config(), {"train_dataset": manifest.replace("aa", "bb")}):
            pass
