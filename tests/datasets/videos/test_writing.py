"""Videos to shards: what is stored, in which order, and what is rejected."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from nine_videos import CLASSES, contents, frame_sources, write
from PIL import Image
from tiny_videos import MPEG4, cut_file, moving_frames, read_clips, write_frames, write_video

from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import Manifest
from datasets.records.parallel_shards import in_processes
from datasets.records.shard_notes import TooManyRejectedError
from datasets.validate import validate
from datasets.videos import sources, writing
from datasets.videos.sources import Cutting, Rejection, VideoSource, encode_source
from rstg_tf.common.errors import ConfigError, VideoError


def grey(frames):
    return frames[..., :1].repeat(3, axis=-1)


def rejected_rows(out_dir):
    with open(out_dir / "rejected.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_jpeg_frames_are_stored_byte_for_byte_and_all_of_them(nine, tmp_path):
    sources, manifest, _ = nine
    out_dir = tmp_path / "out"
    assert write(sources, out_dir).manifest == manifest == Manifest.read(out_dir)
    clips = read_clips(out_dir, manifest)
    assert sorted(clips) == [source.media_id for source in sources]
    for source in sources:
        clip = clips[source.media_id]
        assert clip["encoded"] == [path.read_bytes() for path in sorted(Path(source.path).iterdir())]
        assert (clip["label"], clip["label_name"]) == (source.label, CLASSES[source.label])
        assert clip["timestamps"].tolist() == [0, 83_333, 166_667, 250_000, 333_333][: len(clip["encoded"])]  # twelfths
    RecordedDataset(out_dir, manifest).check()
    assert list(validate(RecordedDataset(out_dir, manifest))) == [None] * 9


def test_the_manifest_says_what_clips_have_in_common(nine):
    _, manifest, _ = nine
    assert (manifest.num_frames, manifest.height, manifest.width) == (None, 32, 48)
    assert (manifest.channels, manifest.image_format, manifest.classes) == (3, "JPEG", CLASSES)
    assert [shard.records for shard in manifest.shards] == [1, 2, 2, 2, 2]  # 9·k/5: 0, 1, 3, 5, 7, 9
    assert manifest.made_by["num_videos"] == 9 and manifest.made_by["num_rejected"] == 0
    assert manifest.made_by["command"] == "test"


def test_the_order_is_shuffled_by_the_seed_alone(nine, tmp_path):
    sources, manifest, files = nine
    write(sources[::-1], tmp_path / "same")
    assert contents(tmp_path / "same") == files
    other = write(sources, tmp_path / "other", seed=1).manifest
    orders = [list(read_clips(folder, Manifest.read(folder))) for folder in (tmp_path / "same", tmp_path / "other")]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) != orders[0]
    assert other.shards != manifest.shards


def test_video_files_are_made_smaller_but_never_larger(tmp_path):
    # Grey, since JPEG of quality 95 halves the resolution of colours.
    large, small = grey(moving_frames(6, height=96, width=144)), grey(moving_frames(6, height=32, width=48))
    sources = [
        VideoSource("large", str(write_video(tmp_path / "large.mp4", large)), 0),
        VideoSource("small", str(write_video(tmp_path / "small.mp4", small)), 1),
    ]
    manifest = write(sources, tmp_path / "out", short_side=48).manifest
    clips = read_clips(tmp_path / "out", manifest)
    assert clips["large"]["frames"].shape == (6, 48, 72, 3) and clips["small"]["frames"].shape == (6, 32, 48, 3)
    assert (manifest.num_frames, manifest.height, manifest.width) == (6, None, None)
    assert clips["small"]["timestamps"].tolist() == [0, 83_333, 166_667, 250_000, 333_333, 416_667]
    halved = np.stack([np.asarray(Image.fromarray(frame).resize((72, 48), Image.BICUBIC)) for frame in large])
    for found, expected in ((clips["small"]["frames"], small), (clips["large"]["frames"], halved)):
        assert np.abs(found.astype(int) - expected).mean() < 2


def test_a_video_of_default_size_has_a_short_side_of_256(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(2, height=320, width=480), MPEG4)
    encoded = encode_source(VideoSource("a", str(path), 0), 256)
    assert (encoded.height, encoded.width) == (256, 384)


def make_bad_folder(tmp_path, kind):
    folder = write_frames(tmp_path / "bad", moving_frames(num_frames=4))
    frame = folder / "00003.jpg"
    if kind == "cut":
        cut_file(frame, 0.7)
    elif kind == "nothing":
        frame.write_bytes(b"")
    elif kind == "hole":
        frame.unlink()
    elif kind == "size":
        Image.new("RGB", (48, 40)).save(frame)
    elif kind == "float":
        Image.new("F", (48, 32)).save(frame, "TIFF")
    elif kind == "gone":
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    elif kind == "text":
        frame.write_text("not a picture")
    elif kind == "no frames":
        for path in folder.iterdir():
            path.unlink()
    return folder


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "frame 00003.jpg cannot be decoded as JPEG (image file is truncated"),
        ("nothing", "00003.jpg is empty"),
        ("hole", "frame 3 is missing; found 3 of the frames 1 to 4"),
        ("gone", "there is no such video"),
        ("size", "frames differ in size: 48x32 (00001.jpg), 48x40 (00003.jpg)"),
        ("float", "frame 00003.jpg has pixels of floating point"),
        ("text", "frame 00003.jpg is no picture"),
        ("no frames", "holds no frame"),
    ],
)
def test_bad_frame_folders_are_rejected_with_the_reason(tmp_path, kind, reason):
    outcome = encode_source(VideoSource("bad", str(make_bad_folder(tmp_path, kind)), 0), 256)
    assert isinstance(outcome, Rejection) and reason in outcome.reason
    assert str(tmp_path) not in outcome.reason and "0x" not in outcome.reason


def test_png_frames_become_jpeg(tmp_path):
    frames = moving_frames(num_frames=3)
    folder = write_frames(tmp_path / "a", frames, ending=".png")
    encoded = encode_source(VideoSource("a", str(folder), 0), 256)
    assert all(frame.startswith(b"\xff\xd8") for frame in encoded.frames)


def test_rejected_videos_are_listed_sorted_and_the_rest_is_written(tmp_path):
    sources = frame_sources(tmp_path / "frames")
    cut_file(tmp_path / "frames" / "7" / "00002.jpg", 0.5)
    sources[2] = VideoSource("2", sources[2].path, None)
    sources.append(VideoSource("0 more", str(tmp_path / "nowhere"), 1))
    written = write(sources, tmp_path / "out", max_bad_fraction=0.3)
    assert written.num_rejected == 3 and written.manifest.num_clips == 7
    assert written.manifest.made_by["num_rejected"] == 3
    rows = rejected_rows(tmp_path / "out")
    assert [row[0] for row in rows] == ["media_id", "0 more", "2", "7"]
    assert [row[1] for row in rows[1:]] == [str(tmp_path / "nowhere"), sources[2].path, sources[7].path]
    assert rows[1][2] == "there is no such video." and rows[2][2] == "has no label." and "00002.jpg" in rows[3][2]


def test_a_shard_whose_videos_are_all_rejected_is_empty_and_valid(tmp_path):
    sources = frame_sources(tmp_path / "frames", num_videos=3)
    cut_file(tmp_path / "frames" / "1" / "00002.jpg", 0.5)
    manifest = write(sources, tmp_path / "out", videos_per_shard=1, max_bad_fraction=0.5).manifest
    assert sorted(shard.records for shard in manifest.shards) == [0, 1, 1]
    RecordedDataset(tmp_path / "out", manifest).check()
    assert list(validate(RecordedDataset(tmp_path / "out", manifest))) == [None, None]


def test_too_many_rejected_videos_leave_no_data_set_but_finished_shards(tmp_path):
    sources = frame_sources(tmp_path / "frames")
    for number in (0, 4):
        cut_file(tmp_path / "frames" / str(number) / "00002.jpg", 0.5)
    out_dir = tmp_path / "out"
    with pytest.raises(TooManyRejectedError, match=r"of 9 videos are rejected.*allows 0.*rejected\.csv"):
        write(sources, out_dir)
    assert not (out_dir / "dataset.json").exists() and len(rejected_rows(out_dir)) >= 2
    before = {path.name: path.stat().st_ino for path in out_dir.glob("*.tfrecord")}
    assert before
    assert write(sources, out_dir, max_bad_fraction=0.25).manifest.num_clips == 7
    assert before == {name: (out_dir / name).stat().st_ino for name in before}
    with pytest.raises(TooManyRejectedError, match="2 of 9 videos are rejected, and"):
        write(sources, out_dir)
    assert not (out_dir / "dataset.json").exists()


def test_it_stops_after_the_shard_in_which_failure_is_certain(tmp_path):
    sources = frame_sources(tmp_path / "frames")
    for source in sources:
        cut_file(Path(source.path) / "00001.jpg", 0.5)
    with pytest.raises(TooManyRejectedError, match=r"3 of 9 videos are rejected so far, and .* allows 2"):
        write(sources, tmp_path / "out", max_bad_fraction=0.25)
    assert len(list((tmp_path / "out").glob("*.tfrecord"))) == 2  # one video in the first, two in the second


def test_a_mended_video_is_taken_in_and_nothing_else_written_again(nine, tmp_path):
    sources, manifest, files = nine
    broken = tmp_path / "frames"
    mine = frame_sources(broken)
    frame = broken / "5" / "00001.jpg"
    whole = frame.read_bytes()
    frame.unlink()
    assert write(mine, tmp_path / "out", max_bad_fraction=0.2).num_rejected == 1
    before = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.tfrecord")}
    frame.write_bytes(whole)
    assert write(mine, tmp_path / "out").manifest == manifest
    assert contents(tmp_path / "out") == files
    changed = [name for name, inode in before.items() if (tmp_path / "out" / name).stat().st_ino != inode]
    assert len(changed) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"worker_index": 2, "num_workers": 2}, "--worker_index=2: expected 0 to 1"),
        ({"max_bad_fraction": 1.5}, "--max_bad_fraction"),
        ({"videos_per_shard": 0}, "--videos_per_shard=0"),
        ({"seed": -1}, "--seed=-1"),
        ({"sources": []}, "no video"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(nine, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        write(**{"sources": nine[0], "out_dir": tmp_path / "out", **changes})
    assert not (tmp_path / "out").exists()


def test_a_fault_of_the_machine_is_no_fault_of_the_video(nine, tmp_path, monkeypatch):
    def fail(source, short_side, limits):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(writing, "encode_source", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write(nine[0], tmp_path / "out", max_bad_fraction=1)
    assert not list((tmp_path / "out").glob("*.tfrecord")) and not (tmp_path / "out" / "rejected.csv").exists()


def test_clips_are_cut_at_every_stride_as_long_as_there_is_room():
    source = VideoSource("a", "a.mp4", 1)
    starts = [clip.start for clip in Cutting(clip_frames=4, clip_stride=3).clips(source, 12)]
    assert starts == [0, 3, 6]  # a clip from 9 would end at 13
    clips = Cutting(clip_frames=4).clips(source, 12)
    assert [(clip.media_id, clip.start, clip.stop) for clip in clips] == [("a#0", 0, 4), ("a#4", 4, 8), ("a#8", 8, 12)]
    with pytest.raises(VideoError, match="3 frames, fewer than the 4 that --clip_frames=4 needs"):
        Cutting(clip_frames=4).clips(source, 3)


@pytest.mark.parametrize("num_frames", [8, 9, 11, 12, 23, 40, 131])
@pytest.mark.parametrize("seed", range(6))
def test_split_by_time_no_frame_is_on_both_sides_and_both_sides_have_clips(num_frames, seed):
    frames = {}
    for part in ("train", "validation"):
        cutting = Cutting(clip_frames=4, clip_stride=1, part=part, validation_share=0.25, split_seed=seed)
        clips = cutting.clips(VideoSource("a", "a.mp4", 0), num_frames)
        assert all(0 <= clip.start and clip.stop <= num_frames for clip in clips)
        frames[part] = {frame for clip in clips for frame in range(clip.start, clip.stop)}
    assert frames["train"] and frames["validation"] and not frames["train"] & frames["validation"]
    assert len(frames["validation"]) == max(round(0.25 * num_frames), 4)


def test_jpegs_of_a_long_video_are_counted_as_they_are_made(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", moving_frames(40))
    made = []
    monkeypatch.setattr(sources, "_to_jpeg", lambda frame: made.append(frame) or bytes(1000))
    limits = dataclasses.replace(sources.DEFAULT_SOURCE_LIMITS, video_bytes=3500)
    found = sources.encode_source(sources.VideoSource("a", str(path), 0), 256, limits)
    assert found.reason.startswith("4 frames make 4000 bytes, too much to be held in memory") and len(made) == 4


def test_a_video_that_is_cut_into_clips_is_bounded_by_its_clips_alone(monkeypatch):
    video = sources.EncodedVideo(frames=[bytes(1000)] * 10, timestamps=None, height=1, width=1)
    monkeypatch.setattr(sources, "_LARGEST_RECORD", 3000)
    video.require_records([sources.ClipRange("a", 0, start, start + 3) for start in range(7)])
    with pytest.raises(VideoError, match="4 frames make 4000 bytes, too much for one record"):
        video.require_records([sources.ClipRange("a", 0, 2, 6)])


def test_a_process_that_reads_videos_has_its_memory_limited():
    with pytest.raises(MemoryError):
        list(in_processes(bytearray, [(2**30,)], num_processes=2, memory=2**29))
    assert list(in_processes(bytearray, [(2,)], num_processes=2, memory=2**29)) == [bytearray(2)]
