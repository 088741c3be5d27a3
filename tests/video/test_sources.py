import io

import numpy as np
import pytest
import tensorflow as tf
from frame_sources import Pipe, carphone, write_frames
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from tiny_clips import write_shards

from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset
from datasets.records.sequence_examples import encode_clip
from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.video import clip_spec, sources
from rstg_tf.video.clip_spec import ClipSpec, clip_from_frames
from rstg_tf.video.decoding import read_video


@pytest.fixture
def video():
    """5 frames of 6×8 random colour pixels."""
    return np.random.default_rng(1).integers(0, 256, (5, 6, 8, 3), np.uint8)


def read(source):
    return np.stack(list(source.read(None)))


def test_colour_becomes_the_luma_that_pillow_computes_and_grey_comes_back_as_it_was(video):
    expected = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in video])
    np.testing.assert_array_equal(clip_spec.with_channels(video, 1)[..., 0], expected)
    # 0.299 · 100 + 0.587 · 200 + 0.114 · 50 = 153.0
    np.testing.assert_array_equal(clip_spec.with_channels(np.array([[[100, 200, 50]]], np.uint8), 1), [[[153]]])
    grey = np.arange(256, dtype=np.uint8)[None, :, None]
    as_colour = clip_spec.with_channels(grey, 3)
    assert as_colour.shape == (1, 256, 3)
    np.testing.assert_array_equal(clip_spec.with_channels(as_colour, 1), grey)


def test_frames_are_taken_at_even_distances_first_and_last_included():
    frames = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 1), np.uint8)

    def chosen(frames, num_frames):
        clip = ClipSpec(num_frames=num_frames, height=4, width=6, channels=1)
        return clip_from_frames(frames, clip)[:, 0, 0, 0].tolist()

    assert chosen(frames, 4) == [0, 3, 6, 9]
    assert chosen(list(frames), 6) == [0, 1, 3, 5, 7, 9]
    assert chosen(frames[:1], 3) == [0, 0, 0]
    assert chosen(frames[:2], 3) == [0, 0, 1]


def test_a_clips_sizes_come_back_from_json_and_exports_of_1_0_without_a_short_side_are_read():
    clip = ClipSpec(num_frames=4, height=6, width=8, channels=3, short_side=10)
    assert clip.to_json() == {"frames": 4, "height": 6, "width": 8, "channels": 3, "short_side": 10}
    assert ClipSpec.from_json(clip.to_json()) == clip
    without = {"dtype": "uint8", "range": [0, 255], "frames": 4, "height": 6, "width": 8, "channels": 3}
    assert ClipSpec.from_json(without) == ClipSpec(num_frames=4, height=6, width=8, channels=3, short_side=None)


@pytest.mark.parametrize(
    "frame, crop, short_side, expected",
    [
        # 272 -> 256; 640 · 256 / 272 = 602.35 -> 602; (602 - 224) / 2 = 189 and (256 - 224) / 2 = 16
        ((272, 640), (224, 224), None, (256, 16, 189)),
        ((640, 272), (224, 224), None, (256, 189, 16)),
        # 176 · 73 / 144 = 89.2 -> 89; (89 - 64) / 2 = 12.5 -> 12; (73 - 64) / 2 = 4.5 -> 4
        ((144, 176), (64, 64), 73, (73, 4, 12)),
        # a crop twice as wide as high does not fit into 100×100 unless that becomes 128×128
        ((100, 100), (64, 128), 73, (128, 32, 0)),
        ((64, 128), (64, 128), 73, (73, 4, 9)),  # resized, as evaluation resizes every frame to the run's short side
        ((64, 128), (64, 128), None, (64, 0, 0)),
    ],
)
def test_the_window_is_the_centre_after_the_resize(frame, crop, short_side, expected):
    clip = ClipSpec(num_frames=1, height=crop[0], width=crop[1], channels=3, short_side=short_side)
    found = clip_spec.centre_crop(*frame, clip)
    assert (found.short_side, found.top, found.left) == expected


