"""Video on standard input, as a source of frames like any other."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rstg_tf.common.errors import VideoError
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits
from rstg_tf.video.sources import RAW_CHANNELS, FrameSource, open_source, raw_source


@contextlib.contextmanager
def standard_input_source(
    *,
    raw_size: tuple[int, int] | None,
    raw_pixels: str,
    read_twice: bool,
    limits: MediaLimits = DEFAULT_LIMITS,
    opens: Callable[[str], FrameSource] = open_source,
) -> Iterator[FrameSource]:
    """Standard input as a source, kept in a temporary file where it is needed twice or whole.

    Bare frames that are read once are read as they come, so that a camera's stream is answered window by window; a
    video file often has to be read from its end first.

    Args:
      raw_size: width and height in pixels of bare frames, one after another; None: a whole video file.
      raw_pixels: a key of RAW_CHANNELS, what a pixel of bare frames consists of.
      read_twice: whether the frames are asked for more than once.
      limits: what is refused of bare frames by their size.
      opens: makes a source of a video file's path.

    Raises VideoError for a file that is no video.
    """
    stream = sys.stdin.buffer
    if raw_size is not None:
        width, height = raw_size
        limits.require_size(height, width, named="--raw_size:", what="frames are")
        with tempfile.TemporaryFile() as kept:
            if read_twice and not stream.seekable():
                shutil.copyfileobj(stream, kept)
                kept.seek(0)
                stream = kept
            yield raw_source(
                stream, height=height, width=width, channels=RAW_CHANNELS[raw_pixels], name="standard input"
            )
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "standard_input"))
        with open(path, "wb") as kept:
            shutil.copyfileobj(stream, kept)
        try:
            source = opens(path)
        except VideoError as error:
            raise VideoError(str(error).replace(path, "standard input")) from error
        yield dataclasses.replace(source, name="standard input")
