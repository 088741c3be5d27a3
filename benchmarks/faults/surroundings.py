"""What surrounds a program: a clock that jumps, a machine that is suspended, a home folder that cannot be written."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import time
from pathlib import Path

from benchmarks.faults.programs import (
    Fault,
    Row,
    end,
    environment,
    files,
    newest_step,
    require_nothing_left,
    require_same_bits,
    run,
    start,
    train_command,
    wait_for,
)
from rstg_tf.common.files import write_text

STEPS, SAVE_EVERY = 300, 20
FLAGS = (f"--num_steps={STEPS}", f"--save_every={SAVE_EVERY}", "--eval_every=100")
# Without a folder for its cache; it takes a temporary one.
MATPLOTLIB_SAYS = ("mkdir -p failed for path", "Matplotlib created a temporary cache directory")
JUMPS = ("-2d", "+400d", "-20y")  # of the clock, against the true time


def undisturbed(data: Path, folder: Path) -> Path:
    """The run that the others are compared with."""
    run_dir = folder / "quiet"
    if not run_dir.exists():
        run(*train_command(data, run_dir, *FLAGS)).require(0)
    return run_dir


def suspend(data: Path, folder: Path, generator: random.Random, *, tries: int = 2, seconds: float = 60.0) -> Row:
    """SIGSTOP to the process group in the midst of the steps, SIGCONT after `seconds`."""
    row = Row("suspended in the midst of a step", "goes on as if nothing had been")
    quiet = undisturbed(data, folder)
    steps = []
    for number in range(tries):
        run_dir = folder / f"suspended {number}"
        with row.attempt(f"suspension {number + 1}"):
            process = start(*train_command(data, run_dir, *FLAGS))
            goal = SAVE_EVERY * generator.randint(1, STEPS // SAVE_EVERY // 2)
            if not wait_for(lambda goal=goal, run_dir=run_dir: newest_step(run_dir) >= goal, process):
                raise Fault(f"ended before it was suspended: {' / '.join(end(process).said[-2:])}")
            time.sleep(generator.uniform(0.0, 0.1))
            os.killpg(process.pid, signal.SIGSTOP)
            at = newest_step(run_dir)
            time.sleep(seconds)
            still = newest_step(run_dir)
            os.killpg(process.pid, signal.SIGCONT)
            if at != still or at >= STEPS:
                raise Fault(f"was not suspended: step {at} before, {still} after")
            end(process).require(0)
            steps.append(at)
            require_same_bits(run_dir, quiet, STEPS)
            require_nothing_left(run_dir, list(files(quiet)))
    shown = ", ".join(map(str, steps))
    row.figures = f"{seconds:g} s of SIGSTOP to the process group, after step {shown} of {STEPS}; the same bits"
    return row


def jump(data: Path, folder: Path) -> Row:
    """The clock jumps while a run trains; then the run is killed and started under each of the clocks."""
    row = Row("a clock that jumps", "the same bits, nothing begun anew")
    found = importlib.util.find_spec("libfaketime")
    library = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1" if found else None
    if library is None or not library.exists():
        row.figures = "not tried: it needs `pip install libfaketime`, in which each process can be given a clock"
        return row
    quiet, run_dir, clock = undisturbed(data, folder), folder / "jumping", folder / "clock"
    faked = environment(
        LD_PRELOAD=os.fspath(library),
        FAKETIME_TIMESTAMP_FILE=os.fspath(clock),
        # Looked at once a second: its threads share the buffer that they read it into, and take halves for faults.
        FAKETIME_CACHE_DURATION="1",
        DONT_FAKE_MONOTONIC="1",  # the kernel's clock of seconds passed does not jump either
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    for number, offset in enumerate(JUMPS):
        with row.attempt(f"the clock jumps by {offset}"):
            before = newest_step(run_dir)
            said = _killed_under_clock(train_command(data, run_dir, *FLAGS), run_dir, faked, clock, offset)
            if number and f"going on from step {before}\n" not in said:
                raise Fault(f"did not go on from step {before}")
    with row.attempt("the end under a clock set back"):
        write_text(clock, "-30y\n")
        before = newest_step(run_dir)
        ended = run(*train_command(data, run_dir, *FLAGS), env=faked)
        ended.require(0)
        if f"going on from step {before}\n" not in ended.out:
            raise Fault(f"did not go on from step {before}")
        require_same_bits(run_dir, quiet, STEPS)
        require_nothing_left(run_dir, list(files(quiet)))
    row.figures = f"{', '.join(JUMPS)} in the midst of steps (libfaketime), then killed; the end 30 years earlier"
    return row


def _killed_under_clock(command: list[str], run_dir: Path, faked: dict[str, str], clock: Path, offset: str) -> str:
    """Starts the command, lets the clock jump after a checkpoint, waits for two more, kills it."""
    write_text(clock, "+0\n")  # whole at every moment: the library reads it at every look at the clock
    begun = newest_step(run_dir)
    process = start(*command, env=faked)
    if not wait_for(lambda: newest_step(run_dir) > begun, process):
        raise Fault(f"ended before the clock jumped: {' / '.join(end(process).said[-2:])}")
    write_text(clock, f"{offset}\n")
    jumped = newest_step(run_dir)
    if not wait_for(lambda: newest_step(run_dir) >= jumped + 2 * SAVE_EVERY, process):
        raise Fault(f"ended after the clock had jumped: {' / '.join(end(process).said[-2:])}")
    os.killpg(process.pid, signal.SIGKILL)
    return end(process).out


def no_home(data: Path, folder: Path, frames: Path) -> Row:
    """HOME is below a file, so that nothing can be made there, not by root either."""
    row = Row("a home folder that cannot be written", "works")
    home = environment(HOME=f"{os.devnull}/home")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "KERAS_HOME"):
        home.pop(name, None)
    quiet, run_dir = undisturbed(data, folder), folder / "homeless"
    commands = (
        train_command(data, run_dir, *FLAGS),
        ["eval.py", f"--model_dir={run_dir}", f"--export_dir={folder / 'homeless model'}"],
        ["-m", "rstg_tf.predict", f"--model_dir={run_dir}", f"--video={frames}", f"--out={folder / 'homeless.mp4'}"],
    )
    for command in commands:
        with row.attempt(" ".join(command[:2])):
            ended = run(*command, env=home)
            ended.require(0)
            others = [line for line in ended.said if not line.startswith(MATPLOTLIB_SAYS)]
            if others:
                raise Fault(f"says on stderr: {' / '.join(others[:2])}")
    with row.attempt("the weights"):
        require_same_bits(run_dir, quiet, STEPS)
    row.figures = "train.py, eval.py with report and export, predict --out; the same weights"
    return row
