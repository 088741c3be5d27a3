"""How much of a picture or video is taken from files of others: looked at before and while they are decoded."""

from __future__ import annotations

import dataclasses
import math
import os
import stat

from absl import flags as absl_flags

from rstg_tf.common.errors import VideoError

_LARGEST_PICTURE = 2 * 89_478_485  # pixels; beyond them Pillow refuses by itself


@dataclasses.dataclass(frozen=True)
class MediaLimits:
    """The largest pictures and videos that are read. Every attribute is a flag, --max_NAME.

    Attributes:
      frame_pixels: height · width of a picture or frame; neither side may be more than twice the square root of it.
      video_frames: frames of a video, a folder or an array.
      video_pixels: pixels of all its frames together.
      picture_bytes: of the file of one picture.
      stall_seconds: of reading and decoding without a frame coming out.
    """

    frame_pixels: int = 8192 * 8192
    video_frames: int = 1_000_000
    video_pixels: int = 10**12
    picture_bytes: int = 2**28
    stall_seconds: float = 30.0

    @property
    def frame_side(self) -> int:
        """The most pixels of a height or width: what resizes a strip of one row holds far more than the strip."""
        return 2 * math.isqrt(self.frame_pixels)

    def require_size(self, height: int, width: int, *, named: str, what: str = "is") -> None:
        """Raises VideoError, beginning with `named`, for a picture or frame that is too large."""
        if height * width > self.frame_pixels:
            raise VideoError(
                f"{named} {what} {width}×{height} pixels: expected at most {self.frame_pixels} in all "
                "(--max_frame_pixels)."
            )
        if max(height, width) > self.frame_side:
            raise VideoError(
                f"{named} {what} {width}×{height} pixels: expected no side longer than {self.frame_side}, twice the "
                f"square root of --max_frame_pixels={self.frame_pixels}."
            )

    def require_length(self, frames: int, pixels: int, *, named: str, what: str = "holds") -> None:
        """Raises VideoError, beginning with `named`, for a video of too many frames, or of too many pixels in all."""
        if frames > self.video_frames:
            raise VideoError(
                f"{named} {what} {frames} frames: expected at most {self.video_frames} (--max_video_frames)."
            )
        if pixels > self.video_pixels:
            raise VideoError(
                f"{named} {what} {frames} frames of {pixels} pixels in all: expected at most {self.video_pixels} "
                "(--max_video_pixels)."
            )


DEFAULT_LIMITS = MediaLimits()

_FLAGS = {
    "frame_pixels": "height times width of a picture or frame; no side may exceed twice the square root of it",
    "video_frames": "frames of a video",
    "video_pixels": "pixels of all frames of a video",
    "picture_bytes": "bytes of the file of one picture",
}


def define_limit_flags(flags: absl_flags.FlagValues) -> None:
    """The flags of `limits_from_flags`."""
    for name, what in _FLAGS.items():
        most = _LARGEST_PICTURE if name == "frame_pixels" else None
        absl_flags.DEFINE_integer(
            f"max_{name}",
            getattr(DEFAULT_LIMITS, name),
            f"at most so many {what}",
            lower_bound=1,
            upper_bound=most,
            flag_values=flags,
        )
    absl_flags.DEFINE_float(
        "max_stall_seconds",
        DEFAULT_LIMITS.stall_seconds,
        "seconds of reading a video without a frame coming out before it is given up",
        lower_bound=0.1,
        flag_values=flags,
    )


def limits_from_flags(flags: absl_flags.FlagValues) -> MediaLimits:
    """The limits that a command line gives."""
    return MediaLimits(**{name: flags[f"max_{name}"].value for name in (*_FLAGS, "stall_seconds")})


def require_regular(path: str | os.PathLike, *, named: str) -> int:
    """The bytes of a file. Raises VideoError for what is none: a pipe or a device would be waited for without end."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoError(f"{named} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{named} is no file but a pipe, a device or a folder; expected a file.")
    return status.st_size
