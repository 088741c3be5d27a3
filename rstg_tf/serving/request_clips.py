"""What a served model is sent -> the clips that it sees, checked. Graph functions; no file is touched here."""

from __future__ import annotations

import tensorflow as tf

from rstg_tf.serving.request_limits import MOST_SCANS, MOST_TEXTS, RequestLimits
from rstg_tf.video.clip_spec import ClipSpec
from rstg_tf.video.exif import orientation, upright
from rstg_tf.video.picture_header import (
    begins_as_jpeg,
    begins_as_png,
    holds_more_than,
    stored_sizes,
    unpacks_to_more_than_pixels,
)
from rstg_tf.video.transforms import centre_crop_window, decode_each, frame_indices, resize_and_crop, short_side_size

_PARTS = ((begins_as_jpeg, (b"\xff\xd9",)), (begins_as_png, (b"IHDR", b"IEND")))  # what no whole picture lacks


def checked_video(video: tf.Tensor, clip: ClipSpec) -> tf.Tensor:
    """The video itself. Raises InvalidArgumentError for another shape than the clip's, or no clip."""
    video = tf.ensure_shape(video, clip.shape)
    with tf.control_dependencies([require(tf.shape(video)[0] > 0, "video holds no clip, expected at least one")]):
        return tf.identity(video)


def clips_from_frames(frames: tf.Tensor, clip: ClipSpec, limits: RequestLimits | None = None) -> tf.Tensor:
    """Encoded frames string [B, D] -> uint8 [B, T, H, W, C], as evaluation makes its single view of a video.

    T of the D frames at even distances; decoded, turned upright (EXIF), grey or RGB as the model has it; resized, and
    the centre cut out. Each clip on its own: they may differ in size, not in D.

    Raises InvalidArgumentError for another rank, no clip, D < T, more than the `limits` (None: the default ones, for
    such clips) allow, and, naming clip and frame, for what is no whole picture, has another size than the first frame
    of its clip, or than the model where nothing is resized. Sizes are read from the headers: nothing is decoded first.
    """
    limits = (limits or RequestLimits()).for_clips(clip)
    frames = tf.ensure_shape(frames, [None, None])
    clips, available = tf.unstack(tf.shape(frames))
    size = _bytes_of(frames)
    checks = [
        require(clips > 0, "frames holds no clip, expected at least one"),
        require(clips <= limits.clips, "frames holds", clips, "clips, expected at most", limits.clips),
        require(
            available >= clip.num_frames,
            "frames holds clips of",
            available,
            "frames, expected at least",
            clip.num_frames,
        ),
        require(
            available <= limits.frames, "frames holds clips of", available, "frames, expected at most", limits.frames
        ),
        require(size <= limits.request_bytes, "frames holds", size, "bytes, expected at most", limits.request_bytes),
    ]
    with tf.control_dependencies(checks):
        numbers = tf.range(clips)
    return tf.map_fn(
        lambda numbered: _clip_from_frames(*numbered, clip, limits),
        (numbers, frames),
        fn_output_signature=tf.TensorSpec(clip.shape[1:], tf.uint8),
        parallel_iterations=1,  # one clip's frames keep all cores busy; those of several would add up in memory
    )


def _clip_from_frames(number: tf.Tensor, encoded: tf.Tensor, clip: ClipSpec, limits: RequestLimits) -> tf.Tensor:
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
    turns = [orientation(file) for file in tf.unstack(chosen)]
    stored = stored_sizes(chosen)
    checks, expected = _size_checks(number, indices, chosen, stored, turns, clip, limits)
    with tf.control_dependencies(checks):
        chosen = tf.identity(chosen)
    # Once sizes and bytes are known to be few: this itself takes time that grows with them.
    ends = ~unpacks_to_more_than_pixels(chosen, stored)
    first = _first_false(ends)
    about = ("frame", indices[first], "of clip", number, "is a PNG whose data goes on behind its pixels")
    with tf.control_dependencies([require(tf.reduce_all(ends), *about)]):
        chosen = tf.identity(chosen)
    pictures = [
        upright(picture, turned)
        for picture, turned in zip(decode_each(chosen, image_format=None, channels=clip.channels), turns)
    ]
    # Bare, `stack` would tell the graph's optimizer that sizes agree, and it would drop the check as needless.
    whole_size = tf.concat([expected, [clip.channels]], axis=0)
    video = tf.stack([tf.slice(picture, [0, 0, 0], whole_size) for picture in pictures])  # [T, h, w, C]
    video = video if clip.short_side is None else _resized(video, clip)
    return tf.ensure_shape(video, clip.shape[1:])


