"""Opens video files with FFmpeg's libraries (PyAV, in its wheel) and tells what they say about themselves.

What a container says of itself, its count of frames, rate and duration, is a hint. No TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import threading
from collections.abc import Iterator

import av
import av.logging

from rstg_tf.common.errors import VideoError
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits, require_regular

# Containers of videos, by FFmpeg's names. Missing are pictures, texts, and lists that make it open other files.
CONTAINERS = (
    "mov",
    "mp4",
    "m4a",
    "3gp",
    "3g2",
    "mj2",
    "matroska",
    "webm",
    "avi",
    "flv",
    "live_flv",
    "mpegts",
    "mpeg",
    "mpegvideo",
    "m4v",
    "h263",
    "h264",
    "hevc",
    "vvc",
    "av1",
    "obu",
    "ivf",
    "asf",
    "ogg",
    "gif",
    "apng",
    "dv",
    "mxf",
    "nut",
    "rm",
    "wtv",
    "gxf",
    "yuv4mpegpipe",
    "dirac",
    "vc1",
    "mjpeg",
    "nsv",
    "nuv",
    "flic",
    "smjpeg",
    "bink",
    "cavsvideo",
)
PICTURE_BRANDS = ("heic", "heix", "mif1", "avif", "jpeg", "j2ki")  # of files that are built as MP4, but hold pictures
OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}  # no other file, no network
_PYAV = int(av.__version__.split(".")[0])
# Titles need not be UTF-8; since PyAV 19 that is so unasked.
TITLES = {"metadata_errors": "replace"} if _PYAV < 19 else {}
# PyAV 15, the last for Python 3.9, crashes when it is given options for a file that does not tell its streams
# at once, as MPEG's program streams do not.
_OPENS_WITH_OPTIONS = _PYAV >= 18
FALLBACK_RATE = 25.0  # frames per second of files that state none
_FASTEST = 1000.0  # frames per second, where a length in seconds says how many frames there are

_OF_THE_MACHINE = (errno.EIO, errno.ENOMEM, errno.EACCES, errno.EMFILE)

_lock = threading.Lock()
_listeners = 0
_quiet = (None, True)  # how the libraries' messages were treated before anybody listened


@dataclasses.dataclass(frozen=True)
class VideoFacts:
    """What a file says about its (first) video stream.

    `width`, `height`: pixels as shown, after turning. `declared_frames`: the container's count, None if it has none;
    a hint only, since it may count frames that are hidden, were dropped, or never came.
    """

    width: int
    height: int
    frames_per_second: float
    declared_frames: int | None
    codec: str


@dataclasses.dataclass(frozen=True)
class OpenVideo:
    """An open file, its video stream, (part of the libraries, error message) of what came up on opening it, and how
    much may be read of it."""

    path: str
    container: av.container.InputContainer
    stream: av.video.stream.VideoStream
    messages: tuple[tuple[str, str], ...]
    limits: MediaLimits = DEFAULT_LIMITS

    @property
    def format(self) -> str:
        return self.container.format.name

    @property
    def codec(self) -> str:
        return self.stream.codec_context.codec.canonical_name

    @property
    def frames_per_second(self) -> float:
        average, base = self.stream.average_rate, self.stream.base_rate
        if average and base and average > 2 * base:  # as of DV, which cannot be
            average = base
        return float(average or base or FALLBACK_RATE)


@contextlib.contextmanager
def opened(path: str | os.PathLike, *, limits: MediaLimits = DEFAULT_LIMITS) -> Iterator[OpenVideo]:
    """A video file, open; decoded by one thread, in which all of its errors are then heard.

    Raises:
      VideoError: no such file, an empty one, or one that holds no video that can be decoded, or more than the `limits`
        allow by what it says of itself: then nothing is decoded.
      OSError: the file cannot be read, which says nothing about the video.
    """
    path = os.path.abspath(os.fspath(path))  # absolute, or a name with a colon would be taken for a protocol
    if not os.path.isfile(path):
        raise VideoError(f"{path}: is no file.")
    if not require_regular(path, named=path):
        raise VideoError(f"{path}: is empty (0 bytes).")
    with open(path, "rb"):
        pass  # the system's own sentence if that is not allowed
    with contextlib.ExitStack() as stack:
        with errors_heard() as heard:
            container = stack.enter_context(_open(path, heard, limits))
        # Times are the file's own or missing; the libraries' guesses are wrong where frames were dropped.
        container.flags &= ~av.container.Flags.gen_pts.value
        stream = _video_stream(path, container)
        context = stream.codec_context
        limits.require_size(context.height, context.width, named=f"{path}:", what="its frames are")
        said = _said_frames(container, stream)
        limits.require_length(said, said * context.height * context.width, named=f"{path}:", what="claims to hold")
        # A stream may change its size within; to the decoder alone that is known before it reserves memory. It counts
        # the margins that codecs add.
        context.options = {"max_pixels": str(2 * limits.frame_pixels)}
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield OpenVideo(path=path, container=container, stream=stream, messages=tuple(sentences(heard)), limits=limits)


def _open(path: str, heard: list[tuple[int, str, str]], limits: MediaLimits) -> av.container.InputContainer:
    try:
        # Opening decodes some frames already.
        decoding = {"max_pixels": str(2 * limits.frame_pixels)} if _OPENS_WITH_OPTIONS else {}
        waiting = (limits.stall_seconds, limits.stall_seconds)
        return av.open(path, options=decoding, container_options=OPTIONS, timeout=waiting, **TITLES)
    except (av.FFmpegError, UnicodeError) as error:
        if isinstance(error, OSError) and not isinstance(error, EOFError) and error.errno in _OF_THE_MACHINE:
            if error.errno != errno.EIO:
                raise OSError(error.errno, error.strerror, path) from None
            _read_through(path)
        is_other = any("whitelist" in text for _, text in sentences(heard))
        why = "it is in no container of videos that is read here" if is_other else reason(error, heard)
        raise VideoError(f"{path}: cannot be read as video: {why}.") from None


def _read_through(path: str) -> None:
    """Raises OSError if the disk is at fault: FFmpeg's own readers say EIO of damaged headers too."""
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass


