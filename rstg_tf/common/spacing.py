"""Numbers at even distances."""

from __future__ import annotations

import numpy as np


def evenly_spaced_indices(available: int, count: int) -> list[int]:
    """`count` of the numbers 0…available - 1 at even distances: linspace(0, available - 1, count), truncated.

    First and last are included; numbers come twice where `count` is more than there are. Training and evaluation choose
    the frames of a clip so, inside TensorFlow graphs by `video.transforms.frame_indices`.

    Example:
      >>> evenly_spaced_indices(10, 4)
      [0, 3, 6, 9]
      >>> evenly_spaced_indices(2, 3)
      [0, 0, 1]
    """
    return np.linspace(0, available - 1, count).astype(int).tolist()
