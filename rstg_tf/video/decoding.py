"""The one place that decodes video files and finds the frames of frame folders. No TensorFlow.

Files are decoded by ffmpeg through scikit-video's reader, frame by frame. What comes out is counted, because neither of
the two says so when a file ends early: scikit-video's `vread` even fills the frames that are missing with whatever the
memory holds. A file is refused

- if the frames differ in number from what its container declares (MP4, MOV, AVI, GIF; frames that an edit list hides
  do not count), or, where it declares none, from its packets (Matroska and WebM, whose declared length must be reached
  too), so that a file that was cut is found, and
- if ffmpeg reports damage while it decodes.

What passes: a changed byte that still decodes (VP8 and VP9, which carry no checksums, nearly always do), and a cut
between two packets of a container that declares neither frames nor length (MPEG-TS, MPEG-PS, fragmented MP4, what
browsers record live).

Frames are shown as a player shows them, turned if the file says so. Pixels that are not square are left as stored.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rstg_tf.common.errors import VideoError
from rstg_tf.video.probing import Inspected, VideoFacts, inspect_file, require_ffmpeg
from rstg_tf.video.skvideo_io import reader_class

__all__ = ["Video", "VideoError", "VideoFacts", "iter_frames", "list_frame_files", "probe", "read_encoded_frames",
           "read_video", "require_ffmpeg"]  # fmt: skip

FRAME_FILE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class Video:
    """`frames` uint8 [T, H, W, 3], `timestamps` int64 [T] in microseconds, increasing from 0."""

    frames: np.ndarray
    timestamps: np.ndarray
    frames_per_second: float


def probe(path: str | os.PathLike) -> VideoFacts:
    """The facts of a video file, without decoding it; raises VideoError if ffmpeg finds no video in it."""
    return inspect_file(path, packets=False).facts


def iter_frames(path: str | os.PathLike, *, short_side: int | None = None, threads: int = 0) -> Iterator[np.ndarray]:
    """Decodes a file frame by frame: uint8 [H, W, 3], read-only, one in memory at a time.

    Args:
      path: any file that ffmpeg reads.
      short_side: pixels to which the shorter side is brought (bicubic, up or down; the other is rounded); None leaves
        frames as they are.
      threads: of ffmpeg's decoder; 0 lets it decide.

    Raises:
      VideoError: at the first frame if there is none to be had; after the last if there should have been more, or if
        ffmpeg reported damage.
      OSError: ffmpeg was killed, which says nothing about the file.
    """
    yield from _decode(inspect_file(path, packets=True), short_side, threads)


def read_video(path: str | os.PathLike, *, short_side: int | None = None, threads: int = 0) -> Video:
    """The whole file at once; arguments and errors as of `iter_frames`.

    Timestamps are the container's, or, where those are missing or do not increase, follow from the frame rate.
    """
    inspected = inspect_file(path, packets=True)
    frames = list(_decode(inspected, short_side, threads))
    return Video(frames=np.stack(frames), timestamps=inspected.timestamps(len(frames)),
                 frames_per_second=inspected.facts.frames_per_second)  # fmt: skip


def read_encoded_frames(
    path: str | os.PathLike, encode: Callable[[np.ndarray], Any], *, short_side: int, threads: int = 0
) -> tuple[list[Any], np.ndarray]:
    """`encode(frame)` of every frame, for little memory where that compresses, and the timestamps int64 [T].

    Frames are only ever made smaller: of a video whose shorter side is below `short_side` they are left as they are.
    Arguments and errors as of `iter_frames`.
    """
    inspected = inspect_file(path, packets=True)
    is_larger = min(inspected.facts.width, inspected.facts.height) > short_side
    encoded = [encode(frame) for frame in _decode(inspected, short_side if is_larger else None, threads)]
    return encoded, inspected.timestamps(len(encoded))


def list_frame_files(folder: str | os.PathLike) -> list[Path]:
    """The JPEG or PNG files of a frame folder in the order of the number, from 0 or 1, that ends their names.

    Raises:
      VideoError: the folder holds none, mixes the two formats, or a number is missing or comes twice. Frames missing
        at the end cannot be told.
    """
    try:
        files = [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be listed ({error.strerror}).") from None
    files = [file for file in files if file.suffix.lower() in FRAME_FILE_SUFFIXES]
    if not files:
        raise VideoError(f"{folder}: holds no frame; expected numbered files {', '.join(FRAME_FILE_SUFFIXES)}.")
    if len({file.suffix.lower() == ".png" for file in files}) > 1:
        raise VideoError(f"{folder}: holds JPEG and PNG frames; expected one format.")
    numbers: dict[int, Path] = {}
    for file in sorted(files):
        digits = re.search(r"(\d+)$", file.stem)
        if digits is None:
            raise VideoError(f"{file}: expected a name that ends with the number of the frame.")
        other = numbers.setdefault(int(digits.group()), file)
        if other is not file:
            raise VideoError(f"{folder}: {other.name} and {file.name} are the same frame number.")
    first, last = min(1, min(numbers)), max(numbers)
    missing = next((number for number in range(first, last) if number not in numbers), None)
    if missing is not None:
        raise VideoError(f"{folder}: frame {missing} is missing; found {len(numbers)} of the frames {first} to {last}.")
    return [numbers[number] for number in range(first, last + 1)]


def _decode(inspected: Inspected, short_side: int | None, threads: int) -> Iterator[np.ndarray]:
    facts, path = inspected.facts, inspected.path
    shorter, size = min(facts.width, facts.height), (facts.width, facts.height)
    if short_side is not None:
        size = tuple((2 * side * short_side + shorter) // (2 * shorter) for side in size)
    reader = reader_class()(path, size=size, threads=threads)
    num_frames = 0
    try:
        for frame in reader.nextFrame():
            num_frames += 1
            yield frame  # [H, W, 3]
        code, messages = reader.wait()
    finally:
        reader.close()
    if code < 0:
        raise OSError(f"ffmpeg was killed by signal {-code} while it read {path}.")
    damage = next((line for line in messages if _tells_of_damage(line, inspected)), None)
    if num_frames == 0:
        raise VideoError(f"{path}: no frame could be decoded{f' (ffmpeg: {damage})' if damage else ''}.")
    fault = inspected.length_fault(num_frames) or (None if code == 0 else f"{num_frames} frames decoded")
    if fault:
        raise VideoError(f"{path}: truncated or damaged: {fault}{f' (ffmpeg: {damage})' if damage else ''}.")
    if damage:
        raise VideoError(f"{path}: damaged: all {num_frames} frames decoded, but ffmpeg reports: {damage}.")


def _tells_of_damage(message: str, inspected: Inspected) -> bool:
    """Whether an error message is about this stream; those about sound or chapters do not matter here."""
    context = re.match(r"\[([^]]*)\]", message)
    if context is None:
        return True
    return inspected.facts.codec in context.group(1) or bool(
        context.group(1) == inspected.container
        and re.search("premature|partial|[Tt]runcat|exceeds|[Ii]nvalid", message))
