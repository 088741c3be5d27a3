"""What a picture's header says, read inside a TensorFlow graph before anything is decoded: decoders reserve memory for
what is claimed, and a few bytes can claim gigabytes."""

from __future__ import annotations

import io

import tensorflow as tf
from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_HEADER_BYTES = 24  # of a PNG: its mark, the length and name of IHDR, width and height
_SIZE_BYTES = (16, 20)  # where width and height begin
_LARGEST = 2**31 - 1
_MOST_PARTS = 600  # of a PNG; common encoders write its pixels in parts of 8 KiB and more
_MOST_UNPACKED = 1032  # bytes that one byte of zlib's format can become
_SPARE = 2**21  # bytes that may be unpacked in vain: some milliseconds
_STEPS = 16


def begins_as_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """bool, of the shape of `encoded`: the first bytes are a JPEG's."""
    return tf.equal(tf.strings.substr(encoded, 0, len(_JPEG)), _JPEG)


def begins_as_png(encoded: tf.Tensor) -> tf.Tensor:
    """bool, of the shape of `encoded`: the first bytes are a PNG's."""
    return tf.equal(tf.strings.substr(encoded, 0, len(_PNG)), _PNG)


def stored_sizes(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width in pixels as decoders will find them, before turning: int32 [T, 2] of string [T], T known.

    A PNG tells them in IHDR, a JPEG in its frame header (SOF). Raises InvalidArgumentError for a JPEG whose header
    cannot be read; of what is neither, the numbers mean nothing.
    """
    is_jpeg = begins_as_jpeg(encoded)
    # The operation takes JPEGs alone, and no condition is needed if it gets one in the place of each other picture.
    jpegs = tf.unstack(tf.where(is_jpeg, encoded, _smallest_jpeg()))
    of_jpegs = tf.stack([tf.io.extract_jpeg_shape(jpeg)[:2] for jpeg in jpegs])
    header = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEADER_BYTES), tf.int64)  # [T, 24]
    width, height = (_big_endian(header[:, begin : begin + 4]) for begin in _SIZE_BYTES)
    of_pngs = tf.cast(tf.minimum(tf.stack([height, width], axis=1), _LARGEST), tf.int32)
    return tf.where(is_jpeg[:, tf.newaxis], of_jpegs, of_pngs)


def unpacks_to_more_than_pixels(encoded: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """bool [T]: of a PNG, whether its compressed data is longer than pixels of that size can be.

    A decoder unpacks it all the same, and throws away what is behind the last pixel: a thousand bytes for each byte of
    the file. Here it is unpacked piece by piece until there is too much; small files are let through unseen.

    Args:
      encoded: string [T]; `sizes`: their height and width in pixels, int [T, 2].

    Raises DataLossError for damaged data.
    """
    height, width = tf.unstack(tf.cast(sizes, tf.int64), axis=1)
    most = 8 * height * width + 2 * height + 64  # four channels of 16 bits, and a byte for each row of each pass
    length = tf.cast(tf.strings.length(encoded), tf.int64)
    is_seen = begins_as_png(encoded) & (_MOST_UNPACKED * length > most + _SPARE)
    return tf.map_fn(
        lambda pair: _unpacks_to_more_than(*pair),
        (tf.where(is_seen, encoded, ""), most),
        fn_output_signature=tf.TensorSpec([], tf.bool),
        parallel_iterations=None if tf.executing_eagerly() else 4,  # eagerly it would be warned about
    )


def _unpacks_to_more_than(png: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
    size = tf.cast(tf.strings.length(png), tf.int64)

    def next_part(at: tf.Tensor, count: tf.Tensor, parts: tf.TensorArray):
        length = _big_endian(tf.cast(tf.io.decode_raw(tf.strings.substr(png, at, 4), tf.uint8), tf.int64)[tf.newaxis])
        is_pixels = tf.equal(tf.strings.substr(png, at + 4, 4), b"IDAT")
        data = tf.strings.substr(png, at + 8, tf.where(is_pixels, length[0], 0))
        return at + length[0] + 12, count + 1, parts.write(count, data)

    def is_part(at: tf.Tensor, count: tf.Tensor, parts: tf.TensorArray) -> tf.Tensor:
        return (at + 12 <= size) & (count < _MOST_PARTS)

    parts = tf.TensorArray(tf.string, size=0, dynamic_size=True, element_shape=[])
    _, count, parts = tf.while_loop(is_part, next_part, (tf.constant(len(_PNG), tf.int64), 0, parts))
    packed = tf.strings.reduce_join(parts.stack())
    total = tf.cast(tf.strings.length(packed), tf.int64)
    step = tf.maximum((most + _SPARE) // _MOST_UNPACKED, total // _STEPS)

    def unpack(end: tf.Tensor, unpacked: tf.Tensor):
        end = tf.minimum(end + step, total)
        content = tf.io.decode_compressed(tf.strings.substr(packed, tf.zeros_like(end), end), "ZLIB")
        return end, tf.cast(tf.strings.length(content), tf.int64)

    _, unpacked = tf.while_loop(
        lambda end, unpacked: (end < total) & (unpacked <= most), unpack, (tf.zeros([], tf.int64),) * 2
    )
    return (unpacked > most) | (count >= _MOST_PARTS)


def holds_more_than(encoded: tf.Tensor, mark: bytes, count: int) -> tf.Tensor:
    """bool [T]: whether these bytes come more than `count` times in a file."""
    return tf.cast(tf.strings.split(encoded, mark, maxsplit=count + 1).row_lengths(), tf.int32) > count + 1


def _big_endian(four: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(four * tf.constant([2**24, 2**16, 2**8, 1], tf.int64), axis=1)


def _smallest_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG")
    return file.getvalue()
