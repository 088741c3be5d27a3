"""A long video window by window."""

from __future__ import annotations

import numpy as np
import pytest

from rstg_tf.common.errors import VideoError
from rstg_tf.inference.sliding_windows import Windows, predict_windows, sliding_windows
from rstg_tf.video.clip_spec import ClipSpec
from rstg_tf.video.sources import FrameSource


def test_windows_overlap_and_the_last_one_ends_with_the_last_frame():
    def cut(count, length, stride):
        return [(start, list(frames)) for start, frames in sliding_windows(range(count), Windows(length, stride))]

    assert cut(10, 4, 2) == [(0, [0, 1, 2, 3]), (2, [2, 3, 4, 5]), (4, [4, 5, 6, 7]), (6, [6, 7, 8, 9])]
    assert cut(9, 4, 3) == [(0, [0, 1, 2, 3]), (3, [3, 4, 5, 6]), (5, [5, 6, 7, 8])]
    assert cut(4, 4, 3) == [(0, [0, 1, 2, 3])]
    assert cut(3, 4, 2) == [(0, [0, 1, 2])]
    assert cut(1, 4, 2) == [(0, [0])]


def test_windows_by_place_span_time_and_not_frames():
    places = [0, 1, 2, 3, 4, 5, 12, 13, 14, 31]

    def cut(length, stride):
        return [
            (start, [places[number] for number in frames])
            for start, frames in sliding_windows(range(len(places)), Windows(length, stride), place=places.__getitem__)
        ]

    assert cut(4, 4) == [(0, [0, 1, 2, 3]), (4, [4, 5]), (6, [12, 13, 14]), (9, [31])]
    assert cut(8, 4) == [(0, [0, 1, 2, 3, 4, 5]), (4, [4, 5]), (6, [12, 13, 14]), (6, [12, 13, 14]), (9, [31])]
    assert cut(100, 50) == [(0, places)]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11, 12, 13, 40])
@pytest.mark.parametrize("length", [1, 4, 6])
@pytest.mark.parametrize("stride", [1, 3, 4])
def test_at_an_even_rate_windows_by_place_are_those_by_number(count, length, stride):
    windows = Windows(length, min(stride, length))
    by_number = list(sliding_windows(range(count), windows))
    assert list(sliding_windows(range(count), windows, place=lambda number: number)) == by_number


def test_a_window_is_answered_before_the_next_frame_is_read():
    read = []

    def frames():
        for number in range(1000):
            read.append(number)
            yield number

    windows = sliding_windows(frames(), Windows(length=5, stride=2))
    assert next(windows) == (0, [0, 1, 2, 3, 4]) and len(read) == 5
    assert next(windows) == (2, [2, 3, 4, 5, 6]) and len(read) == 7


def test_logits_that_are_no_numbers_are_refused_with_the_frames():
    class Broken:
        clip_spec = ClipSpec(num_frames=2, height=4, width=4, channels=1)

        def __call__(self, clip):
            return np.array([0.0, np.nan]), {}

    source = FrameSource(name="a.npy", read=lambda short_side: iter(np.zeros((3, 4, 4, 1), np.uint8)))
    with pytest.raises(VideoError, match="a.npy: the model's logits of frames 1 to 3 hold NaN"):
        predict_windows(Broken(), source, windows=Windows(5, 5), frames_per_second=1.0)