def _video_stream(path: str, container: av.container.InputContainer) -> av.video.stream.VideoStream:
    streams = [
        stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if container.metadata.get("major_brand", "").strip() in PICTURE_BRANDS:
        raise VideoError(f"{path}: cannot be read as video: it is a picture ({container.metadata['major_brand']}).")
    if not streams:
        raise VideoError(f"{path}: cannot be read as video: it holds no video stream.")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: cannot be read as video: there is no decoder for its codec.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise VideoError(f"{path}: cannot be read as video: it holds no video stream of a known size.")
    return stream


def _said_frames(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> int:
    """How many frames a file claims to hold: its count, or by its length and rate; 0 if it does not say."""
    if stream.frames:
        return stream.frames
    if stream.duration is not None and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / av.time_base
    rate = min(float(stream.average_rate or stream.base_rate or FALLBACK_RATE), _FASTEST)
    return max(0, int(seconds * rate))


@contextlib.contextmanager
def errors_heard() -> Iterator[list[tuple[int, str, str]]]:
    """The errors that FFmpeg's libraries report from this thread meanwhile; `sentences` reads them."""
    global _listeners, _quiet
    with _lock:
        if _listeners == 0:
            _quiet = (av.logging.get_level(), av.logging.get_skip_repeated())
            av.logging.set_level(av.logging.ERROR)
            av.logging.set_skip_repeated(False)  # or the second file with the same damage would pass
        _listeners += 1
    try:
        with av.logging.Capture() as heard:
            yield heard
    finally:
        with _lock:
            _listeners -= 1
            if _listeners == 0:
                av.logging.set_level(_quiet[0])
                av.logging.set_skip_repeated(_quiet[1])


def sentences(heard: list[tuple[int, str, str]]) -> list[tuple[str, str]]:
    """(part of the libraries, what it said) of each error."""
    return [(name, " ".join(text.split()).rstrip(".")) for level, name, text in heard if level <= av.logging.ERROR]


def reason(error: Exception, heard: list[tuple[int, str, str]]) -> str:
    """What the libraries said before they gave up; the error itself often only repeats that the data is invalid."""
    said = sentences(heard)
    return said[-1][1] if said else (getattr(error, "strerror", None) or str(error)).rstrip(".")
