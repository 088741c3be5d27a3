"""Training: the step, the loop around it, and what interrupts the loop.

A run is a function of its config alone. The data position is step · batch_size, the rate a function of the step, and
a checkpoint holds all the rest, so a run that was killed and started again ends with the same bits.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from rstg_tf import devices
from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.checkpoints import Checkpoints, RunFolder, restore_for_inference
from rstg_tf.config import ConfigError, ExperimentConfig, TrainConfig
from rstg_tf.model import build_model
from rstg_tf.optimizers import WeightAverage, apply_summed_gradients, build_optimizer, clip_by_global_norm, swapped
from rstg_tf.progress import AttentionProbe, Board, Meter, Progress, Report, clock, duration, say
from rstg_tf.restoring import restore_weights
from rstg_tf.stop_signals import StopSignals

__all__ = ["train", "TrainStep", "TrainingResult", "NonFiniteError", "restore_for_inference"]
FROM_RANDOM_WEIGHTS = (
    "warning: a ResNet starts from random weights. Its norms keep their stored statistics, as in the release, which "
    "starts from Kinetics weights, so its maps may grow until nothing is learnt: give --restore_dir and "
    "--restore_scope=backbone.")


class NonFiniteError(RuntimeError):
    """NaN or Inf in the loss or in a gradient. The weights are those of the step before."""


class StepSums(NamedTuple):
    """What the steps of one call found; scalars."""

    steps: tf.Tensor  # int32, steps done
    finite: tf.Tensor  # bool; False: the last step found NaN or Inf, changed nothing, and is not counted
    loss: tf.Tensor  # float32, of the last step: sum or mean over its clips
    cross_entropy: tf.Tensor  # float32, summed over clips and steps
    correct: tf.Tensor  # int32, clips whose largest logit was the label's
    gradient_norm: tf.Tensor  # float32, of the last step, before clipping
    waited: tf.Tensor  # float64, seconds until the batches were there


class TrainStep:
    """`step(iterator, steps)` takes up to `steps` steps in one call of TensorFlow and returns StepSums.

    A step, with the clips b of a global batch of B and the weights w:
      L = Σ_b cross-entropy_b   (loss_reduction 'sum', as in the release; 'mean': / B)
      g = Σ over the replicas of ∂L/∂w, shortened to `clip_norm`
      w, slots ← optimiser(g); average ← average of w
    If L or g is not finite, everything stays as it was before the step, and the call ends. It also ends, after the step
    that it is in, once `stop` is set, from any thread.

    Shapes: the iterator yields {"video": [B, T, H, W, C] pixels 0…255, "label": int [B]}, spread over the replicas.
    """

    def __init__(self, *, strategy: tf.distribute.Strategy, model, optimizer, config: TrainConfig,
                 average: WeightAverage | None = None):
        self._strategy, self._model, self._optimizer = strategy, model, optimizer
        self._config, self._average = config, average
        self._scale = 1.0 if config.loss_reduction == "sum" else 1.0 / config.batch_size
        with tf.device("CPU:0"):
            self.stop = tf.Variable(False, trainable=False)
        if config.jit_compile and strategy.num_replicas_in_sync > 1:
            raise ConfigError(f"--jit_compile: works with one replica, not with {strategy.num_replicas_in_sync}.")
        self._replica_gradients = (tf.function(self._gradients, autograph=False, jit_compile=True) if config.jit_compile
                                   else self._gradients)

    @tf.function(autograph=False)
    def __call__(self, iterator, steps) -> StepSums:
        """`steps`: an int32 tensor, not a Python number, so that every call runs the same trace."""
        nothing = StepSums(tf.constant(0), tf.constant(True), tf.constant(0.0), tf.constant(0.0), tf.constant(0),
                           tf.constant(0.0), tf.constant(0.0, tf.float64))

        def wanted(*sums):
            return (sums[0] < steps) & sums[1] & ~self.stop.read_value()

        # One iteration at a time: the next batch is asked for when the step is done, which makes waiting measurable.
        return StepSums(*tf.while_loop(wanted, lambda *sums: self._one_step(iterator, StepSums(*sums)), nothing,
                                       parallel_iterations=1))

    def _one_step(self, iterator, sums: StepSums) -> StepSums:
        with tf.control_dependencies([sums.loss]):
            asked = _now()
        with tf.control_dependencies([asked]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(self._strategy.experimental_local_results(batch["label"]))):
            waited = _now() - asked
        statistics = [tf.identity(tf.convert_to_tensor(variable)) for variable in self._model.non_trainable_variables]
        per_replica, figures = self._strategy.run(self._replica_gradients,
                                                  args=(batch["video"], batch["label"], waited))
        # Reduced over the replicas already, so the first one speaks for all.
        cross_entropy, correct, norm = self._strategy.experimental_local_results(figures)[0]
        loss = cross_entropy * self._scale
        finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        tf.cond(finite, lambda: self._update(per_replica), lambda: self._put_back(statistics))
        return StepSums(
            steps=sums.steps + tf.cast(finite, tf.int32), finite=finite, loss=loss,
            cross_entropy=sums.cross_entropy + cross_entropy, correct=sums.correct + correct, gradient_norm=norm,
            waited=sums.waited + waited)

    def _gradients(self, video, label, waited):
        """In a replica: gradients summed over all replicas, and (cross-entropy, correct clips, gradient norm)."""
        with tf.control_dependencies([waited]):  # on one core the step would overtake the clock, and count as waiting
            video = tf.identity(video)
        with tf.GradientTape() as tape:
            logits = self._model(video, training=True)
            cross_entropy = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits))
            loss = cross_entropy * self._scale
        gradients = tape.gradient(loss, self._model.trainable_variables,
                                  unconnected_gradients=tf.UnconnectedGradients.ZERO)
        hits = tf.argmax(logits, axis=-1, output_type=tf.int32) == tf.cast(label, tf.int32)
        totals = [cross_entropy, tf.reduce_sum(tf.cast(hits, tf.float32)), *gradients]
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            totals = context.all_reduce(tf.distribute.ReduceOp.SUM, totals)
        cross_entropy, correct, *gradients = totals
        gradients, norm = clip_by_global_norm(gradients, self._config.clip_norm)
        return gradients, (cross_entropy, tf.cast(correct, tf.int32), norm)

    def _update(self, per_replica):
        """Called outside the replicas: a condition inside one could not hold the optimiser's exchange between them."""
        variables = self._model.trainable_variables
        self._strategy.run(lambda gradients: apply_summed_gradients(self._optimizer, gradients, variables),
                           args=(per_replica,))
        if self._average is not None:
            self._average.update(variables, self._optimizer.iterations)
        return tf.constant(0)

    def _put_back(self, statistics):
        for variable, value in zip(self._model.non_trainable_variables, statistics):
            variable.assign(value)
        return tf.constant(0)


