"""A video of any length, window by window: each window one clip for the model, never more than one window in memory."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from rstg_tf.common.errors import VideoError
from rstg_tf.common.progress_bar import Bar
from rstg_tf.inference.classifier import Predictor
from rstg_tf.video.clip_spec import STORED_SHORT_SIDE, ClipSpec, centre_crop, clip_from_frames, resized_size
from rstg_tf.video.sources import FrameSource


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a long video is cut: windows of `length` frames, one every `stride`; the last ends with the last frame."""

    length: int
    stride: int


@dataclasses.dataclass(frozen=True)
class WindowAnswer:
    """What the model said to the frames start … end-1.

    `logits` float32 [classes]; `attention`: place of a graph -> α [T', N, N] of its last space stage.
    """

    start: int
    end: int
    logits: np.ndarray
    attention: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The windows' answers, in order, and where in the frames the model looked.

    `frame_size` (height, width) in pixels of the source; `seen` (top, left, bottom, right) as shares of it, 0…1.
    """

    answers: tuple[WindowAnswer, ...]
    frame_size: tuple[int, int]
    seen: tuple[float, float, float, float]
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


def sliding_windows(frames: Iterable[np.ndarray], windows: Windows) -> Iterator[tuple[int, list[np.ndarray]]]:
    """(number of the first frame, the frames) of each window, as soon as it is complete; a short video is one window.

    Window k holds the frames k·stride … k·stride + length - 1. What the last of them leaves over at the end makes one
    more, which ends with the last frame.
    """
    held: deque[np.ndarray] = deque(maxlen=windows.length)
    count, covered = 0, 0
    for frame in frames:
        held.append(frame)
        count += 1
        if count >= windows.length and (count - windows.length) % windows.stride == 0:
            yield count - len(held), list(held)
            covered = count
    if covered < count:
        yield count - len(held), list(held)


def predict_windows(predictor: Predictor, source: FrameSource, *, windows: Windows, frames_per_second: float,
                    report: Callable[[WindowAnswer], None] | None = None) -> Prediction:
    """The network's answer to every window of a source, each handed to `report` as soon as it is known.

    Raises VideoError when the source cannot be read to its end, or the logits hold NaN or Inf.
    """
    answers, size = [], (0, 0)
    clip = predictor.clip_spec
    # As records hold it, for what is resized once more then: a run may ask for more.
    short_side = max(STORED_SHORT_SIDE, clip.short_side or 0)
    bar = Bar(source.read(short_side), total=source.num_frames, desc="reading", unit="frame", leave=False,
              dynamic_ncols=True, disable=not sys.stderr.isatty())
    with bar:
        for start, frames in sliding_windows(bar, windows):
            logits, attention = predictor(clip_from_frames(frames, clip))
            if not np.isfinite(logits).all():
                raise VideoError(f"{source.name}: the model's logits of frames {start + 1} to {start + len(frames)} "
                                 "hold NaN or Inf: expected numbers; did its training go wrong?")
            answers.append(WindowAnswer(start=start, end=start + len(frames), logits=logits,
                                        attention={place: alpha[-1] for place, alpha in attention.items()}))
            size = frames[-1].shape[:2]
            if report:
                report(answers[-1])
    return Prediction(answers=tuple(answers), frame_size=source.frame_size or size, seen=_seen(size, clip),
                      frames_per_second=frames_per_second)


def _seen(size: tuple[int, int], clip: ClipSpec) -> tuple[float, float, float, float]:
    crop = centre_crop(*size, clip)
    height, width = resized_size(*size, crop.short_side)
    return (crop.top / height, crop.left / width, (crop.top + clip.height) / height,
            (crop.left + clip.width) / width)
