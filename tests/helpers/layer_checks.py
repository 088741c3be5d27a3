"""What must hold of every layer, in one place."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def check_layer(
    layer_class,
    arguments: dict,
    inputs: np.ndarray,
    *,
    output_shape: tuple,
    weights: int,
    call_arguments: dict | None = None,
) -> None:
    """Config round trip with equal numbers, shape, number of weights, unknown batch, a gradient into every weight."""
    call = call_arguments or {}
    layer = layer_class(**arguments)
    output = _first(layer(inputs, **call))
    assert tuple(output.shape) == output_shape
    assert len(layer.weights) == weights
    rebuilt = layer_class.from_config(layer.get_config())
    assert rebuilt.get_config() == layer.get_config()
    for name, value in arguments.items():
        assert rebuilt.get_config()[name] == value, name
    rebuilt(inputs, **call)
    rebuilt.set_weights(layer.get_weights())
    np.testing.assert_array_equal(_first(rebuilt(inputs, **call)), output)
    _check_unknown_batch(layer, inputs, call, output)
    _check_gradients(layer, inputs, call)


def _first(output):
    return output[0] if isinstance(output, tuple) else output


def _check_unknown_batch(layer, inputs, call, output):
    signature = tf.TensorSpec([None, *inputs.shape[1:]], inputs.dtype)
    function = tf.function(lambda value: _first(layer(value, **call)), input_signature=[signature])
    np.testing.assert_allclose(function(inputs), output, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(function(inputs[:1]), output[:1], rtol=1e-4, atol=1e-5)


def _check_gradients(layer, inputs, call):
    with tf.GradientTape() as tape:
        output = _first(layer(inputs, **call))
        direction = np.random.default_rng(0).standard_normal(output.shape).astype(np.float32)
        loss = tf.reduce_sum(tf.cast(output, tf.float32) * direction)
    for weight, gradient in zip(layer.trainable_weights, tape.gradient(loss, layer.trainable_weights)):
        assert gradient is not None, f"{weight.name} {weight.shape} gets no gradient"
        assert np.isfinite(gradient.numpy()).all()
