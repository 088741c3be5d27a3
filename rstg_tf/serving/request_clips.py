"""What a served model is sent -> the clips that it sees, checked. Graph functions; no file is touched here."""

from __future__ import annotations

import tensorflow as tf

from rstg_tf.video.clip_spec import ClipSpec
from rstg_tf.video.exif import orientation, upright
from rstg_tf.video.transforms import centre_crop_window, decode_each, frame_indices, resize_and_crop, short_side_size

_MARKS = ((b"\xff\xd8\xff", b"\xff\xd9"), (b"\x89PNG\r\n\x1a\n", b"IEND"))  # how JPEG and PNG begin, what ends them


def checked_video(video: tf.Tensor, clip: ClipSpec) -> tf.Tensor:
    """The video itself. Raises InvalidArgumentError for another shape than the clip's, or no clip."""
    video = tf.ensure_shape(video, clip.shape)
    with tf.control_dependencies([require(tf.shape(video)[0] > 0, "video holds no clip, expected at least one")]):
        return tf.identity(video)


def clips_from_frames(frames: tf.Tensor, clip: ClipSpec) -> tf.Tensor:
    """Encoded frames string [B, D] -> uint8 [B, T, H, W, C], as evaluation makes its single view of a video.

    T of the D frames at even distances; decoded, turned upright (EXIF), grey or RGB as the model
    has it; resized, and the centre cut out. Each
    clip on its own: they may differ in size, not in D.

    Raises InvalidArgumentError for another rank, no clip, D < T, and, naming clip and frame, for what is no whole
    picture, has another size than the first frame of its clip, or than the model where nothing is resized.
    """
    frames = tf.ensure_shape(frames, [None, None])
    clips, available = tf.unstack(tf.shape(frames))
    checks = [
        require(clips > 0, "frames holds no clip, expected at least one"),
        require(
            available >= clip.num_frames,
            "frames holds clips of",
            available,
            "frames, expected at least",
            clip.num_frames,
        ),
    ]
    with tf.control_dependencies(checks):
        numbers = tf.range(clips)
    return tf.map_fn(
        lambda numbered: _clip_from_frames(*numbered, clip),
        (numbers, frames),
        fn_output_signature=tf.TensorSpec(clip.shape[1:], tf.uint8),
    )


def _clip_from_frames(number: tf.Tensor, encoded: tf.Tensor, clip: ClipSpec) -> tf.Tensor:
    indices = frame_indices(tf.size(encoded), num_frames=clip.num_frames)
    whole = _are_whole_pictures(encoded)
    first = _first_false(whole)
    with tf.control_dependencies(
        [
            require(
                tf.reduce_all(whole),
                "frame",
                first,
                "of clip",
                number,
                "is no whole JPEG or PNG picture; its bytes are",
                tf.strings.length(encoded[first]),
            )
        ]
    ):
        chosen = tf.ensure_shape(tf.gather(encoded, indices), [clip.num_frames])
    pictures = [
        upright(picture, orientation(file))
        for picture, file in zip(decode_each(chosen, image_format=None, channels=clip.channels), tf.unstack(chosen))
    ]
    sizes = tf.stack([tf.shape(picture)[:2] for picture in pictures])  # [T, 2]
    expected = tf.constant([clip.height, clip.width]) if clip.short_side is None else sizes[0]
    fitting = tf.reduce_all(tf.equal(sizes, expected), axis=1)  # [T]
    first = _first_false(fitting)
    with tf.control_dependencies(
        [
            require(
                tf.reduce_all(fitting),
                "frame",
                indices[first],
                "of clip",
                number,
                "is of height, width",
                sizes[first],
                "pixels, expected",
                expected,
            )
        ]
    ):
        # Bare, `stack` would tell the graph's optimizer that sizes agree, and it would drop the check as needless.
        whole_size = tf.concat([expected, [clip.channels]], axis=0)
        video = tf.stack([tf.slice(picture, [0, 0, 0], whole_size) for picture in pictures])  # [T, h, w, C]
    video = video if clip.short_side is None else _resized(video, clip)
    return tf.ensure_shape(video, clip.shape[1:])


def _resized(video: tf.Tensor, clip: ClipSpec) -> tf.Tensor:
    """[T, h, w, C] -> [T, H, W, C]: the centre of the resized frames, which are never too small for it."""
    height, width = tf.unstack(tf.shape(video)[1:3])
    shorter = tf.cast(tf.minimum(height, width), tf.float64)
    covering = tf.math.ceil(shorter * tf.maximum(clip.height / height, clip.width / width) - 1e-9)
    short_side = tf.maximum(clip.short_side, tf.cast(covering, tf.int32))
    window = {"crop_height": clip.height, "crop_width": clip.width}
    top, left = tf.unstack(centre_crop_window(*short_side_size(height, width, short_side), **window))
    return resize_and_crop(video, short_side=short_side, top=top, left=left, **window)


def _are_whole_pictures(encoded: tf.Tensor) -> tf.Tensor:
    """bool [D]: begins as JPEG or PNG does and holds what ends it. A decoder would not say which frame is cut short."""
    whole = tf.zeros_like(encoded, tf.bool)
    for start, end in _MARKS:
        begins = tf.equal(tf.strings.substr(encoded, 0, len(start)), start)
        whole |= begins & (tf.strings.split(encoded, end, maxsplit=1).row_lengths() > 1)
    return whole


def require(condition: tf.Tensor, *message: object) -> tf.Operation:
    """An operation that fails with `message`, words and int32 tensors, unless `condition` holds."""
    # For strings and int32 alone Assert runs without a conditional around it, which converters would stumble over.
    return tf.debugging.Assert(condition, list(message))


def _first_false(flags: tf.Tensor) -> tf.Tensor:
    return tf.argmin(tf.cast(flags, tf.int32), output_type=tf.int32)
