"""The programs as a user starts them, on a data set and a model that are small: how they end and what they leave."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600  # far above what any of these programs takes; a hang is a failure
MODEL = """--backbone_model=simple_c2d --num_filters=4 --num_conv_layers=1 --pixel_scaling=centred --dim_h=32 --dim_w=32
--num_chan=1 --video_num_frames=10 --num_classes=7 --num_scales=2 --num_process_iter=1 --node_feat_dim=4
--message_dims=4 --input_batch_norm --ema_momentum=0.9 --classification_dropout=0.2 --brightness=0.1 --batch_size=4
--optimizer=adam --learning_rate=1e-3 --warmup_steps=0 --schedule=constant --steps_per_call=7
--print_every=100""".split()
# What TensorFlow says in C++ when it starts.
_GREETING = re.compile(r"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} [\d:. ]+ \S+\.cc:\d+\]")
_TEMPORARY = re.compile(r"_temp|\.tmp")
# Differ between two runs of the same command: the process's number, TensorBoard's files, one for each start.
_OF_A_START = re.compile(r"(^|/)(lock|tensorboard(/.*)?)$")


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program ended; `said`: the lines on stderr but for TensorFlow's greeting."""

    code: int
    out: str
    said: tuple[str, ...]

    def require(self, code: int, *words: str) -> None:
        """Raises Fault unless it ended with `code`, and where that is not 0 with one sentence that holds the words."""
        shown = " / ".join(self.said[-3:]) or "nothing on stderr"
        if self.code != code:
            raise Fault(f"exit code {self.code}, expected {code}: {shown}")
        if code and (len(self.said) > 2 or not self.said or any("Traceback" in line for line in self.said)):
            raise Fault(f"{len(self.said)} lines on stderr, expected one sentence: {shown}")
        missing = [word for word in words if code and word not in " ".join(self.said)]
        if missing:
            raise Fault(f"{', '.join(missing)} not named: {shown}")


class Fault(AssertionError):
    """What should hold and did not."""


@dataclasses.dataclass
class Row:
    """A line of the table: a fault, how often it was tried, how often everything held, and what was seen."""

    fault: str
    held_means: str
    tries: int = 0
    held: int = 0
    figures: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Counts what happens inside; a Fault is kept with `what` was tried, and the next try goes on."""
        self.tries += 1
        try:
            yield
        except Fault as fault:
            self.failures.append(f"{what}: {fault}")
            print(f"  FAILED {what}: {fault}", flush=True)
        else:
            self.held += 1


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1", **changes}


def start(*command: Any, env: Mapping[str, str] | None = None, stdout: IO | None = None) -> subprocess.Popen:
    """Starts `python COMMAND` in the project's folder, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *map(os.fspath, command)],
        cwd=ROOT,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def end(process: subprocess.Popen) -> Ended:
    """Waits until the program has ended."""
    out, err = process.communicate(timeout=SECONDS)
    lines = err.decode(errors="replace").splitlines()
    said = tuple(line for line in lines if line.strip() and not _GREETING.match(line))
    return Ended(process.returncode, (out or b"").decode(errors="replace"), said)


def run(*command: Any, **options: Any) -> Ended:
    return end(start(*command, **options))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Waits for the condition, looking a thousand times a second; False where the program ends before."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def write_records(folder: Path, *, num_train: int = 256, num_test: int = 64) -> None:
    """train/ and test/ of the demo's kind, by the real command."""
    for split, count, shards in (("train", num_train, 4), ("test", num_test, 2)):
        run(*records_command(folder / split, split=split, count=count, shards=shards)).require(0)


def records_command(folder: Path, *, split: str = "train", count: int = 256, shards: int = 4) -> list[str]:
    return [
        "-m",
        "datasets.sync_mnist",
        "--preset=demo",
        f"--split={split}",
        "--digits=sklearn",
        f"--num_clips={count}",
        f"--num_shards={shards}",
        "--num_workers=1",
        f"--out_dir={folder}",
    ]


def train_command(data: Path, run_dir: Path, *flags: str) -> list[str]:
    folders = [f"--{split}_dataset={data / split}" for split in ("train", "test")]
    return ["train.py", *folders, *MODEL, f"--model_dir={run_dir}", *flags]


def newest_step(run_dir: Path) -> int:
    """The step of the newest whole checkpoint; 0 where there is none."""
    indices = (run_dir / "checkpoints").glob("ckpt-*.index")
    return max((int(path.stem.partition("-")[2]) for path in indices), default=0)


def tensors(prefix: Path) -> dict[str, np.ndarray]:
    """The values of a checkpoint by their names, but for TensorFlow's count of the files written so far."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(os.fspath(prefix))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("/VARIABLE_VALUE")]
    return {name: reader.get_tensor(name) for name in names if not name.startswith("save_counter")}


def require_same_bits(run_dir: Path, other: Path, step: int) -> None:
    """Raises Fault unless both runs have a checkpoint of this step, with the same bits."""
    ours, theirs = (tensors(folder / "checkpoints" / f"ckpt-{step}") for folder in (run_dir, other))
    differing = [name for name in theirs if name not in ours or ours[name].tobytes() != theirs[name].tobytes()]
    if differing or len(ours) != len(theirs):
        raise Fault(f"{len(differing)} of {len(theirs)} tensors of step {step} have other bits, first {differing[:1]}")


def files(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file, but for those that each start of a program makes anew."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in found.items()
        if not _OF_A_START.search(name)
    }


def require_nothing_left(folder: Path, expected: Sequence[str] | None = None) -> None:
    """Raises Fault if temporary files are left, or where `expected` is given, any other file than those."""
    left = [path.name for path in folder.rglob("*") if _TEMPORARY.search(path.name)]
    if left:
        raise Fault(f"left over: {', '.join(left[:3])}")
    if expected is not None and set(files(folder)) != set(expected):
        raise Fault(f"left over or missing: {', '.join(sorted(set(files(folder)) ^ set(expected))[:3])}")
