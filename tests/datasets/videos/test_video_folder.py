"""The command on folders of videos: splits that hold videos or time apart, clips cut and played backwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from keras_stack import without_greeting
from tiny_videos import bundled_clip, cut_file, moving_frames, read_clips, write_frames, write_video

from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import Manifest
from datasets.validate import validate
from datasets.video_folder import main, split_videos
from datasets.videos.folders import find_videos
from rstg_tf.common.errors import ConfigError


def run(capsys, videos, out_dir, *flags):
    """(exit code, last line or None, stderr) of the command."""
    code = main([f"--videos={videos}", f"--out_dir={out_dir}", "--num_processes=1", *flags])
    output, errors = capsys.readouterr()
    return code, json.loads(output.splitlines()[-1]) if output else None, errors


def frame_folders(folder, classes=("up", "down"), per_class=8, num_frames=3):
    for label, name in enumerate(classes):
        for number in range(per_class):
            write_frames(folder / name / str(number), moving_frames(num_frames, seed=100 * label + number))
    return folder


def clips_of(out_dir, split):
    manifest = Manifest.read(out_dir / split)
    RecordedDataset(out_dir / split, manifest).check()
    assert all(fault is None for fault in validate(RecordedDataset(out_dir / split, manifest)))
    return read_clips(out_dir / split, manifest), manifest


def test_a_folder_per_class_becomes_train_and_validation(capsys, tmp_path):
    videos = frame_folders(tmp_path / "videos")
    code, summary, _ = run(capsys, videos, tmp_path / "out", "--validation_share=0.25", "--videos_per_shard=5")
    assert code == 0 and summary["classes"] == 2 and summary["rejected"] == 0 and summary["complete"]
    train, manifest = clips_of(tmp_path / "out", "train")
    validation, _ = clips_of(tmp_path / "out", "validation")
    assert summary["clips"] == {"train": len(train), "validation": len(validation)}
    assert not set(train) & set(validation) and len(train) + len(validation) == 16
    assert manifest.classes == ("down", "up") and manifest.split == "train"
    for clips in (train, validation):
        assert all(clip["label_name"] == media_id.split("/")[0] for media_id, clip in clips.items())
    media_id, clip = next(iter(validation.items()))
    assert clip["encoded"] == [path.read_bytes() for path in sorted((videos / media_id).iterdir())]


def test_another_video_moves_no_other_to_the_other_side(tmp_path):
    videos = frame_folders(tmp_path / "videos")
    before = split_videos(videos, split_by="file", validation_share=0.3, seed=0)[1]
    write_frames(videos / "up" / "0 new", moving_frames(num_frames=3))
    after = split_videos(videos, split_by="file", validation_share=0.3, seed=0)[1]
    for split in ("train", "validation"):
        assert {source.media_id for source in after[split]} - {"up/0 new"} == {s.media_id for s in before[split]}
    other = split_videos(videos, split_by="file", validation_share=0.3, seed=2)[1]
    assert {source.media_id for source in other["train"]} != {source.media_id for source in after["train"]}


def test_the_hash_holds_out_the_share_that_was_asked_for(tmp_path):
    for number in range(600):
        (tmp_path / "a" / f"{number}.mp4").parent.mkdir(exist_ok=True)
        (tmp_path / "a" / f"{number}.mp4").touch()
    held_out = split_videos(tmp_path, split_by="file", validation_share=0.2, seed=0)[1]["validation"]
    assert abs(len(held_out) / 600 - 0.2) < 0.05  # three standard deviations of 600 draws


def test_a_split_that_is_there_is_kept(capsys, tmp_path):
    frame_folders(tmp_path / "videos" / "train", per_class=2)
    frame_folders(tmp_path / "videos" / "validation", per_class=1)
    code, summary, _ = run(capsys, tmp_path / "videos", tmp_path / "out")
    assert code == 0 and summary["clips"] == {"train": 4, "validation": 2}
    assert sorted(clips_of(tmp_path / "out", "train")[0]) == ["down/0", "down/1", "up/0", "up/1"]
    shutil.rmtree(tmp_path / "videos" / "validation" / "up")
    code, _, errors = run(capsys, tmp_path / "videos", tmp_path / "other")
    assert code == 2 and "the class 'up' is not in both" in errors


def test_split_by_time_neighbouring_clips_share_no_frame(capsys, tmp_path):
    for name in ("bikes", "carphone_pristine"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        (tmp_path / "videos" / name / "clip.mp4").symlink_to(bundled_clip(f"{name}.mp4"))
    code, summary, errors = run(
        capsys,
        tmp_path / "videos",
        tmp_path / "out",
        "--split_by=time",
        "--clip_frames=8",
        "--clip_stride=6",
        "--short_side=32",
    )
    assert code == 0, errors
    frames = {}
    for split in ("train", "validation"):
        clips, manifest = clips_of(tmp_path / "out", split)
        assert (manifest.num_frames, manifest.height, manifest.width) == (8, 32, None)
        assert {clip["label_name"] for clip in clips.values()} == {"bikes", "carphone_pristine"}
        starts = [(path, int(start)) for path, _, start in (media_id.partition("#") for media_id in clips)]
        frames[split] = {(path, frame) for path, start in starts for frame in range(start, start + 8)}
        for media_id, clip in clips.items():
            assert clip["timestamps"][0] == 0 and clip["timestamps"][-1] == pytest.approx(
                7e6 / (25 if media_id.startswith("bikes") else 29.97), rel=1e-3
            )
    assert not frames["train"] & frames["validation"]
    # A fifth of 250 and 120 frames, 50 and 24, in clips of 8 at 0, 6, 12, …: 1 + 42 // 6 and 1 + 16 // 6.
    assert summary["clips"]["validation"] == 8 + 3


def test_clips_played_backwards_are_classes_of_their_own(capsys, tmp_path):
    (tmp_path / "videos" / "forwards").mkdir(parents=True)
    for name in ("bigbuckbunny.mp4", "carphone_pristine.mp4"):
        (tmp_path / "videos" / "forwards" / name).symlink_to(bundled_clip(name))
    code, summary, errors = run(
        capsys,
        tmp_path / "videos",
        tmp_path / "out",
        "--split_by=time",
        "--clip_frames=12",
        "--add_reversed",
        "--short_side=36",
    )
    assert code == 0 and summary["classes"] == 2, errors
    clips, manifest = clips_of(tmp_path / "out", "train")
    assert manifest.classes == ("forwards", "forwards, backwards")
    forwards = {media_id: clip for media_id, clip in clips.items() if clip["label"] == 0}
    assert len(clips) == 2 * len(forwards) > 10
    for media_id, clip in forwards.items():
        backwards = clips[f"{media_id}, backwards"]
        assert backwards["label"] == 1 and backwards["encoded"] == clip["encoded"][::-1]
        np.testing.assert_array_equal(np.diff(backwards["timestamps"]), np.diff(clip["timestamps"])[::-1])


def test_a_video_too_short_for_a_clip_is_rejected(capsys, tmp_path):
    videos = frame_folders(tmp_path / "videos", num_frames=4)
    write_frames(videos / "up" / "short", moving_frames(num_frames=2))
    code, _, errors = run(capsys, videos, tmp_path / "out", "--clip_frames=3", "--validation_share=0.25")
    assert code == 1 and "1 of " in errors and "up/short" in errors and "2 frames, fewer than the 3" in errors


def test_stray_and_broken_files_are_listed(capsys, tmp_path):
    videos = tmp_path / "videos"
    for number in range(6):
        write_video(videos / "a" / f"{number}.mp4", moving_frames(num_frames=4, seed=number))
    (videos / "a" / "README.txt").write_text("about these videos\n" * 20)
    (videos / "a" / ".DS_Store").write_bytes(b"\0")
    cut_file(videos / "a" / "3.mp4", 0.5)
    code, summary, _ = run(capsys, videos, tmp_path / "out", "--max_bad_fraction=1", "--validation_share=0.5")
    assert code == 0 and summary["rejected"] == 2 and sum(summary["clips"].values()) == 5
    rows = [
        line.split(",")[0]
        for split in ("train", "validation")
        for line in (tmp_path / "out" / split / "rejected.csv").read_text().splitlines()[1:]
    ]
    assert sorted(rows) == ["a/3.mp4", "a/README.txt"]


def test_videos_may_lie_in_folders_of_their_class(tmp_path):
    write_frames(tmp_path / "a" / "monday" / "1", moving_frames(num_frames=2))
    (tmp_path / "a" / "monday" / "x.mp4").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "y.mp4").touch()
    classes, sources = find_videos(tmp_path)
    assert classes == ("a", "b")
    assert [(s.media_id, s.label) for s in sources] == [("a/monday/1", 0), ("a/monday/x.mp4", 0), ("b/y.mp4", 1)]


def test_folders_that_are_none_of_this_kind_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be listed"):
        find_videos(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no folder; expected one per class"):
        find_videos(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="the class 'a' holds no video"):
        find_videos(tmp_path)
    write_frames(tmp_path / "a", moving_frames(num_frames=2))
    with pytest.raises(ConfigError, match="the class 'a' holds single frames; expected a folder for each video"):
        find_videos(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split_by=time"], "--split_by=time needs --clip_frames"),
        (["--clip_stride=4"], "needs --clip_frames"),
        (["--validation_share=0"], "--validation_share=0.0: expected more than 0"),
        (["--clip_frames=-1"], "--clip_frames"),
        (["--split_by=clip"], "split_by"),
        (["--validation_share=0.999"], "puts every video of the class 'down'"),
        (["--validation_share=0.001"], "puts no video into validation"),
        (["--worker_index=1"], "--worker_index=1"),
    ],
)
def test_wrong_flags_end_with_exit_code_2_and_one_sentence(capsys, tmp_path, flags, message):
    videos = frame_folders(tmp_path / "videos", per_class=2)
    code, _, errors = run(capsys, videos, tmp_path / "out", *flags)
    assert code == 2 and message in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_two_workers_complete_what_one_would(capsys, tmp_path):
    videos = frame_folders(tmp_path / "videos")
    run(capsys, videos, tmp_path / "one", "--videos_per_shard=3")
    flags = ("--videos_per_shard=3", "--num_workers=2")
    code, summary, errors = run(capsys, videos, tmp_path / "two", *flags, "--worker_index=0")
    assert code == 0 and not summary["complete"] and summary["missing_shards"] >= 2 and "are missing" in errors
    code, summary, _ = run(capsys, videos, tmp_path / "two", *flags, "--worker_index=1")
    assert code == 0 and summary["complete"]
    for split in ("train", "validation"):
        assert Manifest.read(tmp_path / "one" / split) == Manifest.read(tmp_path / "two" / split)


def test_the_command_line_ends_with_one_line_of_json(tmp_path):
    videos = frame_folders(tmp_path / "videos")
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "datasets.video_folder",
            f"--videos={videos}",
            f"--out_dir={tmp_path / 'out'}",
            "--num_processes=2",
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["complete"] and sum(summary["clips"].values()) == 16
    assert not without_greeting(finished.stderr)
