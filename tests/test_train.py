"""The real train.py in processes of its own: whole runs, killed ones, diverging ones."""

from __future__ import annotations

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from keras_stack import without_greeting
from mixed_videos import CLASSES, write_videos
from train_flags import SECONDS, write_flag_file

import train

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def flag_file(tmp_path_factory, toy_records) -> pathlib.Path:
    return write_flag_file(tmp_path_factory.mktemp("flags"), toy_records)


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
