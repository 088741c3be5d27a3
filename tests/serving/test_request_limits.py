"""Requests of encoded frames that would cost a server too much, and what is read of a picture before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from served_models import encode

from rstg_tf.common.errors import ConfigError
from rstg_tf.serving.request_clips import clips_from_frames
from rstg_tf.serving.request_limits import MOST_SCANS, MOST_TEXTS, RequestLimits
from rstg_tf.video.clip_spec import ClipSpec
from rstg_tf.video.picture_header import stored_sizes, unpacks_to_more_than_pixels

CLIP = ClipSpec(num_frames=2, height=8, width=8, channels=3, short_side=8)
LIMITS = RequestLimits(clips=3, frames=5, frame_pixels=1200, png_bytes=4400, request_bytes=20_000)


@pytest.fixture(scope="module")
def clips_of():
    traced = tf.function(
        lambda frames: clips_from_frames(frames, CLIP, LIMITS),
        autograph=False,
        input_signature=[tf.TensorSpec([None, None], tf.string)],
    )
    return lambda frames: traced(tf.constant(frames, tf.string)).numpy()


def picture(height, width, image_format="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, image_format, **options)
    return file.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(png, *chunks):
    """The PNG with chunks behind its IHDR, which ends with byte 33."""
    return png[:33] + b"".join(chunks) + png[33:]


def png_that_claims(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def jpeg_that_claims(width, height, **options):
    content = bytearray(picture(16, 16, "JPEG", **options))
    begin = content.index(b"\xff\xc2" if options else b"\xff\xc0")
    content[begin + 5 : begin + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def with_scans(count):
    content = picture(20, 24, "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (count - content.count(b"\xff\xda")) + b"\xff\xd9"


GOOD = picture(20, 24)
TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 10_000))
INTERNATIONAL = chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"a" * 10_000))
LARGE = r"\[is of height, width\] \[{} {}\] \[pixels, expected at most\] \[1200\]"
LONG = r"\[pixels, expected no side longer than\] \[68\]"
TOO_MUCH = {
    "a PNG of 16k x 16k": (png_that_claims(16384, 16384), LARGE.format(16384, 16384)),
    "a PNG of 2^31 x 2^31 - 1": (png_that_claims(2**31, 2**31 - 1), LARGE.format(2147483647, 2147483647)),
    "a PNG whose area wraps to 0 in 64 bits": (png_that_claims(2**32 - 2**31, 2**31), LARGE.format(".*", ".*")),
    "a PNG without width": (png_that_claims(0, 16), LARGE.format(16, 0)),
    "a JPEG of 65500 x 65500": (jpeg_that_claims(65500, 65500), LARGE.format(65500, 65500)),
    "a progressive JPEG of 16k x 16k": (jpeg_that_claims(16384, 16384, progressive=True), LARGE.format(16384, 16384)),
    "a picture of a row too many": (picture(31, 40), LARGE.format(31, 40)),
    "a PNG that is a strip": (png_that_claims(1200, 1), LONG),
    "a JPEG that is a strip": (jpeg_that_claims(8, 150), LONG),
    "compressed texts": (with_chunks(GOOD, *[TEXT] * (MOST_TEXTS + 1)), r"more texts than\] \[4\]"),
    "compressed texts behind the pixels": (
        GOOD[:-12] + TEXT * (MOST_TEXTS + 1) + GOOD[-12:],
        r"more texts than\] \[4\]",
    ),
    "compressed texts of the other kind": (
        with_chunks(GOOD, *[INTERNATIONAL] * (MOST_TEXTS + 1)),
        r"more texts than\] \[4\]",
    ),
    "a PNG of too many bytes": (
        png_that_claims(24, 20).replace(chunk(b"IEND", b""), chunk(b"IDAT", bytes(4400)) + chunk(b"IEND", b"")),
        r"\[is a PNG of\] \[4\d\d\d\] \[bytes, expected at most\] \[4400\]",
    ),
    "scan after scan": (with_scans(MOST_SCANS + 1), r"\[bytes in more scans than\] \[20\]"),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_a_picture_that_would_cost_too_much_is_refused_before_it_is_decoded(clips_of, case):
    content, told = TOO_MUCH[case]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[frame\] \[1\] \[of clip\] \[1\] .*" + told):
        clips_of([[GOOD, GOOD], [GOOD, content]])


def noise(height, width, **options):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def in_parts(png, size):
    """The PNG with its pixels in parts of that many bytes, as libpng writes them."""
    begin, length = png.index(b"IDAT") - 4, int.from_bytes(png[png.index(b"IDAT") - 4 :][:4], "big")
    data = png[begin + 8 : begin + 8 + length]
    parts = b"".join(chunk(b"IDAT", data[at : at + size]) for at in range(0, length, size))
    return png[:begin] + parts + png[begin + 12 + length :]


def going_on(width, height, mebibytes):
    """A PNG whose compressed data goes on behind its last pixel."""
    deflate = zlib.compressobj(9)
    packed = deflate.compress(bytes((3 * width + 1) * height))
    packed += b"".join(deflate.compress(bytes(2**20)) for _ in range(mebibytes)) + deflate.flush()
    content = png_that_claims(width, height)
    begin = content.index(b"IDAT") - 4
    return content[:begin] + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_data_that_goes_on_behind_the_pixels_is_seen_and_that_which_ends_with_them_let_through():
    traced = tf.function(unpacks_to_more_than_pixels, autograph=False)
    whole = [
        noise(60, 50),
        noise(200, 300),
        in_parts(noise(200, 300), 999),
        picture(200, 300, "PNG"),
        noise(1, 4000),
        noise(4000, 1),
        picture(200, 300, "JPEG"),
        b"",
    ]
    sizes = [[60, 50], [200, 300], [200, 300], [200, 300], [1, 4000], [4000, 1], [200, 300], [0, 0]]
    assert not traced(tf.constant(whole), tf.constant(sizes)).numpy().any()
    deep = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (90, 70), np.uint16)).save(deep, "PNG")
    assert not traced(tf.constant([deep.getvalue()]), tf.constant([[90, 70]])).numpy().any()
    longer = [going_on(24, 20, 40), in_parts(going_on(24, 20, 40), 500), in_parts(noise(300, 300), 100)]
    assert traced(tf.constant(longer), tf.constant([[20, 24], [20, 24], [300, 300]])).numpy().all()


def test_a_request_whose_data_goes_on_behind_the_pixels_is_refused():
    frames = tf.constant([[GOOD, going_on(24, 20, 40)]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="is a PNG whose data goes on behind its pixels"):
        tf.function(clips_from_frames, autograph=False)(frames, CLIP)


@pytest.mark.parametrize(
    "frames, told",
    [
        ([[GOOD] * 2] * 4, r"\[frames holds\] \[4\] \[clips, expected at most\] \[3\]"),
        ([[GOOD] * 6], r"\[frames holds clips of\] \[6\] \[frames, expected at most\] \[5\]"),
        (
            [[picture(16, 16, "JPEG", comment=b" " * 10_000)] * 2],
            r"\[frames holds\] \[2\d{4}\] \[bytes, expected at most\]",
        ),
    ],
)
def test_a_request_of_too_many_clips_frames_or_bytes_is_refused(clips_of, frames, told):
    with pytest.raises(tf.errors.InvalidArgumentError, match=told):
        clips_of(frames)


def test_what_lies_at_the_limits_is_taken(clips_of):
    whole = [
        picture(30, 40),
        picture(30, 40, "JPEG"),
        with_chunks(picture(30, 40), *[TEXT] * MOST_TEXTS, *[INTERNATIONAL] * MOST_TEXTS),
        picture(30, 40, "JPEG", progressive=True),
    ]
    found = clips_of([whole, whole[::-1], whole])
    assert found.shape == (3, 2, 8, 8, 3) and np.abs(found.astype(int) - 90).max() <= 2
    assert clips_of([[picture(68, 17)] * 5]).shape == (1, 2, 8, 8, 3)


KINDS = {
    "PNG": ("RGB", "PNG", {}),
    "grey PNG": ("L", "PNG", {}),
    "palette PNG": ("P", "PNG", {}),
    "PNG with transparency": ("RGBA", "PNG", {}),
    "16-bit PNG": ("I;16", "PNG", {}),
    "1-bit PNG": ("1", "PNG", {}),
    "JPEG": ("RGB", "JPEG", {}),
    "grey JPEG": ("L", "JPEG", {}),
    "CMYK JPEG": ("CMYK", "JPEG", {}),
    "progressive JPEG": ("RGB", "JPEG", {"progressive": True}),
    "JPEG with a long comment": ("RGB", "JPEG", {"comment": b"\xff\xc0" * 9000}),
    "JPEG with a thumbnail's header in its EXIF": ("RGB", "JPEG", {"exif": b"Exif\0\0MM\0*" + picture(3, 5, "JPEG")}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_tells_the_size_that_decoders_find(kind):
    mode, image_format, options = KINDS[kind]
    files = []
    for size in ((1, 1), (37, 19), (300, 2)):
        file = io.BytesIO()
        Image.new(mode, size).save(file, image_format, **options)
        files.append(file.getvalue())
    decoded = [tf.io.decode_jpeg(file, channels=3).shape[:2].as_list() for file in files]
    assert decoded == [[1, 1], [19, 37], [2, 300]]
    traced = tf.function(stored_sizes, autograph=False)
    np.testing.assert_array_equal(traced(tf.constant(files)), decoded)


def test_frames_that_are_never_resized_fit_the_limits_whatever_their_size():
    clip = ClipSpec(num_frames=2, height=60, width=50, channels=1)
    limits = RequestLimits(frames=1, frame_pixels=10, png_bytes=10).for_clips(clip)
    assert (limits.frames, limits.frame_pixels) == (2, 3000) and limits.png_bytes > 3000
    frames = encode(np.random.default_rng(0).integers(0, 256, (2, 60, 50, 1), np.uint8))
    found = clips_from_frames(tf.constant([frames]), clip, limits)
    np.testing.assert_array_equal(found[0, 0], tf.io.decode_png(frames[0]))


def test_a_limit_below_one_is_refused_by_its_flag():
    with pytest.raises(ConfigError, match="--max_png_bytes=0: expected at least 1"):
        RequestLimits(png_bytes=0)
