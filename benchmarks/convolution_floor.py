"""The least time that a model's convolutions can take as TensorFlow's own ops: each alone, forward and both gradients.

    python -m benchmarks.convolution_floor --json=floor.json
    python -m benchmarks.convolution_floor --flagfile=smt.flags --batch_size=1

A row per distinct convolution of the model (default: syncmnist.flags): the bare TensorFlow op, without bias, activation
or pooling, on random numbers; times and GFLOP/s (two operations per multiply-add) of the forward pass and of the
gradients for input and kernel together; how often the model has it. The first convolution of a model needs no gradient
for its input; where it sees few values at a time (3×3 grey pixels), its kernel's gradient is timed as the matrix
product that it amounts to, which takes less time than TensorFlow's own op. Wide convolutions can take less time in the
model than here, for it computes them in other forms (rstg_tf/ops/conv3x3.py). `matrix product` is a bare one
of 2048×2048 matrices, for scale.

`benchmarks.training` and `benchmarks.inference` time the same rows beside the whole model and add them up.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags as absl_flags

from benchmarks import experiments
from benchmarks.measuring import markdown, run_command, spread, time_side_by_side
from rstg_tf.config import ExperimentConfig

FORWARD, BACKWARD = "forward", "backward"
LEAST_SECONDS = 0.02  # per run of a convolution, so that the clock does not matter
MATRIX_SIDE = 2048
FEW_TAPS = 32


class Convolution(NamedTuple):
    """One convolution by its shapes: inputs [frames, H, W, C] ('Conv2D') or [B, T, H, W, C] ('Conv3D')."""

    kind: str
    inputs: tuple[int, ...]
    kernel: tuple[int, ...]
    outputs: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    is_first: bool

    @property
    def taps(self) -> int:
        """Values of the input behind one of the output."""
        return math.prod(self.kernel[:-1])

    @property
    def multiply_adds(self) -> int:
        """Of the forward pass; each of the two gradients has as many."""
        return math.prod(self.outputs) * self.taps

    def operations(self, direction: str) -> int:
        """Two per multiply-add."""
        passes = 1 if direction == FORWARD or self.is_first else 2
        return 2 * passes * self.multiply_adds

    def __str__(self):
        kernel, stride = "×".join(map(str, self.kernel[:-2])), max(self.strides)
        return (
            f"{'×'.join(map(str, self.inputs))}, {kernel} → {self.kernel[-1]}"
            f"{f', stride {stride}' if stride > 1 else ''}{', first' if self.is_first else ''}"
        )


def convolutions(model, clips: int) -> list[Convolution]:
    """Every convolution in the forward pass of `model` on `clips` training clips, in order.

    Raises GraphCostError if some are hidden in functions that the graph calls: none is left out in silence.
    """
    import tensorflow as tf

    from benchmarks import graph_costs

    forward = tf.function(lambda video: model(video, training=False), autograph=False)
    graph = forward.get_concrete_function(tf.TensorSpec([clips, *model.video_shape], tf.uint8)).graph
    found = [_of_op(op, is_first=False) for op in graph.get_operations() if op.type in ("Conv2D", "Conv3D")]
    counted = sum(product.multiply_adds for product in graph_costs.products(graph) if "Conv" in product.kind)
    if counted != sum(convolution.multiply_adds for convolution in found):
        raise graph_costs.GraphCostError("some convolutions lie in functions that the graph calls.")
    return [found[0]._replace(is_first=True), *found[1:]] if found else []


def of_experiment(config: ExperimentConfig, clips: int) -> list[Convolution]:
    """`convolutions` of an experiment's model. Without --remat: what is computed twice is no part of the least time."""
    from rstg_tf.common import devices

    devices.set_precision("float32")
    return convolutions(experiments.build_as_defined(dataclasses.replace(config.model, remat=False)), clips)


def _of_op(op, is_first: bool) -> Convolution:
    inputs, kernel, outputs = (tuple(tensor.shape) for tensor in (*op.inputs[:2], op.outputs[0]))
    return Convolution(
        op.type, inputs, kernel, outputs, tuple(op.get_attr("strides")), op.get_attr("padding").decode(), is_first
    )


def works(found: Sequence[Convolution], precision: str, *, backward: bool) -> dict[tuple, Callable[[], Any]]:
    """(convolution, precision, direction) -> the bare op, for every distinct one of `found`."""
    directions = (FORWARD, BACKWARD) if backward else (FORWARD,)
    return {
        (convolution, precision, direction): _work(convolution, precision, direction)
        for convolution in dict.fromkeys(found)
        for direction in directions
    }


def _work(convolution: Convolution, precision: str, direction: str) -> Callable[[], Any]:
    import tensorflow as tf

    def random(seed: int, *shape: int):
        return tf.cast(tf.random.stateless_normal(shape, [0, seed]), precision.replace("mixed_", ""))

    if direction == BACKWARD and convolution.is_first and convolution.taps <= FEW_TAPS:
        positions = math.prod(convolution.outputs[:-1])
        product = tf.function(lambda patches, upstream: tf.matmul(patches, upstream), autograph=False)
        return _unread(product, random(0, convolution.taps, positions), random(1, positions, convolution.kernel[-1]))
    run = tf.function(lambda *tensors: computed(convolution, direction, *tensors), autograph=False)
    return _unread(run, random(0, *convolution.inputs), random(1, *convolution.kernel), random(2, *convolution.outputs))


