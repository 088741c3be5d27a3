"""What a run tells: a progress bar on a terminal, plain lines elsewhere, and TensorBoard."""

from __future__ import annotations

import dataclasses
import sys
import time

from rstg_tf.common.progress_bar import Bar


@dataclasses.dataclass(frozen=True)
class TrainingMetrics:
    """Means over the steps since the last report. `loss` is the cross-entropy per clip, whatever is summed."""

    step: int
    loss: float
    accuracy: float
    rate: float
    gradient_norm: float
    clips_per_second: float
    waiting_share: float
    seconds_left: float

    def as_line(self, total_steps: int) -> str:
        """The line that is printed of it."""
        return (
            f"step {self.step}/{total_steps}  loss {self.loss:.4f}  accuracy {self.accuracy:.3f}  "
            f"rate {self.rate:.2e}  {self.clips_per_second:.1f} clips/s  waiting for data "
            f"{self.waiting_share:.0%}  left {duration(self.seconds_left)}"
        )


class Meter:
    """Adds up what the steps since the last report found."""

    def __init__(self, *, total_steps: int, batch_size: int):
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._reset()

    def _reset(self) -> None:
        self.steps, self._loss, self._correct, self._seconds, self._waited = 0, 0.0, 0, 0.0, 0.0
        self._gradient_norm = 0.0

    def add(
        self, *, steps: int, cross_entropy: float, correct: int, gradient_norm: float, waited: float, seconds: float
    ) -> None:
        """Sums over `steps` steps: cross-entropies and correct clips; seconds waited for data, and in all."""
        self.steps += steps
        self._loss += cross_entropy
        self._correct += correct
        self._waited += waited
        self._seconds += seconds
        self._gradient_norm = gradient_norm

    def report(self, *, step: int, rate: float) -> TrainingMetrics:
        """The means so far; starts anew."""
        clips = max(1, self.steps * self._batch_size)
        seconds_per_step = self._seconds / max(1, self.steps)
        report = TrainingMetrics(
            step=step,
            loss=self._loss / clips,
            accuracy=self._correct / clips,
            rate=rate,
            gradient_norm=self._gradient_norm,
            clips_per_second=clips / max(self._seconds, 1e-9),
            waiting_share=min(1.0, self._waited / max(self._seconds, 1e-9)),
            seconds_left=(self._total_steps - step) * seconds_per_step,
        )
        self._reset()
        return report


class Progress:
    """A bar on standard error if that is a terminal, else a line on standard output per report."""

    def __init__(self, *, total_steps: int, first_step: int):
        self._total_steps = total_steps
        # mininterval 0: a refresh comes once per call of many steps, never too often.
        self._bar = Bar(
            total=total_steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=0,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
            disable=not sys.stderr.isatty(),
        )

    def advance(self, steps: int) -> None:
        """Moves the bar on by so many steps."""
        self._bar.update(steps)

    def show(self, report: TrainingMetrics) -> None:
        """Shows the figures: behind the bar on a terminal, else as a line."""
        if self._bar.disable:
            say(report.as_line(self._total_steps))
        else:
            line = report.as_line(self._total_steps)
            self._bar.set_postfix_str(line.split("  ", 1)[1].replace("  ", ", "))

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def say(line: str) -> None:
    """Prints a line, above the bar where there is one."""
    Bar.write(line)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """3725 -> '1h 02m', 83 -> '1m 23s', 5 -> '5s'."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def clock() -> float:
    """Seconds that only rise."""
    return time.monotonic()
