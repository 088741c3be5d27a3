"""What the next frame of a running clip costs: one step from a state, against the whole clip so far once more.

    python -m benchmarks.streaming --json=streaming.json
    python -m benchmarks.streaming --flagfile=configs/demo.flags

A row per length t of the clip, one clip at a time: `step` is the model's step after t frames (half of two in a row, as
a ResNet does most of its work after every second frame), `whole` the model on all t frames, what has to be run again
for every new frame where nothing is remembered. Both are TensorFlow functions, warmed up, timed by turns. The model is
any that the flags describe (default: the release's SyncMNIST size, 512 wide), with random weights.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from absl import flags as absl_flags

from benchmarks.measuring import markdown, milliseconds, run_command, scaled, time_side_by_side
from rstg_tf import flags as experiment_flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ModelConfig

FRAMES = (1, 2, 4, 8, 16, 32)


def measure(config: ModelConfig, *, frames: Sequence[int], runs: int) -> dict[str, Any]:
    """Rows of milliseconds, the state's size, and how far apart the logits of both are, as a share of the largest.

    Raises ConfigError for a model that cannot run frame by frame.
    """
    import tensorflow as tf

    from rstg_tf import build_model
    from rstg_tf.inference.streaming import packed_step
    from rstg_tf.layers.streaming_state import packed_size

    model = build_model(config)
    step, whole = packed_step(model), tf.function(lambda clip: model(clip, training=False))
    clip = tf.constant(np.random.default_rng(0).integers(0, 256, (1, max(frames), *model.video_shape[1:]), np.uint8))

    def two_steps(state):
        for frame in (clip[:, 0], clip[:, -1]):
            logits, state = step(frame, state)
        return logits

    rows, differences, state = [], [], tf.zeros([1, packed_size(model)])
    for t in range(1, max(frames) + 1):
        logits, state = step(clip[:, t - 1], state)
        if t in frames:
            works = {"step": partial(two_steps, state), "whole": partial(whole, clip[:, :t])}
            rows.append(_row(t, time_side_by_side(works, runs=runs)))
            expected = works["whole"]().numpy()
            differences.append(np.abs(logits - expected).max() / max(1.0, np.abs(expected).max()))
    facts = {"state_floats": packed_size(model), "largest_difference": float(max(differences))}
    return {"rows": rows, **facts, "summary": {**facts, "ratio": {row["frames"]: row["ratio"] for row in rows}}}


def _row(frames: int, seconds: dict[str, dict[str, float]]) -> dict[str, Any]:
    step, whole = scaled(seconds["step"], 1000.0 / 2), scaled(seconds["whole"], 1000.0)
    return {"frames": frames, "step_ms": step, "whole_ms": whole, "ratio": round(whole["median"] / step["median"], 2)}


def _measure_flags(values: absl_flags.FlagValues) -> dict[str, Any]:
    config = experiment_flags.config_from_flags(values).model
    given = ",".join(values.frames)
    if not values.frames or not all(count.isdecimal() and int(count) for count in values.frames):
        raise ConfigError(f"--frames={given}: expected numbers of frames, such as 1,8,32.")
    frames = sorted({int(count) for count in values.frames})
    if config.backbone != "simple_c2d" and any(count % 2 for count in frames):
        raise ConfigError(f"--frames={given}: {config.backbone} pools frames in pairs, so they must be even.")
    return measure(config, frames=frames, runs=values.runs)


def _define_flags(values: absl_flags.FlagValues) -> None:
    experiment_flags.define_flags(values)
    absl_flags.DEFINE_list("frames", [str(count) for count in FRAMES], "lengths of the clip", flag_values=values)


def show(result: dict[str, Any]) -> None:
    print(
        markdown(
            ("frames", "step, ms", "whole, ms", "whole / step"),
            [
                (
                    row["frames"],
                    milliseconds(scaled(row["step_ms"], 1e-3)),
                    milliseconds(scaled(row["whole_ms"], 1e-3)),
                    row["ratio"],
                )
                for row in result["rows"]
            ],
        )
    )
    print(
        f"\nstate: {result['state_floats']:,} floats per clip; logits of both apart by at most "
        f"{result['largest_difference']:.1e} of the largest"
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command("streaming", __doc__, arguments, define_flags=_define_flags, measure=_measure_flags, show=show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
