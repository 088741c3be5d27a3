"""A video of any length, window by window: each window one clip for the model, never more than one window in memory."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from rstg_tf.common.errors import VideoError
from rstg_tf.common.progress_bar import Bar
from rstg_tf.inference.classifier import Predictor
from rstg_tf.video.clip_spec import STORED_SHORT_SIDE, ClipSpec, centre_crop, clip_from_frames, resized_size
from rstg_tf.video.decoding import TimedFrame
from rstg_tf.video.sources import FrameSource


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a long video is cut: windows of `length` frames, one every `stride`; the last ends with the last frame."""

    length: int
    stride: int


@dataclasses.dataclass(frozen=True)
class WindowAnswer:
    """What the model said to the frames start … end-1, which are shown from `start_seconds` to `end_seconds`.

    `logits` float32 [classes]; `attention`: place of a graph -> α [T', N, N] of its last space stage.
    """

    start: int
    end: int
    start_seconds: float
    end_seconds: float
    logits: np.ndarray
    attention: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The windows' answers, in order, and where in the frames the model looked.

    `frame_size` (height, width) in pixels of the source; `seen` (top, left, bottom, right) as shares of it, 0…1.
    `seconds`: when each frame is shown, from 0; `frames_per_second` is the rate that the source states.
    """

    answers: tuple[WindowAnswer, ...]
    frame_size: tuple[int, int]
    seen: tuple[float, float, float, float]
    seconds: tuple[float, ...]
    frames_per_second: float

    @property
    def seen_size(self) -> tuple[float, float]:
        """Height and width in pixels of the source of the part that the model saw."""
        top, left, bottom, right = self.seen
        return (bottom - top) * self.frame_size[0], (right - left) * self.frame_size[1]

    @property
    def num_frames(self) -> int:
        return self.answers[-1].end

    @property
    def logits(self) -> np.ndarray:
        """Mean over the windows: float64 [classes]."""
        return np.mean([answer.logits for answer in self.answers], axis=0, dtype=np.float64)


def sliding_windows(
    frames: Iterable[Any], windows: Windows, *, place: Callable[[Any], int] | None = None
) -> Iterator[tuple[int, list[Any]]]:
    """(number of the first frame, the frames) of each window, as soon as it is complete; a short video is one window.

    Window k holds the frames at the places k·stride … k·stride + length - 1, unless there are none. What the last of
    them leaves over at the end makes one more, which ends with the last frame.

    Args:
      frames: in order.
      place: of a frame, never less than that of the one before; None: its number.
    """
    held: deque[tuple[int, int, Any]] = deque()  # (place, number, frame) of the last `length` places
    begin, covered, number, at = 0, 0, -1, 0

    def window(begin: int) -> list[tuple[int, int, Any]]:
        return [item for item in held if begin <= item[0] < begin + windows.length]

    for number, frame in enumerate(frames):
        at = number if place is None else place(frame)
        while at >= begin + windows.length:  # frames are missing: the window ended before this one
            found = window(begin)
            if found:
                covered = found[-1][1] + 1
                yield found[0][1], [frame for _, _, frame in found]
                begin += windows.stride
            else:
                begin += max(1, (at - windows.length - begin) // windows.stride) * windows.stride
        held.append((at, number, frame))
        while held[0][0] <= at - windows.length:
            held.popleft()
        if at == begin + windows.length - 1 and place is None:
            found = window(begin)
            covered = number + 1
            yield found[0][1], [frame for _, _, frame in found]
            begin += windows.stride
    found = window(max(0, at - windows.length + 1))
    if covered <= number:
        yield found[0][1], [frame for _, _, frame in found]


def predict_windows(
    predictor: Predictor,
    source: FrameSource,
    *,
    windows: Windows,
    frames_per_second: float,
    by_time: bool = False,
    report: Callable[[WindowAnswer], None] | None = None,
) -> Prediction:
    """The network's answer to every window of a source, each handed to `report` as soon as it is known.

    Args:
      frames_per_second: the source's, or of sources without times the one to go by.
      by_time: where the source has times, a window spans length / frames_per_second seconds of them, however many
        frames that are: the rate may vary, and frames may have been dropped.

    Raises VideoError when the source cannot be read to its end, or the logits hold NaN or Inf.
    """
    answers, size, seconds, has_times = [], (0, 0), [], by_time and source.read_timed is not None
    clip = predictor.clip_spec

    def noted(frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
        for frame in frames:
            seconds.append(frame.seconds)
            yield frame

    def place(frame: TimedFrame) -> int:
        return round(frame.seconds * frames_per_second)

    # As records hold it, for what is resized once more then: a run may ask for more.
    short_side = max(STORED_SHORT_SIDE, clip.short_side or 0)
    timed = source.timed(short_side, frames_per_second=frames_per_second)
    bar = Bar(
        timed,
        total=source.num_frames,
        desc="reading",
        unit="frame",
        leave=False,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        for start, frames in sliding_windows(noted(bar), windows, place=place if has_times else None):
            logits, attention = predictor(clip_from_frames([frame.pixels for frame in frames], clip))
            if not np.isfinite(logits).all():
                raise VideoError(
                    f"{source.name}: the model's logits of frames {start + 1} to {start + len(frames)} "
                    "hold NaN or Inf: expected numbers; did its training go wrong?"
                )
            last = frames[-1]
            answers.append(
                WindowAnswer(
                    start=start,
                    end=start + len(frames),
                    start_seconds=frames[0].seconds,
                    end_seconds=last.seconds + last.duration,
                    logits=logits,
                    attention={place: alpha[-1] for place, alpha in attention.items()},
                )
            )
            size = last.pixels.shape[:2]
            if report:
                report(answers[-1])
    return Prediction(
        answers=tuple(answers),
        frame_size=source.frame_size or size,
        seen=_seen(size, clip),
        seconds=tuple(seconds),
        frames_per_second=frames_per_second,
    )


def _seen(size: tuple[int, int], clip: ClipSpec) -> tuple[float, float, float, float]:
    crop = centre_crop(*size, clip)
    height, width = resized_size(*size, crop.short_side)
    return (crop.top / height, crop.left / width, (crop.top + clip.height) / height, (crop.left + clip.width) / width)
