"""Frames of any pixel format, however turned -> upright RGB of a size, and back, by FFmpeg's scaler."""

from __future__ import annotations

import math

import av
import numpy as np
from av.filter import Graph

from rstg_tf.common.errors import VideoError

# `bitexact`: the same pixels whatever instructions the processor has. One thread: processes share the work.
SCALING = "flags=bicubic+accurate_rnd+bitexact:threads=1"


def turns(frame: av.VideoFrame) -> list[tuple[str, str]]:
    """The filters (name, arguments) that turn a frame as its display matrix says, so that it stands upright."""
    try:
        stored = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 knows not all kinds of data that stand beside a frame; this holds without mirroring
        angle = math.radians(frame.rotation)
        matrix = np.array([math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle)])
    else:
        if stored is None:
            return []
        matrix = np.frombuffer(bytes(stored), np.int32).astype(np.float64)
    across, down = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not down:  # damaged
        return []
    degrees = round(math.degrees(math.atan2(matrix[1] / down, matrix[0] / across))) % 360
    if degrees == 90:
        return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
    if degrees == 270:
        return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
    if degrees == 180:
        return [(name, "") for name, value in (("hflip", matrix[0]), ("vflip", matrix[4])) if value < 0]
    if degrees == 0:
        return [("vflip", "")] if matrix[4] < 0 else []
    return [("rotate", f"{degrees}*PI/180")]


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """(width, height) in pixels after turning."""
    is_turned = any(name == "transpose" for name, _ in turns(frame))
    return (frame.height, frame.width) if is_turned else (frame.width, frame.height)


class Converter:
    """Calls bring frames like the first one to `size` (width, height) and a pixel format, upright."""

    def __init__(self, first: av.VideoFrame, *, size: tuple[int, int], pixel_format: str = "rgb24"):
        self._kind = _kind(first)
        steps = [*turns(first), ("scale", f"{size[0]}:{size[1]}:{SCALING}"), ("format", pixel_format)]
        # The graph must live as long as its ends are used.
        self._graph = Graph()
        self._begin = self._graph.add(
            "buffer",
            video_size=f"{first.width}x{first.height}",
            time_base="1/1000000",
            pix_fmt=first.format.name,
            pixel_aspect="1/1",
        )
        nodes = [self._begin, *(self._graph.add(name, arguments) for name, arguments in steps)]
        self._end = self._graph.add("buffersink")
        self._graph.link_nodes(*nodes, self._end).configure()

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether the frame is as the first one was; streams may change within."""
        return _kind(frame) == self._kind

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Raises VideoError for pixels that cannot be converted."""
        try:
            self._begin.push(frame)
            return self._end.pull()
        except av.FFmpegError as error:
            raise VideoError(
                f"pixels of format {frame.format.name}, colours {int(frame.colorspace)}, cannot be "
                f"converted ({error.strerror})"
            ) from None


def _kind(frame: av.VideoFrame) -> tuple:
    return frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)
