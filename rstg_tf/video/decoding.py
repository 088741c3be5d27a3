"""The one place that decodes video files. No TensorFlow.

Files are decoded by FFmpeg's libraries (PyAV), frame by frame, in this process and by one thread. Frames that decode
are used; `completeness` tells what a file is refused for. They are shown as a player shows them: those that an edit
list hides are left out, and they are turned if the file says so. Pixels that are not square are left as stored. Times
are those of the frames' own timestamps.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from rstg_tf.common.errors import VideoError
from rstg_tf.video.completeness import Reading
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits
from rstg_tf.video.pixels import Converter, upright_size
from rstg_tf.video.probing import OpenVideo, VideoFacts, opened

_MOVING_PICTURES = ("gif", "apng")  # formats of pictures, which may also move


class TimedFrame(NamedTuple):
    """`pixels` uint8 [H, W, 3]; `seconds` from the first frame, and how long it is shown, None where nobody says."""

    pixels: np.ndarray
    seconds: float | None
    duration: float | None


@dataclasses.dataclass(frozen=True)
class Video:
    """`frames` uint8 [T, H, W, 3], `timestamps` int64 [T] in microseconds, increasing from 0."""

    frames: np.ndarray
    timestamps: np.ndarray
    frames_per_second: float


def probe(path: str | os.PathLike, *, limits: MediaLimits = DEFAULT_LIMITS) -> VideoFacts:
    """The facts of a video file, of which one frame is decoded: it alone tells the size as shown.

    Raises VideoError if there is no video in it, or more than the `limits` allow.
    """
    with opened(path, limits=limits) as video:
        context = video.stream.codec_context
        width, height = context.width, context.height
        reading = Reading(video)
        first = next((frame for packet in reading.packets() for frame in reading.frames(packet)), None)
        if first is not None:
            width, height = upright_size(first)
        return VideoFacts(
            width=width,
            height=height,
            frames_per_second=video.frames_per_second,
            declared_frames=video.stream.frames or None,
            codec=video.codec,
        )


def first_frame_seconds(path: str | os.PathLike) -> float:
    """When the first frame is shown, on the clock that a file's picture and sound share."""
    with opened(path) as video:
        reading = Reading(video)
        times = (reading.time(frame) for packet in reading.packets() for frame in reading.frames(packet))
        return float((next(times, None) or 0) * video.stream.time_base)


