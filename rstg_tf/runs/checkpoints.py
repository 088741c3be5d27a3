"""Checkpoints of a run: what the next step depends on.

A checkpoint appears under its name only when it is whole: TensorFlow writes to temporary names and renames, the index
last. What a kill leaves before that is swept away at the next start, which also lists the checkpoints anew.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import read_bytes
from rstg_tf.common.files import remove, sync_path, write_text
from rstg_tf.common.keras_compat import optimizer_variables
from rstg_tf.runs.checkpoint_gate import check_checkpoint
from rstg_tf.runs.weight_average import WeightAverage

CHECKPOINT_PREFIX = "ckpt"
STATE_FILE = "checkpoint"  # TensorFlow's: which checkpoints there are
LARGEST_STATE = 1 << 20  # bytes of the file `checkpoint`
# What TensorFlow raises for a checkpoint of another model, and for a damaged or shortened file.
_UNREADABLE = (tf.errors.OpError, AssertionError, ValueError, IndexError)


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written. The run stops; the previous checkpoint is whole."""


def check_state_file(directory: Path) -> None:
    """Raises ConfigError if the state file names checkpoints of other folders: they would be aged away with ours."""
    path = directory / STATE_FILE
    if os.path.lexists(path):
        read_bytes(path, named=str(path), limit=LARGEST_STATE)  # before TensorFlow opens it
    plain = re.compile(rf"{CHECKPOINT_PREFIX}-\d+")
    names = [Path(name) for name in _named(directory) or ()]
    elsewhere = [name for name in names if name.parent != directory or not plain.fullmatch(name.name)]
    if elsewhere:
        raise ConfigError(
            f"{path} names {elsewhere[0]}: expected checkpoints {CHECKPOINT_PREFIX}-STEP of this folder alone. Move "
            f"the file `{STATE_FILE}` away, or give another --model_dir."
        )


def list_checkpoints(directory: Path, say: Callable[[str], None] = print) -> None:
    """Writes the state file anew, naming the checkpoints that are there; says so where it was missing or damaged.

    TensorFlow's manager knows only what this file names, and drops names that are older than a clock which was set
    back: then the run would begin anew. So it gets times that any clock is ahead of.
    """
    present, path = _complete(directory), directory / STATE_FILE
    if present:
        if _named(directory) is None:
            say(f"{path} is missing or damaged; it is written anew from the {len(present)} checkpoints beside it.")
        names = [Path(found.prefix).name for found in present]
        lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
        lines += [f"all_model_checkpoint_timestamps: {number}.0" for number in range(1, len(names) + 1)]
        write_text(path, "\n".join(lines) + "\n")
    elif _named(directory) is None:
        path.unlink(missing_ok=True)


def _named(directory: Path) -> list[str] | None:
    """The checkpoints that the state file names, the newest last; None where it is missing or damaged."""
    path = directory / STATE_FILE
    try:
        if not path.exists() or not path.read_text(encoding="utf-8").strip():
            return None
        state = tf.train.get_checkpoint_state(str(directory))
    except (ValueError, tf.errors.OpError):
        return None
    return list(state.all_model_checkpoint_paths) if state else None


def sweep_stale(directory: Path) -> list[str]:
    """Removes what an interrupted save left, and returns the names removed.

    That is: temporary files, and the data of checkpoints without an index, which is what is written last.
    """
    complete = {Path(found.prefix).name for found in _complete(directory)}
    removed = []
    for path in sorted(directory.iterdir()):
        name = path.name
        match = re.fullmatch(rf"({CHECKPOINT_PREFIX}-\d+)\.data-\d+-of-\d+", name)
        temporary = re.match(rf"{CHECKPOINT_PREFIX}-\d+_temp|{STATE_FILE}\.tmp|.*\.tmp-\d+$", name)
        if temporary or (match and match.group(1) not in complete):
            remove(path)
            removed.append(name)
    return removed


