"""The graph alone against the same graph written the obvious way: seconds forward, and forward and backward.

    python -m benchmarks.graph --json=graph.json

Each row is a clip's features [B, T, 8, 8, C], with the graph of the release's SyncMNIST model (K = 3, simple attention,
positional maps) or, `dot`, of its Something-Something models (dot attention, LN, an update per scale). Columns:
`plain` (benchmarks/plain_graph.py, float32), `float32` and `bfloat16` (the layer, in either precision), and the same
under XLA with --jit_compile. `×` is how many times as fast as `plain`. The backward pass is of the sum of the squares,
with gradients for every weight and for the features. All columns of a row alternate in one process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from benchmarks.experiments import read_sizes
from benchmarks.measuring import markdown, milliseconds, run_command, time_side_by_side
from rstg_tf.common.errors import ConfigError

OPTIONS = {
    "simple": {"attention": "simple", "input_batch_norm": True, "positional_map_size": 6},
    "dot": {"attention": "dot", "normalization": "LN", "scalewise_update": True},
}
ROWS = ("2x10x512x3", "8x10x64x3", "8x16x512x3")
MAP_SIDE = 8


def measure(values: absl_flags.FlagValues) -> dict[str, Any]:
    rows = []
    for kind in values.kinds:
        if kind not in OPTIONS:
            raise ConfigError(f"--kinds={kind}: expected some of {', '.join(OPTIONS)}.")
        for text in values.rows:
            sizes = read_sizes(text, "rows")
            for backward in (False, True):
                timings = time_side_by_side(_works(kind, *sizes, backward, values.jit_compile), runs=values.runs)
                rows.append({"kind": kind, "sizes": text, "backward": backward, "seconds": timings})
    return {
        "rows": rows,
        "summary": {
            f"{row['kind']} {row['sizes']}{' backward' if row['backward'] else ''}": {
                name: round(row["seconds"]["plain"]["median"] / timing["median"], 2)
                for name, timing in row["seconds"].items()
                if name != "plain"
            }
            for row in rows
        },
    }


def build_graph(kind: str, *, channels: int, scales: int, precision: str = "float32"):
    """The layer of one row of OPTIONS, built, weights from a fixed seed."""
    from tensorflow import keras

    from rstg_tf import RecurrentSpaceTimeGraph

    keras.utils.set_random_seed(0)
    graph = RecurrentSpaceTimeGraph(
        num_scales=scales,
        node_width=channels,
        message_width=channels,
        dtype=precision,
        adjacency_size=(64, 64),
        **OPTIONS[kind],
    )
    graph.build((None, None, MAP_SIDE, MAP_SIDE, channels))
    return graph


def _works(
    kind: str, clips: int, steps: int, channels: int, scales: int, backward: bool, jit_compile: bool
) -> dict[str, Callable[[], Any]]:
    import tensorflow as tf

    from benchmarks.plain_graph import PlainGraph

    features = tf.random.stateless_normal([clips, steps, MAP_SIDE, MAP_SIDE, channels], seed=[0, 0])
    layers = {
        precision: build_graph(kind, channels=channels, scales=scales, precision=precision)
        for precision in ("float32", "mixed_bfloat16")
    }
    plain = PlainGraph(layers["float32"])
    works = {"plain": _work(plain, plain.trainable_variables, features, backward, None)}
    for name, layer in layers.items():
        name = name.replace("mixed_", "")
        given = tf.cast(features, layer.compute_dtype)
        works[name] = _work(layer, layer.trainable_weights, given, backward, None)
        if jit_compile:
            works[f"{name} XLA"] = _work(layer, layer.trainable_weights, given, backward, True)
    return works


def _work(graph, weights, features, backward: bool, jit_compile: bool | None) -> Callable[[], Any]:
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile, autograph=False)
    def forward():
        return tf.cast(graph(features), tf.float32)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def forward_and_backward():
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_sum(tf.square(tf.cast(graph(features, training=True), tf.float32)))
        gradients = tape.gradient(loss, [features, *weights], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        # All of them are returned: what is only a control dependency of the result would be pruned away.
        return loss, gradients

    return forward_and_backward if backward else forward


def show(result: dict[str, Any]) -> None:
    columns = list(result["rows"][0]["seconds"])
    header = ("graph", "BxTxCxS", "pass", *(f"{name}, ms{'' if name == 'plain' else ' (× plain)'}" for name in columns))
    print(
        markdown(
            header,
            [
                (
                    row["kind"],
                    row["sizes"],
                    "and back" if row["backward"] else "forward",
                    *(_cell(row["seconds"], name) for name in columns),
                )
                for row in result["rows"]
            ],
        )
    )


def _cell(seconds: dict[str, dict[str, float]], name: str) -> str:
    times = "" if name == "plain" else f" ({seconds['plain']['median'] / seconds[name]['median']:.1f})"
    return f"{milliseconds(seconds[name])}{times}"


def _define_flags(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_list("rows", list(ROWS), "sizes to measure, BxTxCxS", flag_values=values)
    absl_flags.DEFINE_list("kinds", list(OPTIONS), "graphs to measure", flag_values=values)
    absl_flags.DEFINE_boolean("jit_compile", False, "also under XLA", flag_values=values)


def main(arguments: Sequence[str]) -> int:
    return run_command("graph", __doc__, arguments, define_flags=_define_flags, measure=measure, show=show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