def test_a_wide_frame_loses_its_sides():
    frames = np.zeros((2, 64, 128, 3), np.uint8)
    frames[:, :, 32:96] = 200  # columns 36…92 are seen: 128 · 37 / 64 = 74 columns, of which 21…52
    seen = clip_from_frames(frames, ClipSpec(num_frames=2, height=32, width=32, channels=3, short_side=37))
    np.testing.assert_array_equal(seen, np.full((2, 32, 32, 3), 200))


def test_frames_of_another_size_than_a_grey_models_are_refused_with_what_to_do(video):
    with pytest.raises(VideoError, match="the frames are 8×6 pixels: expected 64×64.*-vf scale=64:64"):
        clip_from_frames(video, ClipSpec(num_frames=3, height=64, width=64, channels=1))


def test_a_clip_is_the_one_that_evaluation_makes_of_the_same_frames(tmp_path):
    frames = np.random.default_rng(3).integers(0, 256, (9, 40, 60, 3), np.uint8)
    record = encode_clip(
        frames=frames, label=0, label_name="a", media_id="a", image_format="PNG", timestamps=range(0, 900, 100)
    )
    manifest = write_shards(
        tmp_path / "data", [[record]], num_frames=None, height=None, width=None, channels=3, classes=("a",)
    )
    clip = ClipSpec(num_frames=4, height=24, width=24, channels=3, short_side=30)
    [batch] = evaluation_clips(
        dataset=RecordedDataset(tmp_path / "data", manifest), options=ReadingOptions(clip), batch_size=1
    )
    folder = sources.load_clip(write_frames(tmp_path / "frames", frames), channels=3)
    np.testing.assert_array_equal(clip_from_frames(folder.frames, clip), batch["video"][0])


def test_arrays_are_read_with_and_without_a_channel_axis(video, tmp_path):
    np.save(tmp_path / "colour.npy", video)
    np.save(tmp_path / "grey.npy", video[..., 0])
    source = sources.open_source(tmp_path / "colour.npy")
    assert (source.num_frames, source.frames_per_second) == (5, None)
    np.testing.assert_array_equal(read(source), video)
    np.testing.assert_array_equal(read(source), video)  # a second time from its first frame
    np.testing.assert_array_equal(sources.load_clip(tmp_path / "grey.npy", channels=1).frames, video[..., :1])
    grey = sources.load_clip(tmp_path / "grey.npy", channels=3).frames
    np.testing.assert_array_equal(grey, np.repeat(video[..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((2, 4, 4)), r"float64 \[2, 4, 4\]: expected uint8"),
        (np.zeros((2, 4, 4, 2), np.uint8), r"uint8 \[2, 4, 4, 2\]: expected uint8 \[T, H, W\], or \[T, H, W, C\]"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((1, 2, 4, 4, 3), np.uint8), r"\[1, 2, 4, 4, 3\]"),
        (np.zeros((0, 4, 4), np.uint8), "at least one frame"),
        (np.zeros((8, 6, 3), np.uint8), r"\[8, 6, 3\], a single picture \[H, W, C\] by its last axis, not a clip"),
        (np.array([{}]), "cannot be read as a NumPy array"),
    ],
)
def test_an_array_that_is_no_clip_is_refused_by_what_it_holds(array, message, tmp_path):
    np.save(tmp_path / "clip.npy", array)
    with pytest.raises(VideoError, match=message) as refused:
        sources.open_source(tmp_path / "clip.npy")
    assert str(tmp_path / "clip.npy") in str(refused.value)


