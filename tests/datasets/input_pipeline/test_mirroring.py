"""Horizontal flips: which classes have a mirror image, and the label that a mirrored clip takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mixed_videos import CLASSES, pillow_frames, write_videos
from reading_clips import CLIP, batches

from datasets.input_pipeline.augmentation import NO_MIRROR_IMAGE, mirrored_in_words, mirrored_labels
from datasets.records.dataset import RecordedDataset


def test_mirrored_clips_take_the_mirrored_label_and_one_sided_classes_are_never_mirrored(tmp_path):
    # One video of each class, its crop the whole picture, so that each clip is either the picture or its mirror image.
    manifest, encoded = write_videos(tmp_path, [(2, 32, 24)] * 4)
    pictures = [pillow_frames(frames) for frames in encoded]
    seen = set()
    clip = dataclasses.replace(CLIP, num_frames=2, short_side=24)
    for batch in batches(20, dataset=RecordedDataset(tmp_path, manifest), horizontal_flip=True, clip=clip):
        for clip, label in zip(batch["video"], batch["label"]):
            [(number, mirrored)] = [
                (number, mirrored)
                for number, frames in enumerate(pictures)
                for mirrored in (False, True)
                if np.array_equal(clip, frames[:, :, ::-1] if mirrored else frames)
            ]
            seen.add((number, mirrored, int(label)))
    assert seen == {
        (0, False, 0),
        (0, True, 1),
        (1, False, 1),
        (1, True, 0),
        (2, False, 2),
        (2, True, 2),
        (3, False, 3),
    }


@pytest.mark.parametrize(
    "classes, expected",
    [
        (CLASSES, (1, 0, 2, NO_MIRROR_IMAGE)),
        (("Turning Left", "turning right", "Upright", "Leftovers"), (1, 0, 2, 3)),
        (("moving leftwards", "moving rightwards", "Swiping Right-hand", "from left"), (1, 0) + (NO_MIRROR_IMAGE,) * 2),
        (("between left and right", "between right and left"), (1, 0)),
    ],
)
def test_labels_in_the_mirror_by_the_words_of_the_names(classes, expected):
    assert mirrored_labels(classes) == expected


def test_the_classes_that_a_flip_touches_are_named():
    assert mirrored_in_words(CLASSES) == (
        "horizontal flip: classes mirrored with the label of their mirror image: 2 (pushing something from left to "
        "right, pushing something from right to left); never mirrored: 1 (turning left); mirrored with their own "
        "label: 1"
    )
