"""Where Keras 2.15 and Keras 3 differ: each difference once, with the line that says why. Nothing else asks which runs.

stack   Python      TensorFlow  Keras
old     3.9 – 3.11  2.15        2.15
new     3.12, 3.13  2.21        3.15
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras

_IS_KERAS_3 = hasattr(keras, "ops")

# Aggregation of a variable's replicas: Keras 3 takes it by name, Keras 2 as TensorFlow's enumeration.
FIRST_REPLICA = "only_first_replica" if _IS_KERAS_3 else tf.VariableAggregation.ONLY_FIRST_REPLICA


def track_kernel(layer: keras.layers.Layer) -> None:
    """Lets a checkpoint find the kernel of a built Dense or Conv layer under the edge 'kernel'.

    Keras 3 keeps it in `_kernel` and makes `kernel` a property, which no checkpoint follows: neither Keras could read
    the other's. An edge beside the first one leaves both readable; `_track_trackable` is private to TensorFlow, hence
    the test that reads recorded checkpoints of both.
    """
    if "kernel" not in tf.train.TrackableView.children(layer):
        layer._track_trackable(layer.kernel, "kernel")


def optimizer_variables(optimizer: keras.optimizers.Optimizer) -> list:
    """Its step and slots: a method in Keras 2, a property in Keras 3."""
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)


def apply_summed_gradients(optimizer: keras.optimizers.Optimizer, gradients: Sequence, variables: Sequence) -> None:
    """One update in a replica, with gradients that are summed over the replicas already, so equal in all of them."""
    if not _IS_KERAS_3:
        optimizer.apply_gradients(zip(gradients, variables), skip_gradients_aggregation=True)
        return
    # Keras 3 always sums over the replicas: each hands in its share.
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    optimizer.apply_gradients(zip([gradient / replicas for gradient in gradients], variables))


def tensorflow_variable(variable) -> tf.Variable:
    """The tf.Variable that a weight of Keras 3 holds; in Keras 2 a weight is one."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def traced_output_shape(layer: keras.layers.Layer, base: type, input_shape):
    """Shape of `layer(input)`: Keras 2's `base` traces the call itself, Keras 3's wants a formula from the layer."""
    if not _IS_KERAS_3:
        return base.compute_output_shape(layer, input_shape)
    if not layer.built:
        layer.build(input_shape)
    spec = layer.compute_output_spec(keras.KerasTensor(input_shape, dtype=layer.compute_dtype))
    return keras.tree.map_structure(lambda tensor: tensor.shape, spec)
