"""Clips out of shards: which, in what order, with what pixels, and what is said when they are not as promised."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from tiny_clips import clip_frames, flip_bit, tiny_record, write_shards, write_tiny_dataset

from datasets.input_pipeline.pipeline import evaluation_clips, training_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import DatasetError
from datasets.records.sequence_examples import decode_clip
from datasets.records.shards import record_offsets
from rstg_tf.common import devices

NUM_CLIPS = 23


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    return RecordedDataset(directory, write_tiny_dataset(directory))


def cut_out(manifest, *, crop_size=None, **changes):
    """The clips as they are stored but for these changes; `crop_size`: of a square window."""
    size = {"height": crop_size, "width": crop_size} if crop_size else {}
    return dataclasses.replace(manifest.clip_spec, **size, **changes)


def batches(count, *, crop_size=None, **arguments):
    """The first batches of a training stream, as NumPy."""
    clip = cut_out(arguments["dataset"].manifest, crop_size=crop_size)
    arguments = {"batch_size": 5, "seed": 11, "clip": clip, **arguments}
    return list(itertools.islice(training_clips(**arguments).as_numpy_iterator(), count))


def clip_numbers(some_batches):
    """Which clips: the first pixel of clip i holds i."""
    return np.concatenate([batch["video"][:, 0, 0, 0, 0] for batch in some_batches]).tolist()


def assert_equal_batches(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one["video"], other["video"])
        np.testing.assert_array_equal(one["label"], other["label"])


def test_a_batch_holds_the_frames_and_labels_that_were_written(tiny):
    (batch,) = batches(1, dataset=tiny)
    assert (batch["video"].shape, batch["video"].dtype, batch["label"].dtype) == ((5, 3, 4, 6, 1), np.uint8, np.int32)
    for video, label, number in zip(batch["video"], batch["label"], clip_numbers([batch])):
        np.testing.assert_array_equal(video, clip_frames(number))
        assert label == number % 3


def test_every_clip_comes_once_per_epoch_and_batches_join_epochs(tiny):
    numbers = clip_numbers(batches(NUM_CLIPS, dataset=tiny))
    epochs = [numbers[start : start + NUM_CLIPS] for start in range(0, 5 * NUM_CLIPS, NUM_CLIPS)]
    assert all(sorted(epoch) == list(range(NUM_CLIPS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_the_order_is_a_function_of_the_seed_alone(tiny):
    tf.random.set_seed(1)
    numbers = clip_numbers(batches(10, dataset=tiny))
    tf.random.set_seed(2)
    assert clip_numbers(batches(10, dataset=tiny)) == numbers
    assert clip_numbers(batches(10, dataset=tiny, seed=12)) != numbers


@pytest.mark.parametrize("parallel_calls", [1, 2, 7])
def test_the_number_of_threads_changes_nothing(tiny, parallel_calls):
    arguments = dict(dataset=tiny, brightness=0.2, horizontal_flip=True, crop_size=3)
    assert_equal_batches(batches(12, **arguments, parallel_calls=parallel_calls), batches(12, **arguments))


@pytest.mark.parametrize("start_step", [4, 5, 23])
@pytest.mark.parametrize("shuffle_buffer", [0, 4, 4096])
def test_resuming_gives_the_batches_that_would_have_come(tiny, start_step, shuffle_buffer):
    arguments = dict(dataset=tiny, brightness=0.1, horizontal_flip=True, crop_size=3, shuffle_buffer=shuffle_buffer)
    whole = batches(start_step + 6, **arguments, parallel_calls=2)
    assert_equal_batches(batches(6, **arguments, start_step=start_step, parallel_calls=1), whole[start_step:])


def test_a_small_buffer_still_gives_every_clip_once(tiny):
    for shuffle_buffer in (0, 1, 4):
        numbers = clip_numbers(batches(NUM_CLIPS, dataset=tiny, shuffle_buffer=shuffle_buffer))
        assert sorted(numbers[NUM_CLIPS : 2 * NUM_CLIPS]) == list(range(NUM_CLIPS))


def test_the_shuffle_is_fair(tiny):
    # In 400 epochs each of 23 clips comes first 17.4 times on average, with a standard deviation of 4.1.
    numbers = clip_numbers(batches(400, dataset=tiny, batch_size=NUM_CLIPS))
    firsts = np.bincount(numbers[::NUM_CLIPS], minlength=NUM_CLIPS)
    assert firsts.sum() == 400
    assert firsts.min() >= 4 and firsts.max() <= 36


def test_brightness_adds_one_value_per_clip_and_stays_in_range(tiny):
    changes = []
    for plain, bright in zip(batches(40, dataset=tiny), batches(40, dataset=tiny, brightness=0.1)):
        assert bright["video"].dtype == np.float32
        for video, before in zip(bright["video"], plain["video"].astype(np.float32)):
            # The last pixel is the brightest, 41 to 63, so that no change of up to 25.5 is clipped there.
            change = video[-1, -1, -1, 0] - before[-1, -1, -1, 0]
            np.testing.assert_allclose(video, np.clip(before + change, 0, 255), atol=1e-4)
            changes.append(float(change))
    assert np.abs(changes).max() <= 25.5
    # Uniform in ±25.5: standard deviation 14.7.
    assert 11.0 < np.std(changes) < 18.0 and len(set(changes)) > 190


def test_bright_pixels_end_at_255(tmp_path):
    white = np.full((3, 4, 6, 1), 250, np.uint8)
    manifest = write_shards(tmp_path, [[tiny_record(0, frames=white)]])
    values = np.concatenate(
        [batch["video"] for batch in batches(4, dataset=RecordedDataset(tmp_path, manifest), brightness=0.5)]
    )
    assert values.max() == 255.0


def test_augmentation_belongs_to_clip_and_epoch_not_to_the_place_in_the_stream(tiny, tmp_path):
    def by_clip(**arguments):
        (batch,) = batches(1, batch_size=NUM_CLIPS, horizontal_flip=True, crop_size=3, **arguments)
        return {tuple(video.ravel()) for video in batch["video"]}

    resharded = write_shards(tmp_path, [[tiny_record(number) for number in reversed(range(NUM_CLIPS))]])
    assert by_clip(dataset=RecordedDataset(tmp_path, resharded)) == by_clip(dataset=tiny)
    assert by_clip(dataset=tiny, start_step=1) != by_clip(dataset=tiny)


def test_a_flip_mirrors_whole_clips_half_of_the_time(tmp_path):
    manifest = write_shards(tmp_path, [[tiny_record(0)]])
    videos = np.concatenate(
        [batch["video"] for batch in batches(40, dataset=RecordedDataset(tmp_path, manifest), horizontal_flip=True)]
    )
    plain, mirrored = clip_frames(0), clip_frames(0)[:, :, ::-1]
    is_mirrored = [np.array_equal(video, mirrored) for video in videos]
    assert all(flag or np.array_equal(video, plain) for flag, video in zip(is_mirrored, videos))
    # 200 fair draws: 100 ± 7.
    assert 65 < sum(is_mirrored) < 135


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_random_crops_are_windows_of_the_clip_and_reach_every_place(tmp_path, image_format):
    record = tiny_record(0, image_format=image_format)
    frames = decode_clip(record)["frames"]
    manifest = write_shards(tmp_path, [[record]], image_format=image_format)
    windows = {(top, left): frames[:, top : top + 3, left : left + 3] for top in range(2) for left in range(4)}
    places = []
    for batch in batches(40, dataset=RecordedDataset(tmp_path, manifest), crop_size=3):
        for video in batch["video"]:
            places.append([place for place, window in windows.items() if np.array_equal(window, video)])
    assert all(places)
    assert {place for found in places for place in found} == set(windows)


def test_evaluation_gives_every_clip_once_in_order_with_a_small_last_batch(tiny):
    options = ReadingOptions(cut_out(tiny.manifest))
    found = list(evaluation_clips(dataset=tiny, options=options, batch_size=10).as_numpy_iterator())
    assert [len(batch["label"]) for batch in found] == [10, 10, 3]
    assert clip_numbers(found) == list(range(NUM_CLIPS))
    assert np.concatenate([batch["index"] for batch in found]).tolist() == list(range(NUM_CLIPS))
    assert [media_id for batch in found for media_id in batch["media_id"]] == [
        f"clip-{number}".encode() for number in range(NUM_CLIPS)
    ]
    assert np.concatenate([batch["label"] for batch in found]).tolist() == [i % 3 for i in range(NUM_CLIPS)]


def test_evaluation_crops_the_centre(tiny):
    options = ReadingOptions(cut_out(tiny.manifest, crop_size=2))
    batch = next(evaluation_clips(dataset=tiny, options=options, batch_size=1).as_numpy_iterator())
    np.testing.assert_array_equal(batch["video"][0], clip_frames(0)[:, 1:3, 2:4])


def test_grey_jpegs_become_three_channels_where_the_data_set_has_three(tmp_path):
    manifest = write_shards(tmp_path, [[tiny_record(0, image_format="JPEG")]], image_format="JPEG", channels=3)
    options = ReadingOptions(manifest.clip_spec)
    batch = next(
        evaluation_clips(dataset=RecordedDataset(tmp_path, manifest), options=options, batch_size=1).as_numpy_iterator()
    )
    assert batch["video"].shape == (1, 3, 4, 6, 3)


def read_fault(dataset, **changes):
    """The DatasetError that reading everything ends with."""
    clip, arguments = cut_out(dataset.manifest, **changes), dict(dataset=dataset, batch_size=4)
    for clips in (
        evaluation_clips(**arguments, options=ReadingOptions(clip)),
        training_clips(**arguments, clip=clip, seed=0).take(12),
    ):
        with pytest.raises(tf.errors.OpError) as caught:
            list(clips)
        fault = dataset.explain_read_error(caught.value)
        assert isinstance(fault, DatasetError)
    return str(fault)


@pytest.mark.parametrize(
    "odd, reported",
    [
        (dict(frames=clip_frames(9, num_frames=2), timestamps=[0, 1]), "clip clip-9 has 2 frames, expected 3"),
        (dict(label=3), "clip clip-9 has label 3 but the manifest names 3 classes"),
        (dict(label=2**32 + 1), "clip clip-9 has label 4294967297 but the manifest names 3 classes"),
        (dict(frames=clip_frames(9, height=3)), "clip clip-9 is 3 x 6 pixels large, expected at least 4 x 6"),
        (
            dict(frames=clip_frames(9, height=5)),
            "clip clip-9 has a frame, number 0 of height, width, channels 5 6 1 expected 4 6 1",
        ),
    ],
)
def test_a_clip_that_the_model_cannot_take_is_refused_by_its_name(tmp_path, odd, reported):
    records = [tiny_record(number, **(odd if number == 9 else {})) for number in range(12)]
    assert read_fault(RecordedDataset(tmp_path, write_shards(tmp_path, [records[:8], records[8:]]))) == reported


def test_a_clip_shorter_than_the_models_is_refused(tiny):
    assert read_fault(dataset=tiny, num_frames=4).endswith("has 3 frames, expected 4")


@pytest.mark.parametrize("place", ["length", "length checksum", "content", "content checksum"])
def test_a_corrupt_record_stops_the_reading_and_names_shard_and_record(tmp_path, place):
    manifest = write_tiny_dataset(tmp_path)
    path = tmp_path / manifest.shards[2].file
    begin, end = record_offsets(path)[0][2:4]
    flip_bit(
        path, {"length": begin, "length checksum": begin + 8, "content": begin + 50, "content checksum": end - 1}[place]
    )
    fault = read_fault(RecordedDataset(tmp_path, manifest))
    assert fault == f"{tmp_path}: {path.name}: record 2 (byte {begin}): corrupt."


def test_a_shard_that_shrinks_to_a_record_boundary_after_the_check_is_noticed(tmp_path):
    manifest = write_tiny_dataset(tmp_path)
    path = tmp_path / manifest.shards[3].file
    path.write_bytes(path.read_bytes()[: record_offsets(path)[0][6]])
    assert read_fault(RecordedDataset(tmp_path, manifest)).endswith("is record 6")
    path.write_bytes(b"")
    assert read_fault(RecordedDataset(tmp_path, manifest)).endswith("is record 0")
    path.unlink()
    assert f"{path.name}: cannot be opened" in read_fault(RecordedDataset(tmp_path, manifest))


def test_a_surplus_record_is_noticed(tmp_path):
    manifest = write_tiny_dataset(tmp_path)
    shards = list(manifest.shards)
    shards[0] = dataclasses.replace(shards[0], records=6)
    promised = dataclasses.replace(manifest, shards=tuple(shards))
    assert read_fault(RecordedDataset(tmp_path, promised)).endswith("is record 6")


@pytest.mark.parametrize(
    "damage, reported",
    [
        (lambda record: record[:60], "no SequenceExample"),
        (lambda record: record.replace(b"IDAT", b"JDAT", 1), "frame 0 cannot be decoded"),
    ],
)
def test_a_record_that_was_written_wrong_is_found(tmp_path, damage, reported):
    records = [tiny_record(number) for number in range(6)]
    records[4] = damage(records[4])
    manifest = write_shards(tmp_path, [records[:3], records[3:]])
    fault = read_fault(RecordedDataset(tmp_path, manifest))
    assert f"{manifest.shards[1].file}: record 1 " in fault and reported in fault


def test_errors_that_are_not_the_datas_are_not_explained(tiny):
    error = tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [2,3] vs. [3,2]")
    assert tiny.explain_read_error(error) is None
    assert tiny.explain_read_error(ValueError("other")) is None


@pytest.mark.parametrize("lacking, message", [("num_frames", "differ in length"), ("height", "differ in size")])
def test_clips_of_several_lengths_or_sizes_need_a_choice(tiny, lacking, message):
    manifest = dataclasses.replace(tiny.manifest, **{lacking: None})
    with pytest.raises(DatasetError, match=message):
        _ = manifest.clip_spec


def test_clips_of_other_channels_than_the_records_are_refused(tiny):
    with pytest.raises(DatasetError, match="clips of 3 channels are asked for, but those of tiny have 1"):
        evaluation_clips(dataset=tiny, options=ReadingOptions(cut_out(tiny.manifest, channels=3)), batch_size=1)


def test_replicas_share_each_batch(tiny):
    strategy = devices.cpu_strategy(1)
    expected = batches(7, dataset=tiny)
    shared = iter(
        strategy.experimental_distribute_dataset(
            training_clips(dataset=tiny, clip=cut_out(tiny.manifest), batch_size=5, seed=11)
        )
    )
    found = [{key: value.numpy() for key, value in next(shared).items()} for _ in expected]
    assert_equal_batches(found, expected)
