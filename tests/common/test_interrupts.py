"""Ctrl-C ends what it is meant to end, also where the KeyboardInterrupt is raised in code that loses it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import weakref

import pytest
import tensorflow as tf

from rstg_tf.common.interrupts import (
    SECONDS_UNTIL_AGAIN,
    StopSignals,
    check_interrupts,
    ignored_interrupts,
    kept_interrupts,
)

SECONDS = 20  # far above what any of these takes


def press_ctrl_c(*_):
    os.kill(os.getpid(), signal.SIGINT)


def work_for_long():
    for _ in range(100 * SECONDS):
        time.sleep(0.01)


def dropped():
    type("Freed", (), {"__del__": press_ctrl_c})()


def in_a_destructor():
    dropped()
    work_for_long()


def in_the_callback_of_a_weak_reference():
    thing = type("Thing", (), {})()
    reference = weakref.ref(thing, press_ctrl_c)
    del thing
    work_for_long()
    assert reference


def swallowed():
    with contextlib.suppress(KeyboardInterrupt):
        press_ctrl_c()


def become_another_error():
    try:
        press_ctrl_c()
    except KeyboardInterrupt as error:
        raise RuntimeError("MISMATCH of original and normalized active exception types") from error


LOST = [in_a_destructor, in_the_callback_of_a_weak_reference, swallowed, become_another_error]


@pytest.mark.parametrize("work", LOST)
def test_a_lost_interrupt_ends_the_block_in_silence_and_soon(work, monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), kept_interrupts():
        work()
    assert time.monotonic() - began < SECONDS / 2
    assert not said
    assert sys.unraisablehook == said.append
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_was_lost_ends_the_next_block_or_check_or_training_before_it_begins():
    reached = []

    def begin_a_block():
        with kept_interrupts():
            reached.append("block")

    def begin_a_training():
        with StopSignals(tf.Variable(False)):
            reached.append("training")

    for begin in (check_interrupts, begin_a_block, begin_a_training):
        with pytest.raises(KeyboardInterrupt), kept_interrupts():
            swallowed()
            begin()
            reached.append(begin)
    assert not reached
    check_interrupts()  # nothing is left of it
    begin_a_block()
    assert reached == ["block"]


def test_what_comes_too_late_changes_nothing_and_the_handler_is_that_of_before():
    with kept_interrupts():
        handler = signal.getsignal(signal.SIGINT)
        with ignored_interrupts():
            press_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is handler
        check_interrupts()


def test_nothing_is_sent_once_the_block_is_over():
    with pytest.raises(KeyboardInterrupt), kept_interrupts():
        dropped()
    noted = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        time.sleep(10 * SECONDS_UNTIL_AGAIN)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not noted


def test_outside_of_a_block_python_drops_it_in_a_destructor(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    dropped()
    assert [lost.exc_type for lost in said] == [KeyboardInterrupt]


def test_a_block_that_is_not_interrupted_ends_as_it_would_and_other_dropped_errors_are_told(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with kept_interrupts():
        type("Freed", (), {"__del__": lambda self: {}["absent"]})()
    assert [lost.exc_type for lost in said] == [KeyError]
    with pytest.raises(RuntimeError, match="its own"), kept_interrupts():
        raise RuntimeError("its own")


def test_a_handler_that_only_takes_note_is_left_to_decide():
    noted = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        with kept_interrupts():
            press_ctrl_c()
    finally:
        signal.signal(signal.SIGINT, before)
    assert noted == [signal.SIGINT]


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with kept_interrupts():
            press_ctrl_c()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_may_enter_it():
    done = []

    def work():
        with kept_interrupts():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]
