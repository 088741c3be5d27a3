"""Latency and throughput of whole models, beside their bare convolutions and the same model written the obvious way.

    python -m benchmarks.inference --json=inference.json
    python -m benchmarks.inference --models=narrow --batches=1,8,32
    python -m benchmarks.inference --flagfile=smt.flags

A row is a model at a batch size, in each number format: ms a call of `model(video)` on random uint8 clips, and clips/s.
The models are those of benchmarks.training; any of an experiment's flags make one of their own. All that stands in a
row alternates in one process.

- `plain`: benchmarks/plain_model.py in float32, where it has the model's options; `×` is how many times as fast as it
  the model is.
- `convolutions`: every convolution of the model by itself (benchmarks.convolution_floor), and the model's time over it.
- `SavedModel`: the exported `serving_default`, which checks its input and adds probabilities, saved and loaded again.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from absl import logging

from benchmarks import convolution_floor, experiments
from benchmarks.measuring import markdown, milliseconds, rates, run_command, time_side_by_side
from rstg_tf.config import ExperimentConfig

BATCHES = (1, 8)
PLAIN = "plain"


def measure(values: absl_flags.FlagValues) -> dict[str, Any]:
    precisions = experiments.precisions(values)
    batches = experiments.positive(values.batches, "batches")
    given = experiments.given(values)
    configs = {name: experiments.named(name, "models") for name in values.models}
    if given is not None:
        configs = {experiments.GIVEN: given}
    rows = [
        measure_row(f"{name}@{clips}", config, clips, precisions=precisions, runs=values.runs)
        for name, config in configs.items()
        for clips in batches
    ]
    return {
        "rows": rows,
        "summary": {
            row["name"]: {
                precision: {
                    "ms": round(1e3 * found["model"]["median"], 2),
                    "times_plain": found["times_plain"],
                    "times_convolutions": found["times_convolutions"],
                }
                for precision, found in row["precisions"].items()
            }
            for row in rows
        },
    }


def measure_row(
    name: str, config: ExperimentConfig, clips: int, *, precisions: Sequence[str], runs: int
) -> dict[str, Any]:
    """The figures of one model and batch size; see the head of the file."""
    convolutions = convolution_floor.of_experiment(config, clips)
    works: dict[Any, Callable[[], Any]] = {}
    for precision in precisions:
        works.update(_model_works(config, clips, precision))
        works.update(convolution_floor.works(convolutions, precision, backward=False))
    plain = _plain_work(config, clips)
    if plain:
        works[PLAIN] = plain
    timings = time_side_by_side(works, runs=runs, least_seconds=convolution_floor.LEAST_SECONDS)
    return {
        "name": name,
        "clips": clips,
        "plain": timings.get(PLAIN),
        "precisions": {precision: _figures(clips, precision, convolutions, timings) for precision in precisions},
    }


def _figures(
    clips: int,
    precision: str,
    convolutions: Sequence[convolution_floor.Convolution],
    timings: Mapping[Any, dict[str, float]],
) -> dict[str, Any]:
    model = timings["model", precision]
    floor = convolution_floor.floor(convolutions, precision, timings, backward=False)
    return {
        "model": model,
        "clips_per_second": rates(model, clips),
        "saved_model": timings["saved", precision],
        "times_plain": round(timings[PLAIN]["median"] / model["median"], 2) if PLAIN in timings else None,
        "convolutions": floor,
        "times_convolutions": round(model["median"] / floor["seconds"], 2),
    }


def _model_works(config: ExperimentConfig, clips: int, precision: str) -> dict[tuple[str, str], Callable[[], Any]]:
    """The model in a TensorFlow function, and its `serving_default` through a SavedModel."""
    import tensorflow as tf

    from rstg_tf.common import devices
    from rstg_tf.model import build_model
    from rstg_tf.runs.clip_spec_of_run import served_clip_spec
    from rstg_tf.serving.request_limits import RequestLimits
    from rstg_tf.serving.signatures import classify_clips

    devices.set_precision(precision)
    model = build_model(config.model)
    video, _ = experiments.random_clips(config, clips)
    run = tf.function(lambda video: model(video, training=False), autograph=False).get_concrete_function(
        tf.TensorSpec(video.shape, tf.uint8)
    )
    with tempfile.TemporaryDirectory() as folder:
        holder = tf.Module()
        holder.weights = model.weights
        path = str(Path(folder, "model"))
        tf.saved_model.save(
            holder,
            path,
            signatures=classify_clips(model, served_clip_spec(config), (), RequestLimits()),
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
        )
        with _quiet():
            loaded = tf.saved_model.load(path)
    served = loaded.signatures["serving_default"]

    def call_saved():  # holds `loaded`, and with it the weights
        return loaded and served(video=video)["logits"]

    return {("model", precision): lambda: run(video), ("saved", precision): call_saved}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow warns that a model saved without its gradients could not be trained."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _plain_work(config: ExperimentConfig, clips: int) -> Callable[[], Any] | None:
    import tensorflow as tf

    from benchmarks.plain_model import plain_model

    plain = plain_model(config)
    if plain is None:
        return None
    run = tf.function(lambda video: plain(video), autograph=False)
    video, _ = experiments.random_clips(config, clips)
    return lambda: run(video)


def show(result: Mapping[str, Any]) -> None:
    header = (
        "row",
        "precision",
        "latency, ms",
        "clips/s",
        "plain, ms",
        "× plain",
        "convolutions, ms",
        "GFLOP/s",
        "model / convolutions",
        "SavedModel, ms",
    )
    print(
        markdown(
            header,
            [
                (
                    row["name"],
                    precision,
                    milliseconds(found["model"]),
                    f"{found['clips_per_second']['median']:.2f}",
                    milliseconds(row["plain"]),
                    found["times_plain"] or "–",
                    f"{1e3 * found['convolutions']['seconds']:.1f}",
                    f"{found['convolutions']['gflops']:.0f}",
                    found["times_convolutions"],
                    milliseconds(found["saved_model"]),
                )
                for row in result["rows"]
                for precision, found in row["precisions"].items()
            ],
        )
    )


def _define_flags(values: absl_flags.FlagValues) -> None:
    experiments.define_flags(values)
    absl_flags.DEFINE_list("models", list(experiments.MODELS), "models to measure", flag_values=values)
    absl_flags.DEFINE_list("batches", [str(clips) for clips in BATCHES], "clips of a call", flag_values=values)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command("inference", __doc__, arguments, define_flags=_define_flags, measure=measure, show=show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
