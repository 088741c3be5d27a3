"""How a camera held a JPEG (EXIF), read and undone inside a TensorFlow graph: `tf.io` decodes the pixels as stored."""

from __future__ import annotations

import tensorflow as tf

_BEGIN = b"Exif\0\0"
_ORIENTATION = 0x0112
_LOOKED_AT = 4096  # bytes after the mark; the first directory, which holds the tag, begins with the ninth
_ENTRY_BYTES = 12


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """int32 1…8 as EXIF numbers them, of a whole picture file in a string scalar; 1, upright, where it does not say."""
    parts = tf.strings.split(tf.strings.substr(encoded, 0, 2 * _LOOKED_AT), _BEGIN, maxsplit=1)
    parts = tf.concat([parts, tf.constant([b"", b""])], axis=0)
    # Before the mark stand the segment's own, FF E1, and its length.
    before = tf.concat([tf.zeros([4], tf.int32), _bytes(parts[0])], axis=0)[-4:-2]
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 2), b"\xff\xd8") & tf.reduce_all(tf.equal(before, [0xFF, 0xE1]))
    data = _bytes(tf.strings.substr(parts[1], 0, _LOOKED_AT))
    data = tf.pad(data, [[0, _LOOKED_AT + _ENTRY_BYTES - tf.size(data)]])
    is_little = tf.equal(data[0], ord("I"))

    def number(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
        return tf.where(is_little, low + 256 * high, high + 256 * low)

    # The offset has four bytes; one beyond 16 bits would lie outside of what is looked at.
    begin = tf.minimum(tf.where(is_little, data[4] + 256 * data[5], data[7] + 256 * data[6]), _LOOKED_AT - 2)
    count = tf.minimum(number(data[begin], data[begin + 1]), (_LOOKED_AT - 2 - begin) // _ENTRY_BYTES)
    entries = tf.reshape(data[begin + 2 : begin + 2 + _ENTRY_BYTES * count], [-1, _ENTRY_BYTES])
    is_tag = tf.equal(number(entries[:, 0], entries[:, 1]), _ORIENTATION)
    found = tf.concat([tf.boolean_mask(number(entries[:, 8], entries[:, 9]), is_tag), [1]], axis=0)[0]
    return tf.where(is_jpeg & (found >= 1) & (found <= 8), found, 1)


def upright(picture: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """A picture [H, W, C] as it is to be seen: [H, W, C], or [W, H, C] where it lies on its side (5…8)."""

    def stored(swapped: bool, *axes: int):
        return lambda: tf.reverse(tf.transpose(picture, [1, 0, 2]) if swapped else picture, list(axes))

    return tf.switch_case(
        turned - 1,
        [
            lambda: tf.identity(picture),
            stored(False, 1),
            stored(False, 0, 1),
            stored(False, 0),
            stored(True),
            stored(True, 1),
            stored(True, 0, 1),
            stored(True, 0),
        ],
    )


def _bytes(text: tf.Tensor) -> tf.Tensor:
    """int32 [bytes] of a string scalar."""
    return tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)
