"""Frames with the regions, their attention and the prediction."""

from __future__ import annotations

import numpy as np
import pytest

from rstg_tf.inference.sliding_windows import Prediction, WindowAnswer
from rstg_tf.viz import annotated_video


@pytest.mark.parametrize(
    "size, expected",
    [
        ((144, 176), (432, 528)),  # three times
        ((32, 32), (448, 448)),
        ((480, 854), (480, 854)),  # as it is
        ((1080, 1920), (720, 1280)),
        ((1920, 1080), (1280, 720)),
        ((271, 641), (542, 1280)),  # twice would be 1282 wide
        ((100, 4000), (32, 1280)),
    ],
)
def test_drawn_frames_are_readable_and_even(size, expected):
    assert annotated_video._drawn_size(*size) == expected


def test_a_frame_shows_the_window_whose_middle_is_nearest_and_the_step_it_lies_in():
    """Windows of frames 0…7, 4…11 and 8…15 with middles 3.5, 7.5 and 11.5; two steps of four frames in each."""
    steps = [np.full((2, 5, 5), 10.0 * number) + np.arange(2)[:, None, None] for number in range(3)]
    answers = [
        WindowAnswer(
            start=4 * number,
            end=4 * number + 8,
            start_seconds=number,
            end_seconds=number + 2,
            logits=np.eye(3)[number],
            attention={"res3": -steps[number], "final": steps[number]},
        )
        for number in range(3)
    ]
    prediction = Prediction(
        answers=tuple(answers),
        frame_size=(112, 224),
        seen=(0.0, 0.25, 1.0, 0.75),
        seconds=tuple(number / 4 for number in range(16)),
        frames_per_second=4.0,
    )
    canvas = annotated_video._Canvas(prediction, class_names="abc", top=2, place="final", num_lines=1)
    shown = [canvas.shown_attention(number)[0, 0] for number in range(16)]
    assert shown == [0] * 4 + [1] * 2 + [10] * 2 + [11] * 2 + [20] * 2 + [21] * 4
    assert canvas.window == (0, 224, 448, 448)  # the middle half of 896×448 pixels
    assert canvas.panel_size == (0, 0)


@pytest.mark.parametrize(
    "seen, window, panel",
    [
        ((0.25, 0.25, 0.75, 0.5), (112, 224, 224, 224), (448, 448)),  # 224 pixels are too few
        ((0.0, 0.0, 1.0, 0.2), (0, 0, 448, 179), (1121, 448)),
    ],
)
def test_a_small_part_is_shown_again_large_beside_the_frame(seen, window, panel):
    """Of frames of 896×448 pixels."""
    answer = WindowAnswer(
        start=0,
        end=2,
        start_seconds=0,
        end_seconds=0.5,
        logits=np.zeros(2),
        attention={"final": np.full((2, 5, 5), 0.2)},
    )
    prediction = Prediction(
        answers=(answer,), frame_size=(112, 224), seen=seen, seconds=(0.0, 0.25), frames_per_second=4.0
    )
    canvas = annotated_video._Canvas(prediction, class_names="ab", top=2, place="final", num_lines=1)
    assert (canvas.window, canvas.panel_size) == (window, panel)
    frame = np.full((112, 224, 3), 100, np.uint8)
    drawn = canvas.draw(0, frame)
    assert drawn.shape[1] == (896 + annotated_video.MARGIN + panel[1] + 1) // 2 * 2
    assert drawn.shape[0] % 2 == 0 and drawn.shape[0] > max(448, panel[0])
