"""Some clips of a data set by their numbers."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_clips import clip_frames, flip_bit, write_tiny_dataset

from datasets.input_pipeline.clips_by_index import clips_by_index
from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import DatasetError
from datasets.records.shards import record_offsets


@pytest.fixture
def tiny(tmp_path):
    """Clips 0 to 22 in shards of 7, 1, 5 and 10."""
    return RecordedDataset(tmp_path, write_tiny_dataset(tmp_path))


def test_the_clips_that_were_asked_for_come_with_their_labels(tiny):
    found = clips_by_index(tiny, ReadingOptions(tiny.manifest.clip_spec), [22, 0, 7, 7])
    assert list(found) == [0, 7, 22]
    for index, clip in found.items():
        np.testing.assert_array_equal(clip.video, clip_frames(index))
        assert clip.label == index % 3


def test_nothing_is_read_after_the_last_of_them_and_a_fault_before_it_is_a_sentence(tiny):
    path = tiny.folder / tiny.manifest.shards[2].file  # clips 8 to 12
    begin = record_offsets(path)[0][2]
    flip_bit(path, begin)
    options = ReadingOptions(tiny.manifest.clip_spec)
    assert list(clips_by_index(tiny, options, [1, 7])) == [1, 7]
    with pytest.raises(DatasetError, match=rf"{path.name}: record 2 \(byte {begin}\): corrupt"):
        clips_by_index(tiny, options, [1, 20])


def test_chosen_clips_come_with_all_their_views(tiny):
    options = ReadingOptions(tiny.manifest.clip_spec, temporal_views=2)
    [batch] = evaluation_clips(dataset=tiny, options=options, indices=[5, 3], batch_size=9)
    assert batch["index"].numpy().tolist() == [3, 3, 5, 5]
