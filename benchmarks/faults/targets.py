"""What a fuzzer gives bytes to: a target, and the files that hold an input where a gate takes files."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_IN_MEMORY = "/dev/shm"  # writing an input to a disk takes longer than reading it


class Target(NamedTuple):
    """`take`: what is fuzzed; `refusals`: what it may raise; `seeds`: right inputs to begin from, made when called."""

    take: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]


@functools.lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="rstg-fuzz-", dir=_IN_MEMORY if os.path.isdir(_IN_MEMORY) else None)


def file_of(content: bytes, name: str) -> Path:
    """A file of this name (which may be in a folder of its own, DIR/NAME) with this content; gone with the process."""
    path = Path(_folder().name, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
