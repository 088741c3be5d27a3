"""The weights of a graph's products are read and cast once for all of its rounds."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from rstg_tf import RecurrentSpaceTimeGraph
from rstg_tf.ops.cast_cache import cast_once, cast_weight


def read_and_cast(layer, training):
    """The names of what a traced call of a graph reads, and casts of it, in order."""
    function = tf.function(lambda features: layer(features, training=training), autograph=False)
    ops = function.get_concrete_function(tf.TensorSpec([4, 3, 4, 4, 8], layer.compute_dtype)).graph.get_operations()
    read = [op.outputs[0].name for op in ops if op.type == "ReadVariableOp"]
    return read, [op.inputs[0].name for op in ops if op.type == "Cast" and op.inputs[0].name in read]


@pytest.mark.parametrize("settings", [{}, {"attention": "dot", "attention_heads": 2}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_inference_reads_and_casts_each_weight_of_a_product_once_and_training_once_a_round(settings, dtype):
    layer = RecurrentSpaceTimeGraph(num_scales=2, node_width=8, message_width=8, dtype=dtype, **settings)
    layer.build((None, None, 4, 4, 8))
    last = 3  # weights of the second LSTM, which runs once
    for training, reads in ((False, len(layer.weights)), (True, 3 * (len(layer.weights) - last) + last)):  # K = 3
        read, cast = read_and_cast(layer, training)
        assert len(read) == reads
        assert len(cast) == len(set(cast)) and bool(cast) is (dtype == "mixed_bfloat16")


def test_a_cast_is_shared_within_one_block_and_by_dtype():
    weight = tf.Variable([1.0, 1 + 2**-12])
    assert cast_weight("bfloat16", weight) is not cast_weight("bfloat16", weight)
    with cast_once():
        once = cast_weight("bfloat16", weight)
        assert cast_weight(tf.bfloat16, weight) is once
        np.testing.assert_array_equal(tf.cast(once, tf.float32), [1, 1])
        np.testing.assert_array_equal(cast_weight("float32", weight), [1, 1 + 2**-12])
        weight.assign([3.0, 4.0])
    with cast_once():
        np.testing.assert_array_equal(tf.cast(cast_weight("bfloat16", weight), tf.float32), [3, 4])
    assert cast_weight("bfloat16", weight) is not once


def test_what_is_cast_in_a_branch_stays_in_it():
    weight = tf.Variable([2.0])

    @tf.function(autograph=False)
    def twice(first):
        with cast_once():
            inner = tf.cond(first, lambda: cast_weight("bfloat16", weight), lambda: -cast_weight("bfloat16", weight))
            return inner + cast_weight("bfloat16", weight)

    assert (float(twice(tf.constant(True))[0]), float(twice(tf.constant(False))[0])) == (4, 0)
