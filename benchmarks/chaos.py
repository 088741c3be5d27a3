"""Is work ever lost? Kills, damages, fills disks, jumps clocks, against the real programs.

    python -m benchmarks.chaos --json=build/benchmarks/chaos.json          all of it, some half an hour on two cores
    python -m benchmarks.chaos --only=kill,home --seed=7                   parts of it

Every random moment, byte and offset follows from --seed, which is printed; when a process gets there is up to the
machine. Filling a disk mounts a tmpfs and needs root; jumping clocks need `pip install libfaketime`; what cannot be
tried is in the table with its reason. `make chaos` runs all and puts the table into docs/guarantees.md. The exit code
is 1 where something did not hold.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from benchmarks.measuring import markdown, run_command
from rstg_tf.common.errors import ConfigError

NAMES = ("kill", "damage", "disk", "suspend", "clock", "home")


def _rows(only: Sequence[str], generator: random.Random, folder: Path, values: absl_flags.FlagValues) -> Iterator[Any]:
    """The rows of the table, each as soon as it is known."""
    from benchmarks.faults import damage, full_disk, kills, programs, surroundings

    data, small = folder / "data", folder / "small"
    programs.write_records(data)
    programs.write_records(small, num_train=damage.NUM_CLIPS, num_test=8)
    if "kill" in only:
        yield lambda: kills.kill(data, folder, generator, tries=values.kills)
    if "damage" in only:
        yield lambda: damage.flip_shards(small, generator, tries=values.flips)
        yield lambda: damage.flip_checkpoints(small, folder, generator, tries=values.flips)
        yield lambda: damage.cut_shards(small, generator, tries=values.cuts // 2)
        yield lambda: damage.cut_checkpoints(small, folder, generator, tries=values.cuts - values.cuts // 2)
    if "disk" in only:
        run_dir = surroundings.undisturbed(data, folder)
        for case in full_disk.cases(small, run_dir, folder):
            yield lambda case=case: full_disk.fill(case, folder, generator)
        yield lambda: full_disk.full_output(run_dir, full_disk.pictures(folder / "frames"))
    if "suspend" in only:
        yield lambda: surroundings.suspend(data, folder, generator, seconds=values.suspend_seconds)
    if "clock" in only:
        yield lambda: surroundings.jump(data, folder)
    if "home" in only:
        yield lambda: surroundings.no_home(data, folder, full_disk.pictures(folder / "frames"))


def _measure(values: absl_flags.FlagValues) -> dict[str, Any]:
    unknown = set(values.only) - set(NAMES)
    if unknown:
        raise ConfigError(
            f"--only={','.join(values.only)}: no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}."
        )
    print(f"seed {values.seed}", flush=True)
    begun, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="rstg-chaos-") as folder:
        for attempt in _rows(values.only, random.Random(values.seed), Path(folder), values):
            rows.append(dataclasses.asdict(attempt()))
            print(f"{rows[-1]['fault']}: {rows[-1]['held']} of {rows[-1]['tries']}", flush=True)
    seconds = time.monotonic() - begun
    tries, held = (sum(row[name] for row in rows) for name in ("tries", "held"))
    return {
        "seed": values.seed,
        "rows": rows,
        "seconds": seconds,
        "summary": {"tries": tries, "held": held, "seconds": round(seconds)},
    }


def show(result: Mapping[str, Any]) -> None:
    """The table, then what did not hold."""
    rows = [
        (row["fault"], row["held_means"], row["tries"] or "–", row["held"] if row["tries"] else "–", row["figures"])
        for row in result["rows"]
    ]
    print(markdown(("fault", "what must hold", "tries", "held", "figures"), rows))
    print(f"\nSeed {result['seed']}; {result['seconds'] / 60:.0f} minutes.")
    for row in result["rows"]:
        for failure in row["failures"]:
            print(f"\n- **Did not hold**, {row['fault']}: {failure}")


def _define_flags(values: absl_flags.FlagValues) -> None:
    text = {"flag_values": values}
    absl_flags.DEFINE_list("only", list(NAMES), "which faults", **text)
    absl_flags.DEFINE_integer("seed", 0, "of all moments, bytes and offsets", **text)
    absl_flags.DEFINE_integer("kills", 20, "kills of one training run", 1, **text)
    absl_flags.DEFINE_integer("flips", 100, "bytes flipped in shards, and as many in checkpoints", 1, **text)
    absl_flags.DEFINE_integer("cuts", 50, "truncations, half of them of shards, half of checkpoints", 2, **text)
    absl_flags.DEFINE_float("suspend_seconds", 60.0, "how long a suspension lasts", 0.0, **text)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    results: list[Mapping[str, Any]] = []

    def measure(values: absl_flags.FlagValues) -> dict[str, Any]:
        results.append(_measure(values))
        return dict(results[0])

    code = run_command("chaos", __doc__, arguments, define_flags=_define_flags, measure=measure, show=show, runs=None)
    return code or int(any(row["failures"] for result in results for row in result["rows"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
