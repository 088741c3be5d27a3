"""Training: the step, the loop around it, and what interrupts the loop.

A run is a function of its config alone. The data position is step · batch_size, the rate a function of the step, and
a checkpoint holds all the rest, so a run that was killed and started again ends with the same bits.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.common import devices
from rstg_tf.common.interrupts import StopSignals
from rstg_tf.config import ExperimentConfig, TrainConfig
from rstg_tf.model import build_model
from rstg_tf.release.warm_start import restore_weights
from rstg_tf.runs.checkpoints import Checkpoints, restore_for_inference
from rstg_tf.runs.run_folder import RunFolder
from rstg_tf.runs.weight_average import WeightAverage, swapped
from rstg_tf.training.data import TrainingData
from rstg_tf.training.optimizers import build_optimizer, rate_schedule
from rstg_tf.training.progress import Meter, Progress, TrainingMetrics, clock, duration, say
from rstg_tf.training.tensorboard import AttentionProbe, TensorBoardWriter
from rstg_tf.training.train_step import NonFiniteError, StepMetrics, TrainStep

__all__ = ["train", "TrainStep", "TrainingResult", "NonFiniteError", "restore_for_inference"]
FROM_RANDOM_WEIGHTS = (
    "warning: a ResNet starts from random weights. Its norms keep their stored statistics, as in the release, which "
    "starts from Kinetics weights, so its maps may grow until nothing is learnt: give --restore_dir and "
    "--restore_scope=backbone."
)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Where a run ended. `interrupted` names the signal; loss and accuracy are those of the last report."""

    step: int
    total_steps: int
    interrupted: str | None
    loss: float | None
    accuracy: float | None
    best_top1: float | None


def train(config: ExperimentConfig, run_dir: str, data: TrainingData) -> TrainingResult:
    """Trains in `run_dir`, or goes on where the run there stopped.

    Raises ConfigError (before a step is taken), NonFiniteError, checkpoints.CheckpointError.
    """
    settings = config.train
    strategy = devices.prepare(
        num_virtual_devices=settings.num_virtual_devices, precision=settings.precision, seed=settings.seed
    )
    devices.check_batch_divides(settings.batch_size, strategy)
    total_steps = settings.total_steps(data.num_clips)
    with strategy.scope():
        model = build_model(config.model)
        weights = model.trainable_variables
        optimizer = build_optimizer(settings, total_steps=total_steps, variables=weights)
        average = WeightAverage(weights, settings.ema_momentum) if settings.ema_momentum else None
    step = TrainStep(strategy=strategy, model=model, optimizer=optimizer, config=settings, average=average)
    with RunFolder(run_dir, config, data.manifests) as folder, StopSignals(step.stop) as signals:
        checkpoints = Checkpoints(
            folder, model=model, optimizer=optimizer, average=average, keep=settings.keep_checkpoints
        )
        _restore(checkpoints, model, average, settings)
        say(
            f"{run_dir}: {sum(math.prod(weight.shape) for weight in weights):,} weights, {_describe_step(settings)}, "
            f"{strategy.num_replicas_in_sync} replica(s), {settings.precision}"
        )
        loop = _Loop(
            settings,
            step=step,
            model=model,
            optimizer=optimizer,
            average=average,
            checkpoints=checkpoints,
            signals=signals,
            total_steps=total_steps,
            data=data,
            board=TensorBoardWriter(str(folder.tensorboard_dir)),
        )
        first_step = int(optimizer.iterations.numpy())
        return loop.run(iter(strategy.experimental_distribute_dataset(data.batches(first_step))))


def _describe_step(settings: TrainConfig) -> str:
    """'loss: sum of the cross-entropies of 2 clips, nesterov at 1e-06, which is 1e-06 per clip'."""
    per_clip = settings.learning_rate / (1 if settings.loss_reduction == "sum" else settings.batch_size)
    return (
        f"loss: {settings.loss_reduction} of the cross-entropies of {settings.batch_size} clips, "
        f"{settings.optimizer} at {settings.learning_rate:g}, which is {per_clip:g} per clip"
    )


def _restore(checkpoints: Checkpoints, model, average: WeightAverage | None, settings: TrainConfig) -> None:
    """The run's own newest checkpoint; for a new run the weights of `restore_dir`, if that is given."""
    step = checkpoints.restore(say)
    if step is not None:
        say(f"going on from step {step}")
        return
    if not settings.restore_dir:
        if isinstance(model.backbone, ResNet50):
            say(FROM_RANDOM_WEIGHTS)
        return
    restore_weights(model, settings.restore_dir, scope=settings.restore_scope, say=say)
    if average is not None:
        average.reset(model.trainable_variables)