def _now():
    """Seconds, read when the graph gets here. TensorFlow's own clock refuses to run with deterministic kernels."""
    return tf.ensure_shape(tf.numpy_function(time.perf_counter, [], tf.float64), [])


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Where a run ended. `interrupted` names the signal; loss and accuracy are those of the last report."""

    step: int
    total_steps: int
    interrupted: str | None
    loss: float | None
    accuracy: float | None
    best_top1: float | None


def train(config: ExperimentConfig, run_dir: str, *, clips: Callable[[int], tf.data.Dataset], num_clips: int,
          evaluate: Callable[[keras.Model, Callable[[], bool]], float | None] | None = None,
          manifests: Mapping[str, str] | None = None,
          sample_video: Callable[[], tf.Tensor] | None = None) -> TrainingResult:
    """Trains in `run_dir`, or goes on where the run there stopped.

    `clips(step)`: the endless data set of global batches from that step on (see TrainStep), `num_clips` of them an
    epoch. `evaluate(model, stopped)`: top-1 accuracy, a share, asked every `eval_every` steps; None where `stopped()`
    made it give up. `manifests`: see RunFolder. `sample_video()` [B, T, H, W, C]: a few clips on which TensorBoard
    shows how sharp the attention is.

    Raises ConfigError (before a step is taken), NonFiniteError, checkpoints.CheckpointError.
    """
    settings = config.train
    strategy = devices.prepare(num_virtual_devices=settings.num_virtual_devices, precision=settings.precision,
                               seed=settings.seed)
    devices.check_batch_divides(settings.batch_size, strategy)
    total_steps = settings.num_steps or math.ceil(settings.num_epochs * num_clips / settings.batch_size)
    with strategy.scope():
        model = build_model(config.model)
        weights = model.trainable_variables
        optimizer = build_optimizer(settings, total_steps=total_steps, variables=weights)
        average = WeightAverage(weights, settings.ema_momentum) if settings.ema_momentum else None
    step = TrainStep(strategy=strategy, model=model, optimizer=optimizer, config=settings, average=average)
    with RunFolder(run_dir, config, manifests) as folder, StopSignals(step.stop) as signals:
        checkpoints = Checkpoints(folder, model=model, optimizer=optimizer, average=average,
                                  keep=settings.keep_checkpoints)
        _restore(checkpoints, model, average, settings)
        say(f"{run_dir}: {sum(math.prod(weight.shape) for weight in weights):,} weights, {_describe_step(settings)}, "
            f"{strategy.num_replicas_in_sync} replica(s), {settings.precision}")
        loop = _Loop(settings, step=step, model=model, optimizer=optimizer, average=average, checkpoints=checkpoints,
                     signals=signals, total_steps=total_steps, evaluate=evaluate, sample_video=sample_video,
                     board=Board(folder.tensorboard_dir))
        first_step = int(optimizer.iterations.numpy())
        return loop.run(iter(strategy.experimental_distribute_dataset(clips(first_step))))


def _describe_step(settings: TrainConfig) -> str:
    """'loss: sum of the cross-entropies of 2 clips, nesterov at 1e-06, which is 1e-06 per clip'."""
    per_clip = settings.learning_rate / (1 if settings.loss_reduction == "sum" else settings.batch_size)
    return (f"loss: {settings.loss_reduction} of the cross-entropies of {settings.batch_size} clips, "
            f"{settings.optimizer} at {settings.learning_rate:g}, which is {per_clip:g} per clip")


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

    def __init__(self, settings: TrainConfig, *, step: TrainStep, model, optimizer, average, checkpoints: Checkpoints,
                 signals: StopSignals, total_steps: int, evaluate, sample_video, board: Board):
        self.settings, self.step, self.model, self.optimizer, self.average = settings, step, model, optimizer, average
        self.checkpoints, self.signals, self.total_steps = checkpoints, signals, total_steps
        self.evaluate = evaluate if settings.eval_every else None
        self.board = board
        self.entropy = AttentionProbe(model, sample_video and sample_video())
        self.done = int(optimizer.iterations.numpy())
        self.last: Report | None = None
        self.meter = Meter(total_steps=total_steps, batch_size=settings.batch_size)
        self.progress = Progress(total_steps=total_steps, first_step=self.done)
        self.saved_at = clock()

    def run(self, batches) -> TrainingResult:
        try:
            started = clock()
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
        return TrainingResult(step=self.done, total_steps=self.total_steps, interrupted=self.signals.received,
                              loss=self.last and self.last.loss, accuracy=self.last and self.last.accuracy,
                              best_top1=best if best >= 0 else None)

    def _due(self, every: int) -> bool:
        return bool(every) and self.done > 0 and (self.done % every == 0 or self.done == self.total_steps)

    def _save_due(self) -> bool:
        minutes = self.settings.save_minutes
        return self._due(self.settings.save_every) or (minutes > 0 and clock() - self.saved_at > 60 * minutes)

    def _call(self, batches) -> None:
        settings = self.settings
        marks = [every - self.done % every for every in (settings.print_every, settings.save_every,
                                                         settings.eval_every) if every]
        steps = min(settings.steps_per_call, self.total_steps - self.done, *marks)
        started = clock()
        sums = StepSums(*(value.numpy() for value in self.step(batches, tf.constant(steps))))
        self.done += int(sums.steps)
        if not sums.finite:
            raise NonFiniteError(
                f"step {self.done + 1}: the loss ({sums.loss:g}) or the norm of the gradient ({sums.gradient_norm:g}) "
                f"is not finite; the weights stay those of step {self.done}. Lower --learning_rate, lengthen "
                "--warmup_steps or set --clip_norm.")
        self.meter.add(steps=int(sums.steps), cross_entropy=float(sums.cross_entropy), correct=int(sums.correct),
                       gradient_norm=float(sums.gradient_norm), waited=float(sums.waited), seconds=clock() - started)
        self.progress.advance(int(sums.steps))

    def _report(self) -> None:
        rate = float(self.optimizer.learning_rate.numpy())
        self.last = self.meter.report(step=self.done, rate=rate)
        self.progress.show(self.last)
        self.board.report(self.last)
        entropies = self.entropy.measure()
        if entropies:
            self.board.attention_entropy(self.done, entropies)

    def _evaluate(self) -> None:
        if self.evaluate is None or self.signals.stopped():
            return
        with swapped(self.average, self.model.trainable_variables):
            top1 = self.evaluate(self.model, self.signals.stopped)
        if top1 is None:
            return
        best = self.checkpoints.save_best(top1)
        say(f"step {self.done}  test accuracy {top1:.4f}{'  (best so far)' if best else ''}")
        self.board.scalars(self.done, **{"test/top1": top1})

    def _save(self) -> None:
        self.checkpoints.save()
        self.saved_at = clock()
