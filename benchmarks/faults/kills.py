"""kill -9 of a training run, at its start, in the midst of its steps, and while a checkpoint is being written."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from benchmarks.faults.programs import (
    Fault,
    Row,
    end,
    newest_step,
    require_nothing_left,
    require_same_bits,
    run,
    start,
    train_command,
    wait_for,
)
from benchmarks.faults.programs import files as files_of

SAVE_EVERY = 10
MOMENTS = ("steps", "save", "steps", "save", "start")


def kill(data: Path, folder: Path, generator: random.Random, *, tries: int = 20) -> Row:
    """Kills one run `tries` times, lets it end, and compares it with one that nobody disturbed."""
    row = Row("kill -9 of a training run", "goes on from its last checkpoint")
    num_steps = str(SAVE_EVERY * 4 * (tries + 1))
    flags = (f"--num_steps={num_steps}", f"--save_every={SAVE_EVERY}", "--eval_every=100")
    whole, killed = folder / "whole", folder / "killed"
    run(*train_command(data, whole, *flags)).require(0)
    half_written, moments = 0, {moment: 0 for moment in MOMENTS}
    for number in range(tries):
        moment = MOMENTS[number % len(MOMENTS)]
        moments[moment] += 1
        with row.attempt(f"kill {number + 1}, {moment}"):
            before = newest_step(killed)
            said = _killed(train_command(data, killed, *flags), killed, moment, generator)
            half_written += bool(_unfinished(killed / "checkpoints"))
            after = newest_step(killed)
            if "going on from step" in said and f"going on from step {before}\n" not in said:
                raise Fault(f"did not go on from step {before}: {said.splitlines()[:2]}")
            if before and moment != "start" and "going on from step" not in said:
                raise Fault(f"began anew where step {before} was saved")
            if after < before:
                raise Fault(f"step {before} was saved, and after the kill only {after}")
    with row.attempt("the end of the killed run"):
        run(*train_command(data, killed, *flags)).require(0)
        require_same_bits(killed, whole, int(num_steps))
        require_nothing_left(killed, list(files_of(whole)))
    row.figures = (
        f"{moments['start']} while it starts, {moments['steps']} between saves, {moments['save']} in a save "
        f"({half_written} left a checkpoint half written); the end, after {num_steps} steps, compared bit by bit and "
        "file by file with an undisturbed run"
    )
    return row


def _unfinished(directory: Path) -> list[str]:
    """Parts of checkpoints that have no index yet, and temporary folders."""
    names = [path.name for path in directory.glob("**/*")] if directory.exists() else []
    return [
        name
        for name in names
        if "_temp" in name or ".tmp" in name or (".data-" in name and f"{name.split('.')[0]}.index" not in names)
    ]


def _killed(command: list[str], run_dir: Path, moment: str, generator: random.Random) -> str:
    """Starts the command, kills it at a random moment of the kind, and returns what it had printed."""
    begun = newest_step(run_dir)
    process = start(*command)
    if moment == "start":
        time.sleep(generator.uniform(0.0, 8.0))
    else:
        goal = begun + SAVE_EVERY * generator.randint(1, 2)
        held = wait_for(lambda: newest_step(run_dir) >= goal, process)
        if held and moment == "save":
            held = wait_for(lambda: bool(_unfinished(run_dir / "checkpoints")), process)
            time.sleep(generator.uniform(0.0, 0.003))
        elif held:
            time.sleep(generator.uniform(0.0, 0.1))
        if not held:
            raise Fault(f"ended before it was killed: {' / '.join(end(process).said[-2:])}")
    os.killpg(process.pid, signal.SIGKILL)
    ended = end(process)
    if ended.code != -signal.SIGKILL:
        raise Fault(f"ended with {ended.code} before it was killed")
    return ended.out
