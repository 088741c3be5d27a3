"""One LSTM over whole frames."""

from __future__ import annotations

import numpy as np
import pytest
from layer_checks import check_layer

from rstg_tf import TemporalStage
from rstg_tf.layers.heads import FrameLSTMHead

MAPS = np.random.default_rng(0).standard_normal((2, 5, 3, 4, 6)).astype(np.float32)


def lstm_of(layer, frames):
    stage = TemporalStage(units=layer.units)
    stage(frames[:, :, None])
    stage.set_weights(layer.lstm.get_weights())
    return stage(frames[:, :, None]).numpy()[:, :, 0].mean(axis=1)


def test_mean_lstm_sees_the_mean_of_each_frame():
    layer = FrameLSTMHead(units=4)
    np.testing.assert_allclose(layer(MAPS), lstm_of(layer, MAPS.mean(axis=(2, 3))), atol=1e-6)
    shuffled = MAPS[:, :, ::-1, ::-1]
    np.testing.assert_allclose(layer(shuffled), layer(MAPS), atol=1e-6)


def test_conv_lstm_sees_where_things_are():
    layer = FrameLSTMHead(units=4, pooling="conv")
    output = layer(MAPS)
    dense = layer.convolution
    frames = np.maximum(MAPS.reshape(2, 5, -1) @ dense.kernel.numpy() + dense.bias.numpy(), 0)
    np.testing.assert_allclose(output, lstm_of(layer, frames), atol=1e-6)
    assert np.abs(layer(MAPS[:, :, ::-1, ::-1]) - output).max() > 1e-3


@pytest.mark.parametrize(("pooling", "weights"), [("mean", 3), ("conv", 5)])
def test_the_baselines_keep_the_rules_of_layers(pooling, weights):
    check_layer(
        FrameLSTMHead, {"units": 4, "pooling": pooling, "forget_bias": 1.0}, MAPS, output_shape=(2, 4), weights=weights
    )


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling='max'"):
        FrameLSTMHead(pooling="max")
