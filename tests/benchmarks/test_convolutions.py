"""The convolutions that the floor of a model is made of: which there are, and the gradients that are timed."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import convolution_floor, experiments
from rstg_tf import flags as experiment_flags

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_wide_convnet_has_the_convolutions_that_define_it(in_root):
    found = convolution_floor.of_experiment(experiments.named("full", "rows"), 1)
    assert [convolution.inputs for convolution in found] == [(10, 64, 64, 1), (10, 31, 31, 512), (10, 14, 14, 512)]
    assert {convolution.kernel[:2] for convolution in found} == {(3, 3)}


def test_a_resnet_has_the_convolutions_that_its_stages_say(in_root):
    config = experiment_flags.config_from_flags(
        experiment_flags.parse(
            [
                "--flagfile=configs/smt_i3d_rstg_final.flags",
                "--dim_h=32",
                "--dim_w=32",
                "--video_num_frames=2",
                "--used_num_frames=1",
                "--remat",
            ]
        )
    )
    found = convolution_floor.of_experiment(config, 2)
    # conv1, three in each of 3 + 4 + 6 + 3 blocks, and a shortcut in the first block of each of 4 stages.
    assert len(found) == 1 + 3 * 16 + 4
    assert [convolution.is_first for convolution in found] == [True] + [False] * 52
    assert found[0].kind == "Conv3D" and found[0].kernel == (5, 7, 7, 3, 64)
    assert found[0].multiply_adds == 2 * 2 * 16 * 16 * 64 * 5 * 7 * 7 * 3  # 32×32 pixels, stride 2
    assert found[0].operations("backward") == 2 * found[0].multiply_adds
    assert found[1].operations("backward") == 4 * found[1].multiply_adds


@pytest.mark.parametrize("kind", ["Conv2D", "Conv3D"])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_timed_gradients_are_those_of_the_convolution(kind, is_first):
    rank = 3 if kind == "Conv3D" else 2
    convolution = convolution_floor.Convolution(
        kind, (2, *[5] * rank, 3), (*[3] * rank, 3, 4), (2, *[3] * rank, 4), (1,) * (rank + 2), "VALID", is_first
    )
    inputs, kernel, upstream = (
        tf.random.stateless_normal(shape, [0, seed])
        for seed, shape in enumerate((convolution.inputs, convolution.kernel, convolution.outputs))
    )

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            outputs = tf.nn.convolution(inputs, kernel)
        return tape.gradient(outputs, [kernel, inputs], output_gradients=upstream)

    expected = gradients()
    found = convolution_floor.computed(convolution, "backward", inputs, kernel, upstream)
    assert len(found) == (1 if is_first else 2)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
