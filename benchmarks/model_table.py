"""What each experiment's model costs: parameters, multiply-adds and memory for one clip, read off its graph.

    python -m benchmarks.model_table                                  every flag file of the project
    python -m benchmarks.model_table --json=table.json smt.flags configs/smt_i3d.flags

- parameters: the values of all weights, norms' stored statistics included; in brackets those that are trained.
- multiply-adds: of every convolution and matrix product in the forward pass of one training clip, the products with
  the zeros around a map included. Norms, activations, pooling and softmax are not in it.
- activations: the most memory that the results of ops take up at once in a training step on one clip (forward, loss,
  backward; float32), when the ops run in the order of the trace, each with a buffer of its own that is given back after
  its last reader. Weights, their finished gradients, the optimiser's slots, the clip and the kernels' scratch space
  come on top. A step on B clips takes up at most about B times this figure and three to four times the weights.

Nothing is run, so the figures are the same on every machine. The graph is the CPU's, for on a GPU the LSTMs are one
cuDNN op each, whose memory cannot be read off; but every convolution is the op that defines it. In the form that a CPU
uses for the convnet's wide ones in float32 (rstg_tf/ops/winograd.py), the forward pass of syncmnist.flags has
16.5 in place of 26.6 G multiply-adds, and a step holds a sixth more.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from benchmarks import experiments
from benchmarks.measuring import run_command
from rstg_tf import flags
from rstg_tf.config import ModelConfig

MEBI, GIGA, MEGA = 2**20, 1e9, 1e6


def measure(config: ModelConfig) -> dict[str, Any]:
    """The figures of one model: 'clip' [T, H, W, C], counts as integers, bytes; None for --remat without a ResNet."""
    from benchmarks import graph_costs

    model = _build(config, remat=False)
    row = {
        "clip": [config.num_frames, config.height, config.width, config.channels],
        "parameters": _count(model, model.weights),
        "trainable_parameters": _count(model, model.trainable_weights),
        "multiply_adds": graph_costs.multiply_adds(trace_forward(model)),
        "activation_bytes": activation_bytes(model),
        "activation_bytes_with_remat": None,
    }
    if config.backbone != "simple_c2d":
        row["activation_bytes_with_remat"] = activation_bytes(_build(config, remat=True))
    return row


def trace_forward(model):
    """The graph of `model` (a VideoClassifier) in inference mode on one uint8 clip."""
    import tensorflow as tf

    forward = tf.function(lambda video: model(video, training=False), autograph=False)
    return forward.get_concrete_function(_clip_spec(model)).graph


def activation_bytes(model, clips: int = 1) -> int:
    """The most bytes that the results of ops take up at once in a training step of `model` on `clips` clips."""
    import tensorflow as tf

    from benchmarks import graph_costs

    @tf.function(autograph=False)
    def step(video, label):
        with tf.GradientTape() as tape:
            logits = model(video, training=True)
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits))
        return loss, tape.gradient(loss, model.trainable_weights)

    graph = step.get_concrete_function(_clip_spec(model, clips), tf.TensorSpec([clips], tf.int32)).graph
    return graph_costs.peak_bytes(graph, graph.outputs)


def _build(config: ModelConfig, *, remat: bool):
    from tensorflow import keras

    keras.backend.clear_session()  # gives the names of the graph's ops, and the memory of the last row, back
    return experiments.build_as_defined(dataclasses.replace(config, remat=remat))


def _clip_spec(model, clips: int = 1):
    import tensorflow as tf

    return tf.TensorSpec([clips, *model.video_shape], tf.uint8)


def _count(model, weights) -> int:
    """Values in `weights`, without dropout's count of its calls, which Keras lists with them."""
    calls = model.classifier.dropout.calls
    return sum(math.prod(weight.shape) for weight in weights if weight is not calls)


def flag_files() -> list[str]:
    """The flag files in the working directory and its configs/; not *_common.flags, which others include."""
    found = ["smt.flags", "syncmnist.flags", *sorted(map(str, Path("configs").glob("*.flags")))]
    return [file for file in found if not file.endswith("_common.flags")]


def measure_files(files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Flag file -> `measure` of its model; files that describe the same model share one measurement."""
    configs = {file: flags.config_from_flags(flags.parse([f"--flagfile={file}"])).model for file in files}
    rows = {config: measure(config) for config in dict.fromkeys(configs.values())}
    return {file: rows[config] for file, config in configs.items()}


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The rows in Markdown, one string a line."""
    lines = [
        "| flag file | clip | parameters (trained) | multiply-adds | activations | with `--remat` |",
        "|---|---|---|---|---|---|",
    ]
    for file, row in rows.items():
        remat = row["activation_bytes_with_remat"]
        cells = [
            f"`{file}`",
            "×".join(map(str, row["clip"])),
            f"{row['parameters'] / MEGA:.2f} M ({row['trainable_parameters'] / MEGA:.2f} M)",
            f"{row['multiply_adds'] / GIGA:.4g} G",
            f"{row['activation_bytes'] / MEBI:,.0f} MiB",
            "–" if remat is None else f"{remat / MEBI:,.0f} MiB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _measure_files(values: absl_flags.FlagValues, files: Sequence[str]) -> dict[str, Any]:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # with a GPU the layers would trace cuDNN's LSTM
    return {"versions": _versions(), "rows": measure_files(files or flag_files())}


def show(result: dict[str, Any]) -> None:
    print("\n".join(table(result["rows"])))
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command(
        "model_table", __doc__, arguments, measure=_measure_files, show=show, runs=None, takes_files=True
    )


def _versions() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "TensorFlow": metadata.version("tensorflow"),
        "Keras": metadata.version("keras"),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
