"""The NumPy reference's whole graph: which stages follow each other, and what each option reads."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import recipe
import reference
import reference_regions
import reference_stages


def _run(*, nodes: np.ndarray | None = None, seed: int = 5, **options) -> reference.GraphOutput:
    """A graph of 5 nodes, 3 steps and 4 channels; the weights hold just what the options need."""
    nodes = np.random.default_rng(0).standard_normal((2, 3, 5, 4)) if nodes is None else nodes
    own = {
        key: value
        for key, value in options.items()
        if key not in ("neighbourhood", "residual_stages", "forget_bias", "training")
    }
    weights = recipe.graph_weights("", seed=seed, width=4, message_width=6, num_scales=2, **own)
    return reference.graph(nodes, weights, adjacency=reference_regions.adjacency(2, 8, 8), num_scales=2, **options)


def test_all_stops_its_time_stages_after_the_third_space_stage_and_every_does_not():
    np.testing.assert_array_equal(_run(time_stages="all").nodes, _run(time_stages="every").nodes)
    fourth = np.abs(
        _run(time_stages="all", space_iterations=4).nodes - _run(time_stages="every", space_iterations=4).nodes
    ).max()
    assert fourth > 1e-6


def test_the_schedules_compose_of_the_same_stages():
    space_only = _run(time_stages="none", space_iterations=1).nodes
    twice = _run(time_stages="none", space_iterations=1, nodes=space_only).nodes
    np.testing.assert_allclose(_run(time_stages="none", space_iterations=2).nodes, twice)
    last = _run(time_stages="all", space_iterations=0, nodes=twice)
    np.testing.assert_allclose(_run(time_stages="final", space_iterations=2).nodes, last.nodes)
    assert last.attention is None


def test_attention_rows_sum_to_one_per_stage_step_and_head():
    alpha = _run(attention="dot", heads=2, space_iterations=2).attention
    assert alpha.shape == (2, 2, 3, 2, 5, 5)  # [B, K, T, heads, N, N]
    np.testing.assert_allclose(alpha.sum(axis=-1), 1.0)


def test_a_normed_residual_stage_adds_its_input_before_the_norm():
    nodes = np.array([1.0, 3.0]).reshape(1, 1, 1, 2)
    weights = {
        "extern_stage_norm/gamma": np.ones(2),
        "extern_stage_norm/beta": np.zeros(2),
        f"{reference.EXTERN_LSTM}/kernel": np.zeros((4, 8)),
        f"{reference.EXTERN_LSTM}/bias": np.zeros(8),
    }
    weights[f"{reference.EXTERN_LSTM}/kernel"][1, 2] = 2.0  # second channel -> first candidate
    output = reference.graph(
        nodes, weights, adjacency=np.zeros((1, 1)), space_iterations=0, stage_norm=True, residual_stages=True
    )
    normed = 1 / np.sqrt(1 + 1e-6)  # (1, 3) has mean 2 and variance 1
    np.testing.assert_allclose(output.nodes.ravel(), [1 + 0.5 * np.tanh(0.5 * np.tanh(2 * normed)), 3])


@pytest.mark.parametrize("normalization", ["none", "LN", "BN"])
@pytest.mark.parametrize("attention, heads", [("simple", 1), ("dot", 1), ("dot", 2)])
@pytest.mark.parametrize("training", [False, True])
def test_a_graph_reads_each_weight_of_its_options_and_moves_averages_only_in_training(
    normalization, attention, heads, training
):
    options = {
        "normalization": normalization,
        "attention": attention,
        "heads": heads,
        "input_width": 3,
        "input_batch_norm": True,
        "input_projection": True,
        "output_projection": True,
        "scalewise_update": True,
        "stage_norm": True,
        "update_layers": 3,
    }
    weights = recipe.graph_weights("g/", seed=1, width=4, message_width=6, num_scales=2, **options)
    del options["input_width"]
    run = functools.partial(
        reference.graph,
        np.random.default_rng(0).standard_normal((2, 3, 5, 3)),
        num_scales=2,
        adjacency=reference_regions.adjacency(2, 8, 8),
        training=training,
        **options,
    )
    output = run(reference_stages.below("g/", weights))
    assert output.nodes.shape == (2, 3, 5, 3)
    assert np.isfinite(output.nodes).all()
    moved = {name for name, value in output.moving.items() if not np.allclose(value, weights["g/" + name], atol=1e-9)}
    assert moved == (set(output.moving) if training else set())
    for name in weights:
        with pytest.raises(KeyError, match=name[len("g/") :]):
            run(reference_stages.below("g/", {other: value for other, value in weights.items() if other != name}))


def test_readouts_average_the_steps_and_sum_or_average_the_nodes():
    nodes = np.array([[1.0, 2.0], [3.0, 8.0]]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(reference.frame_vectors(nodes).ravel(), [3, 11])
    assert reference.video_vector(nodes).item() == 7
    assert reference.video_vector(nodes, "mean").item() == 3.5
