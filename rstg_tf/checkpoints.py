"""The folder of a run: its lock, its settings, its checkpoints.

    config.json  train_dataset.json  test_dataset.json  checkpoints/ckpt-STEP.*  checkpoints/best/  tensorboard/  lock

A checkpoint appears under its name only when it is whole, and the file `checkpoint` names it only then: TensorFlow
writes to temporary names and renames. What a kill leaves between the two is swept away at the next start.
"""

from __future__ import annotations

import dataclasses
import fcntl
import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from rstg_tf.config import ConfigError, ExperimentConfig
from rstg_tf.flags import FIELDS
from rstg_tf.optimizers import WeightAverage, optimizer_variables

# Settings that a run may change when it goes on: none of them changes what a step computes.
CHANGEABLE = frozenset("""num_steps num_epochs print_every save_every save_minutes keep_checkpoints eval_every
    steps_per_call restore_dir restore_scope train_dataset test_dataset write_missing""".split())
_PREFIX = "ckpt"
# What TensorFlow raises for a checkpoint of another model, and for a damaged or shortened file.
_UNREADABLE = (tf.errors.OpError, AssertionError, ValueError, IndexError)


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written. The run stops; the previous checkpoint is whole."""


class RunFolder:
    """The folder of a run, held by one trainer at a time; use it as a context manager.

    On entry: makes the folder, takes its lock, compares `config` and `manifests` (name -> text of a data set's
    dataset.json) with those that the run has begun with, writes them where they are new, sweeps what a kill left.

    Raises ConfigError when another process trains in it, or when a setting differs that a run cannot change.
    """

    def __init__(self, path: str, config: ExperimentConfig, manifests: Mapping[str, str] | None = None):
        self.path = path
        self.checkpoint_dir = os.path.join(path, "checkpoints")
        self.best_dir = os.path.join(self.checkpoint_dir, "best")
        self.tensorboard_dir = os.path.join(path, "tensorboard")
        self._config = config
        self._manifests = dict(manifests or {})
        self._lock = None

    def __enter__(self) -> RunFolder:
        check_same_experiment(self.path, self._config)  # before anything is made or changed
        self._is_new = not os.path.exists(self.path)
        try:
            os.makedirs(self.best_dir, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--model_dir={self.path}: cannot be made ({error.strerror}).") from error
        self._lock = _take_lock(self.path)
        try:
            check_same_experiment(self.path, self._config)
            self._keep_manifests()
            write_atomically(os.path.join(self.path, "config.json"), self._config.to_json())
            for directory in (self.checkpoint_dir, self.best_dir):
                sweep_stale(directory)
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, kind, *rest) -> None:
        is_empty = not glob.glob(os.path.join(self.checkpoint_dir, f"**/{_PREFIX}-*"), recursive=True)
        if self._is_new and is_empty and kind is not None and issubclass(kind, ConfigError):
            shutil.rmtree(self.path, ignore_errors=True)  # a refused command leaves nothing that blocks the next one
        self._lock.close()  # the lock goes with the descriptor, also when the process is killed

    def _keep_manifests(self) -> None:
        for name, text in self._manifests.items():
            path = os.path.join(self.path, f"{name}.json")
            if not os.path.exists(path):
                write_atomically(path, text)
            elif _shards(_read(path)) != _shards(text):
                raise ConfigError(f"--{name}: its shards are not those that the run in {self.path} has begun with "
                                  f"({path}); start a new run with another --model_dir.")


def check_same_experiment(path: str, config: ExperimentConfig) -> None:
    """Raises ConfigError naming the flags in which `config` differs from the run in `path`, where there is a run."""
    config_path = os.path.join(path, "config.json")
    if not os.path.exists(config_path):
        return
    begun, wanted = _flag_values(ExperimentConfig.from_json(_read(config_path))), _flag_values(config)
    # A schedule stretches over the run, so its length is part of it.
    fixed = {"num_steps", "num_epochs"} if config.train.schedule != "constant" else set()
    differing = [flag for flag in wanted if wanted[flag] != begun[flag] and flag not in CHANGEABLE - fixed]
    if differing:
        shown = ", ".join(f"--{flag}={_shown(wanted[flag])} (run: {_shown(begun[flag])})" for flag in differing)
        raise ConfigError(f"{path} holds a run with other settings: {shown}. Go on with the run's settings, or start a "
                          "new run with another --model_dir.")


def _flag_values(config: ExperimentConfig) -> dict:
    sections = {"model": config.model, "graph": config.model.graph, "data": config.data, "train": config.train}
    return {field.flag: getattr(sections[field.section], field.field) for field in FIELDS}


def _shown(value) -> str:
    return "-".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _shards(manifest: str):
    return json.loads(manifest).get("shards")


def _take_lock(path: str):
    lock = open(os.path.join(path, "lock"), "a+", encoding="utf-8")  # noqa: SIM115 - held as long as the run
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigError(f"{path}: another trainer works in this folder (process {holder}); wait for it, stop it, or "
                          "give another --model_dir.") from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def write_atomically(path: str, text: str) -> None:
    """The file holds the whole text or, whatever happens, what it held before."""
    temporary = f"{path}.tmp-{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def sweep_stale(directory: str) -> list[str]:
    """Removes what an interrupted save left, and returns the names removed.

    That is: temporary files, and parts of checkpoints that the state file does not name. Without a state file nothing
    but temporary files goes: the checkpoints may have been put there by hand.
    """
    state = tf.train.get_checkpoint_state(directory)
    kept = {os.path.basename(path) for path in state.all_model_checkpoint_paths} if state else None
    removed = []
    for name in sorted(os.listdir(directory)):
        match = re.fullmatch(rf"({_PREFIX}-\d+)\.(index|data-\d+-of-\d+)", name)
        temporary = re.match(rf"{_PREFIX}-\d+_temp|checkpoint\.tmp|.*\.tmp-\d+$", name)
        if temporary or (match and kept is not None and match.group(1) not in kept):
            path = os.path.join(directory, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
            removed.append(name)
    return removed


class Checkpoints:
    """Saves and restores everything that the next step depends on: weights, statistics, slots, step, averages."""

    def __init__(self, folder: RunFolder, *, model, optimizer, average: WeightAverage | None, keep: int):
        self._step = optimizer.iterations
        parts = {"model": model, "average": average} if average else {"model": model}
        self._checkpoint = tf.train.Checkpoint(optimizer=optimizer, **parts)
        self._manager = tf.train.CheckpointManager(self._checkpoint, folder.checkpoint_dir, max_to_keep=keep,
                                                   checkpoint_name=_PREFIX)
        self._top1 = tf.Variable(-1.0, trainable=False)
        self._best = tf.train.CheckpointManager(tf.train.Checkpoint(top1=self._top1, **parts), folder.best_dir,
                                                max_to_keep=1, checkpoint_name=_PREFIX)
        self._present: set[str] = set()  # written or read by this process, so known to be whole
        self._variables = [*model.variables, *optimizer_variables(optimizer), *(average.values if average else ())]

    def restore(self, say: Callable[[str], None] = print) -> int | None:
        """Everything from the newest checkpoint that can be read; returns its step, or None where there is none.

        Raises ConfigError when there are checkpoints but none can be read.
        """
        prefixes = list(reversed(self._manager.checkpoints))
        for prefix in prefixes:
            try:
                status = self._checkpoint.restore(prefix)
                status.assert_consumed()
                self._present.add(prefix)
                return int(self._step.numpy())
            except _UNREADABLE as error:
                say(f"{prefix} cannot be restored ({_first_line(error)}); trying the one before it.")
        if prefixes:
            raise ConfigError(f"none of the {len(prefixes)} checkpoints in {os.path.dirname(prefixes[0])} can be "
                              "restored: move the folder away to start anew.")
        return None

    def save(self) -> str:
        """Writes the checkpoint of the present step and returns its path; nothing when it is there already.

        Raises CheckpointError when a value is not finite or when the disk refuses; the one before it stays whole.
        """
        return self._save(self._manager, int(self._step.numpy()))

    def save_best(self, top1: float) -> bool:
        """Keeps the present weights in best/ if `top1`, a share, is above the best so far; returns whether it was."""
        if top1 <= self.best_top1():
            return False
        self._top1.assign(top1)
        self._save(self._best, int(self._step.numpy()))
        return True

    def best_top1(self) -> float:
        """Top-1 accuracy of the best checkpoint, a share; -1 where there is none."""
        if not self._best.latest_checkpoint:
            return -1.0
        reader = tf.train.load_checkpoint(self._best.latest_checkpoint)
        return float(reader.get_tensor("top1/.ATTRIBUTES/VARIABLE_VALUE"))

    def _save(self, manager: tf.train.CheckpointManager, step: int) -> str:
        prefix = os.path.join(manager.directory, f"{_PREFIX}-{step}")
        if prefix in self._present:
            return prefix
        faults = [variable.name for variable in self._variables if not np.isfinite(_float_values(variable)).all()]
        if faults:
            raise CheckpointError(f"step {step}: not saved, because these variables hold NaN or Inf: "
                                  f"{', '.join(faults[:5])}{' …' if len(faults) > 5 else ''}.")
        try:
            manager.save(checkpoint_number=step)
            _to_disk([*glob.glob(f"{prefix}.*"), os.path.join(manager.directory, "checkpoint"), manager.directory])
        except (tf.errors.OpError, OSError) as error:
            sweep_stale(manager.directory)  # free what the half checkpoint takes
            before = [path for path in manager.checkpoints if path != prefix and os.path.exists(f"{path}.index")]
            raise CheckpointError(f"step {step}: the checkpoint could not be written to {manager.directory} "
                                  f"({_first_line(error)}); the last good one is {before[-1] if before else 'none'}."
                                  ) from error
        self._present.add(prefix)
        return prefix


def _float_values(variable) -> np.ndarray:
    values = np.asarray(tf.convert_to_tensor(variable))
    return values if values.dtype.kind == "f" else np.zeros(0, np.float32)


def _to_disk(paths: Sequence[str]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"\{\{.*?\}\} | ?\[Op:\w+\]", "", line)  # without TensorFlow's names of graph nodes


@dataclasses.dataclass(frozen=True)
class _Found:
    step: int
    prefix: str


def _find(run_dir: str, checkpoint: str | None) -> _Found:
    """The newest checkpoint, the one of a step ('1200' or 'ckpt-1200'), or 'best'."""
    directory = os.path.join(run_dir, "checkpoints")
    present = _complete(directory)
    best = _complete(os.path.join(directory, "best"))
    if checkpoint == "best" and best:
        return best[-1]
    wanted = re.fullmatch(rf"(?:{_PREFIX}-)?(\d+)", checkpoint or "")
    matching = [found for found in present if checkpoint is None or (wanted and found.step == int(wanted.group(1)))]
    if not matching:
        there = ", ".join([f"{found.step}" for found in present] + [f"best ({found.step})" for found in best])
        raise ConfigError(f"--checkpoint={checkpoint or 'newest'}: not in {directory}; there are: {there or 'none'}.")
    return matching[-1]


def _complete(directory: str) -> list[_Found]:
    """Checkpoints in order of their steps; one whose index is there has all of its parts."""
    found = [_Found(int(match.group(1)), os.path.join(directory, match.group(0)[:-len(".index")]))
             for match in (re.fullmatch(rf"{_PREFIX}-(\d+)\.index", name) for name in _names(directory)) if match]
    return sorted(found, key=lambda entry: entry.step)


def _names(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []


def restore_for_inference(model, run_dir: str, checkpoint: str | None = None) -> int:
    """Loads the weights of a run into `model`, averaged ones where the run keeps an average, and returns their step.

    `checkpoint`: None for the newest, a step ('1200'), or 'best'. Raises ConfigError, with what is there, when there is
    no such checkpoint or when it does not fit the model.
    """
    found = _find(run_dir, checkpoint)
    try:
        averaged = any(name.startswith("average/") for name, _ in tf.train.list_variables(found.prefix))
        average = WeightAverage(model.trainable_variables, momentum=0.0) if averaged else None
        parts = {"model": model, "average": average} if average else {"model": model}
        reader = tf.train.Checkpoint(**parts)
        reader.read(found.prefix).assert_existing_objects_matched().expect_partial()
    except _UNREADABLE as error:
        raise ConfigError(f"{found.prefix} is damaged or does not fit this model: {_first_line(error)}") from error
    if average is not None:
        average.swap(model.trainable_variables)
    return found.step
