"""The folder of a run: one trainer at a time, one experiment, one set of records.

config.json  stack.json  train_dataset.json  test_dataset.json  checkpoints/ckpt-STEP.*  checkpoints/best/
tensorboard/  lock
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from rstg_tf import flag_table
from rstg_tf.common.errors import ConfigError, is_full_disk
from rstg_tf.common.file_gate import open_own
from rstg_tf.common.files import remove_abandoned, write_text
from rstg_tf.common.text import classes_differ
from rstg_tf.config import ExperimentConfig
from rstg_tf.runs.checkpoints import CHECKPOINT_PREFIX, check_state_file, list_checkpoints, sweep_stale
from rstg_tf.runs.run import kept_config, kept_manifest
from rstg_tf.runs.stack import STACK_FILE, check_same_stack, stack_record

# Settings that a run may change when it goes on: none of them changes what a step computes.
CHANGEABLE = frozenset(
    """num_steps num_epochs print_every save_every save_minutes keep_checkpoints eval_every
    steps_per_call restore_dir restore_scope train_dataset test_dataset write_missing""".split()
)


class RunFolder:
    """The folder of a run, held by one trainer at a time; use it as a context manager.

    On entry: makes the folder, takes its lock, compares `config` and `manifests` (name -> text of a data set's
    dataset.json) with those that the run has begun with, writes them where they are new, sweeps what a kill left.

    Raises ConfigError when another process trains in it, when a setting differs that a run cannot change, or when its
    checkpoints are of the other stack.
    """

    def __init__(self, path: str | os.PathLike, config: ExperimentConfig, manifests: Mapping[str, str] | None = None):
        self.path = Path(path)
        self.checkpoint_dir = self.path / "checkpoints"
        self.best_dir = self.checkpoint_dir / "best"
        self.tensorboard_dir = self.path / "tensorboard"
        self._config = config
        self._manifests = dict(manifests or {})
        self._lock = None

    def __enter__(self) -> RunFolder:
        self._check_same_run()  # before anything is made or changed
        self._is_new = not self.path.exists()
        try:
            self.best_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_full_disk(error):
                raise
            raise ConfigError(f"--model_dir={self.path}: cannot be made ({error.strerror}).") from error
        self._lock = _take_lock(self.path)
        try:
            self._check_same_run()
            self._keep_manifests()
            self._keep_stack()
            write_text(self.path / "config.json", self._config.to_json())
            for directory in (self.checkpoint_dir, self.best_dir):
                check_state_file(directory)
                sweep_stale(directory)
                list_checkpoints(directory)
            remove_abandoned(self.path)
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, kind, *rest) -> None:
        is_empty = not any(self.checkpoint_dir.rglob(f"{CHECKPOINT_PREFIX}-*"))
        if self._is_new and is_empty and kind is not None and issubclass(kind, ConfigError):
            shutil.rmtree(self.path, ignore_errors=True)  # a refused command leaves nothing that blocks the next one
        self._lock.close()  # the lock goes with the descriptor, also when the process is killed

    def _check_same_run(self) -> None:
        check_same_experiment(self.path, self._config)
        check_same_stack(self.path)

    def _keep_stack(self) -> None:
        record = stack_record(self.path)
        if record is not None:
            write_text(self.path / STACK_FILE, record)

    def _keep_manifests(self) -> None:
        for name, text in self._manifests.items():
            path = self.path / f"{name}.json"
            if not path.exists():
                write_text(path, text)
                continue
            begun, given = kept_manifest(path), json.loads(text)
            if fault := _classes_fault(begun, given, path, f"--{name}"):
                raise ConfigError(f"--{name}: {fault}. Start a new run with another --model_dir.")
            if begun.get("shards") != given.get("shards"):
                raise ConfigError(
                    f"--{name}: its shards are not those that the run in {self.path} has begun with "
                    f"({path}); start a new run with another --model_dir."
                )


def check_same_experiment(path: Path, config: ExperimentConfig) -> None:
    """Raises ConfigError naming the flags in which `config` differs from the run in `path`, where there is a run."""
    config_path = path / "config.json"
    if not config_path.exists():
        return
    begun, wanted = _flag_values(kept_config(config_path)), _flag_values(config)
    # A schedule stretches over the run, so its length is part of it.
    fixed = {"num_steps", "num_epochs"} if config.train.schedule != "constant" else set()
    differing = [flag for flag in wanted if wanted[flag] != begun[flag] and flag not in CHANGEABLE - fixed]
    if differing:
        shown = ", ".join(f"--{flag}={_shown(wanted[flag])} (run: {_shown(begun[flag])})" for flag in differing)
        raise ConfigError(
            f"{path} holds a run with other settings: {shown}. Go on with the run's settings, or start a "
            "new run with another --model_dir."
        )


def _flag_values(config: ExperimentConfig) -> dict:
    sections = {"model": config.model, "graph": config.model.graph, "data": config.data, "train": config.train}
    return {field.flag: getattr(sections[field.section], field.field) for field in flag_table.FIELDS}


def _shown(value) -> str:
    return "-".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _classes_fault(kept: Mapping, given: Mapping, path: Path, flag: str) -> str | None:
    return classes_differ(
        given.get("classes") or [], kept.get("classes", []), here=f"what {flag} names", there=f"the run ({path})"
    )


def _take_lock(path: Path):
    lock = open_own(path / "lock", named=f"--model_dir: {path / 'lock'}")  # held as long as the run
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigError(
            f"{path}: another trainer works in this folder (process {holder}); wait for it, stop it, or "
            "give another --model_dir."
        ) from error
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
