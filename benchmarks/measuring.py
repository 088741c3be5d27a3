"""What the benchmarks share: timing side by side, the machine's description, tables, the command's frame."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from rstg_tf.common.command_line import failed, parse_flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.flag_files import FlagValues

RUNS = 7
WARM_UP_RUNS = 2  # the first traces, the second fills the allocator's and oneDNN's caches
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "Pillow", "scikit-video")


def time_side_by_side(
    works: Mapping[str, Callable[[], Any]], *, runs: int = RUNS, least_seconds: float = 0.0
) -> dict[str, dict[str, float]]:
    """Seconds of each piece of work: {'median', 'lowest', 'highest'} of `runs` runs.

    The runs alternate, so that a change of the machine's speed meets all of them: run 1 of each, run 2 of each, …;
    every round begins with another one. A run does its work again until `least_seconds` are over, and counts for the
    mean. What `work` returns, or the first part of it, is waited for (`.numpy()`), if it can be.
    """
    names = list(works)
    for name in names:
        for _ in range(WARM_UP_RUNS):
            _finish(works[name]())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for run in range(runs):
        shift = run % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name].append(_seconds(works[name], least_seconds))
    return {name: median_and_spread(values) for name, values in seconds.items()}


def _seconds(work: Callable[[], Any], least_seconds: float) -> float:
    start, calls = time.perf_counter(), 0
    while True:
        _finish(work())
        calls += 1
        passed = time.perf_counter() - start
        if passed >= least_seconds:
            return passed / calls


def _finish(result: Any) -> None:
    while isinstance(result, (tuple, list)) and result:
        result = result[0]
    if hasattr(result, "numpy"):
        result.numpy()


def median_and_spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def spread(timing: Mapping[str, float]) -> float:
    """(highest - lowest) / median."""
    return (timing["highest"] - timing["lowest"]) / timing["median"]


def scaled(timing: Mapping[str, float], factor: float) -> dict[str, float]:
    """The timing of one piece where a run does several, or in other units."""
    return {name: factor * value for name, value in timing.items()}


def rates(timing: Mapping[str, float], count: float) -> dict[str, float]:
    """Pieces per second of a work that does `count` of them: its slowest run has the lowest rate."""
    return {
        "median": count / timing["median"],
        "lowest": count / timing["highest"],
        "highest": count / timing["lowest"],
    }


def milliseconds(timing: Mapping[str, float] | None) -> str:
    """'12.3 ±4 %': median, and half of the spread; '–' for None."""
    return "–" if timing is None else f"{1e3 * timing['median']:.1f} ±{50 * spread(timing):.0f} %"


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown whose columns are also straight as plain text: first column to the left, others right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    ruler = [("-" * width) if column == 0 else f"{'-' * (width - 1)}:" for column, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(_padded(row, widths))} |" for row in (cells[0], ruler, *cells[1:]))


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(row, widths))
    ]


def machine() -> dict[str, Any]:
    """Processor, its matrix instructions, usable cores, versions."""
    cpu, flags = platform.processor() or platform.machine(), []
    if Path("/proc/cpuinfo").exists():
        facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        cpu = facts.get("model name", cpu)
        flags = [
            flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()
        ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": cpu,
        "instructions": flags,
        "cores": cores,
        "threads": cores,
        "python": platform.python_version(),
        **versions,
    }


def load() -> float | None:
    """How many processes wanted a core over the last minute, on average; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def run_command(
    name: str,
    doc: str,
    arguments: Sequence[str],
    *,
    define_flags: Callable[[absl_flags.FlagValues], None] = lambda values: None,
    measure: Callable[..., dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    runs: int | None = RUNS,
    takes_files: bool = False,
    mistakes: tuple[type[Exception], ...] = (),
) -> int:
    """The frame of `python -m benchmarks.NAME`: flags, --json and --help, exit codes, the last line.

    `measure(flags)`, with `takes_files` `measure(flags, arguments that are no flag)`, returns the result, which `show`
    prints as a table; its entry 'summary' is the last line of the output. All of it, with the machine and its load
    before the first run, goes into the file that --json names. `runs`: default of --runs; None for a command that
    times nothing. Beside ConfigError, `mistakes` are errors in how it was called: one sentence, exit code 2.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs harmless lines as errors when there is no GPU
    values = FlagValues()
    absl_flags.DEFINE_boolean("help", False, "show the flags", short_name="h", flag_values=values)
    absl_flags.DEFINE_string("json", None, "file to write the numbers to", flag_values=values)
    if runs is not None:
        absl_flags.DEFINE_integer("runs", runs, "measured runs of each row", 1, flag_values=values)
    define_flags(values)
    try:
        rest = parse_flags(values, arguments, takes_files=takes_files)
        if values.help:
            print(doc + values.get_help())
            return 0
        if values.json and not Path(values.json).parent.is_dir():
            raise ConfigError(f"--json={values.json}: there is no such folder; create it first.")
        before = {"load": load()}
        found = measure(values, rest) if takes_files else measure(values)
        result = {"machine": {**machine(), **before}, **({} if runs is None else {"runs": values.runs}), **found}
    except (ConfigError, *mistakes) as error:
        return failed(f"benchmarks.{name}", error, code=2)
    show(result)
    if values.json:
        _write(values.json, result)
    if "summary" in result:
        print(json.dumps(result["summary"]))
    return 0


def _write(path: str, result: Mapping[str, Any]) -> None:
    from rstg_tf.common.files import write_json

    write_json(path, result, indent=1)
