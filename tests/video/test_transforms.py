"""Which frames, how large, which part: against NumPy's linspace, Pillow's pixels, and sizes by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from mixed_videos import jpeg_bytes, picture, pillow_frames
from PIL import Image

from rstg_tf.video.transforms import (
    centre_crop_window,
    decode_each,
    frame_indices,
    resize_and_crop,
    short_side_size,
    view_windows,
)


@pytest.mark.parametrize("num_frames", [1, 2, 8, 10, 32])
def test_both_samplings_are_numpys_linspace_truncated_for_every_length(num_frames):
    """In a graph, whose optimizer reorders divisions and products, as in the pipeline."""
    both = tf.function(
        lambda available: tf.stack(
            [frame_indices(available, num_frames=num_frames, view=view, num_views=2) for view in range(2)]
        )
    )
    for available in range(1, 301):
        start = round(0.5 * available / num_frames)
        first = np.linspace(0, available - 1, num_frames).astype(int)
        second = np.linspace(start, available - 1 + start, num_frames).astype(int)
        np.testing.assert_array_equal(both(tf.constant(available)), [first, np.minimum(second, available - 1)])


def test_samplings_by_hand():
    # 0, 9/4, 18/4, 27/4, 9; the second begins at round(½ · 10/5) = 1 and would end at 10.
    assert frame_indices(10, num_frames=5).numpy().tolist() == [0, 2, 4, 6, 9]
    assert frame_indices(10, num_frames=5, view=1, num_views=2).numpy().tolist() == [1, 3, 5, 7, 9]
    assert frame_indices(2, num_frames=4).numpy().tolist() == [0, 0, 0, 1]
    assert frame_indices(1, num_frames=3, view=2, num_views=3).numpy().tolist() == [0, 0, 0]


def test_the_view_may_be_a_tensor_and_starts_move_evenly():
    starts = [
        int(frame_indices(64, num_frames=4, view=tf.constant(view, tf.int64), num_views=4)[0]) for view in range(4)
    ]
    assert starts == [0, 4, 8, 12]  # v/4 · 64/4


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", None])
def test_frames_are_decoded_to_pillows_pixels(image_format):
    frames = [picture(30, 41, seed=seed) for seed in range(3)]
    if image_format == "PNG":
        encoded = []
        for frame in frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "PNG")
            encoded.append(buffer.getvalue())
    else:
        encoded = [jpeg_bytes(frame) for frame in frames]
    decoded = decode_each(tf.constant(encoded), image_format=image_format, channels=3)
    np.testing.assert_array_equal(decoded, pillow_frames(encoded))
    # Blocks of a JPEG are 8 or 16 pixels wide: windows that end on their borders and elsewhere.
    for top, left, height, width in ((16, 16, 14, 25), (0, 0, 16, 16), (3, 8, 20, 8), (5, 7, 9, 11), (0, 0, 30, 41)):
        found = decode_each(
            tf.constant(encoded), image_format=image_format, channels=3, window=tf.constant([top, left, height, width])
        )
        np.testing.assert_array_equal(found, pillow_frames(encoded)[:, top : top + height, left : left + width])


def test_formats_are_told_apart_frame_by_frame_and_grey_becomes_three_channels():
    grey = picture(20, 24)[..., :1]
    buffer = io.BytesIO()
    Image.fromarray(grey[..., 0]).save(buffer, "PNG")
    mixed = tf.constant([jpeg_bytes(picture(20, 24)), buffer.getvalue()])
    decoded = decode_each(mixed, image_format=None, channels=3)
    np.testing.assert_array_equal(decoded[1], np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize(
    "height, width, short_side, expected",
    [
        (100, 176, 256, (256, 451)),  # 450.56
        (100, 132, 256, (256, 338)),  # 337.92
        (480, 640, 256, (256, 341)),  # 341.33
        (640, 480, 256, (341, 256)),
        (4, 5, 2, (2, 3)),  # 2.5, halves up
        (256, 455, 256, (256, 455)),
        (1, 1, 7, (7, 7)),
    ],
)
def test_the_shorter_side_becomes_the_short_side_and_the_other_is_rounded(height, width, short_side, expected):
    assert short_side_size(height, width, short_side) == expected
    tensors = short_side_size(tf.constant(height, tf.int64), tf.constant(width, tf.int64), short_side)
    assert tuple(int(side) for side in tensors) == expected


@pytest.mark.parametrize(
    "height, width, short_side",
    [
        (20, 36, 51),
        (36, 20, 51),
        (25, 25, 64),  # enlarged
        (90, 160, 48),
        (200, 61, 48),  # reduced: antialiased
        (48, 85, 48),
    ],
)  # as it is
def test_a_resized_crop_is_that_part_of_pillows_bicubic_picture(height, width, short_side):
    frames = np.stack([picture(height, width, seed=seed) for seed in range(3)])
    size = short_side_size(height, width, short_side)
    whole = np.stack([np.asarray(Image.fromarray(frame).resize(size[::-1], Image.BICUBIC)) for frame in frames])
    for top, left in ((0, 0), (size[0] - 40, size[1] - 32), ((size[0] - 40) // 2, (size[1] - 32) // 3)):
        crop = resize_and_crop(
            tf.constant(frames), short_side=short_side, top=top, left=left, crop_height=40, crop_width=32
        )
        expected = whole[:, top : top + 40, left : left + 32].astype(int)
        assert crop.dtype == tf.uint8
        # Pillow rounds to whole levels between rows and columns too.
        assert np.abs(crop.numpy() - expected).max() <= 1
        assert np.mean(crop.numpy() == expected) > 0.7
        everything = resize_and_crop(
            tf.constant(frames), short_side=short_side, top=0, left=0, crop_height=size[0], crop_width=size[1]
        )
        part = everything[:, top : top + 40, left : left + 32].numpy().astype(int)
        assert np.abs(crop.numpy() - part).max() <= 1 and np.mean(crop.numpy() == part) > 0.999  # halves, rounded


def test_an_enlarged_edge_by_hand():
    # Columns 0, 255 | enlarged twofold: samples lie at ±1/4 between them. Keys' weights at distance 1/4 and 3/4 are
    # 0.8671875 and 0.2265625, the two neighbours beyond the border are missing: 0.2265625 / 1.09375 · 255 = 52.8.
    frames = tf.constant([[[[0], [255]], [[0], [255]]]], tf.uint8)
    row = resize_and_crop(frames, short_side=4, top=0, left=0, crop_height=4, crop_width=4)[0, 1, :, 0]
    assert row.numpy().tolist()[1:3] == [53, 202]


def test_views_lie_at_numpys_linspace_from_end_to_end():
    for height, width in ((256, 455), (256, 341), (602, 256), (300, 270), (256, 256)):
        windows = view_windows(tf.constant(height), tf.constant(width), crop_size=256, num_views=11)
        expected = [np.linspace(0, side - 256, 11).astype(int) for side in (height, width)]
        np.testing.assert_array_equal(windows, np.transpose(expected))
    by_hand = [[0, 0], [3, 5], [6, 10]]  # room of 6 and 10 pixels
    assert view_windows(30, 50, crop_size=(24, 40), num_views=3).numpy().tolist() == by_hand


def test_one_view_is_the_centre():
    assert view_windows(256, 455, crop_size=224, num_views=1).numpy().tolist() == [[16, 115]]
    assert centre_crop_window(10, 15, crop_height=10, crop_width=8).numpy().tolist() == [0, 3]
