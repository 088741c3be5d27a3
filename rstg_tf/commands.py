"""How every program here ends: exit codes, and the one line on stderr that goes with them. No TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rstg_tf.interrupts import kept_interrupts


def failed(name: str, error: Exception, *, code: int) -> int:
    """Tells on stderr what went wrong and returns the exit code: 2 wrong use, 1 the data's or the machine's fault."""
    print(f"{name}: {error}", file=sys.stderr)
    return code


def run_program(main: Callable[[Sequence[str]], int], *, name: str, interrupted: str) -> None:
    """Ends the process with what `main` returns for the command line; after Ctrl-C with 130 and what that means."""
    try:
        with kept_interrupts():
            sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {interrupted}", file=sys.stderr)
        sys.exit(130)
