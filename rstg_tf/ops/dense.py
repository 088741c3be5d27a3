"""Dense layers on tensors of any rank, as one product over all their rows."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_compat import track_kernel
from rstg_tf.common.keras_layer import under_own_name


def dense(values, kernel, bias=None, activation=None):
    """activation(values · kernel + bias), on the last axis: [..., C] × [C, D] -> [..., D], in the values' dtype.

    The product, the bias and the relu follow each other on a matrix, without a reshape between them: the form that
    TensorFlow turns into one kernel. A batched product with a single matrix is slower, and crashes TensorFlow 2.21.
    """
    rows = tf.reshape(values, [-1, values.shape[-1]])
    rows = tf.matmul(rows, tf.cast(kernel, values.dtype))
    if bias is not None:
        rows = add_bias(rows, tf.cast(bias, values.dtype))
    if activation is not None:
        rows = activation(rows)
    return tf.reshape(rows, [*_sizes(values)[:-1], kernel.shape[-1]])


@tf.custom_gradient
def add_bias(values, bias):
    """values + bias, on the last axis: [..., C] + [C] -> [..., C], both of one dtype; see `bias_gradient`."""
    return tf.nn.bias_add(values, bias), lambda upstream: (upstream, bias_gradient(upstream))


def bias_gradient(upstream):
    """Sum over every axis but the last: [..., C] -> [C].

    On a CPU TensorFlow's own gradient of a bias sums bfloat16 values in bfloat16, which stops growing at 256 values of
    equal size; a matrix product sums in float32, and in less time.
    """
    rows = tf.reshape(upstream, [-1, upstream.shape[-1]])
    return tf.matmul(tf.ones([1, tf.shape(rows)[0]], rows.dtype), rows)[0]


def _sizes(values) -> list:
    """The sizes of all axes: numbers where they are known when traced."""
    found = tf.shape(values)
    return [found[axis] if size is None else size for axis, size in enumerate(values.shape)]


@keras.utils.register_keras_serializable("rstg", name="RowsDense")  # the name that saved models hold
class FlatDense(keras.layers.Dense):
    """`keras.layers.Dense`, computed by `dense`: [..., C] -> [..., units].

    Example:

    >>> tuple(FlatDense(4)(tf.zeros([2, 3, 8])).shape)
    (2, 3, 4)
    """

    @under_own_name
    def build(self, input_shape):
        super().build(input_shape)
        track_kernel(self)

    def call(self, inputs):
        return dense(inputs, self.kernel, self.bias, self.activation)
