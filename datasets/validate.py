"""`python -m datasets.validate DIR`: is a data set whole, and if not, which records are touched?

Compares the shards with the manifest, sizes first, then SHA-256, then goes through every record: it must be readable,
decode, have the frames, size, channels and format that the manifest promises, a label that its classes name, increasing
timestamps, finite numbers and a media id of its own. Each fault is a line that names shard, record (from 0) and byte.
After a fault the check goes on where it can: with the next record, or, when a corrupt length hides where that begins,
with the next shard.

Exit code 0: no fault; 1: faults; 2: not a data set. The last line is JSON: {"directory", "clips", "faults"}, the clips
that are as they should be and the number of faults.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.records.dataset import RecordedDataset, record_offsets, size_fault
from datasets.records.manifest import DatasetError, Manifest, ShardInfo
from datasets.records.sequence_examples import decode_clip
from rstg_tf.common.command_line import failed, run_program
from rstg_tf.common.files import hash_file
from rstg_tf.common.progress_bar import Bar


def validate(dataset: RecordedDataset, *, bar: Any = None) -> Iterator[str | None]:
    """Goes through a data set: yields None for each clip that is as it should be, and each fault as a sentence.

    Args:
      bar: tqdm bar that is moved on by a step per shard hashed and per record read; see `num_checks`.
    """
    directory, manifest = dataset.folder, dataset.manifest
    for shard in manifest.shards:
        fault = size_fault(directory, shard)
        if fault:
            yield fault
    readable = [shard for shard in manifest.shards if os.access(directory / shard.file, os.R_OK)]
    for shard in readable:
        fault = _hash_fault(directory, shard)
        _advance(bar, 1)
        if fault:
            yield fault
    seen: dict[str, str] = {}
    for shard in readable:
        for outcome in _validate_shard(directory, shard, manifest, seen):
            _advance(bar, 1)
            yield outcome


def num_checks(manifest: Manifest) -> int:
    """How many steps `validate` takes on a data set without faults."""
    return len(manifest.shards) + manifest.num_clips


def first_fault(dataset: RecordedDataset) -> str | None:
    """The first fault by shard and record, or None. Shards that have their SHA-256 are read only if all of them do."""
    directory, manifest = dataset.folder, dataset.manifest
    for shard in manifest.shards:
        if not os.access(directory / shard.file, os.R_OK):
            return size_fault(directory, shard)
    changed = [shard for shard in manifest.shards if _hash_fault(directory, shard)]
    for shard in changed or manifest.shards:
        for outcome in _validate_shard(directory, shard, manifest, {}):
            if outcome:
                return outcome
    return None


def clip_faults(clip: dict[str, Any], manifest: Manifest) -> list[str]:
    """What contradicts the manifest, or sense, in a clip from `decode_clip`."""
    faults = []
    num_frames, height, width, channels = clip["frames"].shape
    for name, found, expected in (
        ("frames", num_frames, manifest.num_frames),
        ("pixels of height", height, manifest.height),
        ("pixels of width", width, manifest.width),
        ("image format", clip["image_format"], manifest.image_format),
    ):
        if expected is not None and found != expected:
            faults.append(f"{name}: {found}, expected {expected}")
    # Readers convert JPEGs, which cameras and tools store grey now and then; a PNG of ours has the channels we wrote.
    if channels != manifest.channels and not (clip["image_format"] == "JPEG" and channels in (1, 3)):
        faults.append(f"channels: {channels}, expected {manifest.channels}")
    if (height, width) != (clip["height"], clip["width"]):
        faults.append(f"frames of {height}x{width} pixels, declared as {clip['height']}x{clip['width']}")
    if not 0 <= clip["label"] < len(manifest.classes):
        faults.append(f"label {clip['label']}, expected 0 to {len(manifest.classes) - 1}")
    elif clip["label_name"] != manifest.classes[clip["label"]]:
        faults.append(
            f"label {clip['label']} named {clip['label_name']!r}, expected {manifest.classes[clip['label']]!r}"
        )
    if len(clip["timestamps"]) != num_frames:
        faults.append(f"{len(clip['timestamps'])} timestamps for {num_frames} frames")
    elif np.any(np.diff(clip["timestamps"]) <= 0):
        faults.append("timestamps do not increase")
    faults += [
        f"{key} holds a number that is not finite"
        for key, values in clip["extra"].items()
        if isinstance(values, np.ndarray) and not np.all(np.isfinite(values))
    ]
    return faults


def _validate_shard(
    directory: Path, shard: ShardInfo, manifest: Manifest, seen: dict[str, str]
) -> Iterator[str | None]:
    read_to = 0
    for number, offset, serialized in _read_records(directory / shard.file, shard.records):
        where = f"{shard.file}: record {number} (byte {offset})"
        faults = ["corrupt"] if serialized is None else _record_faults(serialized, manifest, where, seen)
        yield from (f"{where}: {fault}." for fault in faults) if faults else (None,)
        read_to = number + 1
    if read_to < shard.records:
        yield f"{shard.file}: records {read_to} to {shard.records - 1} are missing or cannot be reached."
    elif read_to > shard.records:
        yield f"{shard.file}: {read_to} records, expected {shard.records}."


def _record_faults(serialized: bytes, manifest: Manifest, where: str, seen: dict[str, str]) -> list[str]:
    try:
        clip = decode_clip(serialized)
    except DatasetError as error:
        return [str(error)]
    faults = clip_faults(clip, manifest)
    first = seen.setdefault(clip["media_id"], where)
    if first != where:
        faults.append(f"media id {clip['media_id']!r} is that of {first} too")
    return faults


def _read_records(path: Path, expected_records: int) -> Iterator[tuple[int, int, bytes | None]]:
    """(number, byte offset, record, or None where corrupt) as far as the records can be told apart.

    TensorFlow's reader compares the checksums, but ends at the first that is wrong, be it of a record's length or of
    its content. When the content alone is corrupt, the length still tells where the next record begins: that is so if
    all lengths together lead to the end of the file and to the expected number, or if a record is found there.
    """
    offsets, end = record_offsets(path)
    lengths_hold = end == path.stat().st_size and len(offsets) == expected_records
    offsets.append(end)
    number = 0
    for serialized in _sound_records(path):
        yield number, offsets[number], serialized
        number += 1
    while number < len(offsets) - 1:
        serialized = _record_at(path, offsets[number], offsets[number + 1])
        yield number, offsets[number], serialized
        number += 1
        if serialized is None and not lengths_hold:
            is_next_sound = number < len(offsets) - 1 and _record_at(path, offsets[number], offsets[number + 1])
            if not is_next_sound:
                return


def _sound_records(path: str | os.PathLike) -> Iterator[bytes]:
    """The records of a TFRecord file up to the first that is corrupt."""
    import tensorflow as tf

    return tf.data.TFRecordDataset(os.fspath(path)).ignore_errors().prefetch(16).as_numpy_iterator()


def _record_at(path: Path, begin: int, end: int) -> bytes | None:
    """The record in these bytes of a shard, or None if it is corrupt."""
    # The reader starts at the beginning of a file, so the record gets one of its own.
    with open(path, "rb") as shard, tempfile.NamedTemporaryFile() as excerpt:
        shard.seek(begin)
        # A corrupt length may point anywhere, so no more is asked for than there is.
        excerpt.write(shard.read(min(end, path.stat().st_size) - begin))
        excerpt.flush()
        return next(_sound_records(excerpt.name), None)


def _hash_fault(directory: Path, shard: ShardInfo) -> str | None:
    _, digest = hash_file(directory / shard.file)
    if digest != shard.sha256:
        return f"{shard.file}: SHA-256 {digest[:12]}…, expected {shard.sha256[:12]}…: its content has changed."
    return None


def _advance(bar: Any, steps: int) -> None:
    if bar is not None:
        bar.update(steps)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m datasets.validate", description=__doc__.split("\n\n")[0])
    parser.add_argument("directory", help="folder of a data set, with dataset.json and its shards")
    directory = parser.parse_args(arguments).directory
    # TensorFlow's own chatter would bury the faults.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        dataset = RecordedDataset.open(directory)
    except DatasetError as error:
        return failed("datasets.validate", error, code=2)
    clips = faults = 0
    with Bar(total=num_checks(dataset.manifest), desc="validating", unit="check", file=sys.stderr, disable=None) as bar:
        for outcome in validate(dataset, bar=bar):
            if outcome is None:
                clips += 1
            else:
                faults += 1
                Bar.write(outcome, file=sys.stdout)
    print(json.dumps({"directory": str(directory), "clips": clips, "faults": faults}), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    run_program(main, name="datasets.validate", interrupted="the faults above are not all there may be.")
