"""How many SyncMNIST clips one core makes per second.

    python -m benchmarks.sync_mnist --json=sync_mnist.json

Three rows, for clips of the release's size (5 digits on 100×100, 10 frames of 64×64): `drawn` is planning and drawing
up to the uint8 frames; `written` is the whole command with one worker up to the finished shard, PNG and hash included;
`resize alone` is Pillow's resize called frame by frame, for scale. The process is bound to one core where the system
can do that.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from absl import flags as absl_flags
from PIL import Image

from datasets.digits import load_digit_images
from datasets.sync_mnist import SyncMnistSettings, write_dataset
from datasets.sync_mnist_drawing import draw_clips
from datasets.sync_mnist_plans import RandomPlans
from rstg_tf.config import ConfigError


def measure(*, digits: str, clips: int, runs: int) -> dict[str, dict[str, float]]:
    """Returns for each row the median, lowest and highest clips per second of `runs` runs after one unmeasured."""
    settings = SyncMnistSettings()
    images, image_labels = load_digit_images(digits, "test")
    plans = RandomPlans(settings=settings, image_labels=image_labels, split="test", seed=0)
    canvases = np.random.default_rng(0).integers(0, 256, (64, settings.canvas, settings.canvas), np.uint8)

    def draw() -> None:
        plan = plans.clips(0, clips)
        draw_clips(digit_images=images[plan.digit_indices], positions=plan.positions, canvas=settings.canvas,
                   frame_size=settings.frame_size)  # fmt: skip

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(out_dir=folder, split="test", digits=digits, num_clips=clips, settings=settings, num_shards=1,
                          num_workers=1, show_progress=False)  # fmt: skip

    def resize_alone() -> None:
        size = (settings.frame_size, settings.frame_size)
        for frame in range(clips * settings.num_frames):
            np.asarray(Image.fromarray(canvases[frame % len(canvases)]).resize(size, Image.BILINEAR))

    return {"drawn": _rates(draw, clips, runs), "written": _rates(write, clips, runs),
            "resize alone": _rates(resize_alone, clips, runs)}  # fmt: skip


def _rates(work: Callable[[], None], clips: int, runs: int) -> dict[str, float]:
    rates = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        work()
        rates.append(clips / (time.perf_counter() - start))
    measured = rates[1:]
    return {"median": statistics.median(measured), "lowest": min(measured), "highest": max(measured)}


def _machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")]  # fmt: skip
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "cores_used": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs harmless lines as errors when there is no GPU
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_boolean("help", False, "show the flags", short_name="h", flag_values=values)
    absl_flags.DEFINE_string("json", None, "file to write the numbers to", flag_values=values)
    absl_flags.DEFINE_string("digits", "sklearn", "sklearn, mnist or idx:DIR", flag_values=values)
    absl_flags.DEFINE_integer("clips", 1024, "clips per run", 1, flag_values=values)
    absl_flags.DEFINE_integer("runs", 7, "measured runs per row", 1, flag_values=values)
    try:
        values(["", *arguments])
        if values.help:
            print(__doc__ + values.get_help())
            return 0
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        rows = measure(digits=values.digits, clips=values.clips, runs=values.runs)
    except (ConfigError, absl_flags.Error) as error:
        print(f"benchmarks.sync_mnist: {error}", file=sys.stderr)
        return 2
    print("clips/s         median  lowest  highest")
    for name, row in rows.items():
        print(f"{name:14}  {row['median']:6.0f}  {row['lowest']:6.0f}  {row['highest']:7.0f}")
    result = {"machine": _machine(), "digits": values.digits, "clips": values.clips, "runs": values.runs, "rows": rows}
    if values.json:
        Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: round(row["median"]) for name, row in rows.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
