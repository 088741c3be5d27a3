"""Stored frames are compared with their sources: as they were, shown wrongly, and by the command's warning."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny_videos import moving_frames, write_frames, write_video

from datasets.records.manifest import Manifest
from datasets.records.shard_notes import NOTES_FOLDER
from datasets.video_folder import main
from datasets.videos import sources
from datasets.videos.sources import Cutting, VideoSource
from datasets.videos.writing import write_videos


def written(tmp_path, videos, **settings):
    return write_videos(
        sources=videos,
        classes=("a", "a, backwards"),
        out_dir=tmp_path / "out",
        name="n",
        split="train",
        made_by={},
        num_processes=1,
        show_progress=False,
        **settings,
    )


def test_jpeg_frames_are_stored_as_they_were(tmp_path):
    folder = write_frames(tmp_path / "v", moving_frames(5))
    found = written(tmp_path, [VideoSource("v", str(folder), 0)])
    assert found.lowest.value == 1.0 and (found.lowest.media_id, found.lowest.frame) == ("v", 2)
    assert Manifest.read(tmp_path / "out").made_by["lowest_ssim"] == 1.0


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_right_frame_of_a_clip_is_compared_forwards_and_backwards(tmp_path, kind):
    # Every frame is another picture, so that a frame beside the right one would be unlike it.
    frames = np.stack([moving_frames(1, height=64, width=64, seed=seed)[0] for seed in range(24)])
    path = (
        write_video(tmp_path / "v.mp4", frames)
        if kind == "file"
        else write_frames(tmp_path / "v", frames, ending=".png")
    )
    cutting = Cutting(clip_frames=8, add_reversed=True, num_classes=1)
    assert written(tmp_path, [VideoSource("v", str(path), 0)], cutting=cutting).lowest.value > 0.95


def test_frames_that_are_stored_wrongly_are_found_and_warned_of(tmp_path, monkeypatch, capsys):
    for split in ("train", "val"):
        write_frames(tmp_path / "in" / split / "a" / "v", moving_frames(3), ending=".png")
    to_jpeg = sources._to_jpeg
    monkeypatch.setattr(sources, "_to_jpeg", lambda frame: to_jpeg(np.ascontiguousarray(frame[:, ::-1])))
    code = main([f"--videos={tmp_path / 'in'}", f"--out_dir={tmp_path / 'out'}", "--num_processes=1"])
    output, errors = capsys.readouterr()
    assert code == 0 and json.loads(output)["lowest_ssim"] < 0.9
    assert "warning: of a sample of the stored frames, frame 1 of a/v is like its source by" in errors
    assert Manifest.read(tmp_path / "out" / "train").made_by["lowest_ssim_clip"] == "a/v"


def test_frames_that_are_too_small_are_not_compared(tmp_path):
    (tmp_path / "v").mkdir()
    Image.new("RGB", (10, 8)).save(tmp_path / "v" / "1.png")
    assert written(tmp_path, [VideoSource("v", str(tmp_path / "v"), 0)]).lowest is None
    assert "lowest_ssim" not in Manifest.read(tmp_path / "out").made_by


def test_folders_begun_by_an_earlier_version_are_completed(tmp_path):
    folder = write_frames(tmp_path / "v", moving_frames(3))
    written(tmp_path, [VideoSource("v", str(folder), 0)])
    [path] = (tmp_path / "out" / NOTES_FOLDER).glob("*.tfrecord.json")
    note = json.loads(path.read_text())
    del note["similarities"]
    path.write_text(json.dumps(note))
    assert written(tmp_path, [VideoSource("v", str(folder), 0)]).lowest is None
