"""The paths of the release's file: its labels, their order, and files that do not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle

import numpy as np
import pytest

from datasets.sync_mnist import released_paths
from datasets.sync_mnist.digits import load_digit_images
from datasets.sync_mnist.plans import SyncMnistSettings
from rstg_tf.common.errors import ConfigError


def test_all_labels_of_the_releases_test_set_are_reproduced(release_dir, mnist_dir):
    checksums = json.loads((release_dir / "golden" / "syncmnist_test_checksums.json").read_text())
    plans = released_paths.ReleasedPlans(
        release_dir / "files" / "predefined_path_test.pickle",
        settings=SyncMnistSettings(),
        image_labels=load_digit_images(f"idx:{mnist_dir}", "test")[1],
    )
    labels = plans.clips(0, plans.num_clips).labels
    assert hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest() == checksums["labels_sha256"]
    assert np.bincount(labels).tolist() == checksums["label_counts"]


def release_paths(**changes) -> dict[str, np.ndarray]:
    """Two repetitions of three clips as the release's file holds them, for digit images 0…9 of the classes 0…9."""
    shape, generator = (2, 3), np.random.default_rng(0)
    digits = np.array([(0, 1, 2), (4, 3, 9), (5, 7, 6)] * 2).reshape(*shape, 3)
    arrays = {
        "ind_digits": digits.astype(np.uint32),
        "set_digits": digits[..., 1:].astype(np.uint8),
        "sincron_prob": np.array([(1, 0, 1), (1, 1, 0)], np.uint8),
        "digit_position": np.ones(shape, np.uint8),
        "coords_digits": generator.integers(0, 72, (*shape, 4, 3, 2)).astype(np.uint8),
        "noise_coords": np.zeros((*shape, 4, 0, 2), np.uint8),
        "ind_rand_part": np.zeros((*shape, 0), np.uint32),
    }
    return {**arrays, **changes}


def released_plans(tmp_path, arrays, **changes) -> released_paths.ReleasedPlans:
    (tmp_path / "paths.pickle").write_bytes(pickle.dumps(arrays))
    settings = dataclasses.replace(SyncMnistSettings(num_digits=3, num_frames=4), **changes)
    return released_paths.ReleasedPlans(tmp_path / "paths.pickle", settings=settings, image_labels=np.arange(10))


def test_predefined_paths_are_read_repetition_after_repetition(tmp_path):
    arrays = release_paths()
    plans = released_plans(tmp_path, arrays).clips(0, 6)
    np.testing.assert_array_equal(plans.positions, arrays["coords_digits"].reshape(6, 4, 3, 2))
    # 1 & 0 is label 0, 4 & 3 is 6 + 3 = 9, 7 & 5 is 21 + 5 = 26; 45 where none are in step
    assert plans.labels.tolist() == [0, 45, 26, 0, 9, 45]
    assert plans.digits_in_front.all()


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"set_digits": np.zeros((2, 3, 2), np.uint8)}, {}, "made for other digits than --digits: in 6 clips"),
        ({"ind_digits": np.full((2, 3, 3), 10)}, {}, "ind_digits holds 10…10, expected 0…9"),
        ({"coords_digits": np.full((2, 3, 4, 3, 2), 73)}, {}, "coords_digits holds 73…73, expected 0…72"),
        ({"sincron_prob": np.full((2, 3), 2)}, {}, "sincron_prob holds 2…2"),
        ({"sincron_prob": np.zeros((1, 3), np.uint8)}, {}, "different numbers of clips"),
        ({"sincron_prob": np.zeros((2, 3))}, {}, "sincron_prob is no array of integers"),
        ({}, {"num_frames": 10}, r"coords_digits is \[4, 3, 2\] per clip, but .* ask for \[10, 3, 2\]"),
        ({}, {"no_noise_parts": 2}, "ind_rand_part"),
        ({}, {"digit_classes": 9}, "shows the digit 9, but --digit_classes=9"),
    ],
)
def test_paths_that_do_not_fit_are_refused(tmp_path, changes, settings, message):
    with pytest.raises(ConfigError, match=message):
        released_plans(tmp_path, release_paths(**changes), **settings)


def test_a_pickle_that_is_no_file_of_paths_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="ind_digits, set_digits, .* missing"):
        released_plans(tmp_path, {"videos": np.zeros(3)})
    with pytest.raises(ConfigError, match="--paths=.*paths.pickle: refused builtins.print"):
        released_plans(tmp_path, {"ind_digits": print})
