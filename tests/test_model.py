"""Clip -> logits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import recipe
import reference_backbone
import tensorflow as tf
from tensorflow import keras
from tiny_configs import TINY

from rstg_tf import build_model, release
from rstg_tf.common.choices import HEADS
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.graph_config import GraphConfig

VIDEO = recipe.video(5, (3, 4, 20, 24, 1))


def test_the_whole_model_equals_the_reference_on_rectangular_clips():
    model = build_model(TINY)
    tensors = {name: recipe.weight(name, value.shape) for name, value in release.release_tensors(model).items()}
    release.assign_weights(model, tensors)
    expected = reference_backbone.syncmnist_model(VIDEO, tensors, num_layers=2, input_batch_norm=False)
    np.testing.assert_allclose(model(VIDEO), expected.logits, atol=2e-5 * max(1, np.abs(expected.logits).max()))


@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_float32_logits_for_bytes_and_floats_alike(head):
    model = build_model(dataclasses.replace(TINY, head=head))
    logits = model(VIDEO, training=False)
    assert logits.dtype == tf.float32 and logits.shape == (3, 5)
    np.testing.assert_array_equal(model(VIDEO.astype(np.float32)), logits)
    described = model.describe(VIDEO)
    np.testing.assert_allclose(described["logits"], logits, atol=1e-6)
    assert set(described["attention"]) == ({"final"} if head == "graph" else set())


def test_attention_of_every_round_sums_to_one_for_each_receiver():
    attention = build_model(TINY).describe(VIDEO)["attention"]["final"]
    assert attention.shape == (3, 3, 4, 14, 14)
    np.testing.assert_allclose(tf.reduce_sum(attention, axis=-1), 1.0, rtol=1e-5)


def test_other_lengths_and_sizes_than_those_of_training_may_be_given():
    model = build_model(TINY)
    assert model(recipe.video(1, (1, 7, 32, 28, 1))).shape == (1, 5)


def test_centred_pixels_are_scaled_inside_the_model():
    raw, centred = build_model(TINY), build_model(dataclasses.replace(TINY, pixel_scaling="centred"))
    centred.set_weights(raw.get_weights())
    np.testing.assert_allclose(centred(VIDEO), raw((VIDEO.astype(np.float32) - 114.75) / 57.375), atol=1e-5)


def test_a_config_s_graph_defaults_are_those_of_the_layer():
    from rstg_tf import RecurrentSpaceTimeGraph

    defaults = RecurrentSpaceTimeGraph().get_config()
    for name, value in dataclasses.asdict(GraphConfig()).items():
        assert defaults[name] == value, name


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float32"])
def test_logits_are_float32_and_close_under_mixed_precision(policy):
    reference = build_model(TINY)
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = build_model(TINY)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    model.set_weights(reference.get_weights())
    logits = model(VIDEO)
    assert logits.dtype == tf.float32
    assert np.linalg.norm(logits - reference(VIDEO)) <= 3e-2 * np.linalg.norm(reference(VIDEO))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet"}, "backbone_model=resnet: expected one of simple_c2d"),
        ({"height": 6}, "6×24 pixels are too small"),
        ({"channels": 2}, "num_chan=2"),
        ({"graph": GraphConfig(attention="dot", attention_heads=7)}, "message_dims=512 is not divisible by the 7"),
        ({"graph_places": ("res3",)}, "place_graph=res3: simple_c2d has one place"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_by_its_flag(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_model(dataclasses.replace(TINY, **changes))
