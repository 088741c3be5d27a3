"""What the benchmarks share: timing side by side, the machine's description, the command's frame."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from rstg_tf.config import ConfigError

RUNS = 7
WARM_UP_RUNS = 2  # the first traces, the second fills the allocator's and oneDNN's caches
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "Pillow", "scikit-video")


def time_side_by_side(works: Mapping[str, Callable[[], Any]], *, runs: int = RUNS) -> dict[str, dict[str, float]]:
    """Seconds of each piece of work: {'median', 'lowest', 'highest'} of `runs` runs.

    The runs alternate, so that a change of the machine's speed meets all of them: run 1 of each, run 2 of each, …;
    every round begins with another one. What `work` returns is waited for (`.numpy()`), if it can be.
    """
    names = list(works)
    for name in names:
        for _ in range(WARM_UP_RUNS):
            _finish(works[name]())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for run in range(runs):
        shift = run % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            _finish(works[name]())
            seconds[name].append(time.perf_counter() - start)
    return {name: {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
            for name, values in seconds.items()}


def _finish(result: Any) -> None:
    if hasattr(result, "numpy"):
        result.numpy()


def spread(timing: Mapping[str, float]) -> float:
    """(highest - lowest) / median."""
    return (timing["highest"] - timing["lowest"]) / timing["median"]


def machine() -> dict[str, Any]:
    """Processor, its matrix instructions, usable cores, versions."""
    cpu, flags = platform.processor() or platform.machine(), []
    if os.path.exists("/proc/cpuinfo"):
        facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        cpu = facts.get("model name", cpu)
        flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
                 if flag in facts.get("flags", "").split()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {"cpu": cpu, "instructions": flags, "cores": cores, "threads": cores, "python": platform.python_version(),
            **versions}


def run_command(name: str, doc: str, arguments: Sequence[str], *, define_flags: Callable[[absl_flags.FlagValues], None],
                measure: Callable[[absl_flags.FlagValues], dict[str, Any]],
                show: Callable[[dict[str, Any]], None]) -> int:
    """The frame of `python -m benchmarks.NAME`: flags, --json and --help, exit codes, the last line.

    `measure` returns the result, which `show` prints as a table; its entry 'summary' is the last line of the output.
    All of it, with the machine, goes into the file that --json names.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs harmless lines as errors when there is no GPU
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_boolean("help", False, "show the flags", short_name="h", flag_values=values)
    absl_flags.DEFINE_string("json", None, "file to write the numbers to", flag_values=values)
    absl_flags.DEFINE_integer("runs", RUNS, "measured runs of each row", 1, flag_values=values)
    define_flags(values)
    try:
        rest = values(["", *arguments])[1:]
        if rest:
            raise ConfigError(f"{rest[0]!r} is no flag: settings are given as --name=value.")
        if values.help:
            print(doc + values.get_help())
            return 0
        result = {"machine": machine(), "runs": values.runs, **measure(values)}
    except (ConfigError, absl_flags.Error) as error:
        print(f"benchmarks.{name}: {error}", file=sys.stderr)
        return 2
    show(result)
    if values.json:
        Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result.get("summary", {})))
    return 0
