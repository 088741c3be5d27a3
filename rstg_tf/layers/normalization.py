"""The release's `use_norm` choices, as layers: statistics in float32 whatever the compute dtype.

They differ from Keras' layers of the same names. LN is TF1's `tf.contrib.layers.layer_norm`, whose mean and variance
run over several axes jointly. BN sees one step of the clip at a time inside a space stage, and its moving variance
follows TF1: the fused kernel (rank 4 inputs) corrects by n/(n-1), the plain one (rank 3) does not.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_compat import FIRST_REPLICA
from rstg_tf.common.keras_layer import Layer, input_spec

# Whatever the policy, inputs arrive as they are and weights are read as float32; the output has the inputs' dtype.
_FLOAT32_INSIDE = {"dtype": "float32", "autocast": False}


@dataclasses.dataclass(frozen=True, eq=False)  # no tuple: Keras 3 would cast what a layer is given in one
class Affine:
    """A norm of given values as factor·x + shift: float32, both broadcast against the values."""

    factor: tf.Tensor
    shift: tf.Tensor

    def of_weighted_sum(self, sums, total):
        """Σ w·(factor·x + shift), from Σ w·x and Σ w, for factors that do not depend on what is summed over."""
        return tf.cast(self.factor * tf.cast(sums, tf.float32) + self.shift * total, sums.dtype)


@keras.utils.register_keras_serializable("rstg")
class JointLayerNorm(Layer):
    """y = (x - mean) / sqrt(variance + epsilon) · gamma + beta, statistics over the last `trailing_axes` axes jointly.

    gamma and beta are per channel: [C]. With `trailing_axes=3` on nodes [B, T, N, C] there is one mean per clip, with 2
    one per clip and step, with 1 it is the usual layer norm of each node. `scale=False` leaves gamma out.

    Source: docs/release.md, 'Norms at the entrance' (epsilon 1e-12). Deviation: none.

    Example:

    >>> JointLayerNorm(trailing_axes=1)(tf.constant([[1.0, 3.0]])).numpy().tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, *, trailing_axes: int, epsilon: float = 1e-12, scale: bool = True, **kwargs):
        super().__init__(**{**kwargs, **_FLOAT32_INSIDE})
        self.trailing_axes = trailing_axes
        self.epsilon = epsilon
        self.scale = scale

    def build(self, input_shape):
        self.input_spec = input_spec(len(input_shape), input_shape[-1])
        channels = input_shape[-1]
        self.gamma = None
        if self.scale:
            self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs, factored: bool = False):
        """With `factored` the Affine of these inputs in place of their normed values."""
        if factored:
            return self._factor_and_shift(inputs)
        channels = inputs.shape[-1]
        gamma = tf.ones([channels]) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        shape = tf.shape(inputs)
        joint = tf.reduce_prod(shape[-self.trailing_axes : -1])  # P values of each channel share one mean
        groups = tf.reshape(inputs, [-1, joint, channels])  # [G, P, C]
        return tf.reshape(self._normalize(groups, gamma, tf.convert_to_tensor(self.beta)), shape)

    def _normalize(self, groups, gamma, beta):
        """The formula, for a mean over P and C: [G, P, C] -> [G, P, C]."""

        @tf.custom_gradient
        def normalize(groups, gamma, beta):
            values = tf.cast(groups, tf.float32)
            centred = values - tf.reduce_mean(values, axis=[1, 2], keepdims=True)
            variance = tf.reduce_mean(tf.square(centred), axis=[1, 2], keepdims=True)
            factor = tf.math.rsqrt(variance + self.epsilon)  # [G, 1, 1]

            def gradient(upstream):
                # Messages are the largest tensors of a graph, so they are passed over as seldom as can be: the sums
                # over P of g and of g·(x - mean) give every gradient. Plain differentiation makes the whole norm
                # take a third longer.
                upstream = tf.cast(upstream, tf.float32)
                sums = tf.reduce_sum(upstream, axis=1, keepdims=True)  # [G, 1, C]
                products = tf.reduce_sum(upstream * centred, axis=1, keepdims=True) * factor  # [G, 1, C]
                of_mean = tf.reduce_sum(gamma * sums, axis=2, keepdims=True)  # [G, 1, 1]
                of_factor = tf.reduce_sum(gamma * products, axis=2, keepdims=True)
                count = tf.cast(tf.size(centred[0]), tf.float32)
                inputs = upstream * (gamma * factor) - (
                    centred * (factor * factor * of_factor / count) + factor * of_mean / count
                )
                return tf.cast(inputs, groups.dtype), tf.reduce_sum(products, [0, 1]), tf.reduce_sum(sums, [0, 1])

            return tf.cast(centred * (factor * gamma) + beta, groups.dtype), gradient

        return normalize(groups, gamma, beta)

    def _factor_and_shift(self, inputs) -> Affine:
        """Each [..., 1, ..., C], with the rank of the inputs."""
        channels, shape = inputs.shape[-1], tf.shape(inputs)
        joint = tf.reduce_prod(shape[-self.trailing_axes : -1])
        mean, variance = _joint_statistics(tf.reshape(inputs, [-1, joint, channels]))  # [G, 1, 1]
        factor = tf.math.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor *= tf.convert_to_tensor(self.gamma)
        shift = tf.convert_to_tensor(self.beta) - mean * factor  # [G, 1, C]
        kept = tf.concat([shape[: -self.trailing_axes], [1] * (self.trailing_axes - 1), [-1]], axis=0)
        return Affine(tf.reshape(factor, kept), tf.reshape(shift, kept))

    def get_config(self):
        return {
            **super().get_config(),
            "trailing_axes": self.trailing_axes,
            "epsilon": self.epsilon,
            "scale": self.scale,
        }