def computed(convolution: Convolution, direction: str, inputs, kernel, upstream) -> list:
    """[outputs], or the gradients [of the kernel, of the inputs] for an `upstream` of the outputs' shape."""
    import tensorflow as tf

    how = {"strides": convolution.strides, "padding": convolution.padding}
    forward, kernel_gradient, input_gradient = {
        "Conv2D": (tf.nn.conv2d, tf.raw_ops.Conv2DBackpropFilter, tf.raw_ops.Conv2DBackpropInput),
        "Conv3D": (tf.nn.conv3d, tf.raw_ops.Conv3DBackpropFilterV2, tf.raw_ops.Conv3DBackpropInputV2),
    }[convolution.kind]
    if direction == FORWARD:
        return [forward(inputs, kernel, **how)]
    gradients = [kernel_gradient(input=inputs, filter_sizes=kernel.shape, out_backprop=upstream, **how)]
    if not convolution.is_first:
        gradients.append(input_gradient(input_sizes=inputs.shape, filter=kernel, out_backprop=upstream, **how))
    return gradients


def _unread(function: Callable[..., Any], *inputs: Any) -> Callable[[], None]:
    """A call that returns nothing: on the CPU the op is done then, and a large result is not copied to NumPy."""
    concrete = function.get_concrete_function(*inputs)

    def call() -> None:
        concrete(*inputs)

    return call


def floor(
    found: Sequence[Convolution], precision: str, timings: Mapping[tuple, Mapping[str, float]], *, backward: bool
) -> dict[str, float]:
    """{'seconds': all of `found` one after the other, by the medians; 'operations'; 'gflops': their rate}."""
    directions = (FORWARD, BACKWARD) if backward else (FORWARD,)
    seconds = sum(
        timings[convolution, precision, direction]["median"] for convolution in found for direction in directions
    )
    operations = sum(convolution.operations(direction) for convolution in found for direction in directions)
    return {"seconds": seconds, "operations": operations, "gflops": operations / seconds / 1e9 if found else 0.0}


def measure(values: absl_flags.FlagValues) -> dict[str, Any]:
    config = experiments.given(values) or experiments.named("full", "flagfile")
    chosen = experiments.precisions(values)
    found = of_experiment(config, config.train.batch_size)
    pieces = {("matrix product", precision): _matrix_product(precision) for precision in chosen}
    for precision in chosen:
        pieces.update(works(found, precision, backward=True))
    timings = time_side_by_side(pieces, runs=values.runs, least_seconds=LEAST_SECONDS)
    rows = [
        {
            "convolution": str(convolution),
            "times": times,
            "precision": precision,
            "direction": direction,
            "seconds": timings[convolution, precision, direction],
            "gflops": convolution.operations(direction) / timings[convolution, precision, direction]["median"] / 1e9,
        }
        for convolution, times in collections.Counter(found).items()
        for direction in (FORWARD, BACKWARD)
        for precision in chosen
    ]
    products = {
        precision: 2 * MATRIX_SIDE**3 / timings["matrix product", precision]["median"] / 1e9 for precision in chosen
    }
    floors = {precision: floor(found, precision, timings, backward=True) for precision in chosen}
    return {
        "clips": config.train.batch_size,
        "rows": rows,
        "matrix_product_gflops": products,
        "floors": floors,
        "summary": {precision: round(1e3 * found["seconds"], 1) for precision, found in floors.items()},
    }


def _matrix_product(precision: str) -> Callable[[], Any]:
    import tensorflow as tf

    matrix = tf.cast(tf.random.stateless_normal([MATRIX_SIDE, MATRIX_SIDE], [0, 0]), precision.replace("mixed_", ""))
    return _unread(tf.function(lambda left, right: tf.matmul(left, right), autograph=False), matrix, matrix)


def show(result: Mapping[str, Any]) -> None:
    print(
        markdown(
            ("convolution (inputs, kernel → channels)", "times", "precision", "direction", "ms", "± %", "GFLOP/s"),
            [
                (
                    row["convolution"],
                    row["times"],
                    row["precision"],
                    row["direction"],
                    f"{1e3 * row['seconds']['median']:.2f}",
                    f"{50 * spread(row['seconds']):.0f}",
                    f"{row['gflops']:.0f}",
                )
                for row in result["rows"]
            ],
        )
    )
    for precision, found in result["floors"].items():
        print(
            f"\n{precision}: all convolutions of a training step on {result['clips']} clips "
            f"{1e3 * found['seconds']:.1f} ms, {found['gflops']:.0f} GFLOP/s; bare matrix product "
            f"{result['matrix_product_gflops'][precision]:.0f} GFLOP/s"
        )


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command(
        "convolution_floor", __doc__, arguments, define_flags=experiments.define_flags, measure=measure, show=show
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
