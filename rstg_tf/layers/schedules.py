"""When time passes between the space stages: one row for each of `time_stages`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Schedule(NamedTuple):
    """When time passes: before space stage k (k = 0, 1, …), and once more after the last one."""

    time_before: Callable[[int], bool]
    time_last: bool

    def time_rounds(self, space_iterations: int) -> list[str]:
        """A name for each time that time passes: 'time_0', … and 'last_time'."""
        rounds = [f"time_{k}" for k in range(space_iterations) if self.time_before(k)]
        return [*rounds, "last_time"] if self.time_last else rounds


SCHEDULES = {
    "all": Schedule(time_before=lambda k: k < 3, time_last=True),  # the release: silently no more than three
    "every": Schedule(time_before=lambda k: True, time_last=True),
    "final": Schedule(time_before=lambda k: False, time_last=True),
    "none": Schedule(time_before=lambda k: False, time_last=False),
}
