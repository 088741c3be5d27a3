"""The real train.py in processes of its own: whole runs, killed ones, refused ones."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from keras_stack import without_greeting
from mixed_videos import CLASSES, write_videos

import train

ROOT = pathlib.Path(__file__).resolve().parents[1]
SECONDS = 240  # far above what any of these runs takes; a hang fails instead of blocking


@pytest.fixture(scope="module")
def flag_file(tmp_path_factory, toy_records) -> pathlib.Path:
    """A small run with everything that has state: slots, batch norm, averages, dropout, augmentation."""
    path = tmp_path_factory.mktemp("flags") / "toy.flags"
    path.write_text(
        "\n".join(
            [
                f"--train_dataset={toy_records / 'train'}",
                f"--test_dataset={toy_records / 'test'}",
                "--num_conv_layers=1",
                "--num_filters=4",
                "--num_scales=2",
                "--num_process_iter=1",
                "--node_feat_dim=4",
                "--message_dims=4",
                "--dim_h=12",
                "--dim_w=12",
                "--video_num_frames=4",
                "--num_classes=2",
                "--batch_size=8",
                "--pixel_scaling=centred",
                "--input_batch_norm",
                "--optimizer=adam",
                "--learning_rate=1e-3",
                "--ema_momentum=0.9",
                "--classification_dropout=0.2",
                "--brightness=0.1",
                "--horizontal_flip",
            ]
        )
    )
    return path


def _start(flag_file, run_dir, *arguments) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), f"--flagfile={flag_file}", f"--model_dir={run_dir}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _run(flag_file, run_dir, *arguments) -> subprocess.CompletedProcess:
    process = _start(flag_file, run_dir, *arguments)
    out, err = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _result(finished: subprocess.CompletedProcess) -> dict:
    """The JSON of the last line of a run that ended well."""
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def _wait_for(path: pathlib.Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def _tensors(run_dir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(run_dir / "checkpoints" / f"ckpt-{step}"))
    # save_counter is TensorFlow's count of the files written so far, no part of the training.
    names = [
        name
        for name in reader.get_variable_to_shape_map()
        if name.endswith("/VARIABLE_VALUE") and not name.startswith("save_counter")
    ]
    return {name: reader.get_tensor(name) for name in names}


def _assert_same_bits(run_dir: pathlib.Path, other: pathlib.Path, step: int) -> None:
    ours, theirs = _tensors(run_dir, step), _tensors(other, step)
    assert ours.keys() == theirs.keys()
    assert any("average" in name for name in ours) and any("optimizer" in name for name in ours)
    for name in ours:
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def _stale(run_dir: pathlib.Path) -> list[str]:
    return [path.name for path in run_dir.rglob("*") if re.search(r"_temp|\.tmp", path.name)]


KILLED_OPTIONS = ("--num_steps=230", "--save_every=20", "--steps_per_call=7", "--print_every=115", "--eval_every=115")


@pytest.fixture(scope="module")
def uninterrupted(flag_file, tmp_path_factory) -> tuple[pathlib.Path, subprocess.CompletedProcess]:
    """20 clips, 8 a step: 2.5 steps an epoch, so that most steps lie in the midst of one."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return run_dir, _run(flag_file, run_dir, *KILLED_OPTIONS)


@pytest.mark.slow
def test_a_run_says_what_it_does_and_where_it_lies(uninterrupted):
    run_dir, finished = uninterrupted
    result = _result(finished)
    assert (result["step"], result["total_steps"], result["interrupted"]) == (230, 230, None)
    assert without_greeting(finished.stderr) == ""
    assert 0.0 <= result["best_top1"] <= 1.0
    assert finished.stdout.count("test accuracy") == 2
    assert "loss: sum of the cross-entropies of 8 clips, adam at 0.001, which is 0.001 per clip" in finished.stdout
    lines = [line for line in finished.stdout.splitlines() if line.startswith("step ") and "loss" in line]
    assert [line.split()[1] for line in lines] == ["115/230", "230/230"]
    for word in ("loss", "accuracy", "rate", "clips/s", "waiting for data", "left"):
        assert word in lines[0]
    assert f"python eval.py --model_dir={run_dir}" in finished.stdout
    names = {path.name for path in run_dir.iterdir()}
    assert {"config.json", "train_dataset.json", "test_dataset.json", "checkpoints", "tensorboard"} <= names


