"""Frames of a video -> what the network sees: which of them, how large, which part. TensorFlow graph functions.

Training and evaluation (`datasets.input_pipeline`), export and prediction share them, so that they cannot differ. The
rules are those by which the authors' release made its data (https://github.com/IuliaDuta/RSTG): uniform sampling in
time, bicubic to a short side, crops at even distances.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# A height or a width in pixels: an int or an integer scalar of the graph.
Length = Any


def frame_indices(num_available: Length, *, num_frames: int, view: Length = 0, num_views: int = 1) -> tf.Tensor:
    """Which frames of a video make a clip: T numbers at even distances, int32 [T], in 0…D-1.

    View v of V: start = round(v/V · D/T), then linspace(start, D-1+start, T), truncated, at most D-1. View 0 runs from
    the first frame to the last; view 1 of 2 is the release's second sampling. Short videos repeat frames.

    Args:
      num_available: D, the frames of the video; at least 1.
      num_frames: T.
      view, num_views: v (an int or an integer scalar) and V.
    """
    last = tf.cast(num_available, tf.int32) - 1
    share = _divide(tf.cast(view, tf.float64), num_views) * tf.cast(num_available, tf.float64)
    start = tf.cast(tf.round(_divide(share, num_frames)), tf.int32)  # half to even, as Python's round
    return tf.minimum(_whole_linspace(start, last + start, num_frames), last)


def _whole_linspace(start: Length, stop: Length, count: int) -> tf.Tensor:
    """numpy.linspace(start, stop, count).astype(int), equal for equal: int32 [count] for int32 scalars."""
    start, stop = tf.cast(start, tf.float64), tf.cast(stop, tf.float64)
    # NumPy's order of operations: k · (range / (count - 1)) falls short of a whole number where k · range / … does not.
    values = tf.range(count, dtype=tf.float64) * _divide(stop - start, max(count - 1, 1)) + start
    if count > 1:
        values = tf.concat([values[:-1], stop[tf.newaxis]], axis=0)
    return tf.cast(values, tf.int32)


def _divide(dividend: tf.Tensor, divisor: int) -> tf.Tensor:
    # TensorFlow's graph optimizer turns x / constant into x · (1 / constant), which rounds otherwise; not this op.
    return tf.math.divide_no_nan(dividend, tf.constant(divisor, tf.float64))


def decode_each(
    encoded: tf.Tensor, *, image_format: str | None, channels: int, window: tf.Tensor | None = None
) -> list[tf.Tensor]:
    """Decodes frames to a list of T tensors, uint8 [H, W, C].

    Args:
      encoded: string [T] with T known; each frame is an op of its own, which is half as much again as fast as a loop.
      image_format: PNG or JPEG; None finds out, frame by frame.
      channels: C, 1 or 3; frames are converted.
      window: int32 [4] (top, left, height, width) to cut out; of a JPEG only its part of the image is decoded.
    """
    # The pixels that Pillow sees too. TensorFlow's default transform is no faster, and off by up to a few levels.
    exactly = {"channels": channels, "dct_method": "INTEGER_ACCURATE"}
    frames = tf.unstack(encoded)
    if image_format == "JPEG" and window is not None:
        return _decode_jpeg_windows(frames, window, exactly)
    if image_format == "PNG":
        decoded = [tf.io.decode_png(frame, channels) for frame in frames]
    else:
        # TensorFlow's JPEG op looks at the first bytes, and takes PNG too.
        decoded = [tf.io.decode_jpeg(frame, **exactly) for frame in frames]
    if window is None:
        return decoded
    return [tf.slice(frame, [window[0], window[1], 0], [window[2], window[3], -1]) for frame in decoded]


def _decode_jpeg_windows(frames: list[tf.Tensor], window: tf.Tensor, options: dict[str, Any]) -> list[tf.Tensor]:
    # Colour is stored at half the width and interpolated between columns: without the column beside it the window's
    # outermost one would differ by several levels from the same column of the whole picture.
    top, left, height, width = tf.unstack(window)
    begin = tf.maximum(left - 1, 0)
    end = tf.minimum(left + width + 1, tf.maximum(tf.io.extract_jpeg_shape(frames[0])[1], left + width))
    wider = tf.stack([top, begin, height, end - begin])
    return [
        tf.io.decode_and_crop_jpeg(frame, wider, **options)[:, left - begin : left - begin + width] for frame in frames
    ]


def short_side_size(height: Length, width: Length, short_side: int) -> tuple[Length, Length]:
    """(height, width) in pixels after the shorter side has become `short_side`; the other is rounded, halves up.

    Ints for ints, int32 scalars for tensors.
    """
    if isinstance(height, int) and isinstance(width, int):
        shorter = min(height, width)
    else:
        height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
        shorter = tf.minimum(height, width)
    return tuple((2 * side * short_side + shorter) // (2 * shorter) for side in (height, width))


def resize_and_crop(
    frames: tf.Tensor, *, short_side: int, top: Length, left: Length, crop_height: Length, crop_width: Length
) -> tf.Tensor:
    """Bicubic resize to a short side, then a crop: uint8 [T, h, w, C] -> uint8 [T, crop_height, crop_width, C].

    The kernel is Keys' with a = -1/2, widened for reduction (antialiased), cut and renormalized at the borders: that is
    Pillow's BICUBIC, except that Pillow also rounds between rows and columns (up to 2 levels apart on photographs).
    Only the crop is computed; it is that part of the whole picture, but for a level where a half is rounded.

    Args:
      short_side: in pixels, see `short_side_size`.
      top, left: where the crop begins in the resized picture; the crop must lie in it.
    """
    num_frames, height, width, channels = tf.unstack(tf.shape(frames))
    scale = tf.stack(short_side_size(height, width, short_side)) / tf.stack([height, width])
    # The op takes a picture's channels together and pictures one by one: with the frames among the channels it is four
    # times as fast.
    picture = tf.reshape(tf.transpose(frames, [1, 2, 0, 3]), [1, height, width, num_frames * channels])
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=picture,
        size=tf.stack([crop_height, crop_width]),
        scale=tf.cast(scale, tf.float32),
        translation=-tf.cast(tf.stack([top, left]), tf.float32),
        kernel_type="keyscubic",
        antialias=True,
    )
    pixels = tf.saturate_cast(tf.round(pixels), tf.uint8)  # [1, crop_height, crop_width, T·C]
    return tf.transpose(tf.reshape(pixels, [crop_height, crop_width, num_frames, channels]), [2, 0, 1, 3])


def centre_crop_window(height: Length, width: Length, *, crop_height: int, crop_width: int) -> tf.Tensor:
    """int32 [2]: top and left of the crop in the middle; an odd pixel of room stays below and to the right."""
    room = _room(height, width, crop_height, crop_width)
    return room // 2


def view_windows(height: Length, width: Length, *, crop_size: int | tuple[int, int], num_views: int) -> tf.Tensor:
    """int32 [V, 2]: top and left of V crops at even distances, linspace(0, side - crop, V) truncated on both sides.

    So the first lies in the upper left corner and the last in the lower right one. One view is the centre.

    Args:
      height, width: of the picture to crop, pixels.
      crop_size: side of the crops, or (height, width).
    """
    crop_height, crop_width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
    if num_views == 1:
        return centre_crop_window(height, width, crop_height=crop_height, crop_width=crop_width)[tf.newaxis]
    room = _room(height, width, crop_height, crop_width)
    return tf.stack([_whole_linspace(0, room[0], num_views), _whole_linspace(0, room[1], num_views)], axis=1)


def _room(height: Length, width: Length, crop_height: int, crop_width: int) -> tf.Tensor:
    """int32 [2]: by how many pixels a crop can move down and to the right."""
    return tf.stack([tf.cast(height, tf.int32) - crop_height, tf.cast(width, tf.int32) - crop_width])
