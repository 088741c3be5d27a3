"""What the processor has, where the rounding of TensorFlow's own kernels depends on it."""

from __future__ import annotations

import pathlib


def has_avx512() -> bool:
    """Without it oneDNN has no bfloat16 products (TensorFlow's others round partial sums), and its sums are shorter."""
    facts = pathlib.Path("/proc/cpuinfo")
    return not facts.exists() or "avx512" in facts.read_text(encoding="utf-8")
