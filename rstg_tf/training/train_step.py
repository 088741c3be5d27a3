"""One training step: loss, gradients over all replicas, update, or nothing if a value is not finite."""

from __future__ import annotations

import time
from typing import NamedTuple

import tensorflow as tf

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.keras_compat import apply_summed_gradients
from rstg_tf.config import TrainConfig
from rstg_tf.runs.weight_average import WeightAverage
from rstg_tf.training.optimizers import clip_by_global_norm


class NonFiniteError(RuntimeError):
    """NaN or Inf in the loss or in a gradient. The weights are those of the step before."""


class StepMetrics(NamedTuple):
    """What the steps of one call found; scalars."""

    steps: tf.Tensor  # int32, steps done
    finite: tf.Tensor  # bool; False: the last step found NaN or Inf, changed nothing, and is not counted
    loss: tf.Tensor  # float32, of the last step: sum or mean over its clips
    cross_entropy: tf.Tensor  # float32, summed over clips and steps
    correct: tf.Tensor  # int32, clips whose largest logit was the label's
    gradient_norm: tf.Tensor  # float32, of the last step, before clipping
    waited: tf.Tensor  # float64, seconds until the batches were there


class TrainStep:
    """`step(iterator, steps)` takes up to `steps` steps in one call of TensorFlow and returns StepMetrics.

    A step, with the clips b of a global batch of B and the weights w:
      L = Σ_b cross-entropy_b   (loss_reduction 'sum', as in the release; 'mean': / B)
      g = Σ over the replicas of ∂L/∂w, shortened to `clip_norm`
      w, slots ← optimiser(g); average ← average of w
    If L or g is not finite, everything stays as it was before the step, and the call ends. It also ends, after the step
    that it is in, once `stop` is set, from any thread.

    Shapes: the iterator yields {"video": [B, T, H, W, C] pixels 0…255, "label": int [B]}, spread over the replicas.
    """

    def __init__(
        self,
        *,
        strategy: tf.distribute.Strategy,
        model,
        optimizer,
        config: TrainConfig,
        average: WeightAverage | None = None,
    ):
        self._strategy, self._model, self._optimizer = strategy, model, optimizer
        self._config, self._average = config, average
        self._scale = 1.0 if config.loss_reduction == "sum" else 1.0 / config.batch_size
        with tf.device("CPU:0"):
            self.stop = tf.Variable(False, trainable=False)
        if config.jit_compile and strategy.num_replicas_in_sync > 1:
            raise ConfigError(f"--jit_compile: works with one replica, not with {strategy.num_replicas_in_sync}.")
        self._replica_gradients = (
            tf.function(self._gradients, autograph=False, jit_compile=True) if config.jit_compile else self._gradients
        )

    @tf.function(autograph=False)
    def __call__(self, iterator, steps) -> StepMetrics:
        """`steps`: an int32 tensor, not a Python number, so that every call runs the same trace."""
        nothing = StepMetrics(
            tf.constant(0),
            tf.constant(True),
            tf.constant(0.0),
            tf.constant(0.0),
            tf.constant(0),
            tf.constant(0.0),
            tf.constant(0.0, tf.float64),
        )

        def wanted(*sums):
            return (sums[0] < steps) & sums[1] & ~self.stop.read_value()

        # One iteration at a time: the next batch is asked for when the step is done, which makes waiting measurable.
        return StepMetrics(
            *tf.while_loop(
                wanted, lambda *sums: self._one_step(iterator, StepMetrics(*sums)), nothing, parallel_iterations=1
            )
        )

    def _one_step(self, iterator, sums: StepMetrics) -> StepMetrics:
        with tf.control_dependencies([sums.loss]):
            asked = _now()
        with tf.control_dependencies([asked]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(self._strategy.experimental_local_results(batch["label"]))):
            waited = _now() - asked
        statistics = [tf.identity(tf.convert_to_tensor(variable)) for variable in self._model.non_trainable_weights]
        per_replica, figures = self._strategy.run(
            self._replica_gradients, args=(batch["video"], batch["label"], waited)
        )
        # Reduced over the replicas already, so the first one speaks for all.
        cross_entropy, correct, norm = self._strategy.experimental_local_results(figures)[0]
        loss = cross_entropy * self._scale
        finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        tf.cond(finite, lambda: self._update(per_replica), lambda: self._put_back(statistics))
        return StepMetrics(
            steps=sums.steps + tf.cast(finite, tf.int32),
            finite=finite,
            loss=loss,
            cross_entropy=sums.cross_entropy + cross_entropy,
            correct=sums.correct + correct,
            gradient_norm=norm,
            waited=sums.waited + waited,
        )

    def _gradients(self, video, label, waited):
        """In a replica: gradients summed over all replicas, and (cross-entropy, correct clips, gradient norm)."""
        with tf.control_dependencies([waited]):  # on one core the step would overtake the clock, and count as waiting
            video = tf.identity(video)
        with tf.GradientTape() as tape:
            logits = self._model(video, training=True)
            cross_entropy = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits))
            loss = cross_entropy * self._scale
        gradients = tape.gradient(
            loss, self._model.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
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
        self._strategy.run(
            lambda gradients: apply_summed_gradients(self._optimizer, gradients, variables), args=(per_replica,)
        )
        if self._average is not None:
            self._average.update(variables, self._optimizer.iterations)
        return tf.constant(0)

    def _put_back(self, statistics):
        for variable, value in zip(self._model.non_trainable_weights, statistics):
            variable.assign(value)
        return tf.constant(0)


def _now():
    """Seconds, read when the graph gets here. TensorFlow's own clock refuses to run with deterministic kernels."""
    return tf.ensure_shape(tf.numpy_function(time.perf_counter, [], tf.float64), [])
