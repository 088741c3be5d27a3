"""What contradicts the manifest, or sense, in the records of a shard: a sentence for each fault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasets.records.manifest import DatasetError, Manifest, ShardInfo
from datasets.records.sequence_examples import decode_clip
from datasets.records.shards import hash_fault, read_records, size_fault


def first_fault(directory: Path, manifest: Manifest) -> str | None:
    """The first fault by shard and record, or None. Shards that have their SHA-256 are read only if all of them do."""
    for shard in manifest.shards:
        if not os.access(directory / shard.file, os.R_OK):
            return size_fault(directory, shard)
    changed = [shard for shard in manifest.shards if hash_fault(directory, shard)]
    for shard in changed or manifest.shards:
        for outcome in shard_outcomes(directory, shard, manifest, {}):
            if outcome:
                return outcome
    return None


def shard_outcomes(directory: Path, shard: ShardInfo, manifest: Manifest, seen: dict[str, str]) -> Iterator[str | None]:
    """None for each record that is as it should be, and each fault as a sentence.

    Args:
      seen: media id -> where it was met first, of the shards read so far; gets those of this one.
    """
    read_to = 0
    for number, offset, serialized in read_records(directory / shard.file, shard.records):
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
