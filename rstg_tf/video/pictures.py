"""One place that turns pictures into pixels, whatever their format, and tells pictures from videos by their content.

Every picture goes through `pixels_of`, so that data sets and `predict` see what the decoders in an exported model see
(`tf.io`): 16 bits become 8 by their upper byte, transparency is dropped, palettes and CMYK become RGB, and a picture
that its camera turned (EXIF) is turned upright. No TensorFlow.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rstg_tf.common.errors import VideoError
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits, require_regular

_GREY = ("1", "L", "LA", "La")
# What Pillow opens besides pictures: videos, and containers that it passes on to other programs.
_NO_PICTURES = frozenset({"MPEG", "FLI", "HDF5", "GRIB", "BUFR", "WMF", "EPS", "IPTC"})
# Formats whose first bytes leave no doubt, so that a picture that was cut short is still one.
_CERTAIN = frozenset({"JPEG", "PNG", "GIF", "TIFF", "WEBP", "JPEG2000", "AVIF"})
_MAY_MOVE = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")
_MOTION_JPEG = (".mjpeg", ".mjpg")  # pictures one after another, which nothing but the name tells
_EXIF_ORIENTATION = 0x0112
_PREFIX_BYTES = 16  # what Pillow's plugins look at
_MOST_SCANS = 100  # of a JPEG, whose encoders make ten; each costs as much as the whole picture


def picture_format(path: str | os.PathLike) -> str | None:
    """The format of a picture by its content, as Pillow calls it (JPEG, PNG, …); None for everything else.

    Animations (GIF, APNG, WebP of several pictures) are no pictures but videos.
    """
    try:
        require_regular(path, named="it")
        with open(path, "rb") as file:
            prefix = file.read(_PREFIX_BYTES)
    except (OSError, VideoError):
        return None
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        return "HEIF"
    suffix = Path(path).suffix.lower()
    for name in _candidates(prefix, suffix):
        if name == "JPEG" and suffix in _MOTION_JPEG:
            return None
        if name not in _CERTAIN:
            if not _opens(path, name):
                continue
        elif name in _MAY_MOVE and _moves(path, name):
            return None
        return name
    return None


def suffix_format(path: str | os.PathLike) -> str | None:
    """The format that a file's name promises, or None."""
    Image.init()
    name = Image.registered_extensions().get(Path(path).suffix.lower())
    return None if name in _NO_PICTURES else name


def picture_bytes(path: str | os.PathLike, *, named: str, limits: MediaLimits = DEFAULT_LIMITS) -> bytes:
    """The content of a picture's file. Raises VideoError, beginning with `named`, for one that is too large or none."""
    size = require_regular(path, named=named)
    if size > limits.picture_bytes:
        raise VideoError(f"{named} has {size} bytes: expected at most {limits.picture_bytes} (--max_picture_bytes).")
    try:
        with open(path, "rb") as file:
            return file.read(limits.picture_bytes)
    except OSError as error:
        raise VideoError(f"{named} cannot be read ({error.strerror}).") from None


def pixels_of(content: bytes, *, named: str, limits: MediaLimits = DEFAULT_LIMITS) -> np.ndarray:
    """The pixels of a picture: uint8 [H, W, 1] for grey ones, else [H, W, 3] RGB.

    Raises VideoError, beginning with `named`, for what Pillow cannot read completely, for several pictures in one file,
    for numbers whose range is not known (float, 32 bits), and, before it is decoded, for one beyond the `limits`.
    """
    return _read(content, named, limits)[0]


def pixels_and_jpeg(
    content: bytes, *, named: str, limits: MediaLimits = DEFAULT_LIMITS
) -> tuple[np.ndarray, bytes | None]:
    """`pixels_of` a picture, and the content itself where it is a JPEG that every decoder reads as these pixels: grey
    or YCbCr, and upright. Else None."""
    pixels, is_plain_jpeg = _read(content, named, limits)
    return pixels, content if is_plain_jpeg else None


def _read(content: bytes, named: str, limits: MediaLimits) -> tuple[np.ndarray, bool]:
    if not content:
        raise VideoError(f"{named} is empty.")
    try:
        with _opened(content) as image:
            name, mode = image.format, image.mode
            limits.require_size(image.height, image.width, named=named)
            if name in _MAY_MOVE | {"TIFF"} and getattr(image, "n_frames", 1) > 1:
                raise VideoError(f"{named} holds {image.n_frames} pictures ({name}); expected a file for each frame.")
            if name in ("JPEG", "MPO") and content.count(b"\xff\xda") > _MOST_SCANS:
                raise VideoError(f"{named} is a JPEG of more than {_MOST_SCANS} scans: expected some ten at most.")
            image.load()  # every pixel: a cut JPEG has a perfect header
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in range(2, 9)
            pixels = _to_8_bits(ImageOps.exif_transpose(image) if turned else image, name, named)
    except VideoError:
        raise
    except Image.UnidentifiedImageError:
        raise VideoError(f"{named} is no picture that Pillow can read.") from None
    # Pillow's plugins let through whatever a broken file makes them stumble over.
    except (Exception, Image.DecompressionBombError) as error:  # noqa: BLE001
        told = str(error).partition(" <_io.")[0]
        raise VideoError(f"{named} cannot be decoded as {_format_in(content)} ({told}).") from None
    return pixels, name in ("JPEG", "MPO") and mode in ("RGB", "L") and not turned


def _opened(content: bytes) -> Image.Image:
    """Opens a picture by its content, with no plugin that would start programs or read other files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit comes next
        return Image.open(io.BytesIO(content), formats=_readable_formats())


def _readable_formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in _NO_PICTURES]


def _to_8_bits(image: Image.Image, name: str, named: str) -> np.ndarray:
    if image.mode.startswith("I;16") or (image.mode == "I" and name in ("PNG", "PPM")):
        pixels = (np.asarray(image) >> 8).astype(np.uint8)
    elif image.mode in ("I", "F"):
        kind = {"I": "32 bits", "F": "floating point"}[image.mode]
        raise VideoError(f"{named} has pixels of {kind}, whose range is not known; expected 8 or 16 bits.")
    else:
        pixels = np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _format_in(content: bytes) -> str:
    return next(iter(_candidates(content[:_PREFIX_BYTES], "")), "a picture")


def _candidates(prefix: bytes, suffix: str) -> list[str]:
    """Formats whose first bytes these are; those that have none to be known by only under their own suffix."""
    Image.init()
    names = [
        name
        for name, (_, accepts) in Image.OPEN.items()
        if name not in _NO_PICTURES and accepts is not None and _accepts(accepts, prefix)
    ]
    promised = Image.registered_extensions().get(suffix)
    if promised in Image.OPEN and promised not in _NO_PICTURES and Image.OPEN[promised][1] is None:
        names.append(promised)
    return names


def _accepts(accepts: Callable[[bytes], bool | str], prefix: bytes) -> bool:
    try:
        return accepts(prefix) is True
    except (IndexError, struct.error):  # of fewer bytes than it looks at
        return False


def _opens(path: str | os.PathLike, name: str) -> bool:
    try:
        with Image.open(path, formats=(name,)):
            return True
    except Exception:  # noqa: BLE001 - whatever a plugin stumbles over
        return False


def _moves(path: str | os.PathLike, name: str) -> bool:
    try:
        with Image.open(path, formats=(name,)) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # noqa: BLE001 - cut short: a picture, not a video
        return False
