"""Draws SyncMNIST clips from digit images and positions, many frames at once; NumPy and Pillow only.

A group of F frames lies in memory as [row, frame, column]. In that order the two passes of Pillow's bilinear resize
are two calls for the whole group: the pixel rows of all frames are the rows of one tall image, and after the first
pass the frames stand side by side in one wide image. Both passes compute what `Image.resize` computes on one frame.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

DIGIT_SIZE = 28
INK = 10  # digit pixels from this value on replace the canvas; fainter ones are transparent

_CLIPS_PER_GROUP = 8  # 80 frames of 100×100 are 0.8 MB: small enough for a level-2 cache


def draw_clips(
    *,
    digit_images: np.ndarray,
    positions: np.ndarray,
    canvas: int,
    frame_size: int,
    noise_images: np.ndarray | None = None,
    noise_positions: np.ndarray | None = None,
    noise_size: int = 8,
    digits_in_front: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the frames, uint8 [B,T,frame_size,frame_size].

    On an empty canvas first the noise parts are drawn, then the digits in their order. A noise part is the opaque
    central `noise_size` × `noise_size` square of its image. A digit in front replaces the canvas where it has at least
    `INK`; a digit behind (`digits_in_front` false for its clip) shows only where the canvas is still 0. Every canvas is
    stretched to 0…255 by its own minimum and maximum and then shrunk.

    Args:
        digit_images: uint8 [B,D,28,28], the images of the D digits of each clip.
        positions: integer [B,T,D,2], row and column of each digit's upper left corner, in canvas pixels.
        canvas, frame_size: side of the square canvas and of the frames, in pixels.
        noise_images: uint8 [B,P,28,28]; noise_positions: integer [B,T,P,2]; both None without noise.
        digits_in_front: bool [B]; None means all.
    """
    clips, steps = positions.shape[:2]
    if digits_in_front is None:
        digits_in_front = np.ones(clips, bool)
    frames = np.empty((clips, steps, frame_size, frame_size), np.uint8)
    for start in range(0, clips, _CLIPS_PER_GROUP):
        group = slice(start, start + _CLIPS_PER_GROUP)
        canvases = np.zeros((canvas, len(positions[group]) * steps, canvas), np.uint8)
        if noise_images is not None:
            _paste_noise(canvases, noise_images[group], noise_positions[group], noise_size)
        for digit in range(positions.shape[2]):
            for in_front in (True, False):
                chosen = np.flatnonzero(digits_in_front[group] == in_front)
                if chosen.size:
                    _draw_digit(canvases, digit_images[group, digit], positions[group, :, digit], chosen, in_front)
        shrunk = shrink(stretch_contrast(canvases), frame_size)  # [frame_size, F, frame_size]
        frames[group] = shrunk.transpose(1, 0, 2).reshape(frames[group].shape)
    return frames


def stretch_contrast(canvases: np.ndarray) -> np.ndarray:
    """Scales each frame of [row, frame, column] so that its minimum becomes 0 and its maximum 255.

    value -> trunc((value - minimum) · 255 / (maximum - minimum) + 0.5); a frame of one single value becomes 0.
    """
    lowest = canvases.min(axis=0).min(axis=1)  # [F]
    highest = canvases.max(axis=0).max(axis=1)
    for frame in np.flatnonzero((lowest > 0) | (highest < 255)):
        # One table of 256 entries per frame; in float64, because a float32 scale rounds some values differently.
        spread = float(highest[frame]) - float(lowest[frame])
        scale = 255.0 / spread if spread else 1.0
        values = (np.arange(256, dtype=np.float64) - lowest[frame]) * scale
        canvases[:, frame] = (np.clip(values, 0, 255) + 0.5).astype(np.uint8)[canvases[:, frame]]
    return canvases


def shrink(canvases: np.ndarray, frame_size: int) -> np.ndarray:
    """Pillow's bilinear resize of every frame: uint8 [canvas, F, canvas] -> [frame_size, F, frame_size]."""
    canvas, frames = canvases.shape[:2]
    if canvas == frame_size:
        return canvases
    tall = Image.fromarray(canvases.reshape(canvas * frames, canvas))
    narrow = np.asarray(tall.resize((frame_size, canvas * frames), Image.BILINEAR))  # [canvas·F, frame_size]
    wide = Image.fromarray(narrow.reshape(canvas, frames * frame_size))
    low = np.asarray(wide.resize((frames * frame_size, frame_size), Image.BILINEAR))  # [frame_size, F·frame_size]
    return low.reshape(frame_size, frames, frame_size)


def encode_png(frame: np.ndarray) -> bytes:
    """A grey frame uint8 [H,W] as PNG, lossless."""
    stream = io.BytesIO()
    # compress_type 3: run lengths alone take half the time of full deflate and are as small on black grounds.
    Image.fromarray(frame).save(stream, "PNG", compress_level=1, compress_type=3)
    return stream.getvalue()


def _flat_corners(canvases: np.ndarray, corners: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Index of each upper left corner in the flattened canvases: [B,T,2] -> [T, chosen clips]."""
    canvas, frames = canvases.shape[:2]
    steps = corners.shape[1]
    frame = clips[None, :] * steps + np.arange(steps)[:, None]
    chosen = corners[clips].astype(np.int64)
    return chosen[:, :, 0].T * (frames * canvas) + frame * canvas + chosen[:, :, 1].T


def _draw_digit(
    canvases: np.ndarray, images: np.ndarray, corners: np.ndarray, clips: np.ndarray, in_front: bool
) -> None:
    """Draws one digit per clip of `clips` into all its frames, touching only the pixels that have ink."""
    canvas, frames = canvases.shape[:2]
    clip, row, column = np.nonzero(images[clips] >= (INK if in_front else 1))
    ink = images[clips[clip], row, column]  # [I]: the inked pixels of all clips
    index = _flat_corners(canvases, corners, clips)[:, clip] + (row * (frames * canvas) + column)  # [T,I]
    flat = canvases.reshape(-1)
    if in_front:
        flat[index] = ink
    else:
        below = flat[index]
        flat[index] = np.where(below > 0, below, ink)


def _paste_noise(canvases: np.ndarray, images: np.ndarray, corners: np.ndarray, size: int) -> None:
    """Pastes the central squares of [B,P,28,28] at corners [B,T,P,2], opaque, part after part."""
    canvas, frames = canvases.shape[:2]
    top = DIGIT_SIZE // 2 - size // 2
    squares = images[:, :, top : top + size, top : top + size]
    offsets = np.arange(size)[:, None] * (frames * canvas) + np.arange(size)  # [size,size]
    flat = canvases.reshape(-1)
    for part in range(images.shape[1]):
        corner = _flat_corners(canvases, corners[:, :, part], np.arange(len(images)))  # [T,B]
        flat[corner[:, :, None, None] + offsets] = squares[:, part]
