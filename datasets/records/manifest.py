"""The manifest of a data set, `dataset.json`: what its clips are, and what each shard was when it was finished.

TFRecord readers say nothing about a shard that is empty or was cut between two records, and name no file when they do
complain. So the maker of a data set writes down each shard's records, bytes and SHA-256, and `RecordedDataset` compares
the shards with them. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rstg_tf.common.data_text import read_json
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import is_plain_name
from rstg_tf.common.files import write_json
from rstg_tf.video.clip_spec import ClipSpec

IMAGE_FORMATS = ("PNG", "JPEG")
MANIFEST_FILE = "dataset.json"
FORMAT_VERSION = 1
SMALLEST_RECORD = 16  # bytes: what frames an empty one
LARGEST_SHARD = 1 << 40  # bytes
# Of a clip. The decoders of its frames read no larger ones.
_LARGEST = {"num_frames": 100_000, "height": 16_384, "width": 16_384}


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
        if not os.path.lexists(path):
            raise DatasetError(
                f"{path} does not exist, so {directory} is not a finished data set: its maker writes {MANIFEST_FILE} "
                "last. Run that command (again) to the end, or name another folder."
            )
        try:
            values = read_json(path, named=MANIFEST_FILE)
        except ConfigError as error:
            raise DatasetError(f"{path} cannot be read: {error} Write the data set again.") from None
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
    require(
        values.get("format_version") == FORMAT_VERSION,
        f"format_version {values.get('format_version')!r}, expected {FORMAT_VERSION}",
    )
    expected = {field.name for field in dataclasses.fields(Manifest)} | {"format_version", "num_clips"}
    require(set(values) == expected, f"missing or unknown keys {sorted(expected ^ set(values))}")
    for key, kind, optional in _MANIFEST_TYPES:
        value = values[key]
        fits = (value is None and optional) or (isinstance(value, kind) and not isinstance(value, bool))
        require(fits, f"{key} is {value!r}, expected {kind.__name__}{' or null' if optional else ''}")
        if kind is int and value is not None:
            largest = _LARGEST.get(key, 2**63 - 1)
            require(value >= 0, f"{key} is {value}, expected no negative number")
            require(value <= largest, f"{key} is {value}, expected at most {largest}")
    require(
        values["image_format"] in IMAGE_FORMATS,
        f"image_format {values['image_format']!r}, expected one of {', '.join(IMAGE_FORMATS)}",
    )
    require(values["channels"] in (1, 3), f"channels {values['channels']}, expected 1 (grey) or 3 (RGB)")
    require(all(isinstance(name, str) for name in values["classes"]), "classes holds something that is not a name")
    shards = tuple(_shard_from_json(shard, require) for shard in values["shards"])
    require(len({shard.file for shard in shards}) == len(shards), "shards names a file twice")
    fields = {**values, "shards": shards, "classes": tuple(values["classes"])}
    manifest = Manifest(**{field.name: fields[field.name] for field in dataclasses.fields(Manifest)})
    require(
        manifest.num_clips == values["num_clips"],
        f"num_clips is {values['num_clips']}, but its shards add up to {manifest.num_clips}",
    )
    return manifest


_MANIFEST_TYPES = (  # key, type, may be null
    ("name", str, False),
    ("split", str, False),
    ("shards", list, False),
    ("num_clips", int, False),
    ("num_frames", int, True),
    ("height", int, True),
    ("width", int, True),
    ("channels", int, False),
    ("image_format", str, False),
    ("classes", list, False),
    ("made_by", dict, False),
)


def _shard_from_json(values: Any, require: Any) -> ShardInfo:
    kinds = {"file": str, "records": int, "bytes": int, "sha256": str}
    require(
        isinstance(values, dict)
        and set(values) == set(kinds)
        and all(isinstance(values[key], kind) and not isinstance(values[key], bool) for key, kind in kinds.items()),
        f"shard {values!r}: expected {', '.join(kinds)}",
    )
    # A path would let a manifest from elsewhere point outside its folder.
    require(is_plain_name(values["file"]), f"shard file {values['file']!r} is not a plain file name")
    require(
        0 <= values["records"] * SMALLEST_RECORD <= values["bytes"] <= LARGEST_SHARD,
        f"shard {values['file']!r} of {values['records']} records in {values['bytes']} bytes: expected at least "
        f"{SMALLEST_RECORD} bytes for each record, and at most {LARGEST_SHARD}",
    )
    require(re.fullmatch("[0-9a-f]{64}", values["sha256"]) is not None, f"shard {values['file']}: no SHA-256")
    return ShardInfo(**values)
