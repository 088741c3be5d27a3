"""Keras' own test harness, of either stack, on every layer."""

from __future__ import annotations

import numpy as np
import pytest
from keras_options import GRAPH, RICH
from keras_stack import new_keras, old_keras
from tensorflow import keras

from rstg_tf import MapFromNodes, NodesFromMap, RecurrentSpaceTimeGraph, SpatialStage, TemporalStage
from rstg_tf.backbones.bottleneck import Bottleneck
from rstg_tf.backbones.frozen_norm import FrozenNormConvolution
from rstg_tf.backbones.nonlocal_block import NonLocalBlock
from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.layers.heads import FrameLSTMHead, PoolingHead
from rstg_tf.layers.normalization import BatchNorm, JointLayerNorm
from rstg_tf.layers.pixel_scaling import PixelScaling
from rstg_tf.layers.readout import Classifier, CountedDropout
from rstg_tf.layers.residual_graph import AfterGraphNorm
from rstg_tf.ops.dense import FlatDense


@keras.utils.register_keras_serializable("tests")
class SpaceWithinFourNodes(SpatialStage):
    """The stage alone with its nodes, as the harness calls layers."""

    def call(self, nodes, training=False):
        return super().call(nodes, np.ones((4, 4), np.float32) - np.eye(4, dtype=np.float32), training=training)[0]


@keras.utils.register_keras_serializable("tests")
class OnToAMap(MapFromNodes):
    def call(self, nodes):
        return super().call(nodes, height=4, width=6)


LAYERS = [
    (RecurrentSpaceTimeGraph, GRAPH, (2, 3, 4, 6, 4)),
    (RecurrentSpaceTimeGraph, RICH, (2, 3, 4, 6, 5)),
    (RecurrentSpaceTimeGraph, {**GRAPH, "output": "map"}, (2, 3, 4, 6, 5)),
    (TemporalStage, {"units": 3}, (2, 3, 4, 5)),
    (NodesFromMap, {"num_scales": 2}, (2, 3, 4, 6, 5)),
    (OnToAMap, {"num_scales": 2}, (2, 3, 5, 4)),
    (SpaceWithinFourNodes, {"node_width": 4, "message_width": 6}, (2, 3, 4, 4)),
    (FrameLSTMHead, {"units": 3}, (2, 3, 4, 6, 5)),
    (FrameLSTMHead, {"units": 3, "pooling": "conv"}, (2, 3, 4, 6, 5)),
    (PoolingHead, {}, (2, 3, 4, 6, 5)),
    (Classifier, {"num_classes": 3}, (2, 4)),
    (CountedDropout, {"rate": 0.0}, (2, 4)),
    (JointLayerNorm, {"trailing_axes": 2}, (2, 3, 4)),
    (BatchNorm, {"per_step": True}, (2, 3, 4)),
    (AfterGraphNorm, {"kind": "BN"}, (2, 3, 4)),
    (AfterGraphNorm, {"kind": "LN"}, (2, 3, 4)),
    (PixelScaling, {"mean": 2.0, "scale": 4.0}, (2, 3, 4)),
    (FlatDense, {"units": 3}, (2, 3, 4)),
    (SmallConvnet, {"filters": 3, "layers": 1}, (2, 3, 8, 9, 1)),
    (FrozenNormConvolution, {"filters": 3, "kernel_size": (1, 3, 3), "stride": 2}, (2, 3, 5, 6, 4)),
    (Bottleneck, {"inner": 2, "outer": 6, "stride": 2}, (2, 3, 5, 6, 4)),
    (NonLocalBlock, {}, (2, 3, 4, 6, 4)),
]
WITHOUT_WEIGHTS = (NodesFromMap, OnToAMap, PoolingHead, CountedDropout, PixelScaling)
FLOAT32_INSIDE = (
    NodesFromMap,
    Classifier,
    PixelScaling,
    FrozenNormConvolution,
    Bottleneck,
    NonLocalBlock,
    BatchNorm,
    JointLayerNorm,
    AfterGraphNorm,
    RecurrentSpaceTimeGraph,
    SpaceWithinFourNodes,
)


def named(value):
    return value.__name__ if isinstance(value, type) else ""


@old_keras
@pytest.mark.parametrize(("layer", "arguments", "shape"), LAYERS, ids=named)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_the_harness_of_keras_2_passes(layer, arguments, shape):
    from keras.src.testing_infra import test_utils

    test_utils.layer_test(layer, kwargs=arguments, input_shape=shape, validate_training=layer not in WITHOUT_WEIGHTS)


@new_keras
@pytest.mark.parametrize(("layer", "arguments", "shape"), LAYERS, ids=named)
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # the harness fits on a generator of its own
def test_the_harness_of_keras_3_passes(layer, arguments, shape):
    from keras.src.testing import TestCase

    TestCase().run_layer_test(
        layer,
        arguments,
        input_shape=shape,
        run_training_check=layer not in WITHOUT_WEIGHTS,
        # These have weights that stay float32 under any policy.
        run_mixed_precision_check=layer not in FLOAT32_INSIDE,
    )
