"""Records of videos that differ in length and size, as the conversion tools write them, for the tests of reading."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from tiny_clips import write_shards

from datasets.records.sequence_examples import encode_clip

CLASSES = (
    "pushing something from left to right",
    "pushing something from right to left",
    "holding something",
    "turning left",
)


def picture(height, width, *, seed=0):
    """A smooth picture, uint8 [H, W, 3]: a few blobs of colour without edges, as in photographs, and a slope."""
    small = np.random.default_rng(seed).integers(40, 216, (5, 7, 3), np.uint8)
    blobs = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))
    return np.clip(blobs + np.linspace(-30, 30, width)[None, :, None], 0, 255).astype(np.uint8)


def video(number, *, num_frames, height, width):
    """uint8 [T, H, W, 3]: frame t is the video's picture, darkened by 2 t."""
    still = picture(height, width, seed=number).astype(int)
    return np.stack([np.clip(still - 2 * t, 0, 255) for t in range(num_frames)]).astype(np.uint8)


def jpeg_bytes(frame, quality=90):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def pillow_frames(encoded):
    """The pixels of encoded frames as Pillow decodes them, uint8 [T, H, W, 3]."""
    return np.stack([np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")) for frame in encoded])


def write_videos(directory, sizes, *, labels=None, **changes):
    """A data set of one video per (frames, height, width) in two shards; returns (manifest, encoded frames of each)."""
    encoded = [
        [jpeg_bytes(frame) for frame in video(number, num_frames=length, height=height, width=width)]
        for number, (length, height, width) in enumerate(sizes)
    ]
    labels = labels or [number % len(CLASSES) for number in range(len(sizes))]
    records = [
        encode_clip(
            frames=frames,
            label=label,
            label_name=CLASSES[label],
            media_id=f"video-{number}",
            image_format="JPEG",
            timestamps=range(0, 40_000 * len(frames), 40_000),
        )
        for number, (frames, label) in enumerate(zip(encoded, labels))
    ]
    fields = dict(num_frames=None, height=None, width=None, channels=3, image_format="JPEG", classes=CLASSES)
    half = len(records) // 2
    return write_shards(directory, [records[:half], records[half:]], **{**fields, **changes}), encoded
