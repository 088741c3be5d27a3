"""Ctrl-C reaches the work that it is meant to end, whatever becomes of the exception on its way. No TensorFlow.

Python raises it in whatever runs at that moment. In a destructor or the callback of a weak reference, of which a graph
that is loaded or traced has thousands, Python prints the exception and drops it; an import may swallow it; where C++
calls Python, it may come out as another error. An export that was to be given up would then be published.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

SECONDS_UNTIL_AGAIN = 0.02  # for whatever dropped the exception to be over


class _Handler:
    """SIGINT's while a block is entered: the handler of before, and whether that has raised KeyboardInterrupt."""

    def __init__(self, raises: Callable):
        self._raises = raises
        self.came = False  # no lock around it: a second signal may come while the first is handled

    def __call__(self, number, frame) -> None:
        try:
            self._raises(number, frame)
        except KeyboardInterrupt:
            self.came = True
            raise


@contextlib.contextmanager
def kept_interrupts() -> Iterator[None]:
    """Ends with KeyboardInterrupt if Ctrl-C raised one within it, though that one was lost or became another error.

    A dropped one is raised again a moment later; one that vanished without a trace, at the next `check_interrupts`, or
    where this block or one in it begins or ends. A block that ends with SystemExit has said how it ended, and keeps it.
    Nothing changes where SIGINT raises no KeyboardInterrupt: in threads, in a process that ignores it, under a handler
    that only takes note.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = before if isinstance(before, _Handler) else _Handler(before)
    signal.signal(signal.SIGINT, handler)
    try:
        check_interrupts()
        with _raised_again():
            yield
        check_interrupts()
    except Exception as error:
        if handler.came:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def check_interrupts() -> None:
    """Raises KeyboardInterrupt if one was raised since the outermost `kept_interrupts` began, and lost.

    For the moment before something is kept or begun that an interrupt should have prevented.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, _Handler) and handler.came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def ignored_interrupts() -> Iterator[None]:
    """Within it Ctrl-C comes too late: what it would have prevented is done, and remains to be said."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _raised_again() -> Iterator[None]:
    """Where Python drops a KeyboardInterrupt, SIGINT is sent once more."""
    done, unraisable = threading.Event(), sys.unraisablehook

    def send() -> None:
        if not done.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def dropped(lost) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            unraisable(lost)
            return
        timer = threading.Timer(SECONDS_UNTIL_AGAIN, send)
        timer.daemon = True  # others take a lock of `threading` that the interrupted code may hold
        timer.start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        done.set()
        sys.unraisablehook = unraisable


class StopSignals:
    """While it is entered, SIGTERM and SIGINT set `stop` at once, even while TensorFlow runs many steps in one call.

    Python runs signal handlers between two of its own instructions only. The C level handler writes to a socket
    immediately, and a thread that waits there sets the variable, which the loop in the graph reads before every step.
    """

    def __init__(self, stop):
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
