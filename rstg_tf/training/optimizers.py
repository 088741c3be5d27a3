"""Optimisers, learning rates over a run, and averages of the weights.

Weight decay is apart from the gradient (w ← w − rate·decay·w) and spares biases and norm scales, which are the
variables of rank 0 and 1. Keras 2.15 has all that is needed. The SGDW of tensorflow-addons is not used: told by
variable what to decay, it decays nothing under a distribution strategy, because it looks for a replica's part of a
variable in a set of whole variables. Where it does decay, both take the same steps (tests/test_optimizers.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras

from rstg_tf.config import TrainConfig


class RateSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of step s = 0, 1, …, `total_steps` - 1: a function of the step alone, so that a run can resume.

    Warm-up: rate·(s + 1) / warmup_steps while s < warmup_steps. Then
      constant  rate
      cosine    rate·(1 + cos(π·p)) / 2, p the share of the steps after the warm-up that lie behind s
      step      rate·decay_factor^n, n the number of shares in `decay_at` with share·total_steps ≤ s
    """

    def __init__(
        self,
        *,
        rate: float,
        schedule: str = "constant",
        total_steps: int = 1,
        warmup_steps: int = 0,
        decay_at: Sequence[float] = (),
        decay_factor: float = 1.0,
    ):
        super().__init__()
        self.rate = rate
        self.schedule = schedule
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_at = tuple(decay_at)
        self.decay_factor = decay_factor

    def __call__(self, step):
        position = tf.cast(step, tf.float64)  # float32 would round steps above 2^24
        rate = self.rate * self._share_of_rate(position)
        if self.warmup_steps:
            rate = tf.where(position < self.warmup_steps, self.rate * (position + 1.0) / self.warmup_steps, rate)
        return tf.cast(rate, tf.float32)

    def _share_of_rate(self, position):
        if self.schedule == "cosine":
            behind = (position - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
            return 0.5 * (1.0 + tf.cos(math.pi * tf.clip_by_value(behind, 0.0, 1.0)))
        if self.schedule == "step":
            bounds = tf.constant([share * self.total_steps for share in self.decay_at], tf.float64)
            passed = tf.reduce_sum(tf.cast(bounds <= position, tf.float64))
            return tf.pow(tf.constant(self.decay_factor, tf.float64), passed)
        return tf.ones_like(position)

    def get_config(self):
        return {
            "rate": self.rate,
            "schedule": self.schedule,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "decay_at": self.decay_at,
            "decay_factor": self.decay_factor,
        }


def _nesterov(rate, config: TrainConfig):
    """v ← momentum·v + g, w ← w − rate·(g + momentum·v), as in the release.

    Keras stores −rate·v in place of v. That is the same while the rate is constant; where it changes, what is stored
    keeps the rates at which it was made.
    """
    return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=True)


OPTIMIZERS = {
    "nesterov": _nesterov,
    "adam": lambda rate, config: keras.optimizers.Adam(rate),
    "adamw": lambda rate, config: keras.optimizers.AdamW(rate, weight_decay=config.weight_decay),
    "sgdw": lambda rate, config: keras.optimizers.SGD(
        rate, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay
    ),
}


def rate_schedule(config: TrainConfig, total_steps: int) -> RateSchedule:
    """The learning rate of each step of a run."""
    return RateSchedule(
        rate=config.learning_rate,
        schedule=config.schedule,
        total_steps=total_steps,
        warmup_steps=config.warmup_steps,
        decay_at=config.decay_at,
        decay_factor=config.decay_factor,
    )


def build_optimizer(config: TrainConfig, *, total_steps: int, variables: Sequence) -> keras.optimizers.Optimizer:
    """The optimiser with its slots for `variables`; call it in the strategy's scope. Clipping is not part of it."""
    optimizer = OPTIMIZERS[config.optimizer](rate_schedule(config, total_steps), config)
    optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if len(variable.shape) < 2])
    optimizer.build(variables)
    return optimizer


def clip_by_global_norm(gradients: Sequence, clip_norm: float):
    """`tf.clip_by_global_norm`: (gradients·min(1, clip_norm / norm), norm); a `clip_norm` of 0: no limit.

    The norm tells whether all gradients are finite: where it is not, TensorFlow makes NaN of them, and a step is left
    out.
    """
    norm = tf.linalg.global_norm(gradients)
    if not clip_norm:
        return list(gradients), norm
    return tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