class _Loop:
    """Calls of the step, each up to the moment when something else is due: a report, an evaluation, a checkpoint."""

    def __init__(
        self,
        settings: TrainConfig,
        *,
        step: TrainStep,
        model,
        optimizer,
        average,
        checkpoints: Checkpoints,
        signals: StopSignals,
        total_steps: int,
        data: TrainingData,
        board: TensorBoardWriter,
    ):
        self.settings, self.step, self.model, self.average = settings, step, model, average
        self.checkpoints, self.signals, self.total_steps = checkpoints, signals, total_steps
        self.data, self.board = data, board
        self.entropy = AttentionProbe(model, data.sample())
        self.done = int(optimizer.iterations.numpy())
        self.rate = rate_schedule(settings, total_steps)
        self.last: TrainingMetrics | None = None
        self.meter = Meter(total_steps=total_steps, batch_size=settings.batch_size)
        self.progress = Progress(total_steps=total_steps, first_step=self.done)
        self.saved_at = clock()

    def run(self, batches) -> TrainingResult:
        try:
            started = clock()
            say("building the training step: seconds for small models, a minute or more for those of videos")
            self.step(batches, tf.constant(0))  # no step: only traces, so that the first report shows the real speed
            say(f"built in {duration(clock() - started)}")
            if self._due(self.settings.eval_every):
                self._evaluate()  # an interrupted run may have stopped in the midst of it
            while self.done < self.total_steps and not self.signals.stopped():
                self._call(batches)
                if self._due(self.settings.print_every):
                    self._report()
                if self._due(self.settings.eval_every):
                    self._evaluate()
                if self._save_due():
                    self._save()
            self._save()
        finally:
            self.progress.close()
            self.board.close()
        best = self.checkpoints.best_top1()
        return TrainingResult(
            step=self.done,
            total_steps=self.total_steps,
            interrupted=self.signals.received,
            loss=self.last and self.last.loss,
            accuracy=self.last and self.last.accuracy,
            best_top1=best if best >= 0 else None,
        )

    def _due(self, every: int) -> bool:
        return bool(every) and self.done > 0 and (self.done % every == 0 or self.done == self.total_steps)

    def _save_due(self) -> bool:
        minutes = self.settings.save_minutes
        return self._due(self.settings.save_every) or (minutes > 0 and clock() - self.saved_at > 60 * minutes)

    def _call(self, batches) -> None:
        settings = self.settings
        marks = [
            every - self.done % every
            for every in (settings.print_every, settings.save_every, settings.eval_every)
            if every
        ]
        steps = min(settings.steps_per_call, self.total_steps - self.done, *marks)
        started = clock()
        sums = StepMetrics(*(value.numpy() for value in self.step(batches, tf.constant(steps))))
        self.done += int(sums.steps)
        if not sums.finite:
            raise NonFiniteError(
                f"step {self.done + 1}: the loss ({sums.loss:g}) or the norm of the gradient ({sums.gradient_norm:g}) "
                f"is not finite; the weights stay those of step {self.done}. Lower --learning_rate, lengthen "
                "--warmup_steps or set --clip_norm."
            )
        self.meter.add(
            steps=int(sums.steps),
            cross_entropy=float(sums.cross_entropy),
            correct=int(sums.correct),
            gradient_norm=float(sums.gradient_norm),
            waited=float(sums.waited),
            seconds=clock() - started,
        )
        self.progress.advance(int(sums.steps))

    def _report(self) -> None:
        # The last step's: that of `optimizer.learning_rate` is with Keras 3 the next step's.
        rate = float(self.rate(self.done - 1))
        self.last = self.meter.report(step=self.done, rate=rate)
        self.progress.show(self.last)
        self.board.report(self.last)
        entropies = self.entropy.measure()
        if entropies:
            self.board.attention_entropy(self.done, entropies)

    def _evaluate(self) -> None:
        if self.signals.stopped():
            return
        with swapped(self.average, self.model.trainable_variables):
            top1 = self.data.evaluate(self.model, self.signals.stopped)
        if top1 is None:
            return
        best = self.checkpoints.save_best(top1)
        say(f"step {self.done}  test accuracy {top1:.4f}{'  (best so far)' if best else ''}")
        self.board.scalars(self.done, **{"test/top1": top1})

    def _save(self) -> None:
        self.checkpoints.save()
        self.saved_at = clock()