@pytest.mark.slow
def test_a_run_killed_in_the_midst_of_an_epoch_ends_with_the_bits_of_an_uninterrupted_one(
    flag_file, uninterrupted, tmp_path
):
    killed = tmp_path / "killed"
    process = _start(flag_file, killed, *KILLED_OPTIONS)
    _wait_for(killed / "checkpoints" / "ckpt-80.index", process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert not (killed / "checkpoints" / "ckpt-230.index").exists(), "finished before it was killed"
    (killed / "checkpoints" / "ckpt-99_temp").mkdir()  # whatever this kill has left, such a thing is there as well
    finished = _run(flag_file, killed, *KILLED_OPTIONS)
    assert _result(finished)["step"] == 230
    begun = int(re.search(r"going on from step (\d+)", finished.stdout).group(1))
    assert begun >= 60 and begun % 20 == 0
    _assert_same_bits(uninterrupted[0], killed, 230)
    assert _stale(killed) == []


@pytest.mark.slow
def test_sigterm_in_a_call_of_many_steps_saves_that_step_and_exits_with_0(flag_file, tmp_path, capsys):
    endless = (
        "--num_steps=10000000",
        "--save_every=10000000",
        "--save_minutes=0",
        "--print_every=10000000",
        "--steps_per_call=10000000",
    )
    stopped, straight = tmp_path / "stopped", tmp_path / "straight"
    process = _start(flag_file, stopped, *endless)
    for line in process.stdout:
        if line.startswith("built in"):
            break
    assert train.main([f"--flagfile={flag_file}", f"--model_dir={stopped}", *endless]) == 2
    assert f"another trainer works in this folder (process {process.pid})" in capsys.readouterr().err
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=SECONDS)
    result = _result(subprocess.CompletedProcess([], process.returncode, out, err))
    assert result["finished"] is False and result["interrupted"] == "SIGTERM"
    assert 0 < result["step"] < 10_000_000
    assert f"stopped by SIGTERM after step {result['step']}" in out
    length = result["step"] + 30
    assert _result(_run(flag_file, straight, f"--num_steps={length}"))["step"] == length
    resumed = _run(flag_file, stopped, f"--num_steps={length}")
    assert f"going on from step {result['step']}" in resumed.stdout
    _assert_same_bits(stopped, straight, _result(resumed)["step"])


@pytest.mark.slow
def test_two_replicas_resume_to_the_same_bits(flag_file, tmp_path):
    options = ("--num_virtual_devices=2", "--save_every=10", "--steps_per_call=4")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert "2 replica(s)" in _run(flag_file, whole, "--num_steps=20", *options).stdout
    _result(_run(flag_file, parted, "--num_steps=10", *options))
    resumed = _run(flag_file, parted, "--num_steps=20", *options)
    assert "going on from step 10" in resumed.stdout
    _assert_same_bits(whole, parted, 20)


@pytest.mark.slow
def test_a_diverging_run_ends_with_1_and_a_sentence_and_saves_nothing_that_is_not_finite(flag_file, tmp_path):
    finished = _run(
        flag_file, tmp_path / "run", "--num_steps=50", "--learning_rate=1e30", "--optimizer=nesterov", "--save_every=1"
    )
    assert finished.returncode == 1
    assert re.fullmatch(r"train.py: step \d+: .* is not finite.*\n", without_greeting(finished.stderr))
    for index in (tmp_path / "run" / "checkpoints").glob("ckpt-*.index"):
        assert all(
            np.isfinite(value).all()
            for value in _tensors(tmp_path / "run", int(index.stem[5:])).values()
            if value.dtype.kind == "f"
        )


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
    told = capsys.readouterr().err
    assert "python -m datasets.something_something" in told and "python -m datasets.video_folder" in told


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


@pytest.mark.slow
def test_training_on_videos_of_all_sizes_resumes_to_the_same_bits(flag_file, tmp_path):
    sizes = [(9, 20, 30), (4, 20, 33), (3, 14, 40), (1, 31, 26), (6, 20, 20)]
    for split in ("train", "test"):
        write_videos(tmp_path / split, sizes, labels=[0, 1, 0, 1, 0], classes=CLASSES[:2])
    options = (
        "--num_chan=3",
        "--short_side=20",
        "--batch_size=4",
        "--num_eval_spatial_clips=3",
        "--eval_every=8",
        f"--train_dataset={tmp_path / 'train'}",
        f"--test_dataset={tmp_path / 'test'}",
    )
    whole = _run(flag_file, tmp_path / "whole", *options, "--num_steps=16")
    assert _result(whole)["step"] == 16
    assert "classes mirrored with the label of their mirror image: 2 (pushing something from left to" in whole.stdout
    assert whole.stdout.count("test accuracy") == 2
    assert _result(_run(flag_file, tmp_path / "parts", *options, "--num_steps=7"))["step"] == 7
    assert "going on from step 7" in _run(flag_file, tmp_path / "parts", *options, "--num_steps=16").stdout
    _assert_same_bits(tmp_path / "whole", tmp_path / "parts", 16)


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
