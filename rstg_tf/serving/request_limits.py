"""What one request may cost a server: counts and sizes, looked at before a picture is decoded. No TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from rstg_tf.common.errors import ConfigError
from rstg_tf.video.clip_spec import ClipSpec

MOST_SCANS = 20  # of a progressive JPEG, whose usual encoders make ten; each costs as much as a small picture
MOST_TEXTS = 4  # compressed texts of a PNG, of which each may take 8 MB and 50 ms
_METADATA = 4096  # bytes of a PNG besides its pixels


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """The largest request of encoded frames that an exported model takes.

    Attributes:
      clips: B, clips of a request, or of several that a server joins.
      frames: D, frames of a clip, of which T are decoded.
      frame_pixels: height · width of a frame; neither side may be more than twice the square root of it.
      png_bytes: of a frame that is a PNG. To see that its compressed data ends with its pixels, it is unpacked piece by
        piece, which takes the longer the larger the file is.
      request_bytes: of all frames together.
    """

    clips: int = 64
    frames: int = 1024
    frame_pixels: int = 3840 * 2160
    png_bytes: int = 2**21
    request_bytes: int = 2**28

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ConfigError(f"--max_{name}={value}: expected at least 1.")

    @property
    def frame_side(self) -> int:
        """The most pixels of a frame's height or width: a strip of one row would cost the resize more than its area."""
        return 2 * math.isqrt(self.frame_pixels)

    def for_clips(self, clip: ClipSpec) -> RequestLimits:
        """These limits, raised where clips of this kind would not fit: frames that are never resized, or many."""
        pixels = clip.height * clip.width
        return dataclasses.replace(
            self,
            frames=max(self.frames, clip.num_frames),
            frame_pixels=max(self.frame_pixels, pixels),
            png_bytes=max(self.png_bytes, 4 * pixels + _METADATA),
        )

    def to_json(self) -> dict[str, Any]:
        """As `export.json` holds them, in numbers."""
        return {**dataclasses.asdict(self), "frame_side": self.frame_side}
