"""Where weights lie that a command was pointed at: in a run, in one checkpoint of a run, or in a TF1 checkpoint.

Needs no TensorFlow until something is read, so that a wrong path is answered at once.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import read_bytes
from rstg_tf.runs.checkpoint_gate import check_checkpoint
from rstg_tf.runs.run import CONFIG_FILE, Run, open_run

_STATE_FILE = "checkpoint"  # TensorFlow's, which names the newest checkpoint of a folder
LARGEST_STATE = 1 << 20  # bytes of it
_FILE_ENDING = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # only tf.train.Checkpoint writes this variable


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A place that holds weights: a checkpoint of our `run`, or (run is None) the TF1 checkpoint `prefix`."""

    path: str
    run: Run | None = None
    prefix: str = ""

    def describe(self) -> str:
        """'the run runs/demo, best checkpoint', or 'the TF1 checkpoint DIR/model_12.ckpt'."""
        if self.run is not None:
            return f"the run {self.run.path}, {self.run.checkpoint or 'newest'} checkpoint"
        return f"the TF1 checkpoint {self.prefix}"


def find_weights(path: str) -> WeightFile:
    """What `path` is: the folder of a run (its newest checkpoint is meant), a checkpoint in one
    (RUN/checkpoints/ckpt-STEP, RUN/checkpoints/best), a TF1 checkpoint's prefix or one of its files, or a folder with
    one.

    Raises ConfigError saying what was looked for and what is there.
    """
    plain = Path(_FILE_ENDING.sub("", path))
    owner = owning_run(plain)
    if owner is not None:
        return WeightFile(path, run=open_run(*owner))
    if (plain / CONFIG_FILE).is_file():
        return WeightFile(path, run=open_run(plain))
    return WeightFile(path, prefix=checkpoint_prefix(path))


def weights_to_restore(path: str) -> WeightFile:
    """`find_weights` for --restore_dir, whose name stands in the errors."""
    try:
        return find_weights(path)
    except ConfigError as error:
        raise ConfigError(f"--restore_dir={path}: {error}") from error


def owning_run(path: str | os.PathLike) -> tuple[Path, str] | None:
    """(folder of the run, checkpoint) if `path` is RUN/checkpoints, …/ckpt-7, …/best or …/best/ckpt-7; else None."""
    parts = Path(os.path.abspath(path)).parts  # without "..", which absolute() keeps
    for depth in (1, 2, 3):
        run, rest = Path(*parts[:-depth]), parts[-depth:]
        if rest[0] == "checkpoints" and (run / CONFIG_FILE).is_file():
            as_given = Path(os.path.normpath(Path(path, *[os.pardir] * depth)))
            return as_given, rest[1] if rest[1:] else ""
    return None


def checkpoint_prefix(path: str) -> str:
    """The prefix of the TF1 checkpoint that `path` names: a prefix, one of its files, or a folder.

    In a folder it is the one that the file `checkpoint` names, also where the folder has been moved since; without that
    file the only one there. Raises ConfigError for anything else.
    """
    folder = Path(path)
    if not folder.is_dir():
        prefix = _FILE_ENDING.sub("", path)
        if Path(f"{prefix}.index").is_file():
            return prefix
        raise ConfigError(
            f"{path}: no checkpoint there; expected the folder of a run, a checkpoint in one, a prefix "
            "PREFIX with PREFIX.index beside it, or a folder with such a checkpoint."
        )
    present = sorted(index.name.removesuffix(".index") for index in folder.glob("*.index"))
    named = _named_by_state_file(folder)
    if named is not None and named.name in present:
        return str(folder / named.name)
    if named is None and len(present) == 1:
        return str(folder / present[0])
    shown = f"{', '.join(present[:5])}{' …' if len(present) > 5 else ''}" or "none"
    why = f"its file `{_STATE_FILE}` names {named}, which is not there" if named else f"it has no file `{_STATE_FILE}`"
    raise ConfigError(
        f"{path}: no checkpoint there; it is no run (no {CONFIG_FILE}), and {why}; checkpoints in it: "
        f"{shown}. Give the prefix of one."
    )


def _named_by_state_file(folder: Path) -> Path | None:
    path = folder / _STATE_FILE
    if not path.is_file():
        return None
    text = read_bytes(path, named=str(path), limit=LARGEST_STATE).decode("utf-8", "replace")
    match = re.search(r'^model_checkpoint_path: *"(.*)"', text, re.MULTILINE)
    return folder / match.group(1) if match else None


def read_shapes(prefix: str) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Name -> (shape, dtype) of every variable of a TF1 checkpoint. Raises ConfigError as `read_variables` does."""
    shapes, dtypes, _ = _open(prefix)
    return {name: (tuple(shape), np.dtype(dtypes[name].as_numpy_dtype)) for name, shape in sorted(shapes.items())}


def read_variables(prefix: str, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """Name -> value of the variables whose names are `wanted`.

    Raises ConfigError for a damaged file, and for a checkpoint of ours that has lost its run's config.json.
    """
    shapes, _, reader = _open(prefix)
    try:
        return {name: reader.get_tensor(name) for name in shapes if wanted(name)}
    except _read_errors() as error:
        raise _unreadable(prefix, error) from error


def _open(prefix: str):
    import tensorflow as tf

    try:
        check_checkpoint(prefix)
        reader = tf.train.load_checkpoint(prefix)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    except _read_errors() as error:
        raise _unreadable(prefix, error) from error
    if _OBJECT_GRAPH in shapes:
        raise ConfigError(
            f"{prefix} was written by tf.train.Checkpoint, and no {CONFIG_FILE} says which model; "
            "give the folder of the run that it belongs to."
        )
    return shapes, dtypes, reader


def _read_errors() -> tuple[type[Exception], ...]:
    import tensorflow as tf

    return (tf.errors.OpError, ValueError, IndexError, RuntimeError)


def _unreadable(prefix: str, error: Exception) -> ConfigError:
    return ConfigError(f"{prefix} cannot be read as a checkpoint: {(str(error).splitlines() or [''])[0]}")
