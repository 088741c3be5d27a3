"""A convolution folded with its norm against the two of them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer
from small_resnet import random_inputs, randomise

from rstg_tf.backbones.frozen_norm import FrozenNormConvolution


@pytest.mark.parametrize(
    ("kernel_size", "stride", "use_bias"),
    [
        ((1, 1, 1), 1, False),
        ((1, 1, 1), 2, False),
        ((3, 1, 1), 1, False),
        ((1, 3, 3), 1, True),
        ((1, 3, 3), 2, False),
        ((5, 7, 7), 2, False),
    ],
)
@pytest.mark.parametrize("side", [8, 9])
def test_folding_the_norm_into_the_convolution_changes_no_number(kernel_size, stride, use_bias, side):
    layer = FrozenNormConvolution(filters=5, kernel_size=kernel_size, stride=stride, use_bias=use_bias)
    inputs = random_inputs(2, 3, side, side, 4)
    layer(inputs)
    randomise(layer)
    padded = np.pad(inputs, [(0, 0), *((size // 2, size // 2) for size in kernel_size), (0, 0)])
    raw = tf.nn.conv3d(padded, layer.kernel, [1, 1, stride, stride, 1], "VALID") + (layer.bias if use_bias else 0.0)
    expected = tf.nn.batch_normalization(raw, layer.moving_mean, layer.moving_variance, layer.beta, layer.gamma, 1e-5)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-4)


def test_a_convolution_with_its_norm_is_a_sound_layer():
    arguments = {"filters": 6, "kernel_size": (1, 3, 3), "stride": 2, "use_bias": True, "gamma_initializer": "ones"}
    check_layer(FrozenNormConvolution, arguments, random_inputs(2, 2, 7, 7, 3), output_shape=(2, 2, 4, 4, 6), weights=6)
