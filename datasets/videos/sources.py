"""What a video is before it is a record: where it lies, how its frames become JPEGs, and which clips are cut from it.

Nothing here needs TensorFlow: the processes that decode import this module alone.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rstg_tf.common.errors import VideoError
from rstg_tf.common.text import readable_name
from rstg_tf.video import decoding
from rstg_tf.video.clip_spec import with_channels
from rstg_tf.video.frame_folders import frame_number, list_frame_files
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits
from rstg_tf.video.pictures import picture_bytes, picture_format, pixels_and_jpeg

SHORT_SIDE = 256  # pixels; what readers bring videos to by default, so more would only take room and time
JPEG_QUALITY = 95
FRAME_FOLDER_RATE = 12  # frames per second: Something-Something's, and assumed of every folder of frames
_LARGEST_RECORD = 2**30  # bytes; a protocol buffer ends at twice that
HELD = "to be held in memory (--max_video_bytes)"
_NEEDS_MEMORY = "needs more memory to be read than a process may take (--max_memory)."
BACKWARDS = ", backwards"  # what the name of a class played backwards ends with


@dataclasses.dataclass(frozen=True)
class Stretch:
    """The part of a video that a list takes: from `start` to `end`, in seconds of a file, or of a folder of frames from
    frame number `start` to `end`, both included. Or all of it, which must be `count` frames."""

    start: float = 0.0
    end: float = float("inf")
    count: int | None = None

    def frames(self, encoded: EncodedVideo, *, is_folder: bool, first_number: int) -> EncodedVideo:
        """The frames of the stretch, their timestamps from 0. Raises VideoError where the video is too short for it."""
        total = len(encoded.frames)
        if self.count is not None:
            if total != self.count:
                raise VideoError(f"holds {total} frames, but the list says {self.count}.")
            return encoded
        if is_folder:
            last = first_number + total - 1
            if self.start < first_number or (self.end > last and self.end != float("inf")):
                raise VideoError(
                    f"holds the frames {first_number} to {last}, but the list takes {self.start:g} to {self.end:g}."
                )
            part = slice(int(self.start) - first_number, None if self.end > last else int(self.end) - first_number + 1)
        else:
            seconds = encoded.timestamps / 1e6
            length = seconds[-1] + (seconds[-1] / (total - 1) if total > 1 else 0.0)
            if self.start >= length or (self.end > length + 1.0 and self.end != float("inf")):
                raise VideoError(
                    f"is {length:.1f} seconds long, but the list takes {self.start:g} to {self.end:g}; "
                    "expected seconds."
                )
            part = slice(*np.searchsorted(seconds, [self.start, self.end]))
        timestamps = encoded.timestamps[part]
        if not len(timestamps):
            raise VideoError(f"shows no frame from {self.start:g} to {self.end:g}, which the list takes.")
        return dataclasses.replace(encoded, frames=encoded.frames[part], timestamps=timestamps - timestamps[0])


@dataclasses.dataclass(frozen=True)
class VideoSource:
    """A video file, or a folder of numbered JPEG or PNG frames, that is to become one record or several.

    `media_id` is unique in its data set. `label` is the index of the class, None where nobody said, which is a reason
    to reject the video, as is a `path` where nothing lies. `stretch`: the part of it that is taken, None for all.
    """

    media_id: str
    path: str
    label: int | None
    stretch: Stretch | None = None


@dataclasses.dataclass(frozen=True)
class EncodedVideo:
    """`frames`: T JPEGs of height × width pixels; `timestamps`: int64 [T], microseconds from 0."""

    frames: Sequence[bytes]
    timestamps: np.ndarray
    height: int
    width: int

    def require_records(self, clips: Sequence[ClipRange]) -> None:
        """Raises VideoError for a clip that is too long for a record."""
        for clip in clips:
            size = sum(map(len, self.frames[clip.start : clip.stop]))
            decoding.require_held(size, _LARGEST_RECORD, clip.stop - clip.start, where="for one record")


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Why a video cannot be used, as a sentence."""

    reason: str


@dataclasses.dataclass(frozen=True)
class ClipRange:
    """The frames start ≤ t < stop of a video, the last one first if `backwards`."""

    media_id: str
    label: int
    start: int
    stop: int
    backwards: bool = False


