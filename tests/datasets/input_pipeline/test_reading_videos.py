"""Clips and views of videos that differ in length and size, against Pillow and NumPy."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from mixed_videos import CLASSES, pillow_frames, write_videos
from PIL import Image
from reading_clips import CLIP, CROP, NUM_FRAMES, SHORT_SIDE, batches
from tiny_clips import write_shards

from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions, check_fit, clip_spec_of_records, reading_options
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import DatasetError
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ModelConfig
from rstg_tf.video.clip_spec import ClipSpec

# Frames, height, width: two as large as they are wanted, one to enlarge, two to reduce, one with a single frame.
SIZES = ((9, 40, 60), (4, 40, 71), (7, 25, 44), (12, 80, 100), (5, 66, 33), (1, 40, 53))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    directory = tmp_path_factory.mktemp("videos")
    manifest, encoded = write_videos(directory, SIZES)
    return RecordedDataset(directory, manifest), [resized(frames) for frames in encoded]


def resized(encoded):
    """What Pillow makes of a video's frames at the short side, uint8 [T, H, W, 3]."""
    frames = pillow_frames(encoded)
    height, width = frames.shape[1:3]
    scale = SHORT_SIDE / min(height, width)
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.BICUBIC)) for frame in frames])


def sampled(frames, view=0, num_views=1, num_frames=NUM_FRAMES):
    start = round(view / num_views * len(frames) / num_frames)
    indices = np.linspace(start, len(frames) - 1 + start, num_frames).astype(int)
    return frames[np.minimum(indices, len(frames) - 1)]


