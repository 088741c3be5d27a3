"""The ResNet models against the authors' release: logits, nodes, gradients and the list of variables."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
import recipe
import tensorflow as tf
from golden_vectors import GOLDEN, assert_equals_golden, under_release_names

from rstg_tf import build_model, release
from rstg_tf.evaluation.scoring import evaluate_clips

CASES = (
    "smt_c2d",
    "smt_i3d",
    "smt_nonlocal",
    "smt_c2d_rstg_final",
    "smt_i3d_rstg_final",
    "smt_i3d_rstg_res3_res4",
    "smt_dense_i3d_rstg_final",
)


class Case(NamedTuple):
    """A golden case with its model, which holds the recipe's weights."""

    name: str
    model: Any
    config: dict
    variables: list
    golden: Any

    def video(self):
        config = self.config
        views = config["num_eval_spatial_clips"] * config["num_eval_temporal_clips"]
        side = 256 if views > 1 else config["dim_h"]
        shape = (config["batch_size"] * views, config["video_num_frames"], side, side, config["num_chan"])
        return recipe.video(1, shape), views


@pytest.fixture(scope="module", params=CASES)
def case(request):
    record = json.loads((GOLDEN / f"{request.param}.json").read_text())
    model = build_model(release.config_from_release(record["config"]).model)
    release.assign_weights(model, recipe.weights(record["variables"]))
    return Case(request.param, model, record["config"], record["variables"], np.load(GOLDEN / f"{request.param}.npz"))


def test_logits_and_nodes_equal_the_release(case):
    video, views = case.video()
    described = tf.function(case.model.describe)(video)
    if views > 1:
        logits = evaluated_logits(case.model, video, views)
        np.testing.assert_allclose(logits[0], np.mean(described["logits"], axis=0), atol=1e-4)
    else:
        logits = described["logits"]
    assert_equals_golden(logits, case.golden["logits"], "logits")
    compared = {"logits"}
    for place, pair in described["nodes"].items():
        for nodes, key in zip(pair, (f"{place}/input_nodes", f"{place}/output_nodes")):
            assert_equals_golden(nodes[..., :: max(1, nodes.shape[-1] // 32)], case.golden[key], key)
            compared.add(key)
    assert compared == {key for key in case.golden if key != "labels" and not key.startswith("grad_")}


def evaluated_logits(model, video, views):
    """The means over the views by the evaluation's own code, which gets them four at a time."""
    videos = np.arange(len(video)) // views
    clips = tf.data.Dataset.from_tensor_slices(
        {
            "video": video,
            "label": np.zeros(len(video), np.int32),
            "media_id": [f"video-{number}" for number in videos],
            "index": videos,
        }
    ).batch(4)
    evaluation = evaluate_clips(model, clips, num_clips=len(video) // views, views=views)
    assert evaluation.views == views
    return evaluation.logits


def test_variables_have_the_release_s_names_and_shapes(case):
    listed = {
        name: tuple(shape)
        for name, shape, _ in case.variables
        if not any(constant in name for constant in recipe.CONSTANTS)
    }
    trained = {name for name, _, is_trained in case.variables if is_trained}
    tensors = release.release_tensors(case.model)
    assert {name: value.shape for name, value in tensors.items()} == listed
    stored = {name for name in listed if name.endswith(("/moving_mean", "/moving_variance"))}
    assert trained == set(listed) - stored
    count = sum(int(np.prod(weight.shape)) for weight in case.model.trainable_weights)
    assert count == sum(tensors[name].size for name in trained)


@pytest.mark.parametrize("case", ["smt_i3d_rstg_final"], indirect=True)
def test_gradients_of_every_variable_equal_the_release(case):
    video, _ = case.video()
    losses, gradients = _summed_loss_gradients(case.model, video, case.golden["labels"])
    assert np.isfinite(losses).all()
    renamed = under_release_names(case.model, gradients)
    for name, norm, probe in zip(case.golden["grad_names"], case.golden["grad_norms"], case.golden["grad_probes"]):
        gradient = renamed[str(name)]
        assert np.linalg.norm(gradient) == pytest.approx(norm, rel=2e-3), name
        projected = np.sum(gradient * recipe.probe(str(name), gradient.shape))
        assert projected == pytest.approx(probe, abs=5e-3 * norm), name


@tf.function
def _summed_loss_gradients(model, video, labels):
    """Without dropout; the backbone's norms use their stored statistics in training too, the graph's are LN."""
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(video, training=False))
    return losses, tape.gradient(losses, model.trainable_variables)
