"""Messages between neighbours alone: the numbers of all messages, for fewer of them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from rstg_tf.layers import regions
from rstg_tf.layers.spatial_stage import SpatialStage
from rstg_tf.ops.edge_list import EdgeList


def test_pairs_of_three_nodes_in_a_row():
    pairs = EdgeList.of_neighbours(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32))
    # (receiver, sender): (0, 1), (1, 0), (1, 2), (2, 1)
    np.testing.assert_array_equal(pairs.receiver.argmax(axis=1), [0, 1, 1, 2])
    np.testing.assert_array_equal(pairs.sender.argmax(axis=1), [1, 0, 2, 1])
    sent, received = tf.reshape([1.0, 2.0, 3.0], [1, 1, 3, 1]), tf.reshape([10.0, 20.0, 30.0], [1, 1, 3, 1])
    np.testing.assert_array_equal(pairs.gather_sum(sent, received)[0, 0, :, 0], [12, 21, 23, 32])
    weights = tf.reshape([[9.0, 1.0, 9.0], [2.0, 9.0, 3.0], [9.0, 4.0, 9.0]], [1, 1, 3, 1, 3])
    messages = tf.reshape([1.0, 10.0, 100.0, 1000.0], [1, 1, 4, 1])
    # Node 1 hears 2 · 10 of node 0 and 3 · 100 of node 2; the 9s belong to no pair.
    np.testing.assert_array_equal(pairs.aggregate(weights, messages)[0, 0, :, 0, 0], [1, 320, 4000])


def test_no_pairs_without_neighbours_or_without_knowing_them():
    assert EdgeList.of_neighbours(np.zeros((1, 1), np.float32)) is None
    known = []

    @tf.function(input_signature=[tf.TensorSpec([3, 3])], autograph=False)
    def traced(adjacency):
        known.append(EdgeList.of_neighbours(adjacency))
        return adjacency

    traced(tf.ones([3, 3]))
    assert known == [None]


@pytest.mark.parametrize("scales", [2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"attention": "dot"}, {"attention": "dot", "attention_heads": 2}])
def test_a_masked_stage_equals_the_one_that_computes_every_message(scales, options, monkeypatch):
    adjacency = regions.adjacency(scales, 24, 24)
    nodes = tf.random.stateless_normal([2, 3, len(adjacency), 8], seed=[0, 1])
    stage = SpatialStage(node_width=8, message_width=8, neighbourhood="masked", **options)
    outputs = {}
    for name in ("pairs", "all"):
        if name == "all":
            monkeypatch.setattr(EdgeList, "of_neighbours", classmethod(lambda cls, adjacency: None))
        with tf.GradientTape() as tape:
            updated, weights = stage(nodes, adjacency)
            loss = tf.reduce_sum(tf.square(updated))
        outputs[name] = [updated, weights, *tape.gradient(loss, stage.trainable_weights)]
    for one, other in zip(outputs["pairs"], outputs["all"]):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * max(1.0, np.abs(other).max()))


def test_a_norm_over_messages_sees_all_of_them():
    adjacency = regions.adjacency(2, 24, 24)
    stage = SpatialStage(node_width=8, message_width=8, neighbourhood="masked", normalization="LN")
    nodes = tf.random.stateless_normal([1, 2, len(adjacency), 8], seed=[0, 2])
    output, _ = stage(nodes, adjacency)
    heard, _ = stage.attention(nodes, stage.messages(nodes), adjacency)  # messages: those of all pairs
    np.testing.assert_allclose(output, stage.update(nodes, heard), atol=1e-6)
