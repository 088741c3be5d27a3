"""The answers to a video as text, for a terminal or a pipe. No TensorFlow."""

from __future__ import annotations

from rstg_tf.common.shown import printable
from rstg_tf.evaluation.metrics import ranking
from rstg_tf.inference.classifier import Predictor
from rstg_tf.inference.sliding_windows import Prediction, WindowAnswer
from rstg_tf.video.sources import FrameSource


class Table:
    """The answer as text: a line per window as soon as it is known, if there are several; then the whole video's."""

    def __init__(self, predictor: Predictor, *, source: FrameSource, frames_per_second: float):
        self._names = [printable(name) for name in predictor.class_names]
        self._rate = frames_per_second
        self._first: WindowAnswer | None = None
        self._windows = 0
        say(printable(f"{source.name}, model {predictor.name}"))

    def window(self, answer: WindowAnswer) -> None:
        """Prints a window's best classes; waits with the first window until there is a second."""
        self._windows += 1
        if self._windows == 1:  # it may be the only one
            self._first = answer
            return
        if self._windows == 2:
            say("\n      seconds  probability  class")
            self._line(self._first)
        self._line(answer)

    def _line(self, answer: WindowAnswer) -> None:
        best = ranking(answer.logits, self._names, 1)[0]
        span = f"{answer.start_seconds:.1f} - {answer.end_seconds:.1f}"
        say(f"{span:>13}  {best['probability']:>11.3f}  {best['name']}")

    def whole(self, prediction: Prediction, top: int) -> None:
        """Prints what was seen of the video and its `top` best classes."""
        count, (height, width) = len(prediction.answers), prediction.frame_size
        seen_height, seen_width = (round(side) for side in prediction.seen_size)
        part = f", of which the middle {seen_width}×{seen_height} were seen"
        say(
            f"\n{prediction.num_frames} frames, {self._rate:.4g} a second, of {width}×{height} pixels"
            f"{part if (seen_height, seen_width) != (height, width) else ''}; "
            f"{f'mean logits of {count} windows' if count > 1 else 'one window'}"
        )
        say("         rank  probability  class")
        for rank, row in enumerate(ranking(prediction.logits, self._names, top), start=1):
            say(f"{rank:>13}  {row['probability']:>11.3f}  {row['name']}")


def say(line: str) -> None:
    """Prints the line at once, also into a pipe."""
    print(line, flush=True)
