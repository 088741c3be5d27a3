"""The SyncMNIST model against the authors' release: logits, nodes, gradients, six training steps, a checkpoint."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest
import recipe
import tensorflow as tf
from golden_vectors import GOLDEN, assert_equals_golden, clips, golden_model, under_release_names
from tensorflow import keras

from rstg_tf import build_model, release

RELEASE = pathlib.Path(os.environ.get("RSTG_RELEASE_DIR", "../shared/release"))


@pytest.mark.parametrize("name", ["syncmnist_small", "syncmnist_full"])
def test_logits_and_nodes_equal_the_release(name):
    model, case, golden = golden_model(name)
    video = clips(case, seed=1)
    described = model.describe(video)
    assert_equals_golden(described["logits"], golden["logits"], "logits")
    np.testing.assert_array_equal(model(video, training=False), described["logits"])
    for nodes, key in zip(described["nodes"]["final"], ("final/input_nodes", "final/output_nodes")):
        every = max(1, nodes.shape[-1] // 32)
        assert_equals_golden(nodes[..., ::every], golden[key], key)


@pytest.mark.parametrize("name", ["syncmnist_small", "syncmnist_full", "smt_c2d_rstg_final", "smt_i3d_rstg_final"])
def test_logits_in_bfloat16_stay_within_three_hundredths_of_the_release(name):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model, case, golden = golden_model(name)
    logits = tf.function(model)(clips(case, seed=1))
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=3e-2 * np.abs(golden["logits"]).max())


@pytest.mark.parametrize("name", ["syncmnist_small", "syncmnist_full"])
def test_variables_have_the_release_s_names_and_shapes(name):
    model, case, _ = golden_model(name)
    listed = {
        variable: tuple(shape)
        for variable, shape, _ in case["variables"]
        if not any(constant in variable for constant in recipe.CONSTANTS)
    }
    assert {key: value.shape for key, value in release.release_tensors(model).items()} == listed
    trained = {variable for variable, _, is_trained in case["variables"] if is_trained}
    assert len(trained) == len(listed) - 2  # all but the two moving statistics


def summed_loss_gradients(model, video, labels):
    """Loss per clip [B] and the gradients of their sum under the release's names, batch norm in training mode."""
    with tf.GradientTape() as tape:
        logits = model(video, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        total = tf.reduce_sum(losses)
    gradients = tape.gradient(total, model.trainable_variables)
    return losses, gradients


def test_gradients_of_every_variable_equal_the_release():
    model, case, golden = golden_model("syncmnist_small")
    _, gradients = summed_loss_gradients(model, clips(case, seed=1), golden["labels"])
    renamed = under_release_names(model, gradients)
    for name, norm, probe in zip(golden["grad_names"], golden["grad_norms"], golden["grad_probes"]):
        gradient = renamed[str(name)]
        assert np.linalg.norm(gradient) == pytest.approx(norm, rel=2e-3), name
        projected = np.sum(gradient * recipe.probe(str(name), gradient.shape))
        assert projected == pytest.approx(probe, abs=5e-3 * norm), name


def test_six_training_steps_equal_the_release():
    model, case, golden = golden_model("syncmnist_small")
    rate = case["case"]["lr"]
    velocities = [tf.zeros_like(variable) for variable in model.trainable_variables]
    for step in range(6):
        labels = recipe.labels(2000 + step, case["config"]["batch_size"], case["config"]["num_classes"])
        losses, gradients = summed_loss_gradients(model, clips(case, seed=1000 + step), labels)
        np.testing.assert_allclose(losses, golden["train_losses"][step], atol=1e-4)
        velocities = [0.9 * velocity + gradient for velocity, gradient in zip(velocities, gradients)]
        for variable, velocity, gradient in zip(model.trainable_variables, velocities, gradients):
            variable.assign_sub(rate * (gradient + 0.9 * velocity))
    np.testing.assert_allclose(model(clips(case, seed=1), training=False), golden["logits_after"], atol=1e-4)


def test_the_release_s_checkpoint_gives_the_golden_logits():
    if not (RELEASE / "checkpoint").is_dir():
        pytest.skip(f"{RELEASE} is not there: set RSTG_RELEASE_DIR to the folder of the release's files")
    case = json.loads((GOLDEN / "syncmnist_small.json").read_text())
    golden = np.load(GOLDEN / "syncmnist_small.npz")
    model = build_model(release.config_from_release(case["config"]).model)
    assert release.load_checkpoint(model, RELEASE / "checkpoint") == 1234
    assert_equals_golden(model(clips(case, seed=1), training=False), golden["logits"], "logits")
