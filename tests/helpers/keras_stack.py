"""On which of the two stacks the tests run, and what that changes in them."""

from __future__ import annotations

import re

import pytest
from tensorflow import keras

HERE = "new" if hasattr(keras, "ops") else "old"  # Keras 3, or Keras 2.15
old_stack_alone = pytest.mark.skipif(
    HERE == "new", reason="goes on with a run of Keras 2.15, which Keras 3 refuses (tests/test_stacks.py)"
)
old_keras, new_keras = (pytest.mark.skipif(HERE != stack, reason=f"of the {stack} stack") for stack in ("old", "new"))

# What TensorFlow 2.21 says on stderr when it starts, in the words of its C++, for which there is no public switch.
_GREETING = re.compile(
    r"(WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    r"|I0000 [\d:. ]+ cudart_stub\.cc:\d+\] Could not find cuda drivers on your machine, GPU will not be used\."
    r"|I0000 [\d:. ]+ port\.cc:\d+\] oneDNN custom operations are on\..*"
    r"|I0000 [\d:. ]+ cpu_feature_guard\.cc:\d+\] This TensorFlow binary is optimized to use available CPU .*"
    r"|To enable the following instructions: .*)\n"
)


def without_greeting(stderr: str | bytes) -> str:
    """What a program wrote to stderr, but for TensorFlow's greeting on the new stack."""
    text = stderr.decode() if isinstance(stderr, bytes) else stderr
    return _GREETING.sub("", text) if HERE == "new" else text
