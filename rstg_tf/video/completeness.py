"""Whether a video is whole and undamaged: judged by its decoder and its packets, never by what its header claims.

A file is refused

- if the decoder reports damage or gives up on a packet,
- if the demuxer reports that the file ends early, or gives up, and
- if packets are missing that the file's own structure has a place for: a packet that the end of the file cuts, MP4
  samples in the index that never came, an AVI or a fragment of an MP4 whose size lies beyond the end of the file.

What passes: a changed byte that still decodes (VP8 and VP9, which carry no checksums, nearly always do), and a cut
between two packets of a container without an index (MPEG-TS, MPEG-PS, Ogg, FLV, MP4 between two fragments, and Matroska
as browsers record it live).
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import av

from rstg_tf.common.errors import VideoError
from rstg_tf.video.probing import OPTIONS, TITLES, OpenVideo, errors_heard, reason, sentences

_EARLY_END = re.compile("premature|partial|[Tt]runcat|exceeds|[Ii]nvalid")


class Reading:
    """Reads a video packet by packet, and remembers the first damage.

    `packets()`, of each `frames(packet)` and their `time(frame)`; at the end `damage()`.
    """

    def __init__(self, video: OpenVideo):
        self._video = video
        self._first: str | None = None
        self._num_packets = 0
        self._seconds: float | None = None
        self._waited = 0.0  # seconds of reading and decoding since a frame came out
        self._places: deque[int] = deque()  # in the order of decoding, of packets that say no time
        for name, text in video.messages:
            self._judge_demuxer(name, text)

    def packets(self) -> Iterator[av.Packet | None]:
        """The packets of the video stream, in the order of the file; at last one that empties the decoder."""
        demuxed = self._video.container.demux(self._video.stream)
        while True:
            begin = time.monotonic()
            try:
                with errors_heard() as heard:
                    packet = next(demuxed, None)
            except av.FFmpegError as error:
                self._note(f"reading failed: {reason(error, heard)}")
                packet = None
            self._wait(begin)
            for name, text in sentences(heard):
                self._judge_demuxer(name, text)
            if packet is None or not packet.size:
                yield None
                return
            self._num_packets += 1
            shown = packet.pts if packet.pts is not None else packet.dts
            self._seconds = self._seconds if shown is None else float(shown * packet.time_base)
            if packet.pts is None and packet.dts is not None and not packet.is_discard:
                self._places.append(packet.dts)
            if packet.is_corrupt:
                self._note("a packet is cut off or damaged")
            yield packet

    def frames(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that came out of the decoder: none, one or several."""
        frames, begin = [], time.monotonic()
        try:
            with errors_heard() as heard:
                frames = self._video.stream.decode(packet)
        except EOFError:
            pass
        except av.FFmpegError as error:
            self._note(f"{self._video.codec} decoder: {reason(error, heard)}")
        for name, text in sentences(heard):
            self._note(f"{name} decoder: {text}")
        if frames:
            self._waited = 0.0
        else:
            self._wait(begin)
        return frames

    def _wait(self, begin: float) -> None:
        """Raises VideoError once reading has gone on for too long since the last frame."""
        self._waited += time.monotonic() - begin
        if self._waited > self._video.limits.stall_seconds:
            raise VideoError(
                f"{self._video.path}: no frame came out of it for {self._waited:.0f} seconds of reading "
                f"(after {self._num_packets} packets): expected one at least every "
                f"{self._video.limits.stall_seconds:g} seconds (--max_stall_seconds)."
            )

    def time(self, frame: av.VideoFrame) -> int | None:
        """When a frame is shown, in the stream's unit; to be asked once of each, in order.

        An AVI says no more than the place of each packet: its frames are shown at those places, in their own order.
        """
        if frame.pts is not None:
            return frame.pts
        return self._places.popleft() if self._places else None

    def damage(self) -> str | None:
        """What is wrong, or None; to be asked after the last packet."""
        return self._first or self._missing_packets()

    def _judge_demuxer(self, name: str, text: str) -> None:
        """Messages about sound or chapters do not matter here."""
        if self._video.codec in name or (name == self._video.format and _EARLY_END.search(text)):
            self._note(f"{name}: {text}")

    def _note(self, text: str) -> None:
        if self._first is None:
            at = "" if self._seconds is None else f" at {self._seconds:.2f} s"
            self._first = f"{text}{at}"

    def _missing_packets(self) -> str | None:
        declared, path = self._video.stream.frames, self._video.path
        if self._video.format.startswith("mov"):
            # An edit list may hide samples without giving their packets: then all are there without it.
            if self._num_packets < declared and _count_all(path, self._video.stream.index) < declared:
                return f"{declared - self._num_packets} of the {declared} packets in its index are missing"
            return _cut_chunk(path, _boxes, {b"moof"})
        if self._video.format == "avi":
            return _cut_chunk(path, _riff_lists, {b"movi"})
        return None


def _count_all(path: str, stream: int) -> int:
    """Packets of a stream of an MP4 file, those that its edit list drops included."""
    with errors_heard(), av.open(path, container_options={**OPTIONS, "ignore_editlist": "1"}, **TITLES) as container:
        return sum(bool(packet.size) for packet in container.demux(container.streams[stream]))


def _cut_chunk(
    path: str, chunks: Callable[[BinaryIO, int], Iterator[tuple[bytes, int]]], names: set[bytes]
) -> str | None:
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        for name, end in chunks(file, size):
            if name in names and end > size:
                return f"its part {name.decode()!r} ends at byte {end}, but the file at {size}"
    return None


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """(name, end) of the boxes of an MP4 file, ISO/IEC 14496-12."""
    begin = 0
    while begin + 8 <= size:
        file.seek(begin)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:  # the true one follows in 64 bits
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: to the end of the file
            return
        yield header[4:8], begin + length
        begin += length


def _riff_lists(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """(kind, end) of the lists in an AVI file, one of which, 'movi', holds the frames; of large files several."""
    begin = 0
    while begin + 12 <= size:
        file.seek(begin)
        header = file.read(12)
        length = int.from_bytes(header[4:8], "little")
        if header[:4] == b"RIFF":
            begin += 12  # what is in it
            continue
        if length in (0, 0xFFFFFFFF) and header[:4] == b"LIST":
            return  # a recorder that had no time to write the size
        if header[:4] == b"LIST":
            yield header[8:12], begin + 8 + length
        begin += 8 + length + length % 2
