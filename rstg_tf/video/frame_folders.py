"""Folders that hold a video as numbered pictures, and what lies in a folder: pictures, videos, or neither."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rstg_tf.common.errors import VideoError
from rstg_tf.common.files import is_left_by_system
from rstg_tf.video.pictures import picture_format, suffix_format

# How the files of video containers begin, and at which byte: MP4 and MOV, Matroska, AVI, Ogg, MPEG-PS, MPEG-1 and -2,
# FLV, ASF, MPEG-TS.
_VIDEO_MARKS = (
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"wide"),
    (0, b"\x1aE\xdf\xa3"),
    (8, b"AVI "),
    (0, b"OggS"),
    (0, b"\0\0\1\xba"),
    (0, b"\0\0\1\xb3"),
    (0, b"FLV"),
    (0, b"0&\xb2u"),
    (188, b"G"),
)


def list_frame_files(folder: str | os.PathLike) -> list[Path]:
    """The pictures of a frame folder in the order of the number, from 0 or 1, that ends their names.

    Their format is any that Pillow reads, the same for all. Files of other kinds beside them are no frames.

    Raises:
      VideoError: the folder holds none, mixes two formats, or a number is missing or comes twice. Frames missing at the
        end cannot be told.
    """
    try:
        files = [
            Path(entry.path) for entry in os.scandir(folder) if not is_left_by_system(entry.name) and entry.is_file()
        ]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be listed ({error.strerror}).") from None
    groups = picture_groups(files)
    if not groups:
        told = f"none of its {len(files)} files is a picture" if files else "it is empty"
        raise VideoError(f"{folder}: holds no frame ({told}); expected numbered pictures such as 00001.jpg.")
    if len(groups) > 1:
        raise VideoError(f"{folder}: holds {' and '.join(sorted(groups))} frames; expected one format.")
    numbers: dict[int, Path] = {}
    for file in next(iter(groups.values())):
        digits = frame_number(file)
        if digits is None:
            raise VideoError(f"{file}: expected a name that ends with the number of the frame.")
        other = numbers.setdefault(digits, file)
        if other is not file:
            raise VideoError(f"{folder}: {other.name} and {file.name} are the same frame number.")
    first, last = min(1, min(numbers)), max(numbers)
    missing = next((number for number in range(first, last) if number not in numbers), None)
    if missing is not None:
        raise VideoError(f"{folder}: frame {missing} is missing; found {len(numbers)} of the frames {first} to {last}.")
    return [numbers[number] for number in range(first, last + 1)]


def frame_number(file: Path) -> int | None:
    """The number that ends a file's name, None if none does."""
    digits = re.search(r"([0-9]{1,18})$", file.stem)
    return None if digits is None else int(digits.group())


def picture_groups(files: Sequence[Path]) -> dict[str, list[Path]]:
    """The pictures among files, sorted, by the format that their names promise (else by the suffix itself).

    Files of one suffix are taken for pictures if the first, the middle or the last of them is one by its content: to
    look into each would take long, and whoever reads the frames finds what is none. Empty files count as their names
    promise.
    """
    groups: dict[str, list[Path]] = {}
    for file in sorted(files):
        groups.setdefault(suffix_format(file) or file.suffix.lower() or "nameless", []).append(file)
    return {name: group for name, group in groups.items() if _holds_pictures(group)}


def _holds_pictures(group: Sequence[Path]) -> bool:
    samples = {group[0], group[len(group) // 2], group[-1]}
    if any(picture_format(file) for file in samples):
        return True
    return suffix_format(group[0]) is not None and all(_is_empty(file) for file in samples)


def _is_empty(file: Path) -> bool:
    try:
        return file.stat().st_size == 0
    except OSError:
        return False


def looks_like_video(file: str | os.PathLike) -> bool:
    """Whether a file begins as the usual containers of video do, or is an animation. No proof that it decodes."""
    try:
        with open(file, "rb") as opened:
            begin = opened.read(192)
    except OSError:
        return False
    if picture_format(file):
        return False
    if begin.startswith((b"GIF8", b"\x89PNG")):
        return True
    marks = [mark for at, mark in _VIDEO_MARKS if begin[at : at + len(mark)] == mark]
    return bool(marks) and (marks != [b"G"] or begin[:1] == b"G")
