"""Files and folders that appear whole or not at all. No TensorFlow.

Each is made under a temporary name beside its place, `.NAME.tmp-HOST-PROCESS`, forced to the disk and renamed. What a
killed process of this machine left is removed by the next one that writes in the same folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def is_left_by_system(name: str) -> bool:
    """Whether a file or folder of this name was left by an operating system or an archiver rather than by its user."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


@contextlib.contextmanager
def whole_path(path: str | os.PathLike, *, suffix: str = "") -> Iterator[Path]:
    """Gives a temporary path for one file; what lies there at the end takes the place of `path`.

    The old file stays until then, and stays if writing fails: then nothing new is left. `suffix`: an ending that the
    writer goes by, such as '.mp4'.

    Example:
        with whole_path("result.npz", suffix=".npz") as building:
            np.savez(building, logits=logits)
    """
    path = Path(path).absolute()
    remove_abandoned(path.parent, path.name)
    building = Path(f"{temporary_path(path)}{suffix}")
    try:
        yield building
        sync_path(building)
        os.replace(building, path)
        sync_path(path.parent)  # the new name itself is only safe once the folder is on the disk
    finally:
        building.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, mode: str = "w", **options: Any) -> Iterator[IO]:
    """`whole_path`, opened: a UTF-8 text file, or with mode 'wb' one of bytes. `options`: of `open`."""
    options = options if "b" in mode else {"encoding": "utf-8", **options}
    with whole_path(path) as building:
        # A name that exists, be it a link, is refused: nobody else's file can be written through it.
        with open(building, mode, opener=_exclusively, **options) as file:
            yield file


def write_text(path: str | os.PathLike, text: str) -> None:
    """The file holds the whole text or, whatever happens, what it held before; line ends stay as they are."""
    with whole_file(path, newline="") as file:
        file.write(text)


def write_json(path: str | os.PathLike, values: Any, **options: Any) -> None:
    """`write_text` of values that JSON knows. `options`: of `json.dumps`."""
    write_text(path, json.dumps(values, **options) + "\n")


@contextlib.contextmanager
def whole_folder(directory: str | os.PathLike) -> Iterator[Path]:
    """Gives an empty folder to fill; at the end it is forced to the disk and takes `directory`'s place.

    The old one stays until then, and stays if filling fails.
    """
    directory = Path(directory).absolute()
    remove_abandoned(directory.parent, directory.name)
    building = temporary_path(directory)
    building.mkdir(parents=True)
    old = building.with_name(f"{building.name}-old")
    try:
        yield building
        sync_folder(building)
        if directory.exists():
            directory.rename(old)
        building.rename(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_abandoned(directory: Path, name: str | None = None) -> list[str]:
    """Removes what processes of this machine that are gone left under temporary names; returns the names removed.

    `name`: only what was to become this file or folder.
    """
    removed = []
    wanted = r".+" if name is None else re.escape(name)
    pattern = re.compile(rf"\.{wanted}\.tmp-{re.escape(socket.gethostname())}-(\d+)(\D.*)?")
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name) if directory.is_dir() else ():
        match = pattern.fullmatch(entry.name)
        if match and not is_running(int(match.group(1))):
            remove(entry.path)
            removed.append(entry.name)
    return removed


def is_running(process: int) -> bool:
    """Whether another process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's
    return process != os.getpid()


def remove(path: str | os.PathLike) -> None:
    """Removes a file, a link (not what it points to) or a folder with all that is in it."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_LEFT_BY_SYSTEMS = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "__macosx",
        "@eadir",
        "icon\r",
        "$recycle.bin",
        "system volume information",
    }
)


def folder_name(text: str) -> str:
    """Any text as the name of a folder: 'a b/c.mp4' -> 'a_b_c.mp4'."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "unnamed"


def hash_file(path: str | os.PathLike) -> tuple[int, str]:
    """Size in bytes and SHA-256 (hex) of a file."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def sync_folder(path: str | os.PathLike) -> None:
    """Forces every file and folder under `path`, and `path` itself, to the disk: after that it may be renamed."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in [*files, os.curdir]:
            sync_path(Path(folder, name))


def sync_path(path: str | os.PathLike) -> None:
    """Forces a file's content, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_path(path: Path) -> Path:
    """The name beside `path` under which this process makes it."""
    return path.with_name(f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}")


def _exclusively(path: str, flags: int) -> int:
    """Opens a new file: a name that is taken, by a link too, is an error. What this process left itself goes."""
    Path(path).unlink(missing_ok=True)
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW, 0o666)