def _size_checks(
    number: tf.Tensor,
    indices: tf.Tensor,
    chosen: tf.Tensor,
    stored: tf.Tensor,
    turns: list[tf.Tensor],
    clip: ClipSpec,
    limits: RequestLimits,
) -> tuple[list[tf.Operation], tf.Tensor]:
    """What must hold before frames are decoded, and the upright size that is expected, int32 [2]."""
    sizes = tf.where(tf.stack(turns)[:, tf.newaxis] >= 5, stored[:, ::-1], stored)  # 5…8: lies on its side
    expected = tf.constant([clip.height, clip.width]) if clip.short_side is None else sizes[0]
    bytes_of_each, is_jpeg = tf.strings.length(chosen), begins_as_jpeg(chosen)
    tall, wide = (tf.cast(side, tf.int64) for side in tf.unstack(sizes, axis=1))

    def every(holds: tf.Tensor, *message: object, of: tf.Tensor = sizes) -> tf.Operation:
        first = _first_false(holds)
        about = ["frame", indices[first], "of clip", number]
        return require(tf.reduce_all(holds), *about, message[0], of[first], *message[1:])

    return (
        [
            every(
                (tall >= 1) & (wide >= 1) & (tall * wide <= limits.frame_pixels),
                "is of height, width",
                "pixels, expected at most",
                limits.frame_pixels,
                "in all",
            ),
            every(
                tf.maximum(tall, wide) <= limits.frame_side,
                "is of height, width",
                "pixels, expected no side longer than",
                limits.frame_side,
            ),
            every(
                tf.reduce_all(tf.equal(sizes, expected), axis=1), "is of height, width", "pixels, expected", expected
            ),
            every(
                is_jpeg | (bytes_of_each <= limits.png_bytes),
                "is a PNG of",
                "bytes, expected at most",
                limits.png_bytes,
                "or a JPEG",
                of=bytes_of_each,
            ),
            every(
                ~(is_jpeg & holds_more_than(chosen, b"\xff\xda", MOST_SCANS)),
                "is a JPEG of",
                "bytes in more scans than",
                MOST_SCANS,
                of=bytes_of_each,
            ),
            every(
                is_jpeg
                | ~(holds_more_than(chosen, b"zTXt", MOST_TEXTS) | holds_more_than(chosen, b"iTXt", MOST_TEXTS)),
                "is a PNG of",
                "bytes with more texts than",
                MOST_TEXTS,
                of=bytes_of_each,
            ),
        ],
        expected,
    )


def _bytes_of(frames: tf.Tensor) -> tf.Tensor:
    """int32: bytes of all frames together, or the largest int32 where they are more."""
    total = tf.reduce_sum(tf.cast(tf.strings.length(frames), tf.int64))
    return tf.cast(tf.minimum(total, 2**31 - 1), tf.int32)


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
    """bool [D]: begins as JPEG or PNG does, and holds the header and the end. A decoder would not say which frame is
    cut short."""
    whole = tf.zeros_like(encoded, tf.bool)
    for begins, parts in _PARTS:
        holds = begins(encoded)
        for part in parts:
            holds &= holds_more_than(encoded, part, 0)
        whole |= holds
    return whole


def require(condition: tf.Tensor, *message: object) -> tf.Operation:
    """An operation that fails with `message`, words and int32 tensors, unless `condition` holds."""
    # For strings and int32 alone Assert runs without a conditional around it, which converters would stumble over.
    return tf.debugging.Assert(condition, list(message))


def _first_false(flags: tf.Tensor) -> tf.Tensor:
    return tf.argmin(tf.cast(flags, tf.int32), output_type=tf.int32)
