"""Requests that the signatures of exported models refuse, and what each is told."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from served_models import GREY, clips, encode
from signature_answers import ask

Refused = tf.errors.InvalidArgumentError
VIDEO = (1, 4, 20, 16, 1)
WRONG_VIDEOS = {
    "one frame too few": (1, 3, 20, 16, 1),
    "height": (1, 4, 16, 16, 1),
    "sides exchanged": (1, 4, 16, 20, 1),
    "channels": (1, 4, 20, 16, 3),
    "no batch": (4, 20, 16, 1),
    "a row of pixels": (1, 4 * 20 * 16),
    "a batch of batches": (1, 1, 4, 20, 16, 1),
    "a scalar": (),
}


@pytest.mark.parametrize("name", ["serving_default", "features", "attention"])
@pytest.mark.parametrize("shape", WRONG_VIDEOS.values(), ids=WRONG_VIDEOS.keys())
def test_a_video_of_another_shape_is_refused_with_both_shapes(grey, name, shape):
    with pytest.raises(Refused, match=r"not compatible with expected shape \[\?,4,20,16,1\]"):
        grey.signatures[name](video=tf.zeros(shape, tf.uint8))


@pytest.mark.parametrize("name", ["serving_default", "features", "attention"])
def test_a_video_without_clips_or_of_another_type_is_refused(grey, name):
    with pytest.raises(Refused, match="video holds no clip, expected at least one"):
        grey.signatures[name](video=tf.zeros((0, *VIDEO[1:]), tf.uint8))
    with pytest.raises(Refused, match="expected to be a uint8 tensor but is a float"):
        grey.signatures[name](video=tf.zeros(VIDEO))


def wrong_frames():
    """Case -> (frames of two clips, of which the second is wrong, and what is told)."""
    first, second = ([*encode(clip)] for clip in clips(GREY, 2))
    jpeg = encode(clips(GREY, 1)[0], "JPEG")
    other = encode(np.zeros((1, 20, 20, 1), np.uint8))
    broken = second[2][:60] + bytes(8) + second[2][68:]

    def replaced(frame):
        return [first, [*second[:2], frame, second[3]]]

    whole = r"\[frame\] \[2\] \[of clip\] \[1\] \[is no whole JPEG or PNG picture; its bytes are\] "
    return {
        "too few frames": (
            [first[:3], second[:3]],
            r"\[frames holds clips of\] \[3\] \[frames, expected at least\] \[4\]",
        ),
        "no frames": (np.zeros((2, 0), object), r"\[frames holds clips of\] \[0\]"),
        "no clips": (np.zeros((0, 4), object), "frames holds no clip, expected at least one"),
        "no batch": (first, r"\[4\] is not compatible with expected shape \[\?,\?\]"),
        "a rank too many": ([[first]], r"\[1,1,4\] is not compatible with expected shape \[\?,\?\]"),
        "an empty frame": (replaced(b""), whole + r"\[0\]"),
        "a frame of text": (replaced(b"no picture"), whole + r"\[10\]"),
        "a PNG cut short": (replaced(second[2][:-30]), whole),
        "a JPEG cut short": (replaced(jpeg[2][:-30]), whole),
        "a JPEG of two bytes": (replaced(jpeg[2][:2]), whole + r"\[2\]"),
        "a damaged PNG": (replaced(broken), "Invalid PNG data"),
        "a frame of another size": (
            replaced(other[0]),
            r"\[frame\] \[2\] \[of clip\] \[1\] \[is of height, width\] \[20 20\] "
            r"\[pixels, expected\] \[20 16\]",
        ),
    }


@pytest.mark.parametrize("case", wrong_frames())
def test_frames_that_make_no_clip_are_refused_by_clip_and_number(grey, case):
    frames, message = wrong_frames()[case]
    with pytest.raises(Refused, match=message):
        grey.signatures["serving_bytes"](frames=tf.constant(frames, tf.string))
    good = clips(GREY, 2)
    answer = ask(grey.signatures["serving_bytes"], {"frames": [encode(clip) for clip in good]})
    np.testing.assert_allclose(answer["logits"], grey.model(good, training=False), rtol=1e-5, atol=1e-5)


def test_frames_of_two_sizes_in_one_clip_are_refused_where_frames_are_resized_too(colour):
    generator = np.random.default_rng(0)
    frames = [encode(generator.integers(0, 256, (1, side, 40, 3), np.uint8))[0] for side in (40, 40, 40, 41)]
    with pytest.raises(
        Refused,
        match=r"\[frame\] \[3\] \[of clip\] \[0\] \[is of height, width\] \[41 40\] "
        r"\[pixels, expected\] \[40 40\]",
    ):
        colour.signatures["serving_bytes"](frames=tf.constant([frames]))


def test_a_state_of_other_clips_or_width_is_refused(grey):
    stream = grey.signatures["stream"]
    width = stream.structured_input_signature[1]["state"].shape[1]
    frame = tf.zeros([2, 20, 16, 1], tf.uint8)
    with pytest.raises(Refused, match=r"\[frame holds\] \[2\] \[clips, but state\] \[1\]"):
        stream(frame=frame, state=tf.zeros([1, width]))
    with pytest.raises(Refused, match=rf"\[2,{width - 1}\] is not compatible with expected shape \[\?,{width}\]"):
        stream(frame=frame, state=tf.zeros([2, width - 1]))
    with pytest.raises(Refused, match=r"\[2,20,20,1\] is not compatible with expected shape \[\?,20,16,1\]"):
        stream(frame=tf.zeros([2, 20, 20, 1], tf.uint8), state=tf.zeros([2, width]))
    with pytest.raises(Refused, match="frame holds no clip"):
        stream(frame=frame[:0], state=tf.zeros([0, width]))
