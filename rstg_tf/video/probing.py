"""ffmpeg and ffprobe, as `rstg_tf.video` uses them: what a file says about itself, and scikit-video's reader."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess

import numpy as np

from rstg_tf.common.errors import VideoError
from rstg_tf.video.skvideo_io import messages_of

_FALLBACK_RATE = 25.0  # of files that state none
_PROBED = ("format=format_name,nb_streams,duration:stream=codec_name,width,height,nb_frames,avg_frame_rate,r_frame_rate"
           ":stream_tags=DURATION,rotate:stream_side_data=rotation")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class VideoFacts:
    """What a file says about its (first) video stream.

    `width`, `height`: pixels as shown, after turning. `declared_frames`: the container's count, None if it has none.
    """

    width: int
    height: int
    frames_per_second: float
    declared_frames: int | None
    codec: str


def require_ffmpeg() -> None:
    """Raises VideoError unless ffmpeg and ffprobe are there."""
    missing = [program for program in ("ffmpeg", "ffprobe") if shutil.which(program) is None]
    if missing:
        raise VideoError(f"{' and '.join(missing)} not found: video files are read by ffmpeg, which comes with both; "
                         "install it ('apt-get install ffmpeg', 'brew install ffmpeg' or 'conda install ffmpeg') and "
                         "see that it is on the PATH.")


@dataclasses.dataclass(frozen=True)
class Inspected:
    """A file as ffprobe sees it.

    `shown`: (timestamp, duration) in seconds of each packet that is to be shown; `num_hidden`: the packets that an edit
    list hides. `declared_seconds` may be off by `seconds_tolerance`.
    """

    path: str
    container: str
    facts: VideoFacts
    declared_seconds: float | None
    seconds_tolerance: float
    shown: tuple[tuple[float | None, float], ...]
    num_hidden: int

    def timestamps(self, num_frames: int) -> np.ndarray:
        """int64 [T] microseconds from 0: the packets', or by the frame rate if those are missing or don't increase."""
        starts = [start for start, _ in self.shown]
        if len(starts) == num_frames and None not in starts:
            microseconds = np.round(np.sort(np.array(starts, np.float64)) * 1e6).astype(np.int64)
            if np.all(np.diff(microseconds) > 0):
                return microseconds - microseconds[0]
        return np.round(np.arange(num_frames) * 1e6 / self.facts.frames_per_second).astype(np.int64)

    def length_fault(self, num_frames: int) -> str | None:
        """Why `num_frames` decoded frames are not the whole video, or None."""
        declared, is_matroska = self.facts.declared_frames, self.container.startswith("matroska")
        if declared is not None:
            expected = declared - self.num_hidden
            told = f"{num_frames} frames decoded, but its header declares {expected}"
            return None if num_frames == expected else told
        # A packet is a frame there, but for VP8, which may put helper frames that are never shown into packets.
        if is_matroska and num_frames < len(self.shown) and self.facts.codec != "vp8":
            return f"{num_frames} frames decoded from {len(self.shown)} packets"
        ends = [start + length for start, length in self.shown if start is not None]
        seconds = self.declared_seconds
        if is_matroska and seconds and ends and max(ends) < seconds - self.seconds_tolerance:
            return (f"{num_frames} frames decoded, which end after {max(ends):.2f} of the {seconds:.2f} seconds that "
                    "its header declares")
        return None


def inspect_file(path: str | os.PathLike, *, packets: bool) -> Inspected:
    """Asks ffprobe about a file; only with `packets`, which reads the whole file, are `shown` and `num_hidden` filled.

    Raises:
      VideoError: no such file, an empty one, or one that holds no video.
      OSError: ffprobe was killed, which says nothing about the file.
    """
    require_ffmpeg()
    # Absolute, or a name that begins with a dash is taken for an option and one with a colon for a protocol.
    path = os.path.abspath(os.fspath(path))
    if not os.path.isfile(path):
        raise VideoError(f"{path}: is no file.")
    if not os.path.getsize(path):
        raise VideoError(f"{path}: is empty (0 bytes).")
    entries = _PROBED + (":packet=pts_time,duration_time,flags" if packets else "")
    run = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "V:0", "-show_entries", entries, "-of", "json",
                          path], stdin=subprocess.DEVNULL, capture_output=True)  # fmt: skip
    messages = messages_of(run.stderr)
    if run.returncode < 0:
        raise OSError(f"ffprobe was killed by signal {-run.returncode} while it read {path}.")
    try:
        found = json.loads(run.stdout) if run.returncode == 0 else {}
        stream, container = found["streams"][0], found["format"]
        return _inspected(path, stream, container, found.get("packets", []))
    except (ValueError, LookupError):
        # The last line only repeats that the data is invalid where one before it says what is.
        reasons = [line for line in messages if not line.startswith(path)] or messages
        why = reasons[-1].replace(f"{path}: ", "") if reasons else "ffprobe finds no video stream of a known size in it"
        raise VideoError(f"{path}: cannot be read as video: {why}.") from None


def _inspected(path: str, stream: dict, container: dict, packets: list[dict]) -> Inspected:
    width, height = int(stream["width"]), int(stream["height"])
    if container["format_name"] == "tty" or width < 1 or height < 1:  # ffmpeg shows text files as video
        raise ValueError
    tags, side_data = stream.get("tags", {}), stream.get("side_data_list", [])
    turned = [entry["rotation"] for entry in side_data if "rotation" in entry] or [tags.get("rotate", 0)]
    if round(float(turned[0])) % 180 == 90:
        width, height = height, width
    rate = _fraction(stream.get("avg_frame_rate")) or _fraction(stream.get("r_frame_rate")) or _FALLBACK_RATE
    own_seconds = _clock_seconds(tags.get("DURATION"))
    # Without a length of its own, the stream may end somewhat before the sound does.
    is_alone = own_seconds is not None or container.get("nb_streams") == 1
    shown = [packet for packet in packets if "D" not in packet.get("flags", "")]
    return Inspected(
        path=path, container=container["format_name"],
        facts=VideoFacts(
            width=width, height=height, frames_per_second=rate, codec=stream.get("codec_name", "unknown"),
            declared_frames=int(stream["nb_frames"]) if stream.get("nb_frames", "").isdigit() else None),
        declared_seconds=own_seconds if own_seconds is not None else _number(container.get("duration")),
        seconds_tolerance=max(1.5 / rate, 0.1) if is_alone else 1.0,
        shown=tuple((_number(packet.get("pts_time")), _number(packet.get("duration_time")) or 1 / rate)
                    for packet in shown),
        num_hidden=len(packets) - len(shown))  # fmt: skip


def _fraction(text: str | None) -> float | None:
    numerator, _, denominator = (text or "0").partition("/")
    value, parts = _number(numerator), _number(denominator or "1")
    return value / parts if value and parts else None


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _clock_seconds(text: str | None) -> float | None:
    parts = [_number(part) for part in (text or "").split(":")]
    return None if len(parts) != 3 or None in parts else parts[0] * 3600 + parts[1] * 60 + parts[2]


