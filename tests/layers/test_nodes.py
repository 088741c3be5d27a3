"""Feature map <-> nodes."""

from __future__ import annotations

import numpy as np
import pytest
import reference_regions
import tensorflow as tf
from layer_checks import check_layer

from rstg_tf import MapFromNodes, NodesFromMap


def test_nodes_are_means_over_quarters_and_over_the_whole():
    features = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4, 1)
    nodes = NodesFromMap(num_scales=2)(features)
    np.testing.assert_allclose(nodes[0, 0, :, 0], [2.5, 4.5, 10.5, 12.5, 7.5])


def test_nodes_of_a_bfloat16_map_keep_what_bfloat16_would_round_away():
    pair = np.array([1, 1 + 2**-7], np.float32)  # neighbours in bfloat16, whose mean lies between them
    features = tf.cast(np.tile(pair, 8).reshape(1, 1, 4, 4, 1), tf.bfloat16)
    nodes = NodesFromMap(num_scales=1, dtype="mixed_bfloat16")(features)
    np.testing.assert_array_equal(nodes[0, 0, :, 0], [1 + 2**-8])


def test_a_map_sums_what_every_scale_says_of_a_pixel():
    nodes = np.array([1, 2, 3, 4, 10], np.float32).reshape(1, 1, 5, 1)
    features = MapFromNodes(num_scales=2)(nodes, height=2, width=2)
    np.testing.assert_allclose(features[0, 0, :, :, 0], [[11, 12], [13, 14]])


@pytest.mark.parametrize(("scales", "height", "width"), [(3, 6, 6), (3, 7, 7), (4, 5, 9), (1, 3, 2), (3, 2, 2)])
def test_nodes_and_maps_equal_the_reference_for_any_size(scales, height, width):
    features = np.random.default_rng(0).standard_normal((2, 3, height, width, 5)).astype(np.float32)
    nodes = NodesFromMap(num_scales=scales)(features)
    np.testing.assert_allclose(nodes, reference_regions.pool_nodes(features, scales), atol=1e-5)
    maps = MapFromNodes(num_scales=scales)(nodes, height=height, width=width)
    expected = reference_regions.nodes_to_map(nodes.numpy(), scales, height, width)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_both_layers_keep_the_rules_of_layers():
    features = np.random.default_rng(0).standard_normal((2, 3, 4, 6, 5)).astype(np.float32)
    check_layer(NodesFromMap, {"num_scales": 2}, features, output_shape=(2, 3, 5, 5), weights=0)
    check_layer(
        MapFromNodes,
        {"num_scales": 2},
        features[:, :, 0, :5],
        output_shape=(2, 3, 4, 6, 5),
        weights=0,
        call_arguments={"height": 4, "width": 6},
    )
