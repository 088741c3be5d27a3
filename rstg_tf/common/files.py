"""Folders of results: one that appears whole or not at all, and names for those within."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def folder_name(text: str) -> str:
    """Any text as the name of a folder: 'a b/c.mp4' -> 'a_b_c.mp4'."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "unnamed"


@contextlib.contextmanager
def whole_folder(directory: str) -> Iterator[str]:
    """Gives the path of an empty folder to fill; at the end it is forced to the disk and takes `directory`'s place.

    The old one stays until then, and stays if filling fails. What earlier, killed attempts left is removed.
    """
    building = f"{directory}.tmp-{os.getpid()}"
    for stale in glob.glob(f"{glob.escape(directory)}.tmp-*"):
        shutil.rmtree(stale)
    os.makedirs(building)
    try:
        yield building
        sync_folder(building)
        old = f"{building}-old"
        if os.path.exists(directory):
            os.rename(directory, old)
        os.rename(building, directory)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def hash_file(path: str | os.PathLike, *, sync: bool = False) -> tuple[int, str]:
    """Size in bytes and SHA-256 (hex) of a file; with `sync` it is forced to the disk first."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb+" if sync else "rb") as file:
        if sync:
            os.fsync(file.fileno())
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def rename_durably(temporary: Path, path: Path) -> None:
    """Gives a finished file its name such that a power cut leaves either the old file or the new one."""
    os.replace(temporary, path)
    # The new name itself is only safe once the folder is on the disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json_durably(path: Path, values: Any) -> None:
    """`write_text_durably` of values that JSON knows."""
    write_text_durably(path, json.dumps(values))


def write_text_durably(path: Path, text: str) -> None:
    """Writes `path` so that a crash, or another machine that does the same, leaves one whole file or the other."""
    temporary = path.with_name(f"{_temporary_prefix()}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        rename_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(directory: Path) -> None:
    """Removes the temporary files that processes of this machine left when they were killed in `write_text_durably`."""
    for temporary in directory.glob(f"{_temporary_prefix()}*"):
        process = temporary.name[len(_temporary_prefix()):].partition("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            temporary.unlink(missing_ok=True)
        except (ValueError, OSError):
            continue


def _temporary_prefix() -> str:
    return f".tmp-{os.uname().nodename}-"


def write_atomically(path: str, text: str) -> None:
    """The file holds the whole text or, whatever happens, what it held before."""
    temporary = f"{path}.tmp-{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_text(path: str | os.PathLike) -> str:
    """The whole UTF-8 file."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def sync_paths(paths: Sequence[str]) -> None:
    """`sync_path` of each."""
    for path in paths:
        sync_path(path)


def sync_folder(path: str | os.PathLike) -> None:
    """Forces every file and folder under `path`, and `path` itself, to the disk: after that it may be renamed."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in [*files, os.curdir]:
            sync_path(os.path.join(folder, name))


def sync_path(path: str | os.PathLike) -> None:
    """Forces a file's content, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
