"""A batch goes through a graph in halves: same numbers, less time."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from rstg_tf import RecurrentSpaceTimeGraph
from rstg_tf.common.devices import cpu_strategy
from rstg_tf.ops.batch_split import map_halves


def graph(**settings):
    """Nodes and messages 8 wide, 2 scales, map of 4×4 with 8 channels."""
    layer = RecurrentSpaceTimeGraph(num_scales=2, node_width=8, message_width=8, **settings)
    layer.build((None, None, 4, 4, 8))
    return layer


def traced(layer, clips, **how):
    function = tf.function(lambda features: layer(features, **how), autograph=False)
    return function.get_concrete_function(tf.TensorSpec([clips, 3, 4, 4, 8], layer.compute_dtype)).graph


def op_types(traced_graph):
    return [op.type for op in traced_graph.get_operations()]


@pytest.mark.parametrize(("clips", "sizes"), [(2, [1, 1]), (5, [2, 3]), (1, [1]), (None, [None])])
def test_a_known_batch_of_two_and_more_is_halved_when_traced(clips, sizes):
    seen = []

    def double(part):
        seen.append(part.shape[0])
        return {"twice": 2 * part, "rows": [part]}

    function = tf.function(lambda values: map_halves(double, values), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec([clips, 3]))
    assert seen == sizes
    values = np.arange(3 * (clips or 4), dtype=np.float32).reshape(-1, 3)
    found = concrete(tf.constant(values))
    np.testing.assert_array_equal(found["twice"], 2 * values)
    np.testing.assert_array_equal(found["rows"][0], values)


def test_in_each_of_several_replicas_a_batch_stays_whole():
    seen = []

    def note(part):
        seen.append(part.shape[0])
        return part

    strategy = cpu_strategy(2)
    run = tf.function(lambda: strategy.run(lambda: map_halves(note, tf.zeros([4, 3]))), autograph=False)
    run.get_concrete_function()
    assert seen == [4, 4]


def test_op_by_op_a_batch_stays_whole():
    seen = []
    map_halves(lambda part: seen.append(part.shape[0]) or part, tf.zeros([4, 3]))
    assert seen == [4]


@pytest.mark.parametrize("settings", [{}, {"normalization": "LN"}, {"normalization": "BN", "input_batch_norm": True},
                                      {"attention": "dot", "scalewise_update": True}, {"share_stages": True},
                                      {"output": "map", "positional_map_size": 3}], ids=str)
def test_halves_give_the_numbers_of_the_whole_batch(settings):
    layer = graph(**settings)
    features = tf.random.stateless_normal([5, 3, 4, 4, 8], seed=[0, 1])
    layer(features, training=True)  # moves the norms' statistics away from 0 and 1
    whole, whole_trace = layer(features, return_trace=True)
    halves, trace = tf.function(layer)(features, return_trace=True)
    np.testing.assert_allclose(halves, whole, rtol=0, atol=1e-5)
    for found, expected in zip(trace, whole_trace):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_in_training_the_batch_stays_whole():
    assert op_types(traced(graph(), 4)).count("Softmax") == 2 * 3  # K = 3 rounds
    assert op_types(traced(graph(), 4, training=True)).count("Softmax") == 3