def iter_frames(
    path: str | os.PathLike,
    *,
    short_side: int | None = None,
    enlarge: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Iterator[np.ndarray]:
    """Decodes a file frame by frame: uint8 [H, W, 3], one in memory at a time.

    Args:
      path: a video in any of `probing.CONTAINERS`.
      short_side: pixels to which the shorter side is brought (bicubic, up or down; the other is rounded); None leaves
        frames as they are.
      enlarge: False leaves frames that are smaller than that as they are.
      limits: what is refused by its size, before or while it is decoded.

    Raises:
      VideoError: at the first frame if there is none to be had; after the last for damage or missing packets.
      OSError: the file cannot be read, which says nothing about the video.
    """
    for frame in iter_timed_frames(path, short_side=short_side, enlarge=enlarge, limits=limits):
        yield frame.pixels


def iter_timed_frames(
    path: str | os.PathLike,
    *,
    short_side: int | None = None,
    enlarge: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Iterator[TimedFrame]:
    """As `iter_frames`, with the time of each frame.

    Where a timestamp is missing or does not increase, the frame follows the one before at the file's frame rate.
    """
    with opened(path, limits=limits) as video:
        rate, first, before = video.frames_per_second, None, None
        for pixels, time, duration in _decode(video, short_side, enlarge):
            first = time if first is None else first
            seconds = 0.0 if before is None else before + 1 / rate
            if time is not None and (before is None or time - first > before):
                seconds = time - first
            before = seconds
            yield TimedFrame(pixels, seconds, duration or 1 / rate)


def read_video(path: str | os.PathLike, *, short_side: int | None = None) -> Video:
    """The whole file at once; arguments and errors as of `iter_frames`.

    Timestamps are the frames', or, where those are missing or do not increase, follow from the frame rate.
    """
    with opened(path) as video:
        frames, times = [], []
        for pixels, time, _ in _decode(video, short_side):
            frames.append(pixels)
            times.append(time)
        return Video(
            frames=np.stack(frames),
            timestamps=_timestamps(times, video.frames_per_second),
            frames_per_second=video.frames_per_second,
        )


def read_encoded_frames(
    path: str | os.PathLike,
    encode: Callable[[np.ndarray], bytes],
    *,
    short_side: int,
    most_bytes: int,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> tuple[list[bytes], np.ndarray]:
    """`encode(frame)` of every frame, for little memory where that compresses, and the timestamps int64 [T].

    Raises VideoError as soon as the encoded frames are more than `most_bytes`.

    Frames are only ever made smaller: of a video whose shorter side is below `short_side` they are left as they are.
    Arguments and errors as of `iter_frames`.
    """
    with opened(path, limits=limits) as video:
        encoded, times, held = [], [], 0
        for pixels, time, _ in _decode(video, short_side, enlarge=False):
            encoded.append(encode(pixels))
            held += len(encoded[-1])
            require_held(held, most_bytes, len(encoded))
            times.append(time)
        return encoded, _timestamps(times, video.frames_per_second)


def require_held(held: int, most_bytes: int, frames: int, *, where: str = "to be held in memory") -> None:
    """Raises VideoError for encoded frames that are too many bytes."""
    if held > most_bytes:
        raise VideoError(f"{frames} frames make {held} bytes, too much {where}: expected at most {most_bytes}.")


def _timestamps(times: list[float | None], rate: float) -> np.ndarray:
    """int64 [T] microseconds from 0: the frames', or by the frame rate if those are missing or do not increase."""
    if None not in times:
        microseconds = np.round(np.array(times, np.float64) * 1e6).astype(np.int64)
        if np.all(np.diff(microseconds) > 0):
            return microseconds - microseconds[0]
    return np.round(np.arange(len(times)) * 1e6 / rate).astype(np.int64)


def _decode(
    video: OpenVideo, short_side: int | None, enlarge: bool = True
) -> Iterator[tuple[np.ndarray, float | None, float | None]]:
    """(pixels [H, W, 3], time in seconds, duration in seconds) of each frame; then VideoError if anything was wrong."""
    reading, convert, size = Reading(video), None, None
    num_frames, num_pixels, last = 0, 0, None
    limits, named = video.limits, f"{video.path}:"
    unit = video.stream.time_base.numerator / video.stream.time_base.denominator  # seconds
    for packet in reading.packets():
        for frame in reading.frames(packet):
            num_frames, num_pixels = num_frames + 1, num_pixels + frame.height * frame.width
            limits.require_size(frame.height, frame.width, named=named, what="its frames are")
            limits.require_length(num_frames, num_pixels, named=named, what="goes on, after")
            # To the microsecond, as records hold it.
            time = reading.time(frame)
            last = None if time is None else float(f"{time * unit:.6f}")
            duration = frame.duration * unit if frame.duration else None
            size = size or _size(upright_size(frame), short_side, enlarge)
            limits.require_size(size[1], size[0], named=named, what="its frames, resized, are")
            try:
                convert = convert if convert and convert.fits(frame) else Converter(frame, size=size)
                pixels = convert(frame).to_ndarray()  # [H, W, 3]
            except VideoError as error:
                raise VideoError(f"{video.path}: {error}.") from None
            yield pixels, last, duration
    damage = reading.damage()
    if damage:
        until = "" if last is None else f", the last of them at {last:.2f} s"
        count = f"{num_frames} frames" if num_frames else "no frame could be"
        raise VideoError(f"{video.path}: truncated or damaged: {damage}; {count} decoded{until}.")
    if num_frames == 0:
        raise VideoError(f"{video.path}: no frame could be decoded.")
    if num_frames == 1 and video.format in _MOVING_PICTURES:
        raise VideoError(f"{video.path}: is a picture ({video.format}), no video.")


def _size(size: tuple[int, int], short_side: int | None, enlarge: bool) -> tuple[int, int]:
    """(width, height) after the shorter side has become `short_side`; the other is rounded, halves up."""
    shorter = min(size)
    if short_side is None or (shorter <= short_side and not enlarge):
        return size
    return tuple((2 * side * short_side + shorter) // (2 * shorter) for side in size)
