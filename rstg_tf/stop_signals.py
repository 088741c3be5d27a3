"""SIGTERM and SIGINT end a run after the step that it is in."""

from __future__ import annotations

import signal
import socket
import threading

import tensorflow as tf

from rstg_tf.interrupts import check_interrupts


class StopSignals:
    """While it is entered, SIGTERM and SIGINT set `stop` at once, even while TensorFlow runs many steps in one call.

    Python runs signal handlers between two of its own instructions only. The C level handler writes to a socket
    immediately, and a thread that waits there sets the variable, which the loop in the graph reads before every step.
    """

    def __init__(self, stop: tf.Variable):
        self.received: str | None = None
        self._stop = stop

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

    def stopped(self) -> bool:
        """Whether a signal has come: for work to be left at a point of its own choice.

        An exception would be raised in the midst of anything: lost, or leaving open a graph that is being traced.
        """
        return self.received is not None

    def _handle(self, number, frame) -> None:
        self.received = self.received or signal.Signals(number).name

    def _watch(self) -> None:
        while True:
            numbers = self._reader.recv(64)
            if 0 in numbers or not numbers:
                return
            for number in {signal.SIGTERM, signal.SIGINT} & set(numbers):
                self.received = self.received or signal.Signals(number).name
                self._stop.assign(True)