@tf.custom_gradient
def _joint_statistics(groups):
    """Mean and variance over P and C: [G, P, C] -> two float32 [G, 1, 1]."""
    values = tf.cast(groups, tf.float32)
    mean = tf.reduce_mean(values, axis=[1, 2], keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(values, mean), axis=[1, 2], keepdims=True)

    def gradient(of_mean, of_variance):
        # Σ (x - mean) is 0, so the variance does not depend on the mean: ∂/∂x = (of_mean + 2·of_variance·(x - mean))/n,
        # as slope·x + constant, in two passes over the groups.
        count = tf.cast(tf.size(groups[0]), tf.float32)
        slope = 2.0 * of_variance / count
        constant = of_mean / count - slope * mean
        return groups * tf.cast(slope, groups.dtype) + tf.cast(constant, groups.dtype)

    return (mean, variance), gradient


@keras.utils.register_keras_serializable("rstg")
class BatchNorm(Layer):
    """Batch norm per channel, as TF1 computes it, with batch statistics taken over all replicas.

    Training: statistics of the batch over every axis but the last; with `per_step` also but axis 1 (T), because the
    release normalises each step of a clip in a call of its own. Otherwise, and where `trainable` is False: the stored
    ones, which stay. The T calls of a step move the stored statistics T times, m ← momentum·m + (1 - momentum)·batch,
    here in one go. `unbiased` stores the batch variance times n/(n-1), n values per channel.

    Source: docs/release.md, 'Norms at the entrance'; TF1 defaults momentum 0.99, epsilon 1e-3.

    Example:

    >>> BatchNorm(epsilon=0.0)(tf.constant([[1.0], [3.0]]), training=True).numpy().tolist()
    [[-1.0], [1.0]]
    """

    def __init__(
        self,
        *,
        per_step: bool = False,
        unbiased: bool = True,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        gamma_initializer: str = "ones",
        **kwargs,
    ):
        super().__init__(**{**kwargs, **_FLOAT32_INSIDE})
        self.per_step = per_step
        self.unbiased = unbiased
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma_initializer = gamma_initializer

    def build(self, input_shape):
        self.input_spec = input_spec(len(input_shape), input_shape[-1])
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer=self.gamma_initializer)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=shape, initializer="zeros", trainable=False, aggregation=FIRST_REPLICA
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False, aggregation=FIRST_REPLICA
        )
        super().build(input_shape)

    def call(self, inputs, training=False, factored: bool = False):
        """With `factored` the Affine of these inputs in place of their normed values."""
        values = tf.cast(inputs, tf.float32)
        if training and self.trainable:  # frozen, as Keras' own batch norm: stored statistics, which stay
            mean, variance = self._batch_statistics(values)
        else:
            mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        factor = tf.math.rsqrt(variance + self.epsilon) * self.gamma
        if factored:
            return Affine(factor, self.beta - mean * factor)
        return tf.cast((values - mean) * factor + self.beta, inputs.dtype)

    def _batch_statistics(self, values):
        axes = [axis for axis in range(values.shape.rank - 1) if not (self.per_step and axis == 1)]
        count = _sum_over_replicas(tf.cast(tf.size(values) // tf.size(tf.reduce_sum(values, axes)), tf.float32))
        mean = _sum_over_replicas(tf.reduce_sum(values, axes, keepdims=True)) / count
        variance = _sum_over_replicas(tf.reduce_sum(tf.square(values - mean), axes, keepdims=True)) / count
        correction = count / (count - 1.0) if self.unbiased else 1.0
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance * correction)
        return mean, variance

    def _move(self, moving, batch):
        """T updates in the order of the steps: m ← momentum^T·m + (1 - momentum)·Σ_t momentum^(T-1-t)·batch_t."""
        batch = tf.reshape(tf.stop_gradient(batch), [-1, moving.shape[0]])  # [T or 1, C]
        updates = tf.cast(tf.shape(batch)[0], tf.float32)
        ages = updates - 1.0 - tf.range(updates)
        weights = (1.0 - self.momentum) * tf.pow(self.momentum, ages)
        kept = tf.pow(self.momentum, updates)
        moving.assign(kept * tf.convert_to_tensor(moving) + tf.linalg.matvec(batch, weights, transpose_a=True))

    def get_config(self):
        return {
            **super().get_config(),
            "per_step": self.per_step,
            "unbiased": self.unbiased,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "gamma_initializer": self.gamma_initializer,
        }


def _sum_over_replicas(value):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def normalization_layer(kind: str, *, trailing_axes: int, per_step: bool, unbiased: bool, name: str):
    """The layer for one of the release's `use_norm` values, or None for 'none'. Raises ValueError for others.

    `per_step`: whether the release norms each step apart here. Where it does not, the first of LN's `trailing_axes` is
    T, and 'LN_per_step' leaves it out, so that no step needs the later ones. Deviation: the release has no such norm;
    with LN's weights it gives other numbers than LN.
    """
    if kind == "LN":
        return JointLayerNorm(trailing_axes=trailing_axes, name=name)
    if kind == "LN_per_step":
        return JointLayerNorm(trailing_axes=trailing_axes if per_step else trailing_axes - 1, name=name)
    if kind == "BN":
        return BatchNorm(per_step=per_step, unbiased=unbiased, name=name)
    if kind == "none":
        return None
    raise ValueError(f"normalization={kind!r}: expected 'LN', 'LN_per_step', 'BN' or 'none'.")


def apply_norm(norm, inputs, training):
    """`norm(inputs)`; the inputs themselves where there is no norm."""
    if norm is None:
        return inputs
    return norm(inputs, training=training) if isinstance(norm, BatchNorm) else norm(inputs)


def factored_norm(norm, inputs, training) -> Affine | None:
    """What `norm` does with these inputs; None where there is no norm."""
    if norm is None:
        return None
    return (
        norm(inputs, training=training, factored=True) if isinstance(norm, BatchNorm) else norm(inputs, factored=True)
    )