@dataclasses.dataclass(frozen=True)
class Cutting:
    """Which clips a video gives: by default one, the whole of it.

    Attributes:
      clip_frames: frames of a clip; 0 takes whole videos.
      clip_stride: frames from the start of a clip to the start of the next.
      num_classes: with `add_reversed`, the number of classes before the same ones backwards are added to them.
      add_reversed: every clip comes a second time, backwards, with its label + num_classes.
      part: `train` or `validation` takes only this part of each video's time (see `stretches`); None takes all of it.
      validation_share, split_seed: how long the validation's part is, and where.
    """

    clip_frames: int = 0
    clip_stride: int = 0
    num_classes: int = 0
    add_reversed: bool = False
    part: str | None = None
    validation_share: float = 0.0
    split_seed: int = 0

    def clips(self, source: VideoSource, num_frames: int) -> list[ClipRange]:
        """The clips of a video of T frames; with `clip_frames` the id of a clip is the video's, `#`, its first frame.

        Raises:
          VideoError: if the video is too short to give any.
        """
        if not self.clip_frames:
            clips = [ClipRange(source.media_id, source.label, 0, num_frames)]
        else:
            # The last start comes after the last that leaves room for a clip; a shorter rest gives none.
            clips = [
                ClipRange(f"{source.media_id}#{start}", source.label, start, start + self.clip_frames)
                for first, end in self.stretches(source.media_id, num_frames)
                for start in range(first, end - self.clip_frames + 1, self.clip_stride or self.clip_frames)
            ]
        if not self.add_reversed:
            return clips
        return [
            clip
            for forward in clips
            for clip in (
                forward,
                dataclasses.replace(
                    forward,
                    media_id=forward.media_id + BACKWARDS,
                    label=forward.label + self.num_classes,
                    backwards=True,
                ),
            )
        ]

    def stretches(self, media_id: str, num_frames: int) -> list[tuple[int, int]]:
        """The frames first ≤ t < end that clips are cut from.

        Split by time, a video of T frames gives the validation one stretch of L = max(share · T, clip_frames) frames,
        one of those that begin at 0, L, 2L, …, chosen by a hash of seed and media id, and the training what lies before
        and after. So no frame is in both, but frames on the two sides of a border look much alike.
        """
        shortest = self.clip_frames * (1 if self.part is None else 2)
        if num_frames < shortest:
            raise VideoError(
                f"{num_frames} frames, fewer than the {shortest} that --clip_frames={self.clip_frames} "
                f"needs{'' if self.part is None else ' for a clip in train and one in validation'}."
            )
        if self.part is None:
            return [(0, num_frames)]
        length = max(round(self.validation_share * num_frames), self.clip_frames)
        length = min(length, num_frames - self.clip_frames)
        first = length * int(uniform_hash(self.split_seed, media_id) * (num_frames // length))
        if self.part == "validation":
            return [(first, first + length)]
        return [(0, first), (first + length, num_frames)]


WHOLE_VIDEOS = Cutting()


def uniform_hash(seed: int, text: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{text}".encode()).digest()[:6], "big") / 2**48


@dataclasses.dataclass(frozen=True)
class SourceLimits:
    """`media`: pixels and frames that are read; `video_bytes`: the JPEGs of one video, which a process holds at once;
    `memory`: bytes of a process that reads videos."""

    media: MediaLimits = DEFAULT_LIMITS
    video_bytes: int = 2**30
    memory: int = 2**32

    @property
    def process_memory(self) -> int:
        """The memory, but no less than those JPEGs and their way to the process that writes them need."""
        return max(self.memory, 2**30 + 3 * self.video_bytes)


DEFAULT_SOURCE_LIMITS = SourceLimits()


def encode_source(
    source: VideoSource, short_side: int, limits: SourceLimits = DEFAULT_SOURCE_LIMITS
) -> EncodedVideo | Rejection:
    """Reads a video completely: JPEG frames as the bytes they are, all else as JPEG of quality 95.

    JPEGs that decoders read differently (CMYK, or turned by their EXIF) count as all else.

    Files are brought to `short_side` pixels (bicubic) unless their own is shorter: to enlarge is the reader's part.
    What is beyond the `limits` is rejected: by what it says of itself, or as soon as that much has been read.

    Raises:
      OSError: a fault of the machine rather than of the video (disk, memory).
    """
    try:
        if source.label is None:
            raise VideoError("has no label.")
        if not Path(source.path).exists():
            raise VideoError("there is no such video.")
        is_folder = Path(source.path).is_dir()
        if is_folder:
            encoded = _encode_folder(source.path, limits)
        else:
            encoded = _encode_file(source.path, short_side, limits)
        if source.stretch is not None:
            first = frame_number(list_frame_files(source.path)[0]) if is_folder else 0
            encoded = source.stretch.frames(encoded, is_folder=is_folder, first_number=first)
        return encoded
    except MemoryError:
        return Rejection(_NEEDS_MEMORY)
    except (VideoError, FileNotFoundError, PermissionError) as error:
        # The path stands beside the reason, and may differ from machine to machine.
        reason = str(error).replace(f"{os.path.abspath(source.path)}: ", "").replace(f"{source.path}: ", "")
        return Rejection(readable_name(reason))
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return Rejection(_NEEDS_MEMORY)


def _encode_file(path: str, short_side: int, limits: SourceLimits) -> EncodedVideo:
    picture = picture_format(path)
    if picture:
        raise VideoError(
            f"is a single picture ({picture}), not a video; expected a video file, or a folder with the "
            "numbered frames of one."
        )
    frames, timestamps = decoding.read_encoded_frames(
        path, _to_jpeg, short_side=short_side, most_bytes=limits.video_bytes, limits=limits.media
    )
    with Image.open(io.BytesIO(frames[0])) as first:
        return EncodedVideo(frames=frames, timestamps=timestamps, height=first.height, width=first.width)


def _encode_folder(path: str, limits: SourceLimits) -> EncodedVideo:
    frames, sizes, held = [], {}, 0
    for file in list_frame_files(path):
        named = f"frame {readable_name(file.name)}"
        content = picture_bytes(file, named=named, limits=limits.media)
        pixels, jpeg = pixels_and_jpeg(content, named=named, limits=limits.media)
        frames.append(_to_jpeg(with_channels(pixels, 3)) if jpeg is None else jpeg)
        sizes.setdefault(pixels.shape[1::-1], file.name)
        held += len(frames[-1])
        decoding.require_held(held, limits.video_bytes, len(frames), where=HELD)
        limits.media.require_length(len(frames), 0, named="the folder")
    if len(sizes) > 1:
        told = ", ".join(f"{width}x{height} ({name})" for (width, height), name in sizes.items())
        raise VideoError(f"frames differ in size: {told}; expected one size.")
    width, height = next(iter(sizes))
    timestamps = np.round(np.arange(len(frames)) * 1e6 / FRAME_FOLDER_RATE).astype(np.int64)
    return EncodedVideo(frames=frames, timestamps=timestamps, height=height, width=width)


def _to_jpeg(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
