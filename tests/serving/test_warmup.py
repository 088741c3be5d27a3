"""The clip that a model is warmed up with."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
from served_models import GREY, encode
from tiny_clips import tiny_record, write_shards

from datasets.records.sequence_examples import decode_clip
from rstg_tf.runs import clip_spec_of_run
from rstg_tf.serving import warmup


def test_a_run_warms_up_with_the_first_clip_of_its_test_data(toy_records):
    small = dataclasses.replace(GREY, model=dataclasses.replace(GREY.model, height=12, width=12))
    clip = clip_spec_of_run.served_clip_spec(small)
    found = warmup.example_clip([str(toy_records / "missing"), str(toy_records / "test")], clip)
    shard = sorted((toy_records / "test").glob("*.tfrecord"))[0]
    first = decode_clip(next(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()))
    assert found.source == "clip test-0 of the run's data"
    assert found.frames == first["encoded"] and len(found.frames) == 4


def test_a_recorded_clip_that_does_not_fit_is_replaced_by_a_drawn_one_that_says_why(toy_records):
    found = warmup.example_clip([str(toy_records / "test")], clip_spec_of_run.served_clip_spec(GREY))
    assert found.source.startswith("drawn (") and "[12 12] [pixels, expected] [20 16]" in found.source
    pixels = np.stack([tf.io.decode_png(frame).numpy() for frame in found.frames])
    assert pixels.shape == (4, 20, 16, 1)
    assert [np.flatnonzero(frame.max(axis=(0, 2)) == 255)[0] for frame in pixels] == [0, 4, 8, 12]  # the square moves


def test_a_longer_recorded_clip_gives_frames_at_even_distances(tmp_path):
    frames = encode(np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 20, 16, 1), np.uint8))
    write_shards(tmp_path, [[tiny_record(0, frames=frames, timestamps=range(7))]], num_frames=None)
    assert warmup.recorded_clip(str(tmp_path), clip_spec_of_run.served_clip_spec(GREY)).frames == frames[::2]
