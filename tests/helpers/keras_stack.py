"""On which of the two stacks the tests run, and what that changes in them."""

from __future__ import annotations

import pytest
from tensorflow import keras

HERE = "new" if hasattr(keras, "ops") else "old"  # Keras 3, or Keras 2.15
old_stack_alone = pytest.mark.skipif(
    HERE == "new", reason="goes on with a run of Keras 2.15, which Keras 3 refuses (tests/test_stacks.py)")
