"""Any clip that a user has -> frames, and frames -> the clip that a model sees, as evaluation makes it.

A source is a video file, a folder of numbered pictures, an array in a `.npy` file, or a raw stream.
Frames come one by one, so that a video of any length needs little memory. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.video.clip_spec import STORED_SHORT_SIDE, with_channels
from rstg_tf.video.decoding import TimedFrame, iter_frames, iter_timed_frames, probe
from rstg_tf.video.frame_folders import list_frame_files
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits, require_regular
from rstg_tf.video.pictures import picture_bytes, picture_format, pixels_of

_ARRAY_MARK = b"\x93NUMPY"
_LARGEST_CLIP = 2**32  # bytes of frames that are held at once
RAW_CHANNELS = {"rgb24": 3, "gray": 1}  # FFmpeg's names of pixel formats -> C


@dataclasses.dataclass(frozen=True)
class Clip:
    """`frames` uint8 [T, H, W, C], C 1 or 3, and how many of them a second has; None where the source doesn't tell."""

    frames: np.ndarray
    frames_per_second: float | None


@dataclasses.dataclass(frozen=True)
class FrameSource:
    """Where frames come from.

    `name` for messages; `read(short_side)` starts at the first frame and gives uint8 [H, W, 1 or 3], one after another:
    with a short side in pixels, video files (alone) are decoded at that size if they are larger. `num_frames` is what
    the source declares, which of a video file is a hint only, and `frame_size` its height and width in pixels, None
    where it doesn't. `read_timed`: `read` with the frames' own times, of sources that have them. `sound_of`: the file
    whose sound belongs to the frames. A stream is read once only, unless it can be sought.
    """

    name: str
    read: Callable[[int | None], Iterator[np.ndarray]]
    frames_per_second: float | None = None
    num_frames: int | None = None
    frame_size: tuple[int, int] | None = None
    read_timed: Callable[[int | None], Iterator[TimedFrame]] | None = None
    sound_of: str | None = None

    def timed(self, short_side: int | None, *, frames_per_second: float) -> Iterator[TimedFrame]:
        """As `read`, with each frame's time: its own, or else by the given rate."""
        if self.read_timed is not None:
            yield from self.read_timed(short_side)
            return
        for number, frame in enumerate(self.read(short_side)):
            yield TimedFrame(frame, number / frames_per_second, 1 / frames_per_second)


def open_source(path: str | os.PathLike, *, limits: MediaLimits = DEFAULT_LIMITS) -> FrameSource:
    """The frames of a video file, a folder of numbered pictures, or a `.npy` file (uint8 [T, H, W] or [T, H, W, C]).

    Raises ConfigError when there is nothing at `path`, VideoError (naming it) when it cannot be read as what it is,
    or is beyond the `limits`: by what it says of itself at once, else when that much has been read.
    """
    path = os.fspath(path)
    if not Path(path).exists():
        raise ConfigError(f"{path} does not exist: give a video, a folder of frames, or a .npy file.")
    if Path(path).is_dir():
        return _folder_source(path, limits)
    require_regular(path, named=path)
    if path.endswith(".npy") or _begins_with(path, _ARRAY_MARK):
        return _array_source(path, limits)
    picture = picture_format(path)
    if picture:
        raise VideoError(
            f"{path} is a single picture ({picture}), not a video: expected a video file, a folder with "
            "the numbered frames of one, or a .npy file."
        )
    return _video_source(path, limits)


def _begins_with(path: str, mark: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(mark)) == mark
    except OSError:
        return False


def load_clip(source: str | os.PathLike | FrameSource, *, channels: int, limits: MediaLimits = DEFAULT_LIMITS) -> Clip:
    """All frames of a source, or of what lies at a path (see `open_source`, whose errors it raises), grey (channels 1)
    or RGB (3).

    Video files larger than that are decoded at a short side of 256 pixels, as records hold them. Raises VideoError for
    frames that are more than 4 GiB.
    """
    opened = source if isinstance(source, FrameSource) else open_source(source, limits=limits)
    frames, held = [], 0
    for frame in opened.read(STORED_SHORT_SIDE):
        frames.append(with_channels(frame, channels))
        held += frames[-1].nbytes
        if held > _LARGEST_CLIP:
            raise VideoError(
                f"{opened.name}: {len(frames)} frames are {held >> 20} MiB, too long for one clip: expected at most "
                f"{_LARGEST_CLIP >> 20} MiB; cut out the part that matters."
            )
    return Clip(frames=np.stack(frames), frames_per_second=opened.frames_per_second)


