"""How time and memory of the graph grow with its sizes: fitted exponents, and a plot.

    python -m benchmarks.scaling --json=scaling.json --out=scaling.png
    python -m benchmarks.scaling --axes=steps,scales --base=4x10x256x3

One size varies, the others stay those of --base (BxTxCxS): `clips` B, `steps` T, `channels` C, `scales` S (written as
N = 1 + 4 + … + S² nodes). Each point is the graph of the release's SyncMNIST model on features [B, T, 8, 8, C], forward
and backward. `replicas` is one training step of syncmnist.flags, 64 wide, on a global batch that stays the same, with
the CPU split into 1, 2 and 4 replicas: on the same cores, so that all beyond the first is cost.

Time is measured, float32, all points of an axis in turns. Memory is not measured but read off the graph, the most bytes
that the results of ops take up at once (benchmarks/graph_costs.py), and the same on every machine; for replicas those
of their shares of the batch, and the weights, gradients and momenta of each. An exponent e says that the figure grows
like size^e: the slope of a straight line through the logarithms, by least squares.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags as absl_flags

from benchmarks import experiments
from benchmarks import graph as graph_benchmark
from benchmarks.measuring import markdown, milliseconds, run_command, time_side_by_side
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.files import whole_path
from rstg_tf.config import ExperimentConfig

BASE = "4x10x128x3"
AXES = {
    "clips": (1, 2, 4, 8, 16),
    "steps": (4, 8, 16, 32),
    "channels": (32, 64, 128, 256, 512),
    "scales": (1, 2, 3, 4, 5),
}
POSITIONS = {"clips": 0, "steps": 1, "channels": 2, "scales": 3}  # in BxTxCxS
REPLICAS = "replicas"
REPLICA_COUNTS, REPLICA_BATCH = (1, 2, 4), 8
COPIES_OF_WEIGHTS = 3  # themselves, their gradients, their momenta
LEAST_SECONDS = 0.05
MEBI = 2**20


def measure(values: absl_flags.FlagValues) -> dict[str, Any]:
    base = experiments.read_sizes(values.base, "base")
    for axis in values.axes:
        if axis not in (*AXES, REPLICAS):
            raise ConfigError(f"--axes={axis}: expected some of {', '.join((*AXES, REPLICAS))}.")
    if values.out and not Path(values.out).parent.is_dir():
        raise ConfigError(f"--out={values.out}: there is no such folder; create it first.")
    axes = {}
    if REPLICAS in values.axes:  # first: TensorFlow splits the CPU only before it starts
        config = experiments.with_batch(experiments.named("narrow", "axes"), REPLICA_BATCH)
        axes[REPLICAS] = measure_replicas(config, runs=values.runs)
    for axis in values.axes:
        if axis != REPLICAS:
            axes[axis] = _measure_axis(axis, base, AXES[axis][: values.points], values.runs)
    if values.out:
        plot(axes, values.out)
    return {
        "base": values.base,
        "axes": axes,
        "summary": {
            axis: {"time": found["time_exponent"], "memory": found["memory_exponent"]} for axis, found in axes.items()
        },
    }


def _measure_axis(axis: str, base: Sequence[int], sizes: Sequence[int], runs: int) -> dict[str, Any]:
    from rstg_tf.layers import regions

    works, memory = {}, {}
    for size in sizes:
        point = list(base)
        point[POSITIONS[axis]] = size
        shown = regions.num_nodes(size) if axis == "scales" else size
        works[shown], memory[shown] = _graph_point(*point)
    return _axis(time_side_by_side(works, runs=runs, least_seconds=LEAST_SECONDS), memory)


def _graph_point(clips: int, steps: int, channels: int, scales: int) -> tuple[Callable[[], Any], int]:
    """The graph's forward and backward pass on random features, and the bytes that it holds."""
    import tensorflow as tf

    from benchmarks import graph_costs

    graph = graph_benchmark.build_graph("simple", channels=channels, scales=scales)
    side = graph_benchmark.MAP_SIDE
    features = tf.random.stateless_normal([clips, steps, side, side, channels], seed=[0, 0])

    @tf.function(autograph=False)
    def step(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_sum(tf.square(graph(features, training=True)))
        return loss, tape.gradient(loss, [features, *graph.trainable_weights])

    concrete = step.get_concrete_function(features)
    return (lambda: concrete(features)), graph_costs.peak_bytes(concrete.graph, concrete.graph.outputs)


def measure_replicas(config: ExperimentConfig, *, runs: int) -> dict[str, Any]:
    """A training step of an experiment on 1, 2 and 4 replicas, its batch shared out among them."""
    from benchmarks import model_table
    from benchmarks.training import TrainingStep
    from rstg_tf.common import devices
    from rstg_tf.model import build_model

    devices.prepare(num_virtual_devices=max(REPLICA_COUNTS))  # the largest split serves the smaller ones
    model = build_model(config.model)
    weights = sum(4 * math.prod(weight.shape) for weight in model.trainable_weights)
    works, memory = {}, {}
    for count in REPLICA_COUNTS:
        train = dataclasses.replace(config.train, num_virtual_devices=count)
        works[count] = TrainingStep(dataclasses.replace(config, train=train), "float32", steps=1)
        share = model_table.activation_bytes(model, clips=config.train.batch_size // count)
        memory[count] = count * (share + COPIES_OF_WEIGHTS * weights)
    return _axis(time_side_by_side(works, runs=runs, least_seconds=LEAST_SECONDS), memory)


def _axis(timings: Mapping[int, Mapping[str, float]], memory: Mapping[int, int]) -> dict[str, Any]:
    points = [{"size": size, "seconds": timing, "bytes": memory[size]} for size, timing in timings.items()]
    return {
        "points": points,
        "time_exponent": exponent([(point["size"], point["seconds"]["median"]) for point in points]),
        "memory_exponent": exponent([(point["size"], point["bytes"]) for point in points]),
    }


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """e of the best y = a·x^e by least squares of the logarithms; None for fewer than two points."""
    if len(points) < 2:
        return None
    x, y = np.log(np.array(points, np.float64)).T
    return round(float(np.polyfit(x, y, 1)[0]), 2)


def plot(axes: Mapping[str, Any], path: str) -> None:
    """Time and memory of each axis relative to its smallest size, both logarithmic; a grey line for exponent 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, what, value in zip(
        panels, ("time", "memory"), (lambda point: point["seconds"]["median"], lambda point: point["bytes"])
    ):
        longest = 1.0
        for (axis, found), marker in zip(axes.items(), "osv^D"):
            first = found["points"][0]
            growth = [point["size"] / first["size"] for point in found["points"]]
            longest = max(longest, *growth)
            panel.loglog(
                growth,
                [value(point) / value(first) for point in found["points"]],
                marker=marker,
                label=f"{'nodes' if axis == 'scales' else axis}: {found[f'{what}_exponent']}",
            )
        panel.loglog([1.0, longest], [1.0, longest], color="0.7", linewidth=1, zorder=0)
        panel.set(xlabel="size, relative to the smallest", ylabel=f"{what}, relative to the smallest's")
        panel.legend(title=f"exponents of {what}", frameon=False)
    with whole_path(path) as building:
        figure.savefig(building, format="png", dpi=100)


def show(result: Mapping[str, Any]) -> None:
    header = ("varied", "size", "ms", "MiB", "exponent of time", "of memory")
    rows = []
    for axis, found in result["axes"].items():
        name = "scales (nodes)" if axis == "scales" else axis
        for index, point in enumerate(found["points"]):
            exponents = (found["time_exponent"], found["memory_exponent"]) if index == 0 else ("", "")
            rows.append(
                (name, point["size"], milliseconds(point["seconds"]), f"{point['bytes'] / MEBI:.1f}", *exponents)
            )
    print(markdown(header, rows))


def _define_flags(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_list("axes", [*AXES, REPLICAS], "what to vary", flag_values=values)
    absl_flags.DEFINE_string("base", BASE, "sizes that stay, BxTxCxS", flag_values=values)
    absl_flags.DEFINE_integer("points", 5, "at most so many sizes of each axis", 1, flag_values=values)
    absl_flags.DEFINE_string("out", None, "PNG file for the plot", flag_values=values)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command("scaling", __doc__, arguments, define_flags=_define_flags, measure=measure, show=show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
