"""Frames -> a video file that browsers play, through scikit-video's writer; whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from rstg_tf.common.errors import VideoError
from rstg_tf.common.files import sync_path
from rstg_tf.video.decoding import probe
from rstg_tf.video.probing import require_ffmpeg
from rstg_tf.video.skvideo_io import _writer_class

# H.264 in the only layout of colours that browsers decode; faststart: it begins to play before all of it is there.
ENCODING = {"-c:v": "libx264", "-pix_fmt": "yuv420p", "-crf": "20", "-movflags": "+faststart"}
LARGEST_DENOMINATOR = 1001  # of a frame rate: 29.97… is 30000/1001


def write_video(path: str, frames: Iterable[np.ndarray], *, frames_per_second: float, num_frames: int) -> None:
    """Writes `num_frames` frames, uint8 [H, W, 3] with even sides, to `path`, which ends in .mp4.

    Raises VideoError, leaving what was at `path`, if there are more or fewer frames, or the encoder fails.
    """
    require_ffmpeg()
    folder, name = os.path.split(os.path.abspath(path))
    building = os.path.join(folder, f".{name}.tmp-{os.getpid()}.mp4")
    try:
        written = _encode(building, frames, frames_per_second=frames_per_second, name=path)
        if written != num_frames:
            raise VideoError(f"{path}: got {written} frames, expected {num_frames}: has the source been changed?")
        found = probe(building).declared_frames
        if found != num_frames:
            raise VideoError(f"{path}: ffmpeg wrote {found} of {num_frames} frames: expected all.")
        sync_path(building)
        os.replace(building, path)
        sync_path(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(building)


def _encode(building: str, frames: Iterable[np.ndarray], *, frames_per_second: float, name: str) -> int:
    """Writes the file and returns how many frames it was given."""
    rate = Fraction(frames_per_second).limit_denominator(LARGEST_DENOMINATOR)
    count, writer = 0, _writer_class()(building, inputdict={"-r": str(rate)}, outputdict=dict(ENCODING))
    try:
        for frame in frames:
            if not writer.write(frame):
                break
            count += 1
        code, messages = writer.finish()
    finally:
        writer.close()
    if code:
        why = f" ({messages[-1]})" if messages else ""
        raise VideoError(f"{name}: ffmpeg could not write it{why}; is the disk full, or has ffmpeg been built without "
                         "libx264 (ffmpeg -encoders lists what it has)?")
    return count


