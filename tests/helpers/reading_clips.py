"""Training clips of videos that differ in length and size, for the tests of reading."""

from __future__ import annotations

import itertools

from datasets.input_pipeline.pipeline import training_clips
from rstg_tf.video.clip_spec import ClipSpec

SHORT_SIDE = 40
CROP = (32, 24)
NUM_FRAMES = 6
CLIP = ClipSpec(num_frames=NUM_FRAMES, height=CROP[0], width=CROP[1], channels=3, short_side=SHORT_SIDE)


def batches(count, *, batch_size=4, **arguments):
    settings = dict(seed=3, clip=CLIP)
    return list(
        itertools.islice(training_clips(batch_size=batch_size, **{**settings, **arguments}).as_numpy_iterator(), count)
    )
