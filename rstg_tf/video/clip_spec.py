"""Frames -> the clip that a model sees: which frames, what size, what crop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from rstg_tf.common.errors import VideoError

# TensorFlow is imported where it is needed: a wrong folder or flag is answered at once.

STORED_SHORT_SIDE = 256  # at which records hold real video, and models are evaluated unless their run says otherwise


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


def frames_used_as_stored(*, image_format: str, stored_size: tuple[int | None, int | None],
                          model_size: tuple[int, int]) -> bool:
    """Whether a model sees the frames (height, width in pixels) of a data set as they are, none resized or cropped.

    Drawn frames (PNG, lossless) are made at the model's size. Those of real video (JPEG) are resized to the short side
    and cropped, unless all of them have the model's size anyway.
    """
    return image_format == "PNG" or tuple(stored_size) == tuple(model_size)


def centre_crop(frame_height: int, frame_width: int, *, height: int, width: int, channels: int,
                short_side: int | None = None) -> CropWindow:
    """What evaluation sees of frames of this size: the centre, `height`×`width` pixels, after a bicubic resize.

    `short_side`: of the run (--short_side); more where the crop would not fit. None: frames that have the model's size
    are taken as they are, others resized to 256 for a colour model, and refused by VideoError for a grey one, since
    its clips, SyncMNIST's, are never resized.
    """
    smaller = min(frame_height, frame_width)
    if short_side is None and (frame_height, frame_width) == (height, width):
        return CropWindow(short_side=smaller, top=0, left=0)
    if channels == 1 and short_side is None:
        raise VideoError(f"the frames are {frame_width}×{frame_height} pixels: expected {width}×{height}, since the "
                         "model was made for grey clips, whose frames are never resized. If yours show what its own "
                         f"did, bring them to that size first (ffmpeg -i FILE -vf scale={width}:{height} NEW.mp4).")
    covering = math.ceil(smaller * max(height / frame_height, width / frame_width) - 1e-9)
    short_side = max(short_side or STORED_SHORT_SIDE, covering)
    resized_height, resized_width = resized_size(frame_height, frame_width, short_side)
    return CropWindow(short_side=short_side, top=(resized_height - height) // 2, left=(resized_width - width) // 2)


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) in pixels after the resize to a short side."""
    from rstg_tf.video.transforms import short_side_size

    return short_side_size(height, width, short_side)


def model_clip(frames: Sequence[np.ndarray], *, num_frames: int, height: int, width: int, channels: int,
               short_side: int | None = None) -> np.ndarray:
    """The clip that a model sees of these frames, as evaluation makes it: uint8 [T, H, W, C].

    Of the D given frames uint8 [h, w, C'] (a list or an array), T at linspace(0, D-1, T) truncated, so a single frame
    is repeated; each resized and cropped as `centre_crop` tells; grey or RGB as the model has it.
    """
    from rstg_tf.video.transforms import frame_indices, resize_and_crop

    chosen = np.stack([frames[index] for index in frame_indices(len(frames), num_frames=num_frames).numpy()])
    chosen = with_channels(chosen, channels)
    window = centre_crop(*chosen.shape[1:3], height=height, width=width, channels=channels, short_side=short_side)
    return resize_and_crop(chosen, short_side=window.short_side, top=window.top, left=window.left, crop_height=height,
                           crop_width=width).numpy()


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """The clips that a served model takes, and how encoded frames become such a clip.

    num_frames, height, width, channels: T, H, W (pixels), C. short_side: in pixels, to which frames are resized
    (bicubic) before the centre is cut out; None: they must have the model's size.
    """

    num_frames: int
    height: int
    width: int
    channels: int
    short_side: int | None = None

    @property
    def shape(self) -> list[int | None]:
        return [None, self.num_frames, self.height, self.width, self.channels]
