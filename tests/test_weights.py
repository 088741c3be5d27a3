"""The weights of a graph are cast once for all of its rounds."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from rstg_tf import RecurrentSpaceTimeGraph
from rstg_tf.weights import cast_once, weight_in


def test_in_bfloat16_every_weight_is_read_once_and_cast_at_most_once():
    layer = RecurrentSpaceTimeGraph(num_scales=2, node_width=8, message_width=8, dtype="mixed_bfloat16")
    layer.build((None, None, 4, 4, 8))
    function = tf.function(lambda features: layer(features), autograph=False)
    ops = function.get_concrete_function(tf.TensorSpec([4, 3, 4, 4, 8], tf.bfloat16)).graph.get_operations()
    read = [op.outputs[0].name for op in ops if op.type == "ReadVariableOp"]
    cast = [op.inputs[0].name for op in ops if op.type == "Cast" and op.inputs[0].name in read]
    assert len(read) == len(layer.weights)
    assert len(cast) == len(set(cast)) > 0


def test_a_cast_is_shared_within_one_block_and_by_dtype():
    weight = tf.Variable([1.0, 1 + 2**-12])
    assert weight_in("bfloat16", weight) is not weight_in("bfloat16", weight)
    with cast_once():
        once = weight_in("bfloat16", weight)
        assert weight_in(tf.bfloat16, weight) is once
        np.testing.assert_array_equal(tf.cast(once, tf.float32), [1, 1])
        np.testing.assert_array_equal(weight_in("float32", weight), [1, 1 + 2**-12])
        weight.assign([3.0, 4.0])
    with cast_once():
        np.testing.assert_array_equal(weight_in("float32", weight), [3, 4])
    assert weight_in("bfloat16", weight) is not once
