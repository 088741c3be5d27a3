"""The manifest of a data set, `dataset.json`, and the quick comparison of the shards with it.

TFRecord readers say nothing about a shard that is empty or was cut between two records, and name no file when they do
complain. So the maker of a data set writes down each shard's records, bytes and SHA-256, and nothing reads shards that
don't match. This module needs no TensorFlow: its checks answer at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rstg_tf.common.files import write_json
from rstg_tf.video.clip_spec import ClipSpec

IMAGE_FORMATS = ("PNG", "JPEG")
MANIFEST_FILE = "dataset.json"
FORMAT_VERSION = 1
# A TFRecord is: length (8 bytes, little endian), its checksum (4), the record, its checksum (4).
RECORD_HEADER_BYTES = 12
RECORD_FRAME_BYTES = 16


class DatasetError(ValueError):
    """Data that cannot be used: the message names folder, shard, record or clip, and what was expected of it."""


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One shard as it was when it was finished: file name in the data set's folder, records, bytes, SHA-256 (hex)."""

    file: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `dataset.json` says about a data set.

    `num_frames`, `height` and `width` (pixels) are None where clips differ. `classes[i]` is the name of label i.
    `made_by` holds the command and settings that made the data set, for the reader's eyes.
    """

    name: str
    split: str
    shards: tuple[ShardInfo, ...]
    num_frames: int | None
    height: int | None
    width: int | None
    channels: int
    image_format: str
    classes: tuple[str, ...]
    made_by: Mapping[str, Any]

    @property
    def num_clips(self) -> int:
        return sum(shard.records for shard in self.shards)

    @property
    def clip_spec(self) -> ClipSpec:
        """The clips as they are stored. Raises DatasetError where they differ in length or size."""
        for differ, values in (("length", [self.num_frames]), ("size", [self.height, self.width])):
            if None in values:
                raise DatasetError(f"the clips of {self.name} differ in {differ}: say which clips to make of them.")
        return ClipSpec(num_frames=self.num_frames, height=self.height, width=self.width, channels=self.channels)

    @classmethod
    def read(cls, directory: str | os.PathLike) -> Manifest:
        """Reads `directory/dataset.json`; raises DatasetError if it is missing, torn, or contradicts itself."""
        path = Path(directory) / MANIFEST_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise DatasetError(
                f"{path} does not exist, so {directory} is not a finished data set: its maker writes {MANIFEST_FILE} "
                "last. Run that command (again) to the end, or name another folder.") from None
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read ({error}): write the data set again.") from None
        return _manifest_from_json(values, path)

    def write(self, directory: str | os.PathLike) -> None:
        """Writes `directory/dataset.json` so that a crash leaves the old file or the new one, never a part."""
        values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self), "num_clips": self.num_clips}
        _manifest_from_json(json.loads(json.dumps(values)), Path(directory) / MANIFEST_FILE)
        write_json(Path(directory) / MANIFEST_FILE, values, indent=1)


def shard_file(name: str, index: int, num_shards: int) -> str:
    """The file name of shard `index` (from 0), e.g. `train-00000-of-00008.tfrecord`."""
    return f"{name}-{index:05d}-of-{num_shards:05d}.tfrecord"


def _manifest_from_json(values: Any, path: Path) -> Manifest:
    def require(condition: bool, message: str) -> None:
        if not condition:
            raise DatasetError(f"{path}: {message}. Write the data set again.")

    require(isinstance(values, dict), "expected a JSON object")
    require(values.get("format_version") == FORMAT_VERSION,
            f"format_version {values.get('format_version')!r}, expected {FORMAT_VERSION}")
    expected = {field.name for field in dataclasses.fields(Manifest)} | {"format_version", "num_clips"}
    require(set(values) == expected, f"missing or unknown keys {sorted(expected ^ set(values))}")
    for key, kind, optional in _MANIFEST_TYPES:
        value = values[key]
        fits = (value is None and optional) or (isinstance(value, kind) and not isinstance(value, bool))
        require(fits, f"{key} is {value!r}, expected {kind.__name__}{' or null' if optional else ''}")
        require(kind is not int or value is None or value >= 0, f"{key} is {value}, expected no negative number")
    require(values["image_format"] in IMAGE_FORMATS, f"image_format {values['image_format']!r}, expected one of "
                                                     f"{', '.join(IMAGE_FORMATS)}")
    require(values["channels"] in (1, 3), f"channels {values['channels']}, expected 1 (grey) or 3 (RGB)")
    require(all(isinstance(name, str) for name in values["classes"]), "classes holds something that is not a name")
    shards = tuple(_shard_from_json(shard, require) for shard in values["shards"])
    require(len({shard.file for shard in shards}) == len(shards), "shards names a file twice")
    fields = {**values, "shards": shards, "classes": tuple(values["classes"])}
    manifest = Manifest(**{field.name: fields[field.name] for field in dataclasses.fields(Manifest)})
    require(manifest.num_clips == values["num_clips"],
            f"num_clips is {values['num_clips']}, but its shards add up to {manifest.num_clips}")
    return manifest


_MANIFEST_TYPES = (  # key, type, may be null
    ("name", str, False), ("split", str, False), ("shards", list, False), ("num_clips", int, False),
    ("num_frames", int, True), ("height", int, True), ("width", int, True), ("channels", int, False),
    ("image_format", str, False), ("classes", list, False), ("made_by", dict, False))


def _shard_from_json(values: Any, require: Any) -> ShardInfo:
    kinds = {"file": str, "records": int, "bytes": int, "sha256": str}
    require(isinstance(values, dict) and set(values) == set(kinds)
            and all(isinstance(values[key], kind) for key, kind in kinds.items()),
            f"shard {values!r}: expected {', '.join(kinds)}")
    # A path would let a manifest from elsewhere point outside its folder.
    require(Path(values["file"]).name == values["file"], f"shard file {values['file']!r} is not a plain file name")
    require(values["records"] >= 0 and values["bytes"] >= 0, f"shard {values['file']}: negative records or bytes")
    require(re.fullmatch("[0-9a-f]{64}", values["sha256"]) is not None, f"shard {values['file']}: no SHA-256")
    return ShardInfo(**values)


def check_shards(directory: str | os.PathLike, manifest: Manifest, *, count_seconds: float = 3.0) -> None:
    """Compares the shards with the manifest without reading their content; made to run before step 0.

    Existence and size of every shard are always compared (TFRecord readers say nothing about a shard that is empty or
    was cut between two records). The records are counted by their length fields for at most `count_seconds`, so that a
    slow disk doesn't hold up the start; `datasets.pipeline` counts each shard again as it reads it.

    Raises:
      DatasetError: with a line per fault, or if there is no clip at all.
    """
    directory = Path(directory)
    faults = []
    for shard in manifest.shards:
        fault = size_fault(directory, shard)
        if fault:
            faults.append(fault)
    deadline = time.monotonic() + count_seconds
    for shard in manifest.shards if not faults else ():
        if time.monotonic() > deadline:
            break
        fault = count_fault(directory, shard)
        if fault:
            faults.append(fault)
    if not faults and manifest.num_clips == 0:
        faults.append("the manifest lists no clip")
    if faults:
        raise DatasetError(
            f"{directory}: {len(faults)} of {len(manifest.shards)} shards disagree with {MANIFEST_FILE}. Copy or write "
            "them again; `python -m datasets.validate` tells which records are touched.\n" + "\n".join(faults))


def size_fault(directory: Path, shard: ShardInfo) -> str | None:
    """What is wrong with the existence or size of the shard's file, or None."""
    try:
        with open(directory / shard.file, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return f"{shard.file}: cannot be opened ({error.strerror}); expected {shard.bytes} bytes."
    if size != shard.bytes:
        return f"{shard.file}: {size} bytes, expected {shard.bytes} ({shard.records} records)."
    return None


def count_fault(directory: Path, shard: ShardInfo) -> str | None:
    """What is wrong with the number of records as their length fields tell it, or None."""
    offsets, end = record_offsets(directory / shard.file)
    if end != shard.bytes:
        return (f"{shard.file}: record {len(offsets) - 1} at byte {offsets[-1]} does not end with the file "
                f"({shard.bytes} bytes): a length field is corrupt.")
    if len(offsets) != shard.records:
        return f"{shard.file}: {len(offsets)} records, expected {shard.records}."
    return None


def record_offsets(path: str | os.PathLike) -> tuple[list[int], int]:
    """The byte offset of every record, by the length fields, and where the last one ends (elsewhere than the file, if
    a length is corrupt)."""
    offsets, position = [], 0
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while position < size:
            offsets.append(position)
            header = os.pread(file.fileno(), RECORD_HEADER_BYTES, position)
            length = int.from_bytes(header[:8], "little") if len(header) == RECORD_HEADER_BYTES else size
            position += RECORD_FRAME_BYTES + length
    return offsets, position


