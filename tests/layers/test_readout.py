"""From nodes to logits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from rstg_tf.layers.readout import Classifier, CountedDropout, vector_from_nodes


def test_the_vector_is_a_mean_over_steps_and_a_sum_over_nodes():
    nodes = np.array([[[1, 2, 3], [3, 4, 5]]], np.float32)[..., None]  # [B=1, T=2, N=3, C=1]
    np.testing.assert_allclose(vector_from_nodes(nodes), [[2 + 3 + 4]])
    np.testing.assert_allclose(vector_from_nodes(nodes, "mean"), [[3]])


def test_logits_of_remaining_positions_are_averaged():
    layer = Classifier(num_classes=2)
    maps = np.random.default_rng(0).standard_normal((3, 1, 2, 2, 4)).astype(np.float32)
    np.testing.assert_allclose(layer(maps), layer(maps.mean(axis=(1, 2, 3))), atol=1e-6)


def test_logits_are_float32_whatever_the_features():
    assert Classifier(num_classes=2)(tf.ones([1, 4], tf.bfloat16)).dtype == tf.float32


def test_dropout_keeps_the_mean_and_is_off_in_inference():
    layer = CountedDropout(rate=0.25)
    ones = np.ones((200, 500), np.float32)
    dropped = layer(ones, training=True).numpy()
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert dropped.mean() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(layer(ones), ones)


def test_dropout_masks_depend_on_seed_and_count_alone():
    ones = np.ones((4, 50), np.float32)

    def masks(layer, calls):
        return [layer(ones, training=True).numpy() for _ in range(calls)]

    straight = masks(CountedDropout(rate=0.5, seed=3), 4)
    assert not np.array_equal(straight[0], straight[1])
    resumed = CountedDropout(rate=0.5, seed=3)
    resumed(ones)
    resumed.calls.assign(2.0)
    np.testing.assert_array_equal(masks(resumed, 2), straight[2:])
    assert not np.array_equal(masks(CountedDropout(rate=0.5, seed=4), 1)[0], straight[0])


def test_layers_keep_the_rules_of_layers():
    vectors = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    check_layer(CountedDropout, {"rate": 0.5, "seed": 1}, vectors, output_shape=(2, 5), weights=1)
    check_layer(Classifier, {"num_classes": 3, "dropout": 0.5}, vectors, output_shape=(2, 3), weights=3)


def test_an_impossible_rate_is_refused():
    with pytest.raises(ValueError, match="rate=1.0"):
        CountedDropout(rate=1.0)
