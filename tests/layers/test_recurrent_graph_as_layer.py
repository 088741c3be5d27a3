"""The whole graph as a Keras layer: its rules, its configuration, inside a network, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from graph_options import SMALL, features_of
from layer_checks import check_layer
from tensorflow import keras

from rstg_tf import RecurrentSpaceTimeGraph


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, 3 + 3 + 4 + 5 + 4),
        (
            {"attention": "dot", "scalewise_update": True, "normalization": "LN", "positional_map_size": 4},
            3 + 3 + 4 + 5 + 12 + 6,
        ),
        ({"space_iterations": 0, "output": "map"}, 3),
        ({"share_stages": True, "stage_norm": True, "residual_stages": True, "node_reduction": "mean"}, 4 + 5 + 4 + 2),
        ({"time_stages": "none", "input_batch_norm": True, "neighbourhood": "masked"}, 4 + 5 + 4 + 4),
    ],
    ids=str,
)
def test_the_graph_keeps_the_rules_of_layers(options, weights):
    shape = (2, 4, 5, 6, 8) if options.get("output") == "map" else (2, 8)
    check_layer(RecurrentSpaceTimeGraph, {**SMALL, **options}, features_of(), output_shape=shape, weights=weights)


@pytest.mark.slow
def test_the_graph_serves_in_a_functional_network_and_trains_there():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([4, 5, 6, 3])
    graph = RecurrentSpaceTimeGraph(node_width=8, message_width=8, stage_norm=True, residual_stages=True)
    network = keras.Model(inputs, keras.layers.Dense(2)(graph(inputs)))
    network.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.array([0, 1])
    history = network.fit(features_of(3), labels, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


def test_a_graph_with_per_step_norms_comes_back_from_its_config():
    graph = RecurrentSpaceTimeGraph(output="map", node_width=8, message_width=8, normalization="LN_per_step")
    graph.build((None, None, 5, 6, 8))
    again = RecurrentSpaceTimeGraph.from_config(graph.get_config())
    again.build((None, None, 5, 6, 8))
    assert again.before_norm.trailing_axes == 2 and again.space_stage.messages.norm.trailing_axes == 3
    again.set_weights(graph.get_weights())
    np.testing.assert_array_equal(again(features_of()), graph(features_of()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "scalar"}, "output=scalar: expected one of vector, map"),
        ({"time_stages": "some"}, "time_stages=some"),
        ({"node_reduction": "max"}, "node_reduction=max"),
        ({"space_iterations": 0, "time_stages": "none"}, "leaves no stage"),
        ({"space_iterations": 0, "share_stages": True}, "leaves no stage"),
        ({"space_iterations": -1}, "space_iterations=-1"),
    ],
)
def test_wrong_arguments_are_refused_with_their_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecurrentSpaceTimeGraph(**{**SMALL, **arguments})


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, (2, 5, 6, 8), r"expected features \[B, T, H, W, C\]"),
        ({}, (2, 4, None, 6, 8), "known H, W and C"),
        ({"project_features": False}, (2, 4, 5, 6, 3), "features have 3 channels, message_width is 8"),
        ({"attention": "dot", "attention_heads": 3}, (2, 4, 5, 6, 8), "heads=3"),
        ({"positional_map_size": 2}, (2, 4, 5, 6, 8), "size of at least 3"),
    ],
)
def test_features_that_cannot_work_are_refused(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        RecurrentSpaceTimeGraph(**{**SMALL, **arguments}).build(shape)


def test_a_saved_network_loads_again_without_being_told_of_the_layer(tmp_path):
    inputs = keras.Input([4, 5, 6, 3])
    network = keras.Model(inputs, RecurrentSpaceTimeGraph(node_width=8, message_width=8)(inputs))
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(features_of(3)), network(features_of(3)))


def test_features_of_another_rank_are_refused_also_after_building():
    graph = RecurrentSpaceTimeGraph(**SMALL)
    graph(features_of())
    with pytest.raises(ValueError, match="expected ndim=5, found ndim=4"):
        graph(features_of()[:, 0])
