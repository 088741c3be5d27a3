"""Disks that fill while a program writes: a small tmpfs, of which a file takes all but what a try leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults.programs import (
    Fault,
    Row,
    files,
    records_command,
    require_nothing_left,
    require_same_bits,
    run,
    tensors,
    train_command,
)

DISK_BYTES = 32 << 20
PAGE_BYTES = 4096  # what tmpfs gives at a time
STEPS, SAVE_EVERY = 60, 20


@dataclasses.dataclass(frozen=True)
class Case:
    """A program that writes to the disk: `prepare(disk)` puts there what was whole before, `command(disk)` is what
    meets the full disk, and `check(disk, undisturbed)` compares what it writes in the end with what it writes
    undisturbed."""

    writes: str
    command: Callable[[Path], list[str]]
    prepare: Callable[[Path], None] = lambda disk: None
    check: Callable[[Path, Path], None] = lambda disk, undisturbed: None


class Disk:
    """A tmpfs at `path`, which a file fills but for some pages."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def free(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    @contextlib.contextmanager
    def filled(self, *, room: int) -> Iterator[None]:
        """Only `room` bytes are free, in whole pages, until the context ends."""
        filler = self.path / "filler"
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(self.free - room // PAGE_BYTES * PAGE_BYTES, 1))
        try:
            yield
        finally:
            filler.unlink()


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[Disk]:
    """A tmpfs of DISK_BYTES. Raises PermissionError where nothing may be mounted."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", os.fspath(path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        path.rmdir()
        raise PermissionError(finished.stderr.strip())
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", os.fspath(path)], check=True)
        path.rmdir()


def fill(case: Case, folder: Path, generator: random.Random, *, tries: int = 2) -> Row:
    """Runs the case with no room at all, then with random parts of what it needs."""
    row = Row(f"the disk fills: {case.writes}", "one sentence, exit code 1; goes on after space was made")
    undisturbed, path = folder / "undisturbed", folder / "disk"
    try:
        with mounted(path) as disk:
            case.prepare(path)
            begun = time.time_ns()
            run(*case.command(path)).require(0)
            pages = _pages_written(path, since=begun)
            shutil.rmtree(undisturbed, ignore_errors=True)
            shutil.copytree(path, undisturbed)
        rooms = [0, *(PAGE_BYTES * generator.randrange(max(pages // 2, 1)) for _ in range(tries - 1))]
        for room in rooms:
            with row.attempt(f"{case.writes}, {room} bytes free"), mounted(path) as disk:
                _meet(case, disk, undisturbed, room)
    except PermissionError as error:
        row.figures = f"not tried: mounting a tmpfs needs root ({error})"
        return row
    row.figures = f"{', '.join(f'{room >> 10} KiB' for room in rooms)} left of {pages * PAGE_BYTES >> 10} KiB needed"
    return row


def _pages_written(folder: Path, *, since: int) -> int:
    """What the files that were written after `since` (nanoseconds) take, at least a page each."""
    status = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(-(-entry.st_size // PAGE_BYTES) for entry in status if entry.st_mtime_ns >= since)


def _meet(case: Case, disk: Disk, undisturbed: Path, room: int) -> None:
    case.prepare(disk.path)
    before = files(disk.path)
    with disk.filled(room=room):
        ended = run(*case.command(disk.path))
        after = files(disk.path)
    ended.require(1)
    changed = [name for name, digest in before.items() if after.get(name) not in (digest, files(undisturbed).get(name))]
    changed = [name for name in changed if Path(name).name != "checkpoint"]  # a list of what is there
    if changed:
        raise Fault(f"what was whole before is not: {', '.join(changed[:3])}")
    require_nothing_left(disk.path)
    run(*case.command(disk.path)).require(0)
    case.check(disk.path, undisturbed)
    require_nothing_left(disk.path, list(files(undisturbed)))


def cases(data: Path, run_dir: Path, folder: Path) -> list[Case]:
    """Every program that writes. `run_dir`: a run that has ended."""
    frames, videos = pictures(folder / "frames"), _videos(folder / "videos")

    def train(disk: Path, steps: int = STEPS) -> list[str]:
        flags = (f"--num_steps={steps}", f"--save_every={SAVE_EVERY}", "--keep_checkpoints=9", "--eval_every=0")
        return train_command(data, disk / "run", *flags)

    def of_run(disk: Path, *command: str) -> list[str]:
        return [*command, f"--model_dir={disk / 'run'}"]

    def evaluated_run(disk: Path) -> None:
        evaluated = folder / "evaluated"
        if not evaluated.exists():
            shutil.copytree(run_dir, evaluated / "run")
            run(*of_run(evaluated, "eval.py", "--split=train")).require(0)
        shutil.copytree(evaluated / "run", disk / "run")

    def same_files(disk: Path, undisturbed: Path) -> None:
        differing = [name for name, digest in files(undisturbed).items() if files(disk).get(name) != digest]
        if differing:
            raise Fault(f"other bytes than undisturbed: {differing[0]}")

    def same_training(disk: Path, undisturbed: Path) -> None:
        require_same_bits(disk / "run", undisturbed / "run", STEPS)

    def same_scores(disk: Path, undisturbed: Path) -> None:
        ours, theirs = (
            json.loads((place / "run" / "result.json").read_text(encoding="utf-8")) for place in (disk, undisturbed)
        )
        if ours != theirs:
            raise Fault("another result.json than undisturbed")

    def same_export(disk: Path, undisturbed: Path) -> None:
        ours, theirs = (tensors(place / "model" / "1" / "variables" / "variables") for place in (disk, undisturbed))
        if any(ours[name].tobytes() != value.tobytes() for name, value in theirs.items()):
            raise Fault("other weights than undisturbed")

    video_folder = ["-m", "datasets.video_folder", f"--videos={videos}", "--num_processes=1"]
    predict = ["-m", "rstg_tf.predict", f"--model_dir={run_dir}", f"--video={frames}"]
    export = ["-m", "rstg_tf.export", f"--model_dir={run_dir}"]
    return [
        Case("drawn records", lambda disk: records_command(disk / "records"), check=same_files),
        Case("records of videos", lambda disk: [*video_folder, f"--out_dir={disk / 'records'}"], check=same_files),
        Case("checkpoints", train, prepare=lambda disk: run(*train(disk, SAVE_EVERY)).require(0), check=same_training),
        Case("results", lambda disk: of_run(disk, "eval.py", "--noreport"), prepare=evaluated_run, check=same_scores),
        Case("reports", lambda disk: of_run(disk, "eval.py"), prepare=evaluated_run, check=same_scores),
        Case("exports", lambda disk: [*export, f"--out={disk / 'model'}"], check=same_export),
        Case("predictions", lambda disk: [*predict, f"--out={disk / 'seen.mp4'}"], check=same_files),
    ]


def full_output(run_dir: Path, frames: Path) -> Row:
    """Standard output itself is a file on a full disk: /dev/full."""
    row = Row("the disk fills: standard output", "one sentence, exit code 1")
    commands = (
        ["-m", "rstg_tf.predict", f"--model_dir={run_dir}", f"--video={frames}", "--json"],
        ["eval.py", f"--model_dir={run_dir}"],
        ["-m", "rstg_tf.export", f"--model_dir={run_dir}", f"--out={frames.parent / 'unread'}"],
    )
    for command in commands:
        with row.attempt(" ".join(command[:2])), open("/dev/full", "wb") as full:
            run(*command, stdout=full).require(1)
    row.figures = "predict --json, eval.py and export into /dev/full"
    return row


def pictures(folder: Path, *, seed: int = 0, count: int = 24, size: int = 32) -> Path:
    """`count` numbered pictures of noise in `folder`, which is returned."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        frame = generator.integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(frame).save(folder / f"{number:05d}.png")
    return folder


def _videos(folder: Path) -> Path:
    for number in range(8):
        pictures(folder / f"class {number % 2}" / f"video {number}", seed=number, count=10)
    return folder
