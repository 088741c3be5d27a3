"""Folders of frames and the data set made of them, for the tests of writing."""

from __future__ import annotations

from tiny_videos import moving_frames, write_frames

from datasets.videos.sources import VideoSource
from datasets.videos.writing import write_videos

CLASSES = ("left", "right")


def frame_sources(folder, num_videos=9):
    """Folders 0, 1, … of 3, 4, 5, 3, … JPEG frames, of the classes 0, 1, 0, …"""
    for number in range(num_videos):
        write_frames(folder / str(number), moving_frames(num_frames=3 + number % 3, seed=number))
    return [VideoSource(str(number), str(folder / str(number)), number % 2) for number in range(num_videos)]


def write(sources, out_dir, **changes):
    arguments = dict(
        classes=CLASSES,
        name="tiny",
        split="train",
        made_by={"command": "test"},
        videos_per_shard=2,
        num_processes=1,
        show_progress=False,
    )
    return write_videos(sources=sources, out_dir=out_dir, **{**arguments, **changes})


def contents(out_dir):
    return {path.name: path.read_bytes() for path in out_dir.iterdir() if path.is_file()}
