"""A parsed clip -> pixels: checks, choice of frames, crop, decoding; a part of the graph of `datasets.pipeline`.

The checks are assertions whose message begins with FAULT and names the clip; `pipeline.explain_read_error` reads it.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from datasets.video_records import DatasetError, Manifest

FAULT = "Faulty data set:"


def clip_reader(
    manifest: Manifest, num_frames: int | None, crop_size: int | None
) -> Callable[[dict[str, tf.Tensor], tf.Tensor | None], tuple[tf.Tensor, tf.Tensor]]:
    """Function (parsed clip, seed of the clip or None) -> (video uint8 [T, H, W, C], label int32).

    With a seed the crop is drawn at random, without one it is the centre. Raises DatasetError where neither argument
    nor manifest gives a number of frames or a size.
    """
    num_frames = num_frames or manifest.num_frames
    if num_frames is None:
        raise DatasetError("the clips of this data set differ in length: give num_frames.")
    size = (crop_size, crop_size) if crop_size else (manifest.height, manifest.width)
    if None in size:
        raise DatasetError("the clips of this data set differ in size: give crop_size.")

    def read_clip(parsed: dict[str, tf.Tensor], seed: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies(_clip_assertions(parsed, manifest, num_frames, size)):
            encoded = tf.ensure_shape(_choose_frames(parsed["encoded"]), [num_frames])
        window = _crop_window(parsed, crop_size, seed) if crop_size else None
        frames = decode_frames(encoded, image_format=manifest.image_format, channels=manifest.channels, window=window)
        with tf.control_dependencies([_frames_assertion(frames, parsed, (*size, manifest.channels))]):
            video = tf.ensure_shape(tf.stack(frames), [num_frames, *size, manifest.channels])
        return video, tf.cast(parsed["label"], tf.int32)

    return read_clip


def _clip_assertions(
    parsed: dict[str, tf.Tensor], manifest: Manifest, num_frames: int, size: tuple[int, int]
) -> list[tf.Operation]:
    found = tf.size(parsed["encoded"])
    label, num_classes = tf.cast(parsed["label"], tf.int32), len(manifest.classes)
    height, width = tf.cast(parsed["height"], tf.int32), tf.cast(parsed["width"], tf.int32)
    return [
        _clip_assertion(tf.equal(found, num_frames), parsed, "has", found, f"frames, expected {num_frames}"),
        _clip_assertion((label >= 0) & (label < num_classes), parsed, "has label", label,
                        f"but the manifest names {num_classes} classes"),
        _clip_assertion((height >= size[0]) & (width >= size[1]), parsed, "is", height, "x", width,
                        f"pixels large, expected at least {size[0]} x {size[1]}")]


def _frames_assertion(
    frames: list[tf.Tensor], parsed: dict[str, tf.Tensor], shape: tuple[int, int, int]
) -> tf.Operation:
    shapes = tf.stack([tf.shape(frame) for frame in frames])  # [T, 3]
    as_expected = tf.reduce_all(tf.equal(shapes, shape), axis=1)  # [T]
    first_wrong = tf.argmin(tf.cast(as_expected, tf.int32), output_type=tf.int32)
    return _clip_assertion(tf.reduce_all(as_expected), parsed, "has a frame, number", first_wrong,
                           "of height, width, channels", tf.gather(shapes, first_wrong),
                           f"expected {shape[0]} {shape[1]} {shape[2]}")


def _clip_assertion(condition: tf.Tensor, parsed: dict[str, tf.Tensor], *told: object) -> tf.Operation:
    # Assert runs without a conditional around it, which would cost more than the check, for string and int32 data only.
    return tf.debugging.Assert(condition, [FAULT + " clip", parsed["media_id"], *told])


def _choose_frames(encoded: tf.Tensor) -> tf.Tensor:
    """The encoded frames [T] that make the clip: all of them. Sampling in time belongs here, before the decoding."""
    return encoded


def _crop_window(parsed: dict[str, tf.Tensor], crop_size: int, seed: tf.Tensor | None) -> tf.Tensor:
    """int32 [4]: top, left, height, width in pixels; one window for the whole clip."""
    room = tf.cast(tf.stack([parsed["height"], parsed["width"]]), tf.int32) - crop_size
    if seed is None:
        corner = room // 2
    else:
        # Float32 is exact far beyond the width of any video, so that each corner is as likely as the others.
        share = tf.random.stateless_uniform([2], fold_in(seed, 0))
        corner = tf.minimum(tf.cast(share * tf.cast(room + 1, tf.float32), tf.int32), room)
    return tf.concat([corner, [crop_size, crop_size]], axis=0)


def decode_frames(
    encoded: tf.Tensor, *, image_format: str, channels: int, window: tf.Tensor | None = None
) -> list[tf.Tensor]:
    """Decodes frames to a list of T tensors, uint8 [H, W, C].

    Args:
      encoded: string [T] with T known; each frame is an op of its own, which is half as much again as fast as a loop.
      image_format: PNG or JPEG.
      channels: C, 1 or 3; frames are converted.
      window: int32 [4] (top, left, height, width) to cut out; of a JPEG only its part of the image is decoded.
    """
    if image_format == "PNG":
        frames = [tf.io.decode_png(frame, channels) for frame in tf.unstack(encoded)]
        return frames if window is None else [tf.slice(frame, [window[0], window[1], 0], [window[2], window[3], -1])
                                              for frame in frames]
    # The pixels that Pillow sees too. TensorFlow's default transform is no faster, and off by up to a few levels.
    exactly = {"channels": channels, "dct_method": "INTEGER_ACCURATE"}
    if window is None:
        return [tf.io.decode_jpeg(frame, **exactly) for frame in tf.unstack(encoded)]
    return [tf.io.decode_and_crop_jpeg(frame, window, **exactly) for frame in tf.unstack(encoded)]


def fold_in(seed: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """int64 [2]: the seed of a child of `seed`, by number."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64), alg="philox")
