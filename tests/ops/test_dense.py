"""Dense layers over rows: TensorFlow's numbers, and bias gradients that bfloat16 does not spoil."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer
from tensorflow import keras

from rstg_tf.ops.dense import FlatDense, add_bias, dense


def test_rows_dense_is_a_dense_layer():
    values = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    check_layer(FlatDense, {"units": 6, "activation": "relu"}, values, output_shape=(2, 3, 4, 6), weights=2)
    ours, keras_layer = FlatDense(6, activation="relu"), keras.layers.Dense(6, activation="relu")
    for layer in (ours, keras_layer):
        layer.build((None, 5))
    ours.set_weights([keras_layer.get_weights()[0], np.arange(6, dtype=np.float32) - 3])
    keras_layer.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(values), keras_layer(values), rtol=1e-5, atol=1e-6)


def test_rows_keep_their_places_and_known_sizes_stay_known():
    values = tf.constant([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]])  # [3, 1, 2]
    np.testing.assert_array_equal(
        dense(values, tf.constant([[10.0], [1.0]]), tf.constant([0.5])), [[[12.5]], [[34.5]], [[56.5]]]
    )
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, 4, 2])], autograph=False)
    def traced(values):
        shapes.append(dense(values, tf.ones([2, 7])).shape.as_list())
        return values

    traced(tf.zeros([1, 1, 4, 2]))
    assert shapes == [[None, None, 4, 7]]


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_a_bias_that_thousands_of_values_share_gets_all_of_their_gradients(dtype):
    values, bias = tf.zeros([40, 100, 3], dtype), tf.zeros([3], dtype)
    with tf.GradientTape() as tape:
        tape.watch([values, bias])
        total = tf.reduce_sum(tf.cast(add_bias(values, bias), tf.float32) * [1.0, 2.0, -1.0])
    of_values, of_bias = tape.gradient(total, [values, bias])
    np.testing.assert_array_equal(tf.cast(of_values[0, 0], tf.float32), [1, 2, -1])
    # tf.nn.bias_add stops at 256 in bfloat16, where adding 1 changes nothing any more.
    np.testing.assert_allclose(tf.cast(of_bias, tf.float32), [4000, 8000, -4000], rtol=4e-3)
