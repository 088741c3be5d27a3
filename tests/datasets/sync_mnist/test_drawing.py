"""Drawing SyncMNIST: pixels that can be checked by hand, and a frame-by-frame reference for everything at once."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from datasets.sync_mnist.drawing import INK, draw_clips, encode_png, shrink, stretch_contrast


def one_pixel_digits(*pixels: tuple[int, int, int]) -> np.ndarray:
    """A clip's digit images [1,D,28,28], each with one pixel (row, column, value)."""
    images = np.zeros((1, len(pixels), 28, 28), np.uint8)
    for digit, (row, column, value) in enumerate(pixels):
        images[0, digit, row, column] = value
    return images


def draw_one_frame(images: np.ndarray, corners: list[tuple[int, int]], **options) -> np.ndarray:
    """The frame [40,40] of a clip of one frame whose canvas is not shrunk."""
    positions = np.array(corners).reshape(1, 1, -1, 2)
    return draw_clips(digit_images=images, positions=positions, canvas=40, frame_size=40, **options)[0, 0]


def test_a_digit_is_drawn_with_its_upper_left_corner_at_its_position():
    frame = draw_one_frame(one_pixel_digits((2, 3, 255)), [(5, 12)])
    assert frame[7, 15] == 255 and np.count_nonzero(frame) == 1


def test_ink_covers_what_lies_below_and_fainter_pixels_let_it_through():
    for value, expected in ((INK, INK), (INK - 1, 255)):
        images = one_pixel_digits((0, 0, 255), (0, 0, value), (0, 1, 255))
        assert draw_one_frame(images, [(4, 4), (4, 4), (8, 8)])[4, 4] == expected


def test_the_central_square_of_a_noise_part_is_opaque_and_lies_below_digits_in_front():
    noise = np.zeros((1, 1, 28, 28), np.uint8)
    noise[0, 0, 10:18, 10:18] = np.arange(64).reshape(8, 8)
    noise[0, 0, :10] = 99  # outside the square of 8 around the middle
    frame = draw_one_frame(
        one_pixel_digits((0, 0, 255)), [(22, 20)], noise_images=noise, noise_positions=np.array([[[(20, 20)]]])
    )
    expected = np.arange(64).reshape(8, 8)
    expected[2, 0] = 255
    np.testing.assert_array_equal(frame[20:28, 20:28], expected)
    assert not frame[:20].any()


def test_a_digit_behind_shows_only_where_the_canvas_is_black():
    noise = np.zeros((1, 1, 28, 28), np.uint8)
    noise[0, 0, 13, 13] = 7  # the upper left pixel of its central 2×2
    images = one_pixel_digits((0, 0, 255), (1, 1, 3), (9, 9, 255))
    frame = draw_one_frame(
        images,
        [(6, 6), (6, 6), (20, 20)],
        noise_images=noise,
        noise_size=2,
        noise_positions=np.array([[[(6, 6)]]]),
        digits_in_front=np.array([False]),
    )
    assert (frame[6, 6], frame[7, 7], frame[29, 29]) == (7, 3, 255)


def test_contrast_is_stretched_to_the_full_range_frame_by_frame():
    frames = np.array([[10, 60, 210], [0, 128, 255], [0, 1, 3], [9, 9, 9]], np.uint8)[:, None]  # [F,1,3]
    stretched = stretch_contrast(np.ascontiguousarray(frames.transpose(1, 0, 2))).transpose(1, 0, 2)
    # (60 - 10) · 255/200 + 0.5 = 64.25 and 1 · 255/3 + 0.5 = 85.5, both truncated
    np.testing.assert_array_equal(stretched[:, 0], [[0, 64, 255], [0, 128, 255], [0, 85, 255], [0, 0, 0]])


@pytest.mark.parametrize(("canvas", "frame_size"), [(100, 64), (64, 32), (50, 33), (32, 100), (64, 64)])
def test_shrinking_a_group_equals_pillow_on_every_single_frame(canvas, frame_size):
    frames = np.random.default_rng(canvas).integers(0, 256, (5, canvas, canvas), np.uint8)
    shrunk = shrink(np.ascontiguousarray(frames.transpose(1, 0, 2)), frame_size)
    for index, frame in enumerate(frames):
        alone = np.asarray(Image.fromarray(frame).resize((frame_size, frame_size), Image.BILINEAR))
        np.testing.assert_array_equal(shrunk[:, index], alone)


def draw_frame_slowly(images, corners, canvas, frame_size, noise_images, noise_corners, noise_size, in_front):
    """The definition, one digit of one frame at a time in float64."""
    frame = np.zeros((canvas, canvas))
    central = slice(14 - noise_size // 2, 14 - noise_size // 2 + noise_size)
    for image, (row, column) in zip(noise_images, noise_corners):
        frame[row : row + noise_size, column : column + noise_size] = image[central, central]
    for image, (row, column) in zip(images, corners):
        below = frame[row : row + 28, column : column + 28].copy()
        kept = image < INK if in_front else below > 0
        frame[row : row + 28, column : column + 28] = np.where(kept, below, image)
    stretched = (frame - frame.min()) * (255.0 / (frame.max() - frame.min()))
    image = Image.fromarray((stretched + 0.5).astype(np.uint8))
    return np.asarray(image.resize((frame_size, frame_size), Image.BILINEAR))


@pytest.mark.parametrize("noise_size", [8, 5])
def test_whole_clips_equal_the_definition_drawn_frame_by_frame(noise_size):
    generator = np.random.default_rng(noise_size)
    clips, steps, digits, parts, canvas, frame_size = 19, 3, 4, 6, 60, 40
    images = generator.integers(0, 200, (clips, digits, 28, 28)) * (generator.random((clips, digits, 28, 28)) < 0.3)
    noise = generator.integers(0, 256, (clips, parts, 28, 28))
    positions = generator.integers(0, canvas - 28 + 1, (clips, steps, digits, 2))
    noise_positions = generator.integers(0, canvas - noise_size + 1, (clips, steps, parts, 2))
    in_front = generator.random(clips) < 0.5
    drawn = draw_clips(
        digit_images=images.astype(np.uint8),
        positions=positions,
        canvas=canvas,
        frame_size=frame_size,
        noise_images=noise.astype(np.uint8),
        noise_positions=noise_positions,
        noise_size=noise_size,
        digits_in_front=in_front,
    )
    assert drawn.dtype == np.uint8 and drawn.shape == (clips, steps, frame_size, frame_size)
    for clip in range(clips):
        for step in range(steps):
            expected = draw_frame_slowly(
                images[clip],
                positions[clip, step],
                canvas,
                frame_size,
                noise[clip],
                noise_positions[clip, step],
                noise_size,
                in_front[clip],
            )
            np.testing.assert_array_equal(drawn[clip, step], expected)


def test_png_frames_come_back_unchanged():
    frame = np.random.default_rng(0).integers(0, 256, (32, 48), np.uint8)
    with Image.open(io.BytesIO(encode_png(frame)), formats=("PNG",)) as image:
        np.testing.assert_array_equal(np.asarray(image), frame)
