"""SIGTERM and SIGINT end a run after the step that it is in."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rstg_tf.interrupts import check_interrupts, raised_again


class _Abandoned(BaseException):
    """Not an Exception, so that no handler in the abandoned work takes it for an error of its own."""


class StopSignals:
    """While it is entered, SIGTERM and SIGINT set `stop` at once, even while TensorFlow runs many steps in one call.

    Python runs signal handlers between two of its own instructions only. The C level handler writes to a socket
    immediately, and a thread that waits there sets the variable, which the loop in the graph reads before every step.
    """

    def __init__(self, stop: tf.Variable):
        self.received: str | None = None
        self._stop = stop
        self._raises = False
        self._again: Callable[[], None]

    def __enter__(self) -> StopSignals:
        check_interrupts()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._old_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        signal.set_wakeup_fd(self._old_descriptor)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._writer.send(b"\0")
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def abandonable(self, function: Callable[[], Any]) -> Any:
        """`function()`, or None if a signal came before it was done: for work that leaves nothing to be saved.

        A graph that is being traced at that moment is finished first: left open, it would take in the operations that
        save the run.
        """
        try:
            with raised_again(_Abandoned) as self._again:
                try:
                    self._raises = True
                    done = None if self.received else function()
                finally:
                    self._raises = False
        except _Abandoned:
            return None
        except Exception:
            if not self.received:
                raise
        finally:
            self._raises = False  # once more, since a signal at the wrong moment skips the other in Python 3.9
        return None if self.received else done  # however _Abandoned was lost: swallowed or become another error

    def _handle(self, number, frame) -> None:
        self.received = self.received or signal.Signals(number).name
        if self._raises:
            if tf.executing_eagerly():
                raise _Abandoned
            self._again()

    def _watch(self) -> None:
        while True:
            numbers = self._reader.recv(64)
            if 0 in numbers or not numbers:
                return
            for number in {signal.SIGTERM, signal.SIGINT} & set(numbers):
                self.received = self.received or signal.Signals(number).name
                self._stop.assign(True)
