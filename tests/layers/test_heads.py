"""Graphs inside the stages of a ResNet and at its end: what they add, what they are called in the release."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import recipe
from small_resnet import SMALL, SMALL_GRAPH, VIDEO, build_with_recipe_weights, random_inputs, randomise

from rstg_tf import build_model, release
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.layers.heads import PoolingHead
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.layers.residual_graph import AfterGraphNorm, ResidualGraph


def test_a_new_graph_adds_nothing_wherever_it_sits():
    for final_norm in ("LN", "BN"):
        plain = build_model(dataclasses.replace(SMALL, graph_places=()))
        placed = build_model(
            dataclasses.replace(SMALL, graph_places=("res2", "res3", "res4", "res5", "final"), final_norm=final_norm)
        )
        tensors = release.release_tensors(placed)
        release.assign_weights(placed, {**tensors, **release.release_tensors(plain)})
        np.testing.assert_allclose(placed(VIDEO), plain(VIDEO), rtol=1e-4, atol=1e-5)


def test_a_placed_graph_adds_its_normed_map():
    graph = RecurrentSpaceTimeGraph(output="map", project_features=True, **SMALL_GRAPH)
    features = random_inputs(2, 3, 4, 4, 6)
    for final_norm in ("LN", "BN", "none"):
        placed = ResidualGraph(graph=graph, final_norm=final_norm)
        placed(features)
        randomise(placed)
        expected = features + placed.norm(graph(features))
        np.testing.assert_allclose(placed(features), expected, rtol=1e-5, atol=1e-5)


def test_the_norm_after_a_graph_scales_what_the_release_scales():
    inputs = random_inputs(2, 3, 2, 2, 4)
    norm = AfterGraphNorm(kind="LN")
    np.testing.assert_array_equal(norm(inputs), np.zeros_like(inputs))
    randomise(norm)
    flat = inputs.reshape(2, -1)
    mean, deviation = flat.mean(axis=1), flat.std(axis=1)
    normed = (inputs - mean.reshape(2, 1, 1, 1, 1)) / deviation.reshape(2, 1, 1, 1, 1)
    expected = (normed + norm.norm.beta) * norm.scale
    np.testing.assert_allclose(norm(inputs), expected, rtol=1e-4, atol=1e-5)


def test_the_per_step_norm_after_a_graph_is_that_of_every_step_alone():
    inputs = random_inputs(2, 3, 2, 2, 4)
    per_clip, per_step = AfterGraphNorm(kind="LN"), AfterGraphNorm(kind="LN_per_step")
    for norm in (per_clip, per_step):
        norm(inputs)
        randomise(norm)
    alone = np.concatenate([per_clip(inputs[:, t : t + 1]) for t in range(3)], axis=1)
    np.testing.assert_allclose(per_step(inputs), alone, rtol=1e-5, atol=1e-6)
    assert np.abs(per_clip(inputs) - alone).max() > 1e-2
    assert AfterGraphNorm.from_config(per_step.get_config()).kind == "LN_per_step"
    vector = random_inputs(2, 4)  # a final graph's: no T, so both are LN over C
    norms = [AfterGraphNorm(kind=kind) for kind in ("LN", "LN_per_step")]
    for norm in norms:
        norm(vector)
        randomise(norm)
    np.testing.assert_array_equal(norms[0](vector), norms[1](vector))


@pytest.mark.parametrize(("height", "width", "positions"), [(14, 14, (1, 1)), (16, 15, (3, 2)), (13, 20, (1, 1))])
def test_pooling_takes_14_by_14_windows_or_the_whole_map(height, width, positions):
    features = random_inputs(2, 3, height, width, 2)
    window = (14, 14) if min(height, width) >= 14 else (height, width)
    expected = [
        [
            features[:, :, row : row + window[0], column : column + window[1]].mean(axis=(1, 2, 3))
            for column in range(positions[1])
        ]
        for row in range(positions[0])
    ]
    pooled = PoolingHead()(features)
    np.testing.assert_allclose(pooled, np.transpose(expected, (2, 0, 1, 3)), rtol=1e-4, atol=1e-5)


def test_the_final_graph_is_added_at_every_position_or_stands_alone():
    features = random_inputs(2, 2, 15, 15, 6)
    graph = RecurrentSpaceTimeGraph(project_features=True, **SMALL_GRAPH)
    pooled = PoolingHead()(features)
    for combination in ("plus", "serial"):
        head = PoolingHead(graph=graph, final_norm="LN", combination=combination)
        head(features)
        randomise(head)
        vector = head.norm(graph(features)).numpy()
        expected = vector if combination == "serial" else pooled + vector[:, None, None]
        np.testing.assert_allclose(head(features), expected, rtol=1e-5, atol=1e-5)
        assert PoolingHead.from_config(head.get_config()).combination == combination


@pytest.mark.parametrize("backbone", ["c2d", "i3d", "non-local"])
@pytest.mark.parametrize(("combination", "final_norm"), [("plus", "LN"), ("serial", "BN"), ("serial", "none")])
def test_every_combination_describes_the_graphs_at_all_places(backbone, combination, final_norm):
    model = build_with_recipe_weights(
        backbone=backbone,
        combination=combination,
        final_norm=final_norm,
        nonlocal_places=("res4",) if backbone == "non-local" else (),
    )
    described = model.describe(VIDEO)
    np.testing.assert_allclose(described["logits"], model(VIDEO, training=False), rtol=1e-5, atol=1e-5)
    assert set(described["attention"]) == set(described["nodes"]) == {"res3", "final"}
    for place, channels in (("res3", 512), ("final", 2048)):
        assert described["attention"][place].shape == (2, 1, 2, 5, 5)
        assert [nodes.shape for nodes in described["nodes"][place]] == [(2, 2, 5, channels)] * 2


def test_a_graph_at_res2_sees_every_frame_and_later_ones_half_of_them():
    nodes = build_model(dataclasses.replace(SMALL, graph_places=("res2", "res5"))).describe(VIDEO)["nodes"]
    assert nodes["res2"][0].shape[1] == 4 and nodes["res5"][0].shape[1] == 2


def test_a_model_takes_larger_and_longer_clips_than_it_was_built_for():
    model = build_with_recipe_weights()
    logits = model(recipe.video(3, (1, 6, 64, 48, 3)), training=False)
    assert logits.shape == (1, 5) and np.isfinite(logits).all()


def test_every_placed_graph_has_names_of_its_own():
    def after_graph(**changes):
        names = release.release_tensors(build_model(dataclasses.replace(SMALL, **changes)))
        return sorted(name for name in names if "after_graph" in name)

    prefix = "tower/resnet_i3d/"
    assert after_graph() == [
        f"{prefix}backbone/res3_after_graph_ln/beta",
        f"{prefix}backbone/res3_after_graph_ln_scale",
        f"{prefix}final_after_graph_ln/beta",
        f"{prefix}final_after_graph_ln_scale",
    ]
    prefix = "tower/resnet_c2d/"
    assert after_graph(backbone="c2d") == [
        f"{prefix}after_graph_ln/beta",
        f"{prefix}after_graph_ln_scale",
        f"{prefix}backbone/after_graph_ln/beta",
        f"{prefix}backbone/after_graph_ln_scale",
    ]
    leaves = ("beta", "gamma", "moving_mean", "moving_variance")
    assert after_graph(graph_places=("res5",), final_norm="BN") == [
        f"tower/resnet_i3d/backbone/res5_after_graph_bn/{leaf}" for leaf in leaves
    ]


def test_res3_alone_has_no_projection_at_the_release_s_widths():
    config = dataclasses.replace(
        SMALL,
        graph_places=("res2", "res3", "res4", "res5", "final"),
        graph=GraphConfig(num_scales=1, space_iterations=1),
    )
    names = release.release_tensors(build_model(config))
    places = {name.split("whole_graph_model_")[1].split("/")[0] for name in names if "project_i3d/kernel" in name}
    assert places == {"res2", "res4", "res5", "final"}
