"""Clips of a data set by their numbers, for a program that shows some of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset


class LabelledClip(NamedTuple):
    """`video` uint8 [T, H, W, C] and the number of its class."""

    video: np.ndarray
    label: int


def clips_by_index(
    dataset: RecordedDataset, options: ReadingOptions, indices: Iterable[int]
) -> dict[int, LabelledClip]:
    """The clips with these numbers, from 0 in the order of the shards; decodes no other, reads none after the last.

    Raises DatasetError for a record that cannot be read.
    """
    try:
        clips = evaluation_clips(dataset=dataset, options=options, indices=set(indices), batch_size=1)
        return {int(clip["index"][0]): LabelledClip(clip["video"][0].numpy(), int(clip["label"][0])) for clip in clips}
    except tf.errors.OpError as error:
        fault = dataset.explain_read_error(error)
        if fault is None:
            raise
        raise fault from error
