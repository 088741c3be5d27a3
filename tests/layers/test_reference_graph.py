"""The graph written the obvious way equals the layer: outputs and gradients."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.graph import OPTIONS, build_graph
from benchmarks.plain_graph import PlainGraph
from rstg_tf.release import entry_tensors
from rstg_tf.release.names import graph_entries


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_the_layer_equals_the_obvious_way_forward_and_backward(kind):
    layer = build_graph(kind, channels=16, scales=3)
    for weight in layer.trainable_weights:  # biases and betas start at 0, which would hide how they enter
        weight.assign_add(tf.random.stateless_normal(weight.shape, [1, 2], stddev=0.1))
    plain = PlainGraph(layer)
    features = tf.random.stateless_normal([2, 3, 8, 8, 16], [3, 4])
    results = {}
    for name, graph in (("layer", layer), ("plain", plain)):
        with tf.GradientTape() as tape:
            tape.watch(features)
            vector = graph(features, training=True)
            loss = tf.reduce_sum(vector**2)
        weights = layer.trainable_weights if name == "layer" else list(plain.weights.values())
        gradients = tape.gradient(loss, [features, *weights], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        results[name] = vector, gradients
    np.testing.assert_allclose(results["layer"][0], results["plain"][0], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(results["layer"][1][0], results["plain"][1][0], rtol=1e-3, atol=1e-5)
    own = entry_tensors(graph_entries("", _with_gradients(layer, results["layer"][1][1:])))
    for name, gradient in zip(plain.weights, results["plain"][1][1:]):
        if "moving_" in name:
            continue
        scale = np.abs(gradient).max() + 1e-6
        np.testing.assert_allclose(own[name] / scale, gradient / scale, atol=2e-4, err_msg=name)


def _with_gradients(layer, gradients):
    """The layer holding its gradients in the place of its weights, so that the release's names can be given to them."""
    for weight, gradient in zip(layer.trainable_weights, gradients):
        weight.assign(gradient)
    return layer


def test_options_without_an_obvious_form_here_are_refused_by_name():
    layer = build_graph("simple", channels=8, scales=2)
    layer.neighbourhood = "masked"
    with pytest.raises(ValueError, match="neighbourhood='masked'"):
        PlainGraph(layer)
