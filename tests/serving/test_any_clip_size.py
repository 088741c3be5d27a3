"""Videos of any size and length make the clip that the model takes, the same from pixels and from stored pictures."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as some
from served_models import encode

from rstg_tf.serving.request_clips import clips_from_frames
from rstg_tf.video.clip_spec import ClipSpec, clip_from_frames


@settings(max_examples=8)
@given(
    size=some.tuples(some.integers(1, 7), some.integers(1, 40), some.integers(1, 40)),
    clip=some.tuples(some.integers(1, 5), some.integers(1, 16), some.integers(1, 16)),
    channels=some.sampled_from([1, 3]),
    short_side=some.integers(16, 24),
)
def test_pixels_and_stored_pictures_of_any_size_make_the_same_clip(size, clip, channels, short_side):
    num_frames = max(size[0], clip[0])
    frames = np.random.default_rng(size).integers(0, 256, (num_frames, *size[1:], channels), np.uint8)
    spec = ClipSpec(*clip, channels, short_side=short_side)
    found = clip_from_frames(frames, spec)
    assert found.dtype == np.uint8 and found.shape == (*clip, channels)
    stored = tf.constant([list(encode(frames, "PNG"))], tf.string)
    served = tf.function(lambda encoded: clips_from_frames(encoded, spec), autograph=False)  # as in an export
    np.testing.assert_array_equal(served(stored)[0], found)
