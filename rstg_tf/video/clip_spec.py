"""Frames -> the clip that a model sees: which frames, what size, what crop. No TensorFlow until `clip_from_frames`.

So a wrong folder or flag is answered at once, although the config knows its clips.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.common.limits import LARGEST_SIDE, require_clip

STORED_SHORT_SIDE = 256  # at which records hold real video, and models are evaluated unless their run says otherwise


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """The clips that a model takes, and how frames become one: T of them at even distances, resized, then cropped.

    Args:
      num_frames, height, width, channels: T, H and W in pixels, C (1 grey, 3 RGB).
      short_side: in pixels, to which frames are resized (bicubic) before H×W are cut out of them. None: they are taken
        in the size in which they are stored.

    Example:
      >>> clip = ClipSpec(num_frames=8, height=224, width=224, channels=3, short_side=256)
      >>> clip.shape
      [None, 8, 224, 224, 3]
    """

    num_frames: int
    height: int
    width: int
    channels: int
    short_side: int | None = None

    @property
    def shape(self) -> list[int | None]:
        """[B, T, H, W, C] with B unknown."""
        return [None, self.num_frames, self.height, self.width, self.channels]

    @property
    def frame_size(self) -> tuple[int, int]:
        """H and W in pixels."""
        return self.height, self.width

    def uses_frames_as_stored(self, *, image_format: str, height: int | None, width: int | None) -> bool:
        """Whether the frames of a data set, `height`×`width` pixels (None: of several sizes), are seen as they are.

        Drawn frames (PNG, lossless) are made at the model's size. Those of real video (JPEG) are resized to the short
        side and cropped, unless all of them have the model's size anyway.
        """
        return image_format == "PNG" or (height, width) == self.frame_size

    def to_json(self) -> dict[str, int | None]:
        """As `export.json` holds it; `from_json` is the inverse."""
        return {
            "frames": self.num_frames,
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "short_side": self.short_side,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ClipSpec:
        """From the values that `to_json` gives, as files of runs and exports hold them.

        Raises ConfigError for values that make no clip.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"the clip is given as {type(values).__name__}; expected its sizes by name.")
        sizes = {}
        for name in ("frames", "height", "width", "channels", "short_side"):
            value, largest = values.get(name), 3 if name == "channels" else LARGEST_SIDE
            fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest
            if not fits and not (name == "short_side" and value is None):
                raise ConfigError(
                    f"the clip's {name} is {str(value)[:40]}; expected a whole number from 1 to {largest}."
                )
            sizes[name] = value
        if sizes["channels"] == 2:
            raise ConfigError("the clip's channels is 2; expected 1 (grey) or 3 (RGB).")
        require_clip(sizes["frames"], sizes["height"], sizes["width"])
        return cls(num_frames=sizes.pop("frames"), **sizes)


@dataclasses.dataclass(frozen=True)
class CropWindow:
    """The part of a frame that the model sees, in pixels after the resize to `short_side`."""

    short_side: int
    top: int
    left: int


def with_channels(frames: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [..., H, W, C'] -> [..., H, W, C], C' and C 1 or 3: grey three times, or luma as Pillow's 'L' (BT.601).

    Luma = (19595 R + 38470 G + 7471 B + 2^15) / 2^16, truncated: grey that was stored as RGB comes back as it was.
    """
    if frames.shape[-1] == channels:
        return frames
    if channels == 3:
        return np.repeat(frames, 3, axis=-1)
    luma = frames.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((luma + 2**15) >> 16).astype(np.uint8)[..., None]


def centre_crop(frame_height: int, frame_width: int, clip: ClipSpec) -> CropWindow:
    """What evaluation sees of frames of this size in pixels: the centre, after a bicubic resize.

    The resize is to the clip's short side, or more where the crop would not fit. Where that is None, frames of the
    clip's size are taken as they are; others are resized to 256 for a colour model, and refused by VideoError for a
    grey one, since its clips, SyncMNIST's, are never resized.
    """
    smaller = min(frame_height, frame_width)
    if clip.short_side is None and (frame_height, frame_width) == clip.frame_size:
        return CropWindow(short_side=smaller, top=0, left=0)
    if clip.channels == 1 and clip.short_side is None:
        size = f"{clip.width}×{clip.height}"
        raise VideoError(
            f"the frames are {frame_width}×{frame_height} pixels: expected {size}, since the model was "
            "made for grey clips, whose frames are never resized. If yours show what its own did, bring "
            f"them to that size first (ffmpeg -i FILE -vf scale={clip.width}:{clip.height} NEW.mp4)."
        )
    covering = math.ceil(smaller * max(clip.height / frame_height, clip.width / frame_width) - 1e-9)
    short_side = max(clip.short_side or STORED_SHORT_SIDE, covering)
    height, width = resized_size(frame_height, frame_width, short_side)
    return CropWindow(short_side=short_side, top=(height - clip.height) // 2, left=(width - clip.width) // 2)


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) in pixels after the resize to a short side."""
    from rstg_tf.video.transforms import short_side_size

    return short_side_size(height, width, short_side)


def clip_from_frames(frames: Sequence[np.ndarray], clip: ClipSpec) -> np.ndarray:
    """The clip that a model sees of these frames, as evaluation makes it: uint8 [T, H, W, C].

    Of the D given frames uint8 [h, w, C'] (a list or an array), T at linspace(0, D-1, T) truncated, so a single frame
    is repeated; each resized and cropped as `centre_crop` tells; grey or RGB as the model has it.
    """
    from rstg_tf.video.transforms import frame_indices, resize_and_crop

    indices = frame_indices(len(frames), num_frames=clip.num_frames).numpy()
    chosen = with_channels(np.stack([frames[index] for index in indices]), clip.channels)
    window = centre_crop(*chosen.shape[1:3], clip)
    return resize_and_crop(
        chosen,
        short_side=window.short_side,
        top=window.top,
        left=window.left,
        crop_height=clip.height,
        crop_width=clip.width,
    ).numpy()
