"""How every program here ends: exit codes, and the one line on stderr that goes with them. No TensorFlow."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from rstg_tf.common.errors import ConfigError, is_full_disk
from rstg_tf.common.interrupts import kept_interrupts
from rstg_tf.common.shown import PrintableStream, json_text, printable


def parse_flags(values: absl_flags.FlagValues, arguments: Sequence[str], *, takes_files: bool = False) -> list[str]:
    """Reads a command line, the program's name excluded, into `values`; returns what is no flag, if it `takes_files`.

    Raises ConfigError naming the flag for unknown flags, values of another type and arguments that are no flag.
    """
    try:
        rest = values(["", *arguments])[1:]
    except absl_flags.Error as error:
        raise ConfigError(str(error).replace("\n", " ").replace("ERROR:: ", "")) from error
    if rest and not takes_files:
        raise ConfigError(f"{rest[0]!r} is no flag: settings are given as --name=value.")
    return rest


def failed(name: str, error: Exception, *, code: int, mending: str = "") -> int:
    """Tells on stderr what went wrong and returns the exit code: 2 wrong use, 1 the data's or the machine's fault."""
    if not (isinstance(error, BrokenPipeError) and _left_unread()):
        print(printable(f"{name}: {error}"), *([mending] if mending else []), file=sys.stderr)
    return code


def run_program(main: Callable[[Sequence[str]], int], *, name: str, interrupted: str) -> None:
    """Ends the process with what `main` returns for the command line; after Ctrl-C with 130 and what that means.

    A program that is done before it notices an interrupt that was lost (see `kept_interrupts`) ends as it would. Where
    who reads standard output leaves, as `head` does, the end is 1, without a word; where that is a file on a full disk,
    the end is 1 and a sentence. What the terminal's encoding lacks, be it a sign or a byte in a file's name, is written
    as an escape (\\xd7), as is what the terminal would obey.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = PrintableStream(sys.stdout), PrintableStream(sys.stderr)
    try:
        with kept_interrupts():
            try:
                sys.exit(main(sys.argv[1:]))
            except SystemExit:
                sys.stdout.flush()  # here, because Python's own flush at the end would print a traceback
                raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(f"{name}: interrupted; {interrupted}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        if not _left_unread():
            raise
        sys.exit(1)
    except OSError as error:
        if not is_full_disk(error):
            raise
        _throw_output_away()  # Python's own flush at the end would meet the full disk once more
        sys.exit(failed(name, error, code=1))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python's own end takes a second: how it ended has been said


def json_line(values: Any) -> str:
    """Values as a line of JSON for standard output: in plain letters where that can write them, else in escapes."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")
    return json_text(values, in_ascii=not is_unicode)


def _left_unread() -> bool:
    """Whether who read standard output has left; what still waits to be written is then thrown away."""
    descriptor = sys.__stdout__.fileno()
    watch = select.poll()
    watch.register(descriptor, 0)  # errors are told unasked
    if not watch.poll(0):
        return False
    _throw_output_away()
    return True


def _throw_output_away() -> None:
    """Lets what still waits to be written to standard output, and all that comes, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