def assert_same_pixels(found, expected):
    """Within the two levels by which the bicubic kernels differ."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 2


def corner_of(clip, frames):
    """(top, left) of the crop in the frames that it was cut from, the best of all."""
    first = frames[0].astype(int)
    corners = list(itertools.product(range(first.shape[0] - CROP[0] + 1), range(first.shape[1] - CROP[1] + 1)))
    distances = [np.abs(first[top : top + CROP[0], left : left + CROP[1]] - clip[0]).sum() for top, left in corners]
    return corners[int(np.argmin(distances))]


def cut(frames, corner, size=CROP):
    return frames[:, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def test_the_centre_clip_is_the_middle_of_the_resized_sampled_frames(videos):
    dataset, pictures = videos
    found = list(evaluation_clips(dataset=dataset, options=ReadingOptions(CLIP), batch_size=4).as_numpy_iterator())
    clips = np.concatenate([batch["video"] for batch in found])
    assert [len(batch["video"]) for batch in found] == [4, 2] and clips.dtype == np.uint8
    for clip, frames in zip(clips, pictures):
        middle = [(side - crop) // 2 for side, crop in zip(frames.shape[1:3], CROP)]
        assert_same_pixels(clip, cut(sampled(frames), middle))
    # Frames that have the short side are not resized, so their pixels are Pillow's.
    np.testing.assert_array_equal(clips[0], cut(sampled(pictures[0]), (4, 18)))


def test_a_training_clip_is_one_random_crop_of_the_sampled_frames(videos):
    dataset, pictures = videos
    corners = {number: set() for number in range(len(SIZES))}
    for batch in batches(15, dataset=dataset):
        assert batch["video"].dtype == np.uint8
        for clip, label in zip(batch["video"], batch["label"]):
            candidates = [number for number in range(len(SIZES)) if number % len(CLASSES) == label]
            fits = [(number, corner_of(clip, sampled(pictures[number]))) for number in candidates]
            number, corner = min(
                fits, key=lambda fit: np.abs(cut(sampled(pictures[fit[0]]), fit[1]).astype(int) - clip).sum()
            )
            assert_same_pixels(clip, cut(sampled(pictures[number]), corner))
            corners[number].add(corner)
    # 60 clips are ten epochs of six; a video has at least 9 · 17 corners.
    assert all(len(found) > 5 for found in corners.values())


def test_resuming_and_threads_change_no_bit(videos):
    arguments = dict(dataset=videos[0], brightness=0.1, horizontal_flip=True, shuffle_buffer=2)
    whole = batches(9, **arguments, parallel_calls=3)
    for batch, expected in zip(batches(4, **arguments, start_step=5, parallel_calls=1), whole[5:]):
        np.testing.assert_array_equal(batch["video"], expected["video"])
        np.testing.assert_array_equal(batch["label"], expected["label"])


@pytest.mark.parametrize("spatial, temporal, crop", [(3, 2, (40, 40)), (4, 1, (32, 24)), (1, 3, (32, 24))])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_views_are_crops_from_end_to_end_of_each_sampling_in_batches_of_bounded_size(
    videos, spatial, temporal, crop, batch_size
):
    dataset, pictures = videos
    options = ReadingOptions(
        dataclasses.replace(CLIP, height=crop[0], width=crop[1]), spatial_views=spatial, temporal_views=temporal
    )
    found = list(evaluation_clips(dataset=dataset, options=options, batch_size=batch_size).as_numpy_iterator())
    views = spatial * temporal
    sizes = [len(batch["video"]) for batch in found]
    assert sum(sizes) == views * len(SIZES) and set(sizes[:-1]) <= {batch_size} and sizes[-1] <= batch_size
    joined = {key: np.concatenate([batch[key] for batch in found]) for key in found[0]}
    assert joined["index"].tolist() == np.repeat(range(len(SIZES)), views).tolist()
    assert joined["media_id"].tolist() == [b"video-%d" % number for number in joined["index"]]
    assert joined["label"].tolist() == [number % len(CLASSES) for number in joined["index"]]
    for row, number in enumerate(joined["index"]):
        sampling, place = divmod(row % views, spatial)
        frames = sampled(pictures[number], sampling, temporal)
        rooms = [side - length for side, length in zip(frames.shape[1:3], crop)]
        corner = [int(np.linspace(0, room, spatial)[place]) if spatial > 1 else room // 2 for room in rooms]
        assert_same_pixels(joined["video"][row], cut(frames, corner, crop))


def test_a_videos_views_are_cut_as_they_are_asked_for(videos):
    """The element that holds all frames of a video holds no view: what comes out one by one never lay side by side."""
    views = evaluation_clips(
        dataset=videos[0], options=ReadingOptions(CLIP, spatial_views=50, temporal_views=2), batch_size=2
    )
    assert views.element_spec["video"].shape.as_list() == [None, NUM_FRAMES, *CROP, 3]
    first = next(iter(views.take(1)))
    assert first["video"].shape[0] == 2 and first["index"].numpy().tolist() == [0, 0]


@pytest.mark.parametrize(
    "spatial_views, reported",
    [
        (1, "clip video-0 is 40 x 60 pixels large, with a short side of 40, expected at least 40 x 62"),
        (2, "clip video-0 is 40 x 60 pixels large"),
    ],
)
def test_a_clip_too_narrow_for_the_crop_is_refused_by_its_name(videos, spatial_views, reported):
    options = ReadingOptions(dataclasses.replace(CLIP, height=40, width=62), spatial_views=spatial_views)
    with pytest.raises(tf.errors.OpError) as caught:
        list(evaluation_clips(dataset=videos[0], options=options, batch_size=2))
    assert reported in str(videos[0].explain_read_error(caught.value))


def test_a_video_without_frames_or_with_a_broken_one_is_refused_by_its_name(tmp_path):
    # Nothing that writes records lets such a clip pass, so its frames are damaged in the record.
    manifest, encoded = write_videos(tmp_path, [(2, 40, 50)] * 3)
    for number, damaged in enumerate(([], [encoded[1][0], b"no picture"])):
        example = tf.train.SequenceExample.FromString(
            next(iter(tf.data.TFRecordDataset(str(tmp_path / manifest.shards[0].file)))).numpy()
        )
        frames = example.feature_lists.feature_list["image/encoded"]
        del frames.feature[:]
        for frame in damaged:
            frames.feature.add().bytes_list.value.append(frame)
        folder = tmp_path / f"damaged{number}"
        dataset = RecordedDataset(
            folder,
            write_shards(
                folder,
                [[example.SerializeToString()]],
                **{
                    name: getattr(manifest, name)
                    for name in ("num_frames", "height", "width", "channels", "image_format", "classes")
                },
            ),
        )
        options = ReadingOptions(ClipSpec(num_frames=2, height=8, width=8, channels=3, short_side=10))
        with pytest.raises(tf.errors.OpError) as caught:
            list(evaluation_clips(dataset=dataset, options=options, batch_size=1))
        reported = str(dataset.explain_read_error(caught.value))
        assert ("clip video-0 has 0 frames, expected at least 1", "record 0 ")[number] in reported
        assert number == 0 or "frame 1 cannot be decoded" in reported


def test_settings_that_contradict_are_refused(videos):
    too_short = ReadingOptions(dataclasses.replace(CLIP, short_side=20))
    for options, message in (
        (too_short, "short_side=20 is less than a crop of 32 x 24"),
        (ReadingOptions(CLIP, spatial_views=0), "at least 1"),
    ):
        with pytest.raises(DatasetError, match=message):
            evaluation_clips(dataset=videos[0], options=options, batch_size=1)


def test_clips_that_differ_are_resized_and_cropped_and_others_taken_as_they_are(videos):
    manifest = videos[0].manifest
    assert clip_spec_of_records(manifest, CLIP) == CLIP
    same_height = dataclasses.replace(manifest, height=32)
    assert clip_spec_of_records(same_height, CLIP) == CLIP
    whole = dataclasses.replace(manifest, height=32, width=24)
    assert clip_spec_of_records(whole, CLIP) == dataclasses.replace(CLIP, short_side=None)
    with pytest.raises(ConfigError, match="--short_side=20: expected at least 24"):
        clip_spec_of_records(manifest, dataclasses.replace(CLIP, short_side=20))


def test_dense_crops_have_the_short_side_unless_told_otherwise(videos):
    manifest = videos[0].manifest

    def crop(spatial_views, **arguments):
        options = reading_options(manifest, CLIP, spatial_views=spatial_views, temporal_views=2, **arguments)
        return options.clip.frame_size

    assert (crop(1), crop(11), crop(11, eval_crop_size=36), crop(1, eval_crop_size=36)) == (
        (32, 24),
        (40, 40),
        (36, 36),
        (36, 36),
    )
    with pytest.raises(ConfigError, match="--eval_crop_size=41: expected at most 40"):
        crop(1, eval_crop_size=41)


def test_crops_of_frames_of_one_size_must_differ(videos):
    manifest = dataclasses.replace(videos[0].manifest, height=32, width=32)
    clip = dataclasses.replace(CLIP, width=32)
    with pytest.raises(ConfigError, match="--num_eval_spatial_clips=3: the crops would be alike"):
        reading_options(manifest, clip, spatial_views=3)
    assert reading_options(manifest, clip, spatial_views=3, eval_crop_size=20) == ReadingOptions(
        dataclasses.replace(clip, height=20, width=20, short_side=None), spatial_views=3, temporal_views=1
    )


def test_videos_that_all_have_one_size_and_length_are_sampled_and_cropped_like_others(tmp_path):
    alike = [(9, 50, 60)] * 3
    manifest, encoded = write_videos(tmp_path, alike, num_frames=9, height=50, width=60)
    assert check_fit(manifest, ModelConfig(num_frames=6, height=32, width=24, channels=3, num_classes=4)) is None
    options = reading_options(manifest, CLIP)
    clips = list(
        evaluation_clips(dataset=RecordedDataset(tmp_path, manifest), options=options, batch_size=3).as_numpy_iterator()
    )
    for video, frames in zip(clips[0]["video"], encoded):
        whole = sampled(resized(frames))  # 50×60 becomes 40×48; the centre of 32×24 begins at (4, 12)
        assert_same_pixels(video, whole[:, 4:36, 12:36])


def test_drawn_clips_must_be_what_the_model_takes(videos):
    drawn = dataclasses.replace(videos[0].manifest, image_format="PNG", num_frames=6, height=32, width=24)
    model = ModelConfig(num_frames=6, height=32, width=24, channels=3, num_classes=4)
    assert check_fit(drawn, model) is None
    assert check_fit(dataclasses.replace(drawn, num_frames=9), model) == ("video_num_frames", 6, 9)
    assert check_fit(dataclasses.replace(drawn, width=32), model) == ("dim_w", 24, 32)
    assert check_fit(videos[0].manifest, dataclasses.replace(model, num_classes=3)) == ("num_classes", 3, 4)


@pytest.mark.parametrize(
    "length, temporal_views, differ", [(6, 2, False), (9, 2, True), (7, 2, True), (12, 3, False), (18, 3, True)]
)  # starts: 0 0, 0 1, 0 1, 0 1 1, 0 1 2
def test_samplings_of_clips_of_one_length_must_differ(videos, length, temporal_views, differ):
    manifest = dataclasses.replace(videos[0].manifest, num_frames=length)
    if differ:
        assert reading_options(manifest, CLIP, temporal_views=temporal_views).temporal_views == temporal_views
        return
    with pytest.raises(ConfigError, match=f"--num_eval_temporal_clips={temporal_views}: some samplings"):
        reading_options(manifest, CLIP, temporal_views=temporal_views)
