"""How many SyncMNIST clips one core makes per second.

    python -m benchmarks.sync_mnist --json=sync_mnist.json

Three rows, for clips of the release's size (5 digits on 100×100, 10 frames of 64×64): `drawn` is planning and drawing
up to the uint8 frames; `written` is the whole command with one worker up to the finished shard, PNG and hash included;
`resize alone` is Pillow's resize called frame by frame, for scale. The process is bound to one core where the system
can do that.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags as absl_flags
from PIL import Image

from benchmarks.measuring import markdown, rates, run_command, time_side_by_side
from datasets.sync_mnist.digits import load_digit_images
from datasets.sync_mnist.drawing import draw_clips
from datasets.sync_mnist.plans import RandomPlans, SyncMnistSettings
from datasets.sync_mnist.writing import write_dataset


def measure(*, digits: str, clips: int, runs: int) -> dict[str, dict[str, float]]:
    """Returns for each row the median, lowest and highest clips per second of `runs` runs."""
    settings = SyncMnistSettings()
    images, image_labels = load_digit_images(digits, "test")
    plans = RandomPlans(settings=settings, image_labels=image_labels, split="test", seed=0)
    canvases = np.random.default_rng(0).integers(0, 256, (64, settings.canvas, settings.canvas), np.uint8)

    def draw() -> None:
        plan = plans.clips(0, clips)
        draw_clips(
            digit_images=images[plan.digit_indices],
            positions=plan.positions,
            canvas=settings.canvas,
            frame_size=settings.frame_size,
        )

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(
                out_dir=folder,
                split="test",
                digits=digits,
                num_clips=clips,
                settings=settings,
                num_shards=1,
                num_workers=1,
                show_progress=False,
            )

    def resize_alone() -> None:
        size = (settings.frame_size, settings.frame_size)
        for frame in range(clips * settings.num_frames):
            np.asarray(Image.fromarray(canvases[frame % len(canvases)]).resize(size, Image.BILINEAR))

    timings = time_side_by_side({"drawn": draw, "written": write, "resize alone": resize_alone}, runs=runs)
    return {name: rates(timing, clips) for name, timing in timings.items()}


def _measure_flags(values: absl_flags.FlagValues) -> dict[str, Any]:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = measure(digits=values.digits, clips=values.clips, runs=values.runs)
    return {
        "digits": values.digits,
        "clips": values.clips,
        "rows": rows,
        "summary": {name: round(row["median"]) for name, row in rows.items()},
    }


def show(result: dict[str, Any]) -> None:
    print(
        markdown(
            ("clips/s on one core", "median", "lowest", "highest"),
            [
                (name, f"{row['median']:.0f}", f"{row['lowest']:.0f}", f"{row['highest']:.0f}")
                for name, row in result["rows"].items()
            ],
        )
    )


def _define_flags(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("digits", "sklearn", "sklearn, mnist or idx:DIR", flag_values=values)
    absl_flags.DEFINE_integer("clips", 1024, "clips per run", 1, flag_values=values)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command("sync_mnist", __doc__, arguments, define_flags=_define_flags, measure=_measure_flags, show=show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