def raw_source(
    stream: BinaryIO, *, height: int, width: int, channels: int, name: str = "the raw stream"
) -> FrameSource:
    """Frames of H·W·C bytes each, row by row, without anything between them.

    Reading raises VideoError when the stream holds no frame or ends within one.
    """
    size = height * width * channels
    begin = stream.tell() if stream.seekable() else None

    def read(short_side: int | None) -> Iterator[np.ndarray]:
        if begin is not None:
            stream.seek(begin)
        number = 0
        while content := stream.read(size):
            if len(content) < size:
                raise VideoError(
                    f"{name} ends within frame {number + 1}, after {len(content)} of its {size} bytes: "
                    f"expected whole frames of {width}×{height} pixels in {channels} channel(s); do size "
                    "and pixel format agree with what is sent?"
                )
            number += 1
            yield np.frombuffer(content, np.uint8).reshape(height, width, channels)
        if number == 0:
            raise VideoError(f"{name} is empty: expected frames of {size} bytes.")

    return FrameSource(name=name, read=read, frame_size=(height, width))


def _video_source(path: str, limits: MediaLimits) -> FrameSource:
    facts = probe(path, limits=limits)
    options = {"enlarge": False, "limits": limits}
    return FrameSource(
        name=path,
        read=lambda short_side: iter_frames(path, short_side=short_side, **options),
        read_timed=lambda short_side: iter_timed_frames(path, short_side=short_side, **options),
        frames_per_second=facts.frames_per_second,
        num_frames=facts.declared_frames,
        frame_size=(facts.height, facts.width),
        sound_of=path,
    )


def _folder_source(folder: str, limits: MediaLimits) -> FrameSource:
    files = list_frame_files(folder)
    limits.require_length(len(files), 0, named=folder)

    def read(short_side: int | None) -> Iterator[np.ndarray]:
        first = None
        for file in files:
            named = os.fspath(file)
            frame = pixels_of(picture_bytes(file, named=named, limits=limits), named=named, limits=limits)
            first = frame.shape if first is None else first
            limits.require_length(len(files), len(files) * first[0] * first[1], named=folder)
            if frame.shape[:2] != first[:2]:
                raise VideoError(
                    f"{file} is {frame.shape[1]}×{frame.shape[0]} pixels, but the folder's first frame "
                    f"{first[1]}×{first[0]}: expected frames of one size."
                )
            yield with_channels(frame, first[2])

    return FrameSource(name=folder, read=read, num_frames=len(files))


def _array_source(path: str, limits: MediaLimits) -> FrameSource:
    if not _begins_with(path, _ARRAY_MARK):
        what = "an archive of arrays (.npz)" if _begins_with(path, b"PK") else "no array"
        raise VideoError(f"{path} is {what}: expected one array, as numpy.save writes it.")
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    # NumPy reads a header as Python's text: a damaged one raises almost anything, TokenError and TypeError too.
    except Exception as error:
        raise VideoError(f"{path} cannot be read as a NumPy array ({' '.join(str(error).split())}).") from error
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[-1] not in (1, 3)):
        raise VideoError(
            f"{path} holds {frames.dtype} {list(frames.shape)}: expected uint8 [T, H, W], or [T, H, W, C] "
            "with C 1 (grey) or 3 (RGB)."
        )
    if frames.size == 0:
        raise VideoError(f"{path} holds {list(frames.shape)}: expected at least one frame of at least one pixel.")
    if frames.ndim == 3 and frames.shape[-1] in (1, 3, 4):
        raise VideoError(
            f"{path} holds {list(frames.shape)}, a single picture [H, W, C] by its last axis, not a clip: "
            "expected [T, H, W], or [T, H, W, C] with C 1 (grey) or 3 (RGB); of one picture, save "
            "array[None]."
        )
    frames = frames[..., None] if frames.ndim == 3 else frames
    limits.require_size(*frames.shape[1:3], named=path, what="holds frames of")
    limits.require_length(len(frames), len(frames) * frames.shape[1] * frames.shape[2], named=path)
    return FrameSource(name=path, read=lambda short_side: (np.array(frame) for frame in frames), num_frames=len(frames))
