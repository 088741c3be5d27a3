"""Frames -> a video file that browsers play, by FFmpeg's libraries (PyAV); whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np

from rstg_tf.common.errors import VideoError
from rstg_tf.common.files import whole_path
from rstg_tf.video.decoding import first_frame_seconds
from rstg_tf.video.pixels import Converter
from rstg_tf.video.probing import errors_heard, opened, reason

# The first that the libraries have. H.264 is what browsers decode.
ENCODERS = {"libx264": {"crf": "20"}, "mpeg4": {"qmin": "3", "qmax": "3"}}
PIXEL_FORMAT = "yuv420p"  # the only layout of colours that browsers decode
LARGEST_DENOMINATOR = 1001  # of a frame rate: 29.97… is 30000/1001
MICROSECOND = Fraction(1, 1_000_000)


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    *,
    frames_per_second: float,
    num_frames: int,
    seconds: Sequence[float] | None = None,
    sound_of: str | None = None,
) -> str | None:
    """Writes `num_frames` frames, uint8 [H, W, 3] with even sides, to `path`, which ends in .mp4.

    Args:
      frames_per_second: of the file; where `seconds` says otherwise, the mean.
      seconds: the time of each frame, from 0, increasing; None: by the rate.
      sound_of: a video file whose first sound is copied as it is, in step with its frames.

    Returns:
      Why the sound is missing, as a sentence, or None.

    Raises:
      VideoError: there are more or fewer frames, or the encoder fails; what was at `path` stays.
      OSError: the disk is full.
    """
    rate = Fraction(frames_per_second).limit_denominator(LARGEST_DENOMINATOR)
    times = np.arange(num_frames) / float(rate) if seconds is None else np.asarray(seconds, np.float64)
    with whole_path(path, suffix=".mp4") as building, contextlib.ExitStack() as stack:
        heard = stack.enter_context(errors_heard())
        try:
            silence = _encode(str(building), frames, times=times, rate=rate, sound_of=sound_of, name=str(path))
        except av.FFmpegError as error:
            if isinstance(error, OSError) and not isinstance(error, EOFError):
                raise OSError(error.errno, error.strerror, str(path)) from None
            raise VideoError(f"{path}: could not be written ({reason(error, heard)}).") from None
        with opened(building) as written:
            if written.stream.frames != num_frames:
                raise VideoError(f"{path}: {written.stream.frames} of {num_frames} frames were written.")
    return silence


def _encode(
    building: str, frames: Iterable[np.ndarray], *, times: np.ndarray, rate: Fraction, sound_of: str | None, name: str
) -> str | None:
    clock, convert = _clock(times, rate), None
    ticks = np.round(times / float(clock)).astype(np.int64)
    with av.open(building, "w", format="mp4", container_options={"movflags": "+faststart"}) as container:
        stream, sound, count = _add_stream(container, rate, clock, name), None, 0
        for count, pixels in enumerate(frames, start=1):
            if count > len(times):
                break
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            if convert is None:
                stream.height, stream.width = pixels.shape[:2]
                convert = Converter(picture, size=(stream.width, stream.height), pixel_format=PIXEL_FORMAT)
                sound = Sound(container, sound_of)
            frame = convert(picture)
            frame.pts, frame.time_base = int(ticks[count - 1]), clock
            for packet in stream.encode(frame):
                sound.copy_until(times[count - 1])
                _mux(container, packet, rate, clock)
        if count != len(times):
            found = f"more than {len(times)}" if count > len(times) else count
            raise VideoError(f"{name}: got {found} frames, expected {len(times)}: has the source been changed?")
        for packet in stream.encode(None):
            _mux(container, packet, rate, clock)
        sound.copy_until(float("inf"))
        return sound.why_missing


def _add_stream(
    container: av.container.OutputContainer, rate: Fraction, clock: Fraction, name: str
) -> av.video.stream.VideoStream:
    known = [encoder for encoder in ENCODERS if encoder in av.codecs_available]
    if not known:
        raise VideoError(
            f"{name}: could not be written: PyAV {av.__version__} has none of the encoders "
            f"{', '.join(ENCODERS)}; install its wheel from the Python package index."
        )
    stream = container.add_stream(known[0], rate=rate, options=dict(ENCODERS[known[0]]))
    stream.pix_fmt = PIXEL_FORMAT
    stream.codec_context.time_base = clock
    return stream


def _clock(times: np.ndarray, rate: Fraction) -> Fraction:
    """The unit of the file's times in seconds: a frame's length if that meets them all, else a microsecond."""
    ticks = np.round(times * float(rate))
    is_even = np.abs(ticks / float(rate) - times).max(initial=0.0) < 2e-6 and np.all(np.diff(ticks) > 0)
    return 1 / rate if is_even else MICROSECOND


def _mux(container: av.container.OutputContainer, packet: av.Packet, rate: Fraction, clock: Fraction) -> None:
    if not packet.duration:
        packet.duration = max(1, round(1 / rate / clock))  # or the last frame would be shown for no time
    container.mux(packet)


class Sound:
    """The first sound of a video file, copied packet by packet into another. `why_missing`: a sentence, or None."""

    def __init__(self, container: av.container.OutputContainer, path: str | None):
        self.why_missing: str | None = None
        self._container, self._packets, self._next = container, iter(()), None
        if path is not None:
            self._packets = self._opened(path)
            self._next = next(self._packets, None)  # adds the stream, before the file begins

    def copy_until(self, seconds: float) -> None:
        """Copies what is heard before that time of the video."""
        while self._next is not None and self._next[0] <= seconds:
            try:
                self._container.mux(self._next[1])
                self._next = next(self._packets, None)
            except av.FFmpegError as error:
                if isinstance(error, OSError):
                    raise
                self.why_missing = f"the sound ends at {self._next[0]:.2f} s: it cannot be copied ({error.strerror})"
                self._next = None

    def _opened(self, path: str) -> Iterator[tuple[float, av.Packet]]:
        """(time from the first frame in seconds, packet) of the sound; none if there is none, or no way to keep it."""
        begin = first_frame_seconds(path)
        with opened(path) as video:
            streams = video.container.streams.audio
            if not streams:
                return
            codec = streams[0].codec_context and streams[0].codec_context.codec.canonical_name
            if not codec or codec not in self._container.supported_codecs:
                self.why_missing = f"an .mp4 cannot hold its sound ({codec or 'of unknown kind'})"
                return
            copied = self._container.add_stream_from_template(streams[0], opaque=True)  # packets alone
            shift = round(begin / streams[0].time_base)
            for packet in video.container.demux(streams[0]):
                if not packet.size or packet.dts is None or packet.dts < shift:
                    continue
                packet.pts = packet.dts = packet.dts - shift  # of sound the two are one
                seconds = float(packet.pts * packet.time_base)
                packet.stream = copied
                yield seconds, packet
