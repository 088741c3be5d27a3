"""One picture in every kind of file, with the mean colour that it must have."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
COLOUR = np.stack([3 * COLUMNS, 5 * ROWS, COLUMNS + ROWS], axis=-1).astype(np.uint8)  # [H, W, 3], below 256
GREY16 = ((COLUMNS + ROWS) * 512).astype(np.uint16)  # up to 56320


def encode(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png(depth, colour_type, rows):
    """A PNG written by hand: what Pillow itself cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = b"".join(b"\0" + row for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour_type, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def few_bits(depth):
    values = COLOUR[..., 0] >> (8 - depth)
    bits = (values[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return png(depth, 0, [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in bits])


COLOUR16 = np.stack([GREY16, GREY16[::-1] // 2, GREY16[:, ::-1] // 3], axis=-1)
IMAGE, GREY = Image.fromarray(COLOUR), Image.fromarray(COLOUR[..., 0])
# Kind -> the file, and the mean colour that it must have everywhere.
COLOUR_MEAN, GREY_MEAN = COLOUR.reshape(-1, 3).mean(0), [COLOUR[..., 0].mean()] * 3
PALETTE = IMAGE.quantize(32)
ALPHA = np.dstack([COLOUR, 255 - COLOUR[..., 0]])
PICTURES = {
    "colour PNG": (encode(IMAGE, "PNG"), COLOUR_MEAN),
    "grey PNG": (encode(GREY, "PNG"), GREY_MEAN),
    "palette PNG": (encode(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB")).reshape(-1, 3).mean(0)),
    "alpha PNG": (encode(Image.fromarray(ALPHA), "PNG"), COLOUR_MEAN),
    "grey PNG with alpha": (encode(Image.merge("LA", [GREY, IMAGE.getchannel(1)]), "PNG"), GREY_MEAN),
    "16-bit grey PNG": (encode(Image.fromarray(GREY16), "PNG"), [GREY16.mean() / 257] * 3),
    "16-bit colour PNG": (
        png(16, 2, [row.astype(">u2").tobytes() for row in COLOUR16]),
        COLOUR16.reshape(-1, 3).mean(0) / 257,
    ),
    "2-bit grey PNG": (few_bits(2), [((COLOUR[..., 0] >> 6) * 85).mean()] * 3),
    "4-bit grey PNG": (few_bits(4), [((COLOUR[..., 0] >> 4) * 17.0).mean()] * 3),
    "colour JPEG": (encode(IMAGE, "JPEG", quality=98), COLOUR_MEAN),
    "grey JPEG": (encode(GREY, "JPEG", quality=98), GREY_MEAN),
    "CMYK JPEG": (encode(IMAGE.convert("CMYK"), "JPEG", quality=98), COLOUR_MEAN),
    "JPEG that the camera turned": (encode(IMAGE, "JPEG", quality=98, exif=turned(6)), COLOUR_MEAN),
}
# No decoder of an exported model takes these; whoever asks it sends them as PNG.
OTHERS = {
    "BMP": (encode(IMAGE, "BMP"), COLOUR_MEAN),
    "TIFF": (encode(IMAGE, "TIFF"), COLOUR_MEAN),
    "WebP": (encode(IMAGE, "WEBP", lossless=True), COLOUR_MEAN),
    "PPM": (encode(IMAGE, "PPM"), COLOUR_MEAN),
    "JPEG 2000": (encode(IMAGE, "JPEG2000"), COLOUR_MEAN),
    "TGA": (encode(IMAGE, "TGA"), COLOUR_MEAN),
    "one-picture GIF": (encode(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB")).reshape(-1, 3).mean(0)),
    "16-bit TIFF": (encode(Image.fromarray(GREY16), "TIFF"), [GREY16.mean() / 257] * 3),
    "16-bit PGM": (b"P5 64 48 65535\n" + GREY16.astype(">u2").tobytes(), [GREY16.mean() / 257] * 3),
    "turned TIFF": (encode(IMAGE, "TIFF", tiffinfo={0x0112: 8}), COLOUR_MEAN),
}
SUFFIXES = {
    "BMP": ".bmp",
    "TIFF": ".tif",
    "WebP": ".webp",
    "PPM": ".ppm",
    "JPEG 2000": ".jp2",
    "TGA": ".tga",
    "one-picture GIF": ".gif",
    "16-bit TIFF": ".tiff",
    "16-bit PGM": ".pgm",
    "turned TIFF": ".TIF",
}
