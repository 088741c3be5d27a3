"""What predict.main says to wrong use and to videos that it cannot use."""

from __future__ import annotations

import io
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from frame_sources import Pipe, carphone
from keras_stack import without_greeting
from predicting import refused

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model_dir=nowhere", "--video=x"], "--model_dir=nowhere: no run there"),
        (["--export_dir=nowhere", "--video=x"], "--export_dir=nowhere: no such folder"),
        (["--export_dir={here}", "--video=x"], "no SavedModel there"),
        (["--export_dir=x", "--model_dir=y", "--video=x"], "--model_dir belongs to a run"),
        (["--export_dir=x", "--precision=run", "--video=x"], "--precision belongs to a run"),
        (["--trust", "--video=x"], "--trust is about a SavedModel: it needs --export_dir"),
        ([], "--video is missing"),
        (["clip.mp4"], "'clip.mp4' is no flag"),
        (["--vidio=x"], "vidio"),
        (["--video=x", "--top=0"], "top"),
        (["--video=x", "--overlap=1"], "overlap"),
        (["--video=x", "--window_seconds=0"], "--window_seconds=0"),
        (["--video=x", "--window_seconds=2", "--window_frames=9"], "both set the length"),
        (["--video=x", "--raw_size=4x4"], "--raw_size describes standard input"),
        (["--video=-", "--raw_size=4"], "--raw_size=4: expected WIDTHxHEIGHT"),
        (["--video=-", "--raw_pixels=gray"], "--raw_pixels needs --raw_size"),
        (["--video=x", "--place=final"], "--place says what --out draws"),
        (["--video=x", "--out=a.avi"], "expected a name that ends in .mp4"),
        (["--video=x", "--out=missing/a.mp4"], "missing is no folder that can be written to"),
    ],
)
def test_wrong_use_ends_with_exit_code_2_and_a_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *[argument.format(here=tmp_path) for argument in arguments])


def test_videos_that_are_missing_or_do_not_fit_are_refused(grey_run, tmp_path, capsys, monkeypatch):
    run = f"--model_dir={grey_run}"
    assert "nothing.mp4 does not exist" in refused(capsys, run, f"--video={tmp_path / 'nothing.mp4'}")
    np.save(tmp_path / "large.npy", np.zeros((5, 24, 24, 3), np.uint8))
    assert "the frames are 24×24 pixels: expected 12×12" in refused(
        capsys, run, f"--video={tmp_path / 'large.npy'}", code=1
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(bytes(12 * 12 * 3 + 5))))
    assert "standard input ends within frame 2, after 5 of its 432 bytes" in refused(
        capsys, run, "--video=-", "--raw_size=12x12", code=1
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(b"")))
    assert "predict: standard input: is empty" in refused(capsys, run, "--video=-", code=1)
    assert "--checkpoint=6: not in" in refused(capsys, run, "--checkpoint=6", f"--video={tmp_path / 'large.npy'}")


def test_videos_that_are_damaged_are_refused_by_name(colour_run, tmp_path, capsys):
    run = f"--model_dir={colour_run}"
    content = carphone().read_bytes()
    for name, bad in (("cut.mp4", content[: len(content) // 2]), ("text.mp4", b"no video"), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(bad)
        assert name in refused(capsys, run, f"--video={tmp_path / name}", f"--out={tmp_path / 'a.mp4'}", code=1)
    assert not (tmp_path / "a.mp4").exists()
    assert "tells its own rate, 29.97" in refused(capsys, run, f"--video={carphone()}", "--frames_per_second=10")
    shutil.copy(carphone(), tmp_path / "own.mp4")
    assert "is the video itself" in refused(
        capsys, run, f"--video={tmp_path / 'own.mp4'}", f"--out={tmp_path / 'own.mp4'}"
    )


def start(*arguments, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "rstg_tf.predict", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_a_reader_who_leaves_with_silence(grey_run):
    arguments = f"--model_dir={grey_run}", "--video=-", "--raw_size=12x12", "--window_frames=4"
    with start(*arguments, stdin=subprocess.PIPE) as waiting, start(*arguments, stdin=subprocess.PIPE) as unheard:
        for process in (waiting, unheard):
            assert process.stdout.readline().startswith(b"standard input, model ")
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(timeout=60) == 130
        assert without_greeting(waiting.stderr.read()) == "predict: interrupted; no more is said.\n"
        unheard.stdout.close()
        unheard.stdin.write(bytes(12 * 12 * 3 * 40))
        unheard.stdin.close()
        assert unheard.wait(timeout=60) == 1
        assert without_greeting(unheard.stderr.read()) == ""
