"""How programs end: exit codes and what they say, also when they are interrupted or nobody reads on."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from keras_stack import without_greeting

from rstg_tf.common.command_line import failed, run_program

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = [
    ["train.py"],
    ["eval.py"],
    ["-m", "rstg_tf.export"],
    ["-m", "rstg_tf.predict"],
    ["-m", "rstg_tf.visualize"],
    ["-m", "rstg_tf.release"],
    ["-m", "datasets.sync_mnist"],
    ["-m", "datasets.video_folder"],
    ["-m", "datasets.something_something"],
]


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def press_ctrl_c_which_becomes_another_error():
    try:
        press_ctrl_c()
    except KeyboardInterrupt as error:
        raise RuntimeError("MISMATCH of original and normalized active exception types") from error


def press_ctrl_c_in_a_destructor():
    type("Freed", (), {"__del__": lambda self: press_ctrl_c()})()
    for _ in range(1000):
        time.sleep(0.01)


def press_ctrl_c_in_vain():
    with contextlib.suppress(KeyboardInterrupt):
        press_ctrl_c()


def ended(work):
    """The exit code of a program that does this work."""
    with pytest.raises(SystemExit) as end:
        run_program(lambda arguments: work(), name="show", interrupted="nothing was shown.")
    return end.value.code


@pytest.fixture(autouse=True)
def _as_before():
    """An ended program ignores Ctrl-C; pytest goes on."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("work", [press_ctrl_c, press_ctrl_c_which_becomes_another_error, press_ctrl_c_in_a_destructor])
def test_an_interrupted_program_says_so_and_ends_with_130(work, capsys):
    assert ended(work) == 130
    assert capsys.readouterr().err == "show: interrupted; nothing was shown.\n"


def test_a_program_that_was_done_when_the_interrupt_was_lost_ends_as_it_said():
    assert ended(lambda: press_ctrl_c_in_vain() or 3) == 3


@pytest.mark.parametrize("work, code", [(lambda: 0, 0), (press_ctrl_c, 130)])
def test_ctrl_c_while_python_ends_does_not_change_how_the_program_ended(work, code):
    assert ended(work) == code
    press_ctrl_c()


def test_an_error_is_told_in_a_line_with_what_mends_it(capsys):
    assert failed("show", OSError("no space left."), code=1, mending="Make some.") == 1
    assert failed("show", OSError("no space left."), code=1) == 1
    assert failed("show", BrokenPipeError("the server has left."), code=1) == 1  # while standard output is read
    assert capsys.readouterr().err == (
        "show: no space left. Make some.\nshow: no space left.\nshow: the server has left.\n"
    )


def test_a_broken_pipe_that_is_not_standard_output_is_an_error_like_others():
    def write_to_a_pipe_without_a_reader():
        reader, writer = os.pipe()
        os.close(reader)
        try:
            os.write(writer, b"frame")
        finally:
            os.close(writer)

    with pytest.raises(BrokenPipeError):
        run_program(lambda arguments: write_to_a_pipe_without_a_reader(), name="show", interrupted="")


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program[-1])
def test_a_reader_who_has_left_ends_a_program_in_silence(program):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, *program, "--help"],
            cwd=ROOT,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, without_greeting(done.stderr)) == (1, "")


def test_standard_output_on_a_full_disk_ends_a_program_with_1_and_a_sentence():
    program = (
        "from rstg_tf.common.command_line import run_program\n"
        "run_program(lambda arguments: print('found') or 0, name='show', interrupted='')"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "show: [Errno 28] No space left on device\n")
