"""What of scikit-video is used, on the NumPy of either stack and without the program ffmpeg."""

from __future__ import annotations

import numpy as np
import pytest

from rstg_tf.video import skvideo_io


def test_equal_pictures_are_wholly_similar_and_noise_is_not():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 60, 3), np.uint8)
    assert skvideo_io.structural_similarity(picture, picture) == pytest.approx(1)
    assert skvideo_io.structural_similarity(picture, rng.integers(0, 256, (40, 60, 3), np.uint8)) < 0.3


def test_the_similarity_of_two_even_pictures_is_that_of_the_formula():
    # Without any variance what is left is (2 a b + C1) / (a² + b² + C1) with C1 = (0.01 · 255)².
    first, second = np.full((20, 20), 100, np.uint8), np.full((20, 20), 150, np.uint8)
    constant = 2.55**2
    expected = (2 * 100 * 150 + constant) / (100**2 + 150**2 + constant)
    assert skvideo_io.structural_similarity(first, second) == pytest.approx(expected, abs=1e-4)


def test_numpy_is_left_as_it_was():
    names = set(vars(np))
    skvideo_io.structural_similarity(np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8))
    assert set(vars(np)) == names


def test_the_bundled_clips_are_there():
    assert skvideo_io.bundled_clip("bikes.mp4").stat().st_size == 509_868
