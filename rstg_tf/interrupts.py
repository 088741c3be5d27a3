"""Ctrl-C reaches the work that it is meant to end, whatever becomes of the exception on its way. No TensorFlow.

Python raises it in whatever runs at that moment. In a destructor or the callback of a weak reference, of which a graph
that is loaded or traced has thousands, Python prints the exception and drops it; where C++ calls Python, it may come
out as another error or not at all. An export that was to be given up would then be published.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

SECONDS_UNTIL_AGAIN = 0.02  # for whatever dropped the exception to be over


@contextlib.contextmanager
def kept_interrupts() -> Iterator[None]:
    """Ends with KeyboardInterrupt if Ctrl-C raised one within it, also if that one was lost or became another error.

    A dropped one is raised again a moment later; one that vanished without a trace, when the block is done. A block
    that ends with SystemExit has said how it ended, and keeps it. Nothing changes where SIGINT raises no
    KeyboardInterrupt: in threads, in a process that ignores it, under a handler that only takes note.
    """
    came = threading.Event()
    raises = signal.getsignal(signal.SIGINT)
    if not callable(raises) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number, frame) -> None:
        try:
            raises(number, frame)
        except KeyboardInterrupt:
            came.set()
            raise

    signal.signal(signal.SIGINT, handle)
    try:
        with raised_again(KeyboardInterrupt):
            yield
        if came.is_set():
            raise KeyboardInterrupt
    except Exception as error:
        if came.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, raises)


@contextlib.contextmanager
def raised_again(kind: type[BaseException]) -> Iterator[None]:
    """Where Python drops an exception of this kind, which SIGINT's handler raises, SIGINT is sent once more."""
    done, unraisable = threading.Event(), sys.unraisablehook

    def send() -> None:
        if not done.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def dropped(lost) -> None:
        if issubclass(lost.exc_type, kind):
            threading.Timer(SECONDS_UNTIL_AGAIN, send).start()
        else:
            unraisable(lost)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        done.set()
        sys.unraisablehook = unraisable
