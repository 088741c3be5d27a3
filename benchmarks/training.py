"""Seconds of a training step, of its parts, of its convolutions alone, and of the same step written the obvious way.

    python -m benchmarks.training --json=training.json
    python -m benchmarks.training --rows=full@2,narrow@8
    python -m benchmarks.training --flagfile=smt.flags --batch_size=1

A row is a model at a batch size (`full@2`), in each number format. `full` is syncmnist.flags (512 wide), `narrow` the
same 64 wide, `demo` configs/demo.flags, `i3d` configs/smt_i3d_rstg_final.flags; any of an experiment's flags make one
row of their own. All that stands in a row alternates in one process, on random clips that are there already.

- `step`: rstg_tf.training's, with optimiser and all checks, in clips/s and ms.
- `plain`: benchmarks/plain_model.py in float32, where it has the model's options; `×` is how many times as fast as it
  the step is.
- `convolutions`: every convolution of the model by itself, forward and both gradients (benchmarks.convolution_floor),
  and the step's time over that: 1.0 would be a step of bare convolutions, less one whose wide ones take other forms.
- `backbone`, `graph`: these parts of the model by themselves, forward and backward. `rest` is what the step takes
  beyond them: classifier, loss, optimiser, the checks for NaN, the exchange with the iterator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from benchmarks import convolution_floor, experiments
from benchmarks.measuring import markdown, milliseconds, rates, run_command, scaled, time_side_by_side
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig

ROWS = ("full@2", "full@8", "narrow@8", "demo@32", "i3d@1")
STEPS_PER_CALL = {"simple_c2d": 5}  # of short steps; else 1
PLAIN = "plain"


def measure(values: absl_flags.FlagValues) -> dict[str, Any]:
    precisions = experiments.precisions(values)
    rows = [
        measure_row(name, config, precisions=precisions, runs=values.runs) for name, config in _configs(values).items()
    ]
    return {
        "rows": rows,
        "summary": {
            row["name"]: {precision: _summary(found) for precision, found in row["precisions"].items()} for row in rows
        },
    }


def _summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clips_per_second": round(figures["clips_per_second"]["median"], 3),
        "times_plain": figures["times_plain"],
        "times_convolutions": figures["times_convolutions"],
    }


def _configs(values: absl_flags.FlagValues) -> dict[str, ExperimentConfig]:
    """Row -> experiment; those of --rows, or the one that the other flags describe."""
    given = experiments.given(values)
    if given is not None:
        return {f"{experiments.GIVEN}@{given.train.batch_size}": given}
    configs = {}
    for row in values.rows:
        name, _, clips = row.partition("@")
        if not clips.isdecimal() or not int(clips):
            raise ConfigError(f"--rows={row}: expected MODEL@CLIPS, such as {ROWS[0]}.")
        configs[row] = experiments.with_batch(experiments.named(name, "rows"), int(clips))
    return configs


def measure_row(name: str, config: ExperimentConfig, *, precisions: Sequence[str], runs: int) -> dict[str, Any]:
    """The figures of one model and batch size; see the head of the file."""
    steps = STEPS_PER_CALL.get(config.model.backbone, 1)
    convolutions = convolution_floor.of_experiment(config, config.train.batch_size)
    works: dict[Any, Callable[[], Any]] = {}
    for precision in precisions:
        works["step", precision] = TrainingStep(config, precision, steps=steps)
        works.update(part_works(config, precision))
        works.update(convolution_floor.works(convolutions, precision, backward=True))
    plain = plain_step(config)
    if plain:
        works[PLAIN] = plain
    timings = time_side_by_side(works, runs=runs, least_seconds=convolution_floor.LEAST_SECONDS)
    for precision in precisions:
        timings["step", precision] = scaled(timings["step", precision], 1.0 / steps)
    return {
        "name": name,
        "clips": config.train.batch_size,
        "steps_per_call": steps,
        "plain": timings.get(PLAIN),
        "precisions": {precision: _figures(config, precision, convolutions, timings) for precision in precisions},
    }


def _figures(
    config: ExperimentConfig,
    precision: str,
    convolutions: Sequence[convolution_floor.Convolution],
    timings: Mapping[Any, dict[str, float]],
) -> dict[str, Any]:
    step, backbone, graph = (timings[part, precision] for part in ("step", "backbone", "graph"))
    floor = convolution_floor.floor(convolutions, precision, timings, backward=True)
    times_plain = round(timings[PLAIN]["median"] / step["median"], 2) if PLAIN in timings else None
    return {
        "step": step,
        "clips_per_second": rates(step, config.train.batch_size),
        "times_plain": times_plain,
        "convolutions": floor,
        "times_convolutions": round(step["median"] / floor["seconds"], 2),
        "backbone": backbone,
        "graph": graph,
        "rest_seconds": step["median"] - backbone["median"] - graph["median"],
    }


class TrainingStep:
    """`step()` takes `steps` steps of rstg_tf.training in one call, as train.py does, and returns their StepMetrics.

    The experiment's optimiser, on the same random clips every time. Raises NonFiniteError for NaN or Inf: a step that
    changes nothing must not be timed.
    """

    def __init__(self, config: ExperimentConfig, precision: str, *, steps: int):
        import tensorflow as tf

        from rstg_tf.common import devices
        from rstg_tf.model import build_model
        from rstg_tf.training.optimizers import build_optimizer
        from rstg_tf.training.train_step import TrainStep

        settings = config.train
        strategy = devices.prepare(num_virtual_devices=settings.num_virtual_devices, precision=precision)
        with strategy.scope():
            self.model = build_model(config.model)
            optimizer = build_optimizer(settings, total_steps=10_000, variables=self.model.trainable_variables)
        self._step = TrainStep(strategy=strategy, model=self.model, optimizer=optimizer, config=settings)
        video, label = experiments.random_clips(config, settings.batch_size)
        endless = tf.data.Dataset.from_tensors({"video": video, "label": label}).repeat()
        self._batches = iter(strategy.experimental_distribute_dataset(endless))
        self._steps = tf.constant(steps)

    def __call__(self):
        from rstg_tf.training.train_step import NonFiniteError

        sums = self._step(self._batches, self._steps)
        if not sums.finite:
            raise NonFiniteError("the training step that should be timed found NaN or Inf.")
        return sums


def part_works(config: ExperimentConfig, precision: str) -> dict[tuple[str, str], Callable[[], Any]]:
    """Forward and backward pass of the backbone by itself, and of the graph (the head) by itself."""
    import tensorflow as tf

    from rstg_tf.common import devices
    from rstg_tf.model import build_model

    devices.set_precision(precision)
    model = build_model(config.model)
    video, _ = experiments.random_clips(config, config.train.batch_size)
    features = model.backbone(model.pixels(video), training=False)
    upstream = {"backbone": tf.ones_like(features), "graph": tf.ones_like(model.head(features, training=False))}

    @tf.function(autograph=False)
    def backbone(video, upstream):
        weights = model.backbone.trainable_variables
        with tf.GradientTape() as tape:
            found = model.backbone(model.pixels(video), training=True)
        return tape.gradient(found, weights, output_gradients=upstream)

    @tf.function(autograph=False)
    def graph(features, upstream):
        weights = model.head.trainable_variables
        with tf.GradientTape() as tape:
            tape.watch(features)
            found = model.head(features, training=True)
        return tape.gradient(found, [features, *weights], output_gradients=upstream)

    return {
        ("backbone", precision): lambda: backbone(video, upstream["backbone"])[-1],
        ("graph", precision): lambda: graph(features, upstream["graph"])[-1],
    }


def plain_step(config: ExperimentConfig) -> Callable[[], Any] | None:
    """The step of benchmarks/plain_model.py; None for an experiment with options that it does not have."""
    from benchmarks.plain_model import PlainStep, plain_model

    settings = config.train
    if settings.optimizer != "nesterov" or settings.loss_reduction != "sum" or settings.clip_norm:
        return None
    model = plain_model(config)
    if model is None:
        return None
    step = PlainStep(model, rate=settings.learning_rate, momentum=settings.momentum)
    video, label = experiments.random_clips(config, settings.batch_size)
    return lambda: step(video, label)


def show(result: Mapping[str, Any]) -> None:
    header = (
        "row",
        "precision",
        "clips/s",
        "step, ms",
        "plain, ms",
        "× plain",
        "convolutions, ms",
        "GFLOP/s",
        "step / convolutions",
        "backbone, ms",
        "graph, ms",
        "rest, ms",
    )
    rows = []
    for row in result["rows"]:
        for precision, found in row["precisions"].items():
            floor = found["convolutions"]
            rows.append(
                (
                    row["name"],
                    precision,
                    f"{found['clips_per_second']['median']:.2f}",
                    milliseconds(found["step"]),
                    milliseconds(row["plain"]),
                    found["times_plain"] or "–",
                    f"{1e3 * floor['seconds']:.1f}",
                    f"{floor['gflops']:.0f}",
                    found["times_convolutions"],
                    milliseconds(found["backbone"]),
                    milliseconds(found["graph"]),
                    f"{1e3 * found['rest_seconds']:.1f}",
                )
            )
    print(markdown(header, rows))


def _define_flags(values: absl_flags.FlagValues) -> None:
    experiments.define_flags(values)
    absl_flags.DEFINE_list("rows", list(ROWS), "models and batch sizes to measure", flag_values=values)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command("training", __doc__, arguments, define_flags=_define_flags, measure=measure, show=show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
