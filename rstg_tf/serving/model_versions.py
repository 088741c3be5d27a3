"""BASE/1, BASE/2, …: folders that a server watches. A version is there whole or not at all, and never changes."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path

from rstg_tf.common.errors import ConfigError, is_full_disk
from rstg_tf.common.files import remove_abandoned, sync_path, temporary_path
from rstg_tf.serving.foreign_models import check_saved_model

LARGEST_VERSION = 2**63 - 1  # a server ignores folders whose number is no int64


class VersionError(ConfigError):
    """A model cannot be published as this version."""


def check_target(base: str, version: int | None = None) -> None:
    """Makes the folder `base`. Raises ConfigError if no model can be published there, VersionError if not this one."""
    if version is not None:
        _check_version(base, version)
    try:
        Path(base).mkdir(parents=True, exist_ok=True)
        for folder in (Path(building_folder(base)), Path(base, f".writable-{os.getpid()}")):
            folder.mkdir()
            folder.rmdir()
    except OSError as error:
        if is_full_disk(error):
            raise
        raise ConfigError(
            f"the folder for exports, {base}, cannot be written ({error.strerror}: {error.filename}): "
            "give another, or make it writable."
        ) from error


def _check_version(base: str, version: int) -> None:
    if not 0 <= version <= LARGEST_VERSION:
        raise VersionError(f"version {version}: expected an integer from 0 to {LARGEST_VERSION}.")
    path = Path(base, str(version))
    if path.exists():
        raise VersionError(f"{path} exists, and a published version never changes; give another, or none for the next.")


def _next_version(base: str) -> int:
    return 1 + max((int(path.name) for path in Path(base).iterdir() if path.name.isdecimal()), default=0)


def building_folder(base: str) -> str:
    """A new hidden name beside `base`, or inside it where its parent is another file system or closed to us."""
    target = Path(base).absolute()
    if target.parent.stat().st_dev != target.stat().st_dev or not os.access(target.parent, os.W_OK | os.X_OK):
        target = target / target.name
    remove_abandoned(target.parent, target.name)
    return str(temporary_path(target))


def load_signatures(folder: str, *, trust: bool = False):
    """The signatures of a SavedModel, by name; without TensorFlow's warnings that they cannot be differentiated.

    Raises ConfigError as `check_saved_model` does, before anything of it is loaded. `trust`: see there.
    """
    found = check_saved_model(folder, trust=trust)
    if found:
        print(f"{folder} is trusted although it holds {'; '.join(found)}.", file=sys.stderr)
    import tensorflow as tf

    def is_other(record: logging.LogRecord) -> bool:
        return "unsaved custom gradients" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(is_other)
    try:
        return tf.saved_model.load(folder).signatures
    finally:
        logger.removeFilter(is_other)


def publish(building: str, base: str, version: int | None = None) -> str:
    """Renames `building` to `base`/<version>/, the next integer if None, and returns that path; no server sees less.

    Raises VersionError if the version exists.
    """
    while True:
        target = str(Path(base, str(_next_version(base) if version is None else version)))
        try:
            os.rename(building, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            if version is not None:
                _check_version(base, version)  # refused: another export was faster
            continue
        sync_path(base)
        return target
