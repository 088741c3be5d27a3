"""An average of the weights over the steps, and where it takes their place."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import tensorflow as tf

from rstg_tf.common.keras_compat import tensorflow_variable


class WeightAverage(tf.Module):
    """An exponential moving average of `variables`: a ← d·a + (1 - d)·w with d = min(momentum, (1 + s) / (10 + s)).

    s = 1, 2, … counts the updates, so that the first steps don't keep the random start. Create it in the strategy's
    scope; update and swap it outside the replicas, always with the same variables in the same order.
    """

    def __init__(self, variables: Sequence, momentum: float):
        super().__init__(name="weight_average")
        self.momentum = momentum
        self._strategy = tf.distribute.get_strategy()
        self.values = [tf.Variable(tf.convert_to_tensor(variable), trainable=False) for variable in variables]

    def update(self, variables: Sequence, step) -> None:
        """`step`: how many updates of the weights there have been, this one included, a scalar tensor."""
        count = tf.cast(step, tf.float32)
        kept = tf.minimum(self.momentum, (1.0 + count) / (10.0 + count))
        for value, variable in zip(self.values, variables):
            weight = tensorflow_variable(variable)
            self._strategy.extended.update(value, _move_towards, args=(weight, kept), group=False)

    def swap(self, variables: Sequence) -> None:
        """Exchanges averages and weights; a second call puts both back to the same bits."""
        for value, variable in zip(self.values, variables):
            weight = tf.identity(tf.convert_to_tensor(variable))
            variable.assign(tf.identity(value))
            value.assign(weight)

    def reset(self, variables: Sequence) -> None:
        """Starts from these weights."""
        for value, variable in zip(self.values, variables):
            value.assign(tf.convert_to_tensor(variable))


@contextlib.contextmanager
def swapped(average: WeightAverage | None, variables: Sequence):
    """Inside, `variables` hold their averages; without an average nothing happens."""
    if average is not None:
        average.swap(variables)
    try:
        yield
    finally:
        if average is not None:
            average.swap(variables)


def _move_towards(average, weight, kept) -> None:
    average.assign(kept * average + (1.0 - kept) * tf.convert_to_tensor(weight))
