"""The convnet of the SyncMNIST experiments."""

from __future__ import annotations

import numpy as np
import pytest
import reference_backbone
from layer_checks import check_layer

from rstg_tf.backbones.small_convnet import SmallConvnet


def test_three_layers_take_64_pixels_to_6():
    assert SmallConvnet(filters=7).map_shape((None, 10, 64, 64, 1)) == (None, 10, 6, 6, 7)


def test_rectangular_clips_equal_the_reference():
    layer = SmallConvnet(filters=3, layers=2)
    video = np.random.default_rng(0).uniform(0, 255, (2, 2, 15, 20, 1)).astype(np.float32)
    maps = layer(video)
    weights = {
        f"conv{index}/conv2d/{part}": getattr(convolution, part).numpy()
        for index, convolution in enumerate(layer.convolutions)
        for part in ("kernel", "bias")
    }
    expected = reference_backbone.small_convnet(video, weights, num_layers=2)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-3)
    assert tuple(maps.shape) == layer.map_shape(video.shape)


def test_the_convnet_keeps_the_rules_of_layers():
    video = np.random.default_rng(0).uniform(0, 1, (2, 3, 10, 12, 3)).astype(np.float32)
    check_layer(
        SmallConvnet,
        {"filters": 4, "layers": 2, "fewer_products": False},
        video,
        output_shape=(2, 3, 1, 1, 4),
        weights=4,
    )


def test_frames_that_leave_no_pixel_are_refused_with_their_size():
    with pytest.raises(ValueError, match="20×64 pixels are too small for 3 layers"):
        SmallConvnet(filters=4).build((None, 10, 20, 64, 1))
