"""What the commands that write shards share: whether a shard is as it was, notes that survive a crash, processes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from datasets.records.manifest import ShardInfo
from rstg_tf.common.files import hash_file

SECONDS_BETWEEN_LOOKS = 2.0
KEPT = "finished shards are kept: give the same command again"


def is_intact(directory: Path, shard: ShardInfo) -> bool:
    """Whether the shard's file is there with the size and SHA-256 that it was finished with."""
    path = directory / shard.file
    return path.is_file() and hash_file(path) == (shard.bytes, shard.sha256)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names the settings of `now` that `before` lacks or has otherwise, for a message; empty if there are none."""
    return ", ".join(
        f"{key} ({before.get(key)} there, {value} now)"
        for key, value in now.items()
        if key not in before or before[key] != value
    )


def _follow_parent(memory: int | None) -> None:
    """For a process of `in_processes`: leaves Ctrl-C to its parent, and ends when that is gone, even killed.

    `memory`: bytes of data that it can have at most, so that what a hostile file makes a decoder reserve fails here.
    """
    if memory is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        with contextlib.suppress(ValueError, OSError):  # the system has a lower limit, or none of this kind
            resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def in_processes(
    function: Callable[..., Any],
    tasks: Iterable[tuple],
    *,
    num_processes: int,
    tasks_at_a_time: int | None = None,
    memory: int | None = None,
) -> Iterator[Any]:
    """`function(*task)` of every task, in order; in other processes if there are several.

    With `tasks_at_a_time` no more than so many results exist at once, however slowly they are taken. `memory`: bytes
    that each of the other processes can take. Raises OSError if one of them was ended, or crashed.
    """
    tasks = iter(tasks)
    if num_processes <= 1:
        yield from (function(*task) for task in tasks)
        return
    # joblib's processes import only the modules that they need: not TensorFlow, nor the program that calls this.
    with joblib.parallel_config(
        backend="loky", idle_worker_timeout=30, initializer=functools.partial(_follow_parent, memory)
    ):
        parallel = joblib.Parallel(n_jobs=num_processes, return_as="generator", max_nbytes=None, batch_size=1)
    while True:
        some = list(itertools.islice(tasks, tasks_at_a_time)) if tasks_at_a_time else tasks
        if not some:
            return
        results = parallel(joblib.delayed(function)(*task) for task in some)
        try:
            for result in results:  # noqa: UP028 - `yield from` would close them itself, with the warning
                yield result
        except TerminatedWorkerError:
            raise OSError(
                "a process was ended while it read or drew: by the system for want of memory, or because a decoder "
                "crashed on a file; give --num_processes=1 to see at which."
            ) from None
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of the work that was in vain, when we are stopped
                results.close()
        if tasks_at_a_time is None:
            return
