"""The gates for bytes of others (docs/untrusted_input.md) as targets for fuzzers: what they take, what they may raise.

A target is a function of bytes that returns, or raises the gate's own error. Anything else that it raises is a find, as
is a crash, a hang or a gigabyte.
"""

from __future__ import annotations

from benchmarks.faults.data_gates import data_gates
from benchmarks.faults.model_gates import model_gates
from benchmarks.faults.targets import Target


def gates() -> dict[str, Target]:
    """Name -> target."""
    return {**data_gates(), **model_gates()}
