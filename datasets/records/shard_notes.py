"""The folder in which several machines write one data set: a note beside each finished shard, locks, rejected.csv.

shard_notes/settings.json             what the data set is made by; a folder with other settings is refused
shard_notes/SHARD.json                the shard's size and SHA-256, and the videos rejected from it
shard_notes/worker-W-of-W.lock        while that worker writes
rejected.csv                          media_id, path, reason: sorted, from all notes
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.records.manifest import MANIFEST_FILE, ShardInfo, shard_file
from datasets.records.parallel_shards import changed_settings, is_intact
from rstg_tf.common.data_text import read_json
from rstg_tf.common.errors import ConfigError, is_full_disk
from rstg_tf.common.file_gate import open_own
from rstg_tf.common.files import remove_abandoned, write_json, write_text
from rstg_tf.common.shown import csv_text
from rstg_tf.common.text import readable_name

REJECTED_FILE = "rejected.csv"
NOTES_FOLDER = "shard_notes"
_SETTINGS_FILE = "settings.json"


class TooManyRejectedError(Exception):
    """More videos are rejected than --max_bad_fraction allows, so there is no data set (but all finished shards)."""


class NotedFolder:
    """The folder of a data set in the making: shards, notes, settings, locks.

    Attributes: `path`; `settings` that the data set is made by; `shard_files`, the names of all its shards.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], num_shards: int):
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self.shard_files = [shard_file(settings["name"], shard, num_shards) for shard in range(num_shards)]
        self._notes = path / NOTES_FOLDER

    @contextlib.contextmanager
    def opened(self, worker_index: int, num_workers: int) -> Iterator[None]:
        """Makes the folder or refuses what is in it, and keeps others of this machine from writing the same shards."""
        settings_file = self._notes / _SETTINGS_FILE
        if settings_file.exists():
            noted = read_json(settings_file, named=str(settings_file))
            changed = changed_settings(noted, self.settings)
            videos = {key: self.settings.get(key) for key in ("num_videos", "num_shards", "videos_sha256")}
            if changed and not changed_settings({**noted, **videos}, self.settings):
                raise ConfigError(
                    f"--out_dir={self.path} was begun for other videos: some were added, removed or renamed since, or "
                    f"their classes changed ({changed}). Delete the folder, or name another."
                )
            if changed:
                raise ConfigError(
                    f"--out_dir={self.path} holds a data set of other settings: {changed}. Name another "
                    "folder, or delete this one."
                )
        elif any(self.path.glob("*.tfrecord")) or (self.path / MANIFEST_FILE).exists():
            raise ConfigError(f"--out_dir={self.path} holds shards of unknown origin: name a new folder.")
        try:
            self._notes.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_full_disk(error):
                raise
            raise ConfigError(f"--out_dir={self.path}: cannot be made ({error.strerror}).") from None
        with contextlib.ExitStack() as locks:
            mine = self._notes / f"worker-{worker_index}-of-{num_workers}.lock"
            for path in {mine, *self._notes.glob("*.lock")}:
                # Machines that share the work in other numbers would write the same shards.
                if path == mine or not path.stem.endswith(f"-of-{num_workers}"):
                    self._lock(locks.enter_context(open_own(path, named=f"--out_dir: {path}")))
            for directory in (self.path, self._notes):
                remove_abandoned(directory)
            write_json(settings_file, self.settings)
            yield
            mine.unlink(missing_ok=True)

    def _lock(self, file: Any) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--out_dir={self.path}: another command is writing these shards ({file.name} is "
                "locked): wait for it, or give each its own --worker_index."
            ) from None
        except OSError:
            return  # a shared folder without locks; the shards' names still go to one machine each

    def write_note(self, file: str, note: Mapping[str, Any]) -> None:
        """Writes down that a shard is finished: `shard` (ShardInfo's fields), `rejected` and what the caller adds."""
        write_json(self._notes / f"{file}.json", note)

    def notes(self, files: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The notes that are there, by the shard's file."""
        paths = {file: self._notes / f"{file}.json" for file in files}
        return {file: _read_note(path) for file, path in paths.items() if path.exists()}

    def forget(self, files: Iterable[str]) -> None:
        """Before these shards are written again: until then the data set counts as unfinished."""
        for file in files:
            (self._notes / f"{file}.json").unlink(missing_ok=True)
            (self.path / MANIFEST_FILE).unlink(missing_ok=True)

    def is_current(self, note: Mapping[str, Any]) -> bool:
        """Whether a shard is as it was finished, and no video rejected from it has been mended since."""
        return is_intact(self.path, ShardInfo(**note["shard"])) and all(
            stamp(rejected["path"]) == rejected["stamp"] for rejected in note["rejected"]
        )

    def report_rejected(self, allowed: float) -> None:
        """Writes what is rejected so far to rejected.csv; raises TooManyRejectedError if it is more than `allowed`."""
        notes = self.notes(self.shard_files)
        rows = sorted(
            (rejected["media_id"], readable_name(rejected["path"]), rejected["reason"])
            for note in notes.values()
            for rejected in note["rejected"]
        )
        write_text(self.path / REJECTED_FILE, csv_text([("media_id", "path", "reason"), *rows]))
        if len(rows) > allowed:
            (self.path / MANIFEST_FILE).unlink(missing_ok=True)  # of an earlier command that allowed more
            total, so_far = self.settings["num_videos"], "" if len(notes) == len(self.shard_files) else " so far"
            raise TooManyRejectedError(
                f"{len(rows)} of {total} videos are rejected{so_far}, and --max_bad_fraction allows {int(allowed)}: "
                f"{rows[0][0]} ({rows[0][2].rstrip('.')}) and all others are in {self.path / REJECTED_FILE}. Mend "
                "them, or give the command again with a larger --max_bad_fraction; finished shards are kept."
            )


def _read_note(path: Path) -> dict[str, Any]:
    note = read_json(path, named=str(path), any_names=True)  # `path` of a rejected video
    try:
        ShardInfo(**note["shard"])
        texts = [rejected[key] for rejected in note["rejected"] for key in ("media_id", "path", "reason")]
        stamps = [rejected["stamp"] for rejected in note["rejected"]]
    except (TypeError, KeyError) as error:
        raise ConfigError(
            f"{path}: is no note of a shard ({error}): remove it, and the shard is written again."
        ) from None
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(found, (list, type(None))) for found in stamps
    ):
        raise ConfigError(f"{path}: is no note of a shard: remove it, and the shard is written again.")
    return note


def stamp(path: str) -> list[int] | None:
    """Size and time of the last change of what lies at `path`, None if nothing does."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
