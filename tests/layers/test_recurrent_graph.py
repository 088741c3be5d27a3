"""The whole graph against the NumPy reference, for every option."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import reference_regions
import reference_stages
import tensorflow as tf
from graph_options import OPTIONS, SIZE, features_of, graph_and_weights, name_of

from rstg_tf import RecurrentSpaceTimeGraph
from rstg_tf.release.names import graph_entries


def reference_output(features, weights, *, training=False, **options):
    scales = options.get("num_scales", 3)
    names = {
        "num_scales",
        "space_iterations",
        "time_stages",
        "attention",
        "neighbourhood",
        "normalization",
        "input_batch_norm",
        "update_layers",
        "scalewise_update",
        "stage_norm",
        "residual_stages",
    }
    positions = options.get("positional_map_size", 0)
    projected = features.shape[-1] != options.get("message_width", 8)
    return reference.graph(
        reference_regions.pool_nodes(features, scales),
        weights,
        adjacency=reference_regions.adjacency(scales, *SIZE),
        positions=reference_regions.positional_maps(scales, positions) if positions else None,
        heads=options.get("attention_heads", 1),
        input_projection=projected,
        output_projection=projected,
        node_projection=options.get("node_width", 8) != options.get("message_width", 8),
        training=training,
        **{name: value for name, value in options.items() if name in names},
    )


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("channels", [8, 5], ids=["unprojected", "projected"])
def test_every_option_equals_the_reference(options, channels):
    features = features_of(channels)
    graph, weights = graph_and_weights(features, **options)
    vector, trace = graph(features, return_trace=True)
    expected = reference_output(features, weights, **options)
    scale = max(1.0, np.abs(expected.nodes).max())
    np.testing.assert_allclose(trace.output_nodes, expected.nodes, atol=2e-5 * scale)
    np.testing.assert_allclose(vector, reference.video_vector(expected.nodes), atol=2e-4 * scale)
    if expected.attention is None:
        assert trace.attention.shape[1] == 0
    else:
        np.testing.assert_allclose(trace.attention, expected.attention.mean(axis=3), atol=2e-5)


@pytest.mark.parametrize(
    "options",
    [options for options in OPTIONS if options.get("normalization") == "BN" or options.get("input_batch_norm")],
    ids=name_of,
)
def test_batch_norm_in_training_uses_and_moves_the_statistics_step_by_step(options):
    features = features_of()
    graph, weights = graph_and_weights(features, **options)
    output = graph(features, training=True)
    expected = reference_output(features, weights, training=True, **options)
    np.testing.assert_allclose(output, reference.video_vector(expected.nodes), atol=1e-4)
    for entry in graph_entries("", graph):
        if "moving" in entry.name:
            np.testing.assert_allclose(
                entry.targets[0].variable, expected.moving[entry.name], rtol=1e-4, atol=1e-5, err_msg=entry.name
            )


def test_the_map_output_spreads_the_final_nodes_over_their_regions():
    features = features_of()
    graph, _ = graph_and_weights(features, output="map")
    maps, trace = graph(features, return_trace=True)
    expected = reference_regions.nodes_to_map(trace.output_nodes.numpy(), 3, *features.shape[2:4])
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_the_vector_may_be_a_mean_over_nodes():
    features = features_of()
    graph, weights = graph_and_weights(features, node_reduction="mean")
    expected = reference.video_vector(reference_output(features, weights).nodes, "mean")
    np.testing.assert_allclose(graph(features), expected, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"time_stages": "every"}, {"share_stages": True}, {"space_iterations": 0}], ids=name_of
)
def test_the_graph_is_causal(options):
    features = features_of(steps=5)
    graph, _ = graph_and_weights(features, **options)
    changed = features.copy()
    changed[:, 3:] += 1.0
    before, after = (graph(values, return_trace=True)[1].output_nodes.numpy() for values in (features, changed))
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-4


def test_without_time_stages_frames_do_not_see_each_other():
    features = features_of(steps=5)
    graph, _ = graph_and_weights(features, time_stages="none")
    alone = graph(features[:, 2:3], return_trace=True)[1].output_nodes
    together = graph(features, return_trace=True)[1].output_nodes
    np.testing.assert_allclose(together[:, 2:3], alone, atol=1e-6)


def test_shared_stages_pass_time_with_the_weights_of_the_space_stage():
    features = features_of()
    graph, weights = graph_and_weights(features, share_stages=True, positional_map_size=6, scalewise_update=True)
    assert graph.time_stage is None and graph.last_time_stage is None
    nodes = reference_regions.pool_nodes(features, 3)
    adjacency, positions = reference_regions.adjacency(3, *SIZE), reference_regions.positional_maps(3, 6)
    earlier = np.tril(np.ones((4, 4)), -1)

    def over_time(x):
        """Region by region, the steps as nodes; its scale's update alone."""
        regions_in_turn = []
        for region in range(14):
            scale = 1 if region < 9 else 2 if region < 13 else 3
            own = {
                name.replace("update_node_mlp_/", "update_node_mlp/").replace(f"_type{scale}", ""): value
                for name, value in reference_stages.as_dtype(weights, np.float64).items()
            }
            updated, _ = reference_stages.space_stage(
                x[:, :, region],
                own,
                adjacency=earlier,
                positions=np.tile(positions[region], (4, 1)),
                num_scales=1,
                attention="simple",
                heads=1,
                neighbourhood="masked",
                normalization="none",
                update_layers=2,
                scalewise_update=False,
                training=False,
            )
            regions_in_turn.append(updated)
        return np.stack(regions_in_turn, axis=2)

    for _ in range(3):
        nodes = over_time(nodes)
        nodes, _ = reference_stages.space_stage_at_every_step(
            nodes,
            reference_stages.as_dtype(weights, np.float64),
            adjacency=adjacency,
            positions=positions,
            num_scales=3,
            attention="simple",
            heads=1,
            neighbourhood="soft",
            normalization="none",
            update_layers=2,
            scalewise_update=True,
            training=False,
        )
    expected = over_time(nodes)
    output = graph(features, return_trace=True)[1].output_nodes
    np.testing.assert_allclose(output, expected, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"attention": "dot", "attention_heads": 2, "normalization": "LN"}], ids=name_of
)
def test_xla_compiles_the_same_numbers_and_gradients(options):
    features = features_of()
    graph, _ = graph_and_weights(features, **options)

    def loss_and_gradients(values):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(graph(values, training=True)))
        return loss, tape.gradient(loss, graph.trainable_weights)

    plain = tf.function(loss_and_gradients)(features)
    compiled = tf.function(loss_and_gradients, jit_compile=True)(features)
    for one, other in zip(tf.nest.flatten(plain), tf.nest.flatten(compiled)):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-5 * max(1.0, np.abs(one).max()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "dot", "attention_heads": 2, "normalization": "LN"},
        {"stage_norm": True, "residual_stages": True},
    ],
    ids=name_of,
)
def test_bfloat16_stays_within_three_hundredths_of_float32(options):
    features = features_of()
    graph, _ = graph_and_weights(features, **options)
    exact = graph(features).numpy()
    half = RecurrentSpaceTimeGraph.from_config({**graph.get_config(), "dtype": "mixed_bfloat16"})
    half(features)
    half.set_weights(graph.get_weights())
    output = half(features)
    assert output.dtype == tf.bfloat16
    assert {weight.dtype for weight in half.trainable_weights} <= {tf.float32, "float32"}
    error = np.linalg.norm(tf.cast(output, tf.float32).numpy() - exact) / np.linalg.norm(exact)
    assert error < 3e-2


def test_neighbours_without_a_size_are_those_of_regions_that_tile_exactly():
    graph = RecurrentSpaceTimeGraph(node_width=8, message_width=8, num_scales=4)
    graph.build((None, 4, 5, 6, 8))
    np.testing.assert_array_equal(graph.adjacency, reference_regions.adjacency(4, 120, 120))


def test_per_step_statistics_are_those_of_ln_on_each_frame_alone():
    features = features_of(8, steps=3)
    graph, weights = graph_and_weights(features, time_stages="none", normalization="LN_per_step")
    per_clip, clip_weights = graph_and_weights(features, time_stages="none", normalization="LN")
    assert set(weights) == set(clip_weights)  # the same variables in the release
    nodes = graph(features, return_trace=True)[1].output_nodes
    alone = [per_clip(features[:, t : t + 1], return_trace=True)[1].output_nodes for t in range(3)]
    np.testing.assert_allclose(nodes, np.concatenate(alone, axis=1), atol=1e-5 * np.abs(alone).max())
    together = per_clip(features, return_trace=True)[1].output_nodes
    assert np.abs(nodes - together).max() > 1e-3