class Checkpoints:
    """Saves and restores everything that the next step depends on: weights, statistics, slots, step, averages.

    `folder`: the run's `RunFolder`.
    """

    def __init__(self, folder, *, model, optimizer, average: WeightAverage | None, keep: int):
        self._step = optimizer.iterations
        parts = {"model": model, "average": average} if average else {"model": model}
        self._checkpoint = tf.train.Checkpoint(optimizer=optimizer, **parts)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder.checkpoint_dir), max_to_keep=keep, checkpoint_name=CHECKPOINT_PREFIX
        )
        self._top1 = tf.Variable(-1.0, trainable=False)
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(top1=self._top1, **parts),
            str(folder.best_dir),
            max_to_keep=1,
            checkpoint_name=CHECKPOINT_PREFIX,
        )
        self._best_is_damaged = False
        self._present: set[str] = set()  # written or read by this process, so known to be whole
        self._variables = [*model.weights, *optimizer_variables(optimizer), *(average.values if average else ())]

    def restore(self, say: Callable[[str], None] = print) -> int | None:
        """Everything from the newest checkpoint that can be read; returns its step, or None where there is none.

        Raises ConfigError when there are checkpoints but none can be read.
        """
        prefixes = list(reversed(self._manager.checkpoints))
        for prefix in prefixes:
            try:
                check_checkpoint(prefix)
                status = self._checkpoint.restore(prefix)
                status.assert_consumed()
                self._present.add(prefix)
                return int(self._step.numpy())
            except _UNREADABLE as error:
                say(f"{prefix} cannot be restored ({_first_line(error)}); trying the one before it.")
        if prefixes:
            raise ConfigError(
                f"none of the {len(prefixes)} checkpoints in {Path(prefixes[0]).parent} can be "
                "restored: move the folder away to start anew."
            )
        return None

    def save(self) -> str:
        """Writes the checkpoint of the present step and returns its path; nothing when it is there already.

        Raises CheckpointError when a value is not finite or when the disk refuses; the one before it stays whole.
        """
        return self._save(self._manager, int(self._step.numpy()))

    def save_best(self, top1: float) -> bool:
        """Keeps the present weights in best/ if `top1`, a share, is above the best so far; returns whether it was."""
        if np.float32(top1) <= self.best_top1():  # as it is stored, or the same score would be better than itself
            return False
        self._top1.assign(top1)
        self._save(self._best, int(self._step.numpy()))
        return True

    def best_top1(self) -> float:
        """Top-1 accuracy of the best checkpoint, a share; -1 where there is none, or none that can be read."""
        if not self._best.latest_checkpoint:
            return -1.0
        try:
            check_checkpoint(self._best.latest_checkpoint)
            reader = tf.train.load_checkpoint(self._best.latest_checkpoint)
            return float(reader.get_tensor("top1/.ATTRIBUTES/VARIABLE_VALUE"))
        except _UNREADABLE as error:
            if not self._best_is_damaged:
                print(f"{self._best.latest_checkpoint} is damaged ({_first_line(error)}); the next takes its place.")
            self._best_is_damaged = True
            return -1.0

    def _save(self, manager: tf.train.CheckpointManager, step: int) -> str:
        directory = Path(manager.directory)
        prefix = str(directory / f"{CHECKPOINT_PREFIX}-{step}")
        if prefix in self._present:
            return prefix
        faults = [variable.name for variable in self._variables if not np.isfinite(_float_values(variable)).all()]
        if faults:
            raise CheckpointError(
                f"step {step}: not saved, because these variables hold NaN or Inf: "
                f"{', '.join(faults[:5])}{' …' if len(faults) > 5 else ''}."
            )
        try:
            manager.save(checkpoint_number=step)
            for path in (*directory.glob(f"{CHECKPOINT_PREFIX}-{step}.*"), directory / STATE_FILE, directory):
                sync_path(path)
        except (tf.errors.OpError, OSError) as error:
            _remove_checkpoint(directory, step)  # free what the half checkpoint takes
            before = [path for path in manager.checkpoints if path != prefix and Path(f"{path}.index").exists()]
            raise CheckpointError(
                f"step {step}: the checkpoint could not be written to {directory} "
                f"({_first_line(error)}); the last good one is {before[-1] if before else 'none'}."
            ) from error
        self._present.add(prefix)
        return prefix


def _remove_checkpoint(directory: Path, step: int) -> None:
    """Removes a checkpoint that was not written to its end, the index first, and what TensorFlow left beside it."""
    for path in (directory / f"{CHECKPOINT_PREFIX}-{step}.index", *directory.glob(f"{CHECKPOINT_PREFIX}-{step}.*")):
        path.unlink(missing_ok=True)
    sweep_stale(directory)


def _float_values(variable) -> np.ndarray:
    values = np.asarray(tf.convert_to_tensor(variable))
    return values if values.dtype.kind == "f" else np.zeros(0, np.float32)


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"\{\{.*?\}\} | ?\[Op:\w+\]", "", line)  # without TensorFlow's names of graph nodes


@dataclasses.dataclass(frozen=True)
class _Found:
    step: int
    prefix: str


def _find(run_dir: Path, checkpoint: str | None) -> _Found:
    """The newest checkpoint, the one of a step ('1200' or 'ckpt-1200'), or 'best'."""
    directory = run_dir / "checkpoints"
    present = _complete(directory)
    best = _complete(directory / "best")
    if checkpoint == "best" and best:
        return best[-1]
    wanted = re.fullmatch(rf"(?:{CHECKPOINT_PREFIX}-)?(\d+)", checkpoint or "")
    matching = [found for found in present if checkpoint is None or (wanted and found.step == int(wanted.group(1)))]
    if not matching:
        there = ", ".join([f"{found.step}" for found in present] + [f"best ({found.step})" for found in best])
        raise ConfigError(f"--checkpoint={checkpoint or 'newest'}: not in {directory}; there are: {there or 'none'}.")
    return matching[-1]


def _complete(directory: Path) -> list[_Found]:
    """Checkpoints in order of their steps; one whose index is there has all of its parts."""
    indices = directory.glob(f"{CHECKPOINT_PREFIX}-*.index")
    found = [
        _Found(int(path.stem.partition("-")[2]), str(path.with_suffix("")))
        for path in indices
        if re.fullmatch(rf"{CHECKPOINT_PREFIX}-\d+", path.stem)
    ]
    return sorted(found, key=lambda entry: entry.step)


def restore_for_inference(model, run_dir: str | os.PathLike, checkpoint: str | None = None) -> int:
    """Loads the weights of a run into `model`, averaged ones where the run keeps an average, and returns their step.

    `checkpoint`: None for the newest, a step ('1200'), or 'best'. Raises ConfigError, with what is there, when there is
    no such checkpoint or when it does not fit the model.
    """
    found = _find(Path(run_dir), checkpoint)
    try:
        check_checkpoint(found.prefix)
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
