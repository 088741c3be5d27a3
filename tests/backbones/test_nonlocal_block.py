"""The non-local block against its definition, position by position."""

from __future__ import annotations

import numpy as np
import pytest
from layer_checks import check_layer
from tensorflow import keras

from rstg_tf.backbones.nonlocal_block import NonLocalBlock


def random_block(channels, height=4, width=6):
    """A block whose weights, gamma included, are all random."""
    block = NonLocalBlock()
    block.build((None, None, height, width, channels))
    generator = np.random.default_rng(3)
    for weight in block.weights:
        values = generator.standard_normal(weight.shape) * 0.5
        weight.assign(np.abs(values) + 0.5 if "moving_variance" in weight.name else values)
    return block


def dense(layer, values):
    return values @ np.asarray(layer.kernel).reshape(values.shape[-1], -1) + np.asarray(layer.bias)


def reference(block, features):
    """The block's formula on one clip [T, H, W, C], with loops where a reader can follow them."""
    steps, height, width, channels = features.shape
    pooled = np.array(
        [
            [
                [
                    features[t, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].max(axis=(0, 1))
                    for column in range(width // 2)
                ]
                for row in range(height // 2)
            ]
            for t in range(steps)
        ]
    )
    queries = dense(block.theta, features.reshape(-1, channels))
    keys, values = (dense(layer, pooled.reshape(-1, channels)) for layer in (block.phi, block.g))
    attended = []
    for query in queries:
        scores = np.array([query @ key for key in keys]) / np.sqrt(channels / 2)
        weights = np.exp(scores - scores.max())
        attended.append(weights / weights.sum() @ values)
    out = block.out
    raw = dense(out, np.array(attended))
    normed = (raw - out.moving_mean) / np.sqrt(np.asarray(out.moving_variance) + 1e-5) * out.gamma + out.beta
    return features + np.asarray(normed).reshape(features.shape)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (2, 3)])
def test_every_position_attends_to_the_pooled_positions_of_all_frames(height, width):
    clips = np.random.default_rng(0).standard_normal((2, 3, height, width, 8)).astype(np.float32)
    block = random_block(8, height, width)
    for clip, actual in zip(clips, block(clips)):
        np.testing.assert_allclose(actual, reference(block, clip), rtol=1e-4, atol=1e-4)


def test_a_new_block_adds_nothing():
    clips = np.random.default_rng(0).standard_normal((2, 2, 4, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(NonLocalBlock()(clips), clips)


def test_the_block_is_a_sound_layer():
    clips = np.random.default_rng(0).standard_normal((2, 2, 4, 4, 6)).astype(np.float32)
    check_layer(NonLocalBlock, {}, clips, output_shape=clips.shape, weights=3 * 2 + 6)


def test_the_block_stays_close_in_bfloat16():
    clips = np.random.default_rng(0).standard_normal((2, 2, 4, 4, 16)).astype(np.float32)
    exact = random_block(16)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    block = NonLocalBlock()
    rounded = block(clips)
    block.set_weights(exact.get_weights())
    rounded, expected = np.asarray(block(clips), np.float32), np.asarray(exact(clips))
    assert block(clips).dtype == "bfloat16"
    assert np.linalg.norm(rounded - expected) <= 3e-2 * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(2, 2, 4, 4, 5), (2, 2, 1, 4, 6)])
def test_maps_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(ValueError, match="at least 2×2 with an even number of channels"):
        NonLocalBlock()(np.zeros(shape, np.float32))
