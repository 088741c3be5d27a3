"""The NumPy reference equals the release's golden vectors, and the recipe of weights is the release's."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import recipe
import reference_backbone
import reference_regions
import reference_stages

GOLDEN = Path(__file__).parents[1] / "golden"
RELEASE = Path(os.environ.get("RSTG_RELEASE_DIR", Path(__file__).parents[3] / "shared" / "release"))
FULL_VIDEO = (2, 10, 64, 64, 1)


@functools.cache
def _golden(name: str) -> tuple[dict, dict, dict]:
    """The golden arrays, the weights they were computed with, and the case's description."""
    description = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    return arrays, recipe.weights(description["variables"]), description


@functools.cache
def _small_nodes(seed: int) -> np.ndarray:
    _, weights, _ = _golden("syncmnist_small")
    maps = reference_backbone.small_convnet(recipe.video(seed, FULL_VIDEO), reference_stages.below("tower/", weights))
    return reference_regions.pool_nodes(maps, 3)


def _small_loss(weights: dict, nodes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    output = reference_backbone.syncmnist_head(nodes, weights, height=64, width=64, training=True)
    return reference_backbone.cross_entropy(output.logits, labels)


def _assert_close_as_golden(actual: np.ndarray, golden: np.ndarray) -> None:
    np.testing.assert_allclose(actual, golden, rtol=0, atol=2e-5 * max(1.0, np.abs(golden).max()))


@pytest.mark.parametrize("name", ["syncmnist_small", pytest.param("syncmnist_full", marks=pytest.mark.slow)])
def test_the_reference_equals_the_releases_golden_logits_and_nodes(name):
    golden, weights, _ = _golden(name)
    output = reference_backbone.syncmnist_model(recipe.video(1, FULL_VIDEO), weights)
    every = max(1, output.input_nodes.shape[-1] // 32)
    _assert_close_as_golden(output.logits, golden["logits"])
    _assert_close_as_golden(output.input_nodes[..., ::every], golden["final/input_nodes"])
    _assert_close_as_golden(output.graph.nodes[..., ::every], golden["final/output_nodes"])


def test_the_first_golden_training_loss_is_met_with_batch_statistics():
    golden, weights, description = _golden("syncmnist_small")
    labels = recipe.labels(2000, 2, description["config"]["num_classes"])
    np.testing.assert_allclose(_small_loss(weights, _small_nodes(1000), labels), golden["train_losses"][0], atol=1e-4)


def test_the_golden_gradients_are_the_slopes_of_the_reference_in_training_mode():
    golden, weights, _ = _golden("syncmnist_small")
    nodes, step = _small_nodes(1), 1e-6
    above_the_convnet = [
        row
        for row in zip(golden["grad_names"], golden["grad_norms"], golden["grad_probes"])
        if "/conv2d/" not in row[0]
    ]
    assert len(above_the_convnet) == 21
    for name, norm, probe in above_the_convnet:
        direction = recipe.probe(name, weights[name].shape)
        ends = [
            _small_loss({**weights, name: weights[name] + sign * step * direction}, nodes, golden["labels"]).sum()
            for sign in (1.0, -1.0)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(slope - probe) <= 5e-3 * norm, f"{name}: slope {slope}, golden {probe}, gradient norm {norm}"


def test_graph_shapes_name_exactly_the_releases_graph_variables():
    _, weights, _ = _golden("syncmnist_small")
    shapes = recipe.graph_shapes(width=32, message_width=32, positional_map_size=6, input_batch_norm=True)
    assert shapes == {
        name: value.shape for name, value in reference_stages.below(reference_backbone.GRAPH, weights).items()
    }


@pytest.mark.skipif(not (RELEASE / "recipe.py").exists(), reason=f"no recipe.py in RSTG_RELEASE_DIR ({RELEASE})")
def test_our_recipe_draws_what_the_releases_recipe_draws():
    spec = importlib.util.spec_from_file_location("release_recipe", RELEASE / "recipe.py")
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    for name in (
        "a/kernel",
        "a/bias",
        "a/gamma",
        "a/moving_variance",
        "a_ln_scale",
        "res2_0_branch2c_bn/gamma",
        "nonlocal_conv3_1_bn/gamma",
        "x/biases",
    ):
        np.testing.assert_array_equal(recipe.weight(name, (3, 4)), theirs.weight(name, (3, 4)))
    np.testing.assert_array_equal(recipe.probe("a/kernel", (3, 4)), theirs.probe("a/kernel", (3, 4)))
    np.testing.assert_array_equal(recipe.video(7, (2, 3, 10, 7, 3)), theirs.video(7, (2, 3, 10, 7, 3)))
