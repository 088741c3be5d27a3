"""Which stack a run was begun on, kept in its folder: `stack.json` with the versions of what computes.

Weights cross from one stack to the other; half-finished training does not. The optimisers of Keras 2 and 3 keep other
variables (Keras 2 the rate of the last step, for one), so no checkpoint of theirs fits the other's.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

import numpy as np
import tensorflow as tf

from rstg_tf.common.data_text import read_json
from rstg_tf.common.errors import ConfigError

STACK_FILE = "stack.json"
_BEFORE_RECORDS = {"python": "3.9 – 3.11", "tensorflow": "2.15.1", "keras": "2.15.0"}  # of runs without the file


def present_stack() -> dict[str, str]:
    """{'python': '3.13.0', 'tensorflow': '2.21.0', 'keras': '3.15.1', 'numpy': '2.5.5'}, of this process."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": metadata.version("keras"),
        "numpy": np.__version__,
    }


def check_same_stack(run_dir: Path) -> None:
    """Raises ConfigError where the run in `run_dir` has checkpoints of the other stack, with what to do instead."""
    if not _has_checkpoints(run_dir):
        return
    begun, present = _recorded(run_dir / STACK_FILE), present_stack()
    if _generation(begun) != _generation(present):
        raise ConfigError(
            f"{run_dir} was begun with {_in_words(begun)} and cannot go on with {_in_words(present)}: the state of an "
            "optimiser does not cross from one Keras to the other. Go on with the Python that it was begun with, or "
            f"start a new run from its weights: --restore_dir={run_dir} and another --model_dir. Evaluation, export "
            "and prediction work with both."
        )


def stack_record(run_dir: Path) -> str | None:
    """The text that `stack.json` of this run is to hold; None where the run has gone too far to change it."""
    return None if _has_checkpoints(run_dir) else json.dumps(present_stack(), indent=2) + "\n"


def _recorded(path: Path) -> dict[str, str]:
    if not path.exists():
        return _BEFORE_RECORDS
    try:
        recorded = read_json(path, named=str(path))
        _generation(recorded)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} does not say which Keras the run was begun with ({error}): expected what "
            f"{json.dumps(present_stack())} shows."
        ) from error
    return recorded


def _generation(stack: dict[str, str]) -> int:
    """2 or 3: the Keras whose optimisers wrote the checkpoints."""
    return int(stack["keras"].split(".")[0])


def _in_words(stack: dict[str, str]) -> str:
    return f"Keras {stack['keras']} (TensorFlow {stack.get('tensorflow')}, Python {stack.get('python')})"


def _has_checkpoints(run_dir: Path) -> bool:
    return any(run_dir.glob("checkpoints/ckpt-*.index"))
