"""The gate for files that people hand over: regular ones of a size that makes sense, and names that stay in a folder.

A FIFO or a device where a file is expected would hang whoever opens it; a file without end would fill the memory; a
name with a separator in it would leave its folder. No TensorFlow.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, TextIO

from rstg_tf.common.errors import ConfigError

LARGEST_FILE = 64 << 20  # bytes of a list, label file, configuration or manifest
LARGEST_NAME = 255  # bytes: what file systems take


def open_regular(path: str | os.PathLike, *, named: str) -> BinaryIO:
    """The file, opened for reading bytes.

    Raises ConfigError, beginning with `named`, if it cannot be opened or is no regular file.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened: opening a device may do something
            raise ConfigError(f"{named}: is {_kind(os.stat(path).st_mode)}; expected a regular file.")
        # What has been put in its place since must not block either.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ConfigError(f"{named}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{named}: is no regular file.")
    return open(descriptor, "rb")


def open_own(path: str | os.PathLike, *, named: str) -> TextIO:
    """A file of a folder that may be another's, a lock say, opened for reading and writing, and made if there is none.

    Raises ConfigError, beginning with `named`, for a link, through which another file would be written, for a FIFO,
    which would never open, and for what cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise ConfigError(f"{named} cannot be opened as a file of its own ({error.strerror}): remove it.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{named} is no regular file: remove it.")
    return open(descriptor, "r+", encoding="utf-8")


def read_bytes(path: str | os.PathLike, *, named: str, limit: int = LARGEST_FILE) -> bytes:
    """The content of a regular file of at most `limit` bytes, none for the null device, which stands for an empty file.

    Raises ConfigError, beginning with `named`, for anything else.
    """
    if os.fspath(path) == os.devnull:
        return b""
    with open_regular(path, named=named) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(limit + 1) if size <= limit else b""
        except OSError as error:
            raise ConfigError(f"{named}: cannot be read ({error.strerror}).") from None
    if size > limit or len(content) > limit:
        raise ConfigError(f"{named}: has {max(size, len(content))} bytes or more; expected at most {limit}.")
    return content


def is_plain_name(name: str) -> bool:
    """Whether a name that a file brings stays in its folder: no separator, '..', zero byte, and not hidden."""
    return (
        0 < len(os.fsencode(name)) <= LARGEST_NAME
        and not name.startswith(".")
        and not any(letter in name for letter in "/\\\0")
    )


def require_inside(folder: str | os.PathLike, *, named: str) -> None:
    """Raises ConfigError, beginning with `named`, if anything under a folder is a link that leads out of it, or is
    neither file nor folder."""
    root = Path(folder).resolve()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            target = path.resolve()
            if root not in target.parents and target != root:
                raise ConfigError(
                    f"{named}: {path} is a link to {target}, outside of the folder; expected files in it."
                )
            if target.exists() and not (target.is_file() or target.is_dir()):
                raise ConfigError(f"{named}: {path} is {_kind(target.stat().st_mode)}; expected a regular file.")


def _kind(mode: int) -> str:
    kinds = (("a folder", stat.S_ISDIR), ("a FIFO", stat.S_ISFIFO), ("a socket", stat.S_ISSOCK))
    return next((name for name, is_kind in kinds if is_kind(mode)), "a device")
