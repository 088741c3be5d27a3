"""eval.py on several views of each video."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from mixed_videos import pillow_frames, write_videos
from PIL import Image

import eval as eval_script
from rstg_tf import flags, runs
from rstg_tf.model import build_model


def refused(capsys, *arguments):
    """The one line that eval.py ends with, with exit code 2."""
    assert eval_script.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("eval.py: ") and "Traceback" not in message
    return message


VIDEO_SIZES = ((9, 20, 30), (4, 20, 33), (3, 14, 40), (1, 31, 26), (6, 20, 20))


@pytest.fixture
def video_run(tmp_path, toy_settings):
    """A run of random weights on 12×12 crops of four frames, and a data set of five videos; its folder and theirs."""
    manifest, encoded = write_videos(tmp_path / "videos", VIDEO_SIZES)
    config = flags.config_from_settings(
        {
            **toy_settings,
            "num_chan": 3,
            "num_classes": len(manifest.classes),
            "short_side": 20,
            "num_eval_spatial_clips": 3,
            "num_eval_temporal_clips": 2,
            "test_dataset": str(tmp_path / "videos"),
        }
    )
    folder = tmp_path / "runs" / "video"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    shutil.copy(tmp_path / "videos" / "dataset.json", folder / "test_dataset.json")
    tf.train.Checkpoint(model=build_model(config.model)).write(str(folder / "checkpoints" / "ckpt-5"))
    return runs.open_run(str(folder)), encoded


def evaluate_here(run, capsys, *arguments):
    """(result, logits) of eval.py in this process."""
    assert eval_script.main([f"--model_dir={run.path}", *arguments]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    with np.load(os.path.join(run.path, "scores.npz")) as scores:
        return result, scores["logits"]


def views_of(frames, *, side, samplings, crops):
    """The views of a video with a short side of 20, from its definition: samplings × crops clips of four frames."""
    views = []
    for sampling in range(samplings):
        start = round(sampling / samplings * len(frames) / 4)
        indices = np.minimum(np.linspace(start, len(frames) - 1 + start, 4).astype(int), len(frames) - 1)
        rooms = [length - side for length in frames.shape[1:3]]
        for crop in range(crops):
            top, left = (int(np.linspace(0, room, crops)[crop]) if crops > 1 else room // 2 for room in rooms)
            views.append(frames[indices][:, top : top + side, left : left + side])
    return np.stack(views)


@pytest.mark.parametrize(
    "arguments, view",
    [
        ([], dict(side=20, samplings=2, crops=3)),
        (["--batch_size=4"], dict(side=20, samplings=2, crops=3)),
        (["--num_eval_spatial_clips=1", "--num_eval_temporal_clips=1"], dict(side=12, samplings=1, crops=1)),
        (
            ["--num_eval_spatial_clips=5", "--num_eval_temporal_clips=1", "--eval_crop_size=16"],
            dict(side=16, samplings=1, crops=5),
        ),
    ],
)
def test_the_logits_of_a_video_are_the_mean_over_its_views(video_run, capsys, arguments, view):
    run, encoded = video_run
    result, logits = evaluate_here(run, capsys, "--noreport", *arguments)
    assert (result["clips"], result["views"]) == (5, view["samplings"] * view["crops"])
    assert (result["spatial_views"], result["temporal_views"], result["crop_size"]) == (
        view["crops"],
        view["samplings"],
        [view["side"]] * 2,
    )
    model, _ = run.load_model()
    for number in (0, 1, 4):  # the videos that are as large as they are wanted
        expected = np.mean(model(views_of(pillow_frames(encoded[number]), **view)), axis=0)
        np.testing.assert_allclose(logits[number], expected, atol=1e-5)


def test_the_report_of_a_dense_evaluation_shows_centre_views_and_names_confused_classes(video_run, capsys):
    run, _ = video_run
    result, logits = evaluate_here(run, capsys)
    report = pathlib.Path(run.path) / "report"
    for record in json.loads((report / "clips.json").read_text(encoding="utf-8")):
        with Image.open(report / record["file"]) as animation:
            assert animation.n_frames == 4
    names = run.class_names()
    labels = np.arange(5) % len(names)
    wrong = [(names[label], names[best]) for label, best in zip(labels, logits.argmax(axis=1)) if label != best]
    assert sorted((pair["true"], pair["predicted"]) for pair in result["confused_pairs"]) == sorted(set(wrong))
    assert sum(pair["clips"] for pair in result["confused_pairs"]) == len(wrong)
    assert json.loads((pathlib.Path(run.path) / "result.json").read_text()) == result
    assert (report / "per_class.csv").read_text(encoding="utf-8").splitlines()[1].startswith(f"0,{names[0]},2,")


def test_views_that_cannot_differ_or_fit_are_refused(video_run, small_run, capsys):
    assert "--num_eval_spatial_clips=2: the crops would be alike" in refused(
        capsys, f"--model_dir={small_run.path}", "--num_eval_spatial_clips=2"
    )
    assert "--eval_crop_size=21: expected at most 20" in refused(
        capsys, f"--model_dir={video_run[0].path}", "--eval_crop_size=21"
    )
