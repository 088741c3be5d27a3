"""The command line of train.py: what is refused, with which sentence and exit code; the name of a run; --help."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from mixed_videos import CLASSES, write_videos
from train_flags import SECONDS, write_flag_file

import train

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def flag_file(tmp_path_factory, toy_records) -> pathlib.Path:
    return write_flag_file(tmp_path_factory.mktemp("flags"), toy_records)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bach_size=3"], "batch_size"),
        (["--batch_size=0"], "--batch_size=0"),
        (["--num_steps=3", "--num_epochs=3"], "--num_epochs"),
        (["--num_classes=46"], "give --num_classes=2"),
        (["--video_num_frames=10"], "give --video_num_frames=4"),
        (["--dim_h=64"], "give --dim_h=12"),
        (["--train_dataset="], "--train_dataset"),
        (["--restore_dir=/no/such/run"], "--restore_dir=/no/such/run"),
        (
            ["--flagfile=/no/such/file"],
            "train.py: --flagfile=/no/such/file: cannot be read (No such file or directory)",
        ),
        (["--eval_every=5", "--test_dataset="], "--test_dataset"),
        (["--train_dataset=/no/such/folder"], "python -m datasets.sync_mnist --split=train --out_dir=/no/such/folder"),
    ],
)
def test_a_wrong_command_ends_with_2_and_a_sentence_and_makes_no_folder(arguments, named, flag_file, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert train.main([f"--flagfile={flag_file}", f"--model_dir={run_dir}", *arguments]) == 2
    refusal = capsys.readouterr().err
    assert named in refusal
    assert refusal.startswith("train.py: ") and refusal.count("\n") == 1
    assert not run_dir.exists()


def test_missing_rgb_records_are_told_the_tools_that_write_them(flag_file, tmp_path, capsys):
    assert (
        train.main(
            [
                f"--flagfile={flag_file}",
                f"--model_dir={tmp_path / 'run'}",
                "--num_chan=3",
                "--train_dataset=/no/such/folder",
            ]
        )
        == 2
    )
    message = capsys.readouterr().err
    assert "python -m datasets.something_something" in message and "python -m datasets.video_folder" in message


def test_videos_need_a_short_side_for_the_models_crop(flag_file, tmp_path, capsys):
    manifest, _ = write_videos(tmp_path / "videos", [(5, 20, 30)] * 2, classes=CLASSES[:2])
    arguments = [
        f"--flagfile={flag_file}",
        f"--model_dir={tmp_path / 'run'}",
        "--num_chan=3",
        f"--train_dataset={tmp_path / 'videos'}",
        "--test_dataset=",
    ]
    assert train.main([*arguments, "--short_side=10"]) == 2
    assert "--short_side=10: expected at least 12" in capsys.readouterr().err
    # A common height alone is no size: the widths differ.
    dataclasses.replace(manifest, height=20).write(tmp_path / "videos")
    assert train.main([*arguments, "--short_side=10"]) == 2
    assert "--short_side=10: expected at least 12" in capsys.readouterr().err


def test_a_shard_cut_at_a_record_boundary_is_refused_before_step_0(flag_file, toy_records, tmp_path, capsys):
    copy = tmp_path / "train"
    shutil.copytree(toy_records / "train", copy)
    shard = sorted(copy.glob("*.tfrecord"))[0]
    first_record = 16 + int.from_bytes(shard.read_bytes()[:8], "little")
    os.truncate(shard, first_record)
    run_dir = tmp_path / "run"
    assert train.main([f"--flagfile={flag_file}", f"--model_dir={run_dir}", f"--train_dataset={copy}"]) == 2
    assert shard.name in capsys.readouterr().err
    assert not run_dir.exists()


def test_a_refusal_comes_without_loading_tensorflow(flag_file):
    code = "import sys, train; code = train.main(sys.argv[1:]); assert 'tensorflow' not in sys.modules; sys.exit(code)"
    finished = subprocess.run(
        [sys.executable, "-c", code, f"--flagfile={flag_file}", "--seed=-1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (2, "train.py: --seed=-1: expected at least 0.\n")


def test_the_run_is_named_after_the_first_flag_file():
    assert train.default_model_dir(["--flagfile=configs/demo.flags", "--flagfile=x.flags"]) == "runs/demo"
    assert train.default_model_dir(["--seed=1", "-flagfile", "syncmnist.flags"]) == "runs/syncmnist"


def test_without_a_flag_file_the_demos_is_read(monkeypatch, tmp_path, capsys):
    flag_file = tmp_path / "demo.flags"
    flag_file.write_text("--train_dataset=/no/such/folder\n")
    monkeypatch.setattr(train, "DEMO_FLAGS", str(flag_file))
    assert train.main([]) == 2
    printed = capsys.readouterr()
    assert "no --flagfile: reading" in printed.out and "/no/such/folder" in printed.err


def test_help_shows_every_flag(capsys):
    from rstg_tf import flag_table

    assert train.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for field in flag_table.FIELDS:
        assert f"--{field.flag}:" in shown or f"--[no]{field.flag}:" in shown
