"""Batches whose class is told by the bright half of the frames."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def toy_batches(
    start: int = 0, *, bad_step: int | None = None, bad_clip: int = 0, batch_size: int = 8
) -> tf.data.Dataset:
    """Batches by their number alone: the bright half of the frames tells the class; one clip may be NaN."""
    half = np.zeros((2, 1, 12, 12, 1), np.float32)
    half[0, :, :6], half[1, :, 6:] = 120, 120

    def batch(number):
        seed = tf.stack([number, 7])
        label = tf.random.stateless_uniform([batch_size], seed, 0, 2, tf.int32)
        video = tf.random.stateless_uniform([batch_size, 4, 12, 12, 1], seed, 0.0, 60.0) + tf.gather(half, label)
        if bad_step is not None:
            broken = tf.one_hot(bad_clip, batch_size, on_value=np.nan, off_value=0.0)[:, None, None, None, None]
            video = tf.where(number == bad_step, video + broken, video)
        return {"video": video, "label": label}

    return tf.data.Dataset.range(start, 2**40).map(batch)
