"""A tiny data set for the tests of records, pipeline and validation: every pixel of a clip tells which clip it is."""

from __future__ import annotations

import numpy as np

from datasets.records.manifest import Manifest, shard_file
from datasets.records.sequence_examples import ShardWriter, encode_clip

CLASSES = ("left", "right", "up")


def clip_frames(index, *, num_frames=3, height=4, width=6, channels=1):
    """uint8 [T, H, W, C]: pixel (t, row, column, c) of clip i holds i + 10 t + 2 row + 3 column + c."""
    t, row, column, c = np.ogrid[:num_frames, :height, :width, :channels]
    return (index + 10 * t + 2 * row + 3 * column + c).astype(np.uint8)


def tiny_record(index, **changes):
    """Clip `index`, serialized; `changes` replace arguments of `encode_clip`."""
    arguments = dict(
        frames=clip_frames(index),
        label=index % 3,
        label_name=CLASSES[index % 3],
        media_id=f"clip-{index}",
        image_format="PNG",
        timestamps=[0, 40_000, 80_000],
    )
    return encode_clip(**{**arguments, **changes})


def write_shards(directory, shards, **changes):
    """Writes lists of serialized clips, one per shard, and a manifest (with `changes` to its fields); returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    infos = []
    for number, records in enumerate(shards):
        with ShardWriter(directory / shard_file("train", number, len(shards))) as shard:
            for record in records:
                shard.write(record)
        infos.append(shard.info)
    fields = dict(
        name="tiny",
        split="train",
        shards=tuple(infos),
        num_frames=3,
        height=4,
        width=6,
        channels=1,
        image_format="PNG",
        classes=CLASSES,
        made_by={"seed": 1},
    )
    manifest = Manifest(**{**fields, **changes})
    manifest.write(directory)
    return manifest


def write_tiny_dataset(directory, *, records_per_shard=(7, 1, 5, 10)):
    """Clips 0, 1, 2… in shards of unequal length; returns the manifest."""
    numbers = iter(range(sum(records_per_shard)))
    return write_shards(directory, [[tiny_record(next(numbers)) for _ in range(count)] for count in records_per_shard])


def flip_bit(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(bytes(content))
