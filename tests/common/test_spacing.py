"""Numbers at even distances."""

from __future__ import annotations

import pytest

from rstg_tf.common.spacing import evenly_spaced_indices


@pytest.mark.parametrize(
    "available, count, expected",
    [
        (10, 4, [0, 3, 6, 9]),
        (10, 6, [0, 1, 3, 5, 7, 9]),  # steps of 3 and of 1.8, truncated
        (7, 7, [0, 1, 2, 3, 4, 5, 6]),
        (5, 1, [0]),
        (1, 3, [0, 0, 0]),
        (2, 3, [0, 0, 1]),
    ],
)
def test_indices_lie_at_even_distances_first_and_last_included(available, count, expected):
    assert evenly_spaced_indices(available, count) == expected


def test_none_comes_twice_while_there_are_enough():
    assert all(
        len(set(evenly_spaced_indices(available, count))) == count
        for available in range(1, 60)
        for count in range(1, available + 1)
    )
