"""What the processor has, where the rounding of TensorFlow's own kernels depends on it."""

from __future__ import annotations

import pathlib


def has_avx512() -> bool:
    """Whether the processor has AVX-512, on which the bounds of tests/ops/test_winograd.py were first measured."""
    facts = pathlib.Path("/proc/cpuinfo")
    return not facts.exists() or "avx512" in facts.read_text(encoding="utf-8")