@given(some.binary(max_size=60), some.sampled_from([b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04"]))
def test_any_file_called_an_array_is_one_or_refused_in_one_sentence(tmp_path_factory, content, begin):
    path = tmp_path_factory.mktemp("array") / "clip.npy"
    path.write_bytes(begin + content)
    with pytest.raises(VideoError) as refused:
        sources.open_source(path)
    assert "clip.npy" in str(refused.value) and "\n" not in str(refused.value)


def test_an_array_whose_header_python_cannot_take_apart_is_refused(tmp_path):
    path = tmp_path / "clip.npy"
    path.write_bytes(
        b"\x93NUMPY\x01\x00\x48\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1, 8, 8), }" + bytes(80)
    )
    with pytest.raises(VideoError, match="clip.npy cannot be read as a NumPy array"):
        sources.open_source(path)


def test_an_archive_of_arrays_is_no_clip(tmp_path):
    with open(tmp_path / "clip.npy", "wb") as file:
        np.savez(file, np.zeros((2, 4, 6), np.uint8))
    with pytest.raises(VideoError, match="is an archive of arrays"):
        sources.open_source(tmp_path / "clip.npy")


def test_a_folders_frames_come_by_their_numbers_grey_ones_grey(video, tmp_path):
    many = np.concatenate([video, video[::-1], video])[:12]
    source = sources.open_source(write_frames(tmp_path / "colour", many))
    np.testing.assert_array_equal(read(source), many)  # 1, 2, … 10, 11, 12, not 1, 10, 11, …
    assert (source.num_frames, source.frames_per_second) == (12, None)
    np.testing.assert_array_equal(
        read(sources.open_source(write_frames(tmp_path / "grey", video[..., :1]))), video[..., :1]
    )


def test_folders_with_frames_of_two_sizes_or_no_pictures_are_refused_by_the_file(video, tmp_path):
    folder = write_frames(tmp_path / "sizes", video)
    Image.fromarray(video[0, :4]).save(folder / "3.png")
    with pytest.raises(VideoError, match="3.png is 8×4 pixels, but the folder's first frame 8×6"):
        sources.load_clip(folder, channels=3)
    (folder / "3.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match="3.png is no picture that Pillow can read"):
        sources.load_clip(folder, channels=3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="empty"):
        sources.open_source(tmp_path / "empty")
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        sources.open_source(tmp_path / "nowhere")


def test_raw_frames_are_cut_out_of_a_stream(video):
    size = {"height": 6, "width": 8, "channels": 3}
    np.testing.assert_array_equal(read(sources.raw_source(Pipe(video.tobytes()), **size)), video)
    stream = io.BytesIO(b"head" + video.tobytes())
    stream.seek(4)
    source = sources.raw_source(stream, **size)  # a file: read again from where it stood
    np.testing.assert_array_equal(read(source), read(source))


def test_a_raw_stream_that_ends_within_a_frame_or_is_empty_is_refused_after_the_whole_frames(video):
    size = {"height": 6, "width": 8, "channels": 3}
    frames = sources.raw_source(Pipe(video.tobytes()[:-1]), **size).read(None)
    for number in range(4):
        np.testing.assert_array_equal(next(frames), video[number])
    with pytest.raises(VideoError, match="ends within frame 5, after 143 of its 144 bytes"):
        next(frames)
    with pytest.raises(VideoError, match="is empty: expected frames of 144 bytes"):
        next(sources.raw_source(Pipe(b""), **size).read(None))


def test_a_video_file_is_decoded_whole_and_only_made_smaller():
    source = sources.open_source(carphone())
    assert (source.num_frames, source.frame_size) == (120, (144, 176))
    assert source.frames_per_second == pytest.approx(30000 / 1001, rel=1e-6)
    expected = read_video(carphone()).frames
    loaded = sources.load_clip(carphone(), channels=3)
    np.testing.assert_array_equal(loaded.frames, expected)  # a short side of 144 is below 256
    assert loaded.frames_per_second == source.frames_per_second
    small = next(iter(source.read(72)))
    assert small.shape == (72, 88, 3)
    reduced = tf.image.resize(expected[:1], (72, 88), "bicubic", antialias=True)[0]
    assert np.abs(small - reduced.numpy()).mean() < 3.0
