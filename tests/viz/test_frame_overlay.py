"""What `drawing.overlay` puts on a frame: tint, borders, numbers, arrows; all of it readable in grey."""

import numpy as np
import pytest
from PIL import Image

from rstg_tf.layers import regions
from rstg_tf.viz import frame_overlay

GREY = 40  # of the frames' pixels


def frame_of(height, width, channels=1):
    return np.full((height, width, channels), GREY, np.uint8)


def all_listen_to(node, nodes=5):
    """α [N, N] of rows that all give their whole attention to one node."""
    return np.tile(np.eye(nodes)[node], (nodes, 1))


def alike(nodes):
    return np.full((nodes, nodes), 1 / nodes)


def blueness(picture):
    """How many pixels are nearer to the arrows' colour than to any other."""
    return int((np.abs(picture.astype(int) - frame_overlay.MESSAGE).max(axis=-1) < 40).sum())


def test_tint_is_the_mean_over_the_scales_of_the_attention_received():
    picture = frame_overlay.overlay(frame_of(64, 64), all_listen_to(0), num_lines=0)
    # Upper left: (5 of the 2×2 region + 0 of the whole frame) / 2 = 2.5, so 128 · 2.5 / 3 = 106 of 255 parts of orange.
    expected = [GREY + (colour - GREY) * 106 / 255 for colour in frame_overlay.TINT]
    np.testing.assert_allclose(picture[10, 20], expected, atol=2)
    assert picture[42, 52].tolist() == [GREY] * 3  # lower right: none


def test_the_tint_saturates_and_never_hides_the_frame():
    frame = frame_of(64, 64)
    frame[5:12, 5:12] = 250
    strongest = frame_overlay.overlay(frame, all_listen_to(0, nodes=1) * 9, num_lines=0)
    assert strongest[8, 8].astype(int).sum() > strongest[20, 20].astype(int).sum() + 100


@pytest.mark.parametrize("shape", [(64, 64, 1), (240, 320, 3), (50, 33, 3), (200, 160, 1)])
@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_a_frame_keeps_its_size_and_the_callers_copy_its_pixels(shape, num_scales):
    frame = frame_of(*shape)
    picture = frame_overlay.overlay(frame, alike(regions.num_nodes(num_scales)))
    assert (picture.shape, picture.dtype) == ((*shape[:2], 3), np.uint8)
    assert (frame == GREY).all() and (picture != GREY).any()


def test_nothing_is_drawn_outside_of_what_the_network_saw():
    picture = frame_overlay.overlay(frame_of(240, 320), all_listen_to(4), window=(8, 48, 224, 224))
    outside = picture.copy()
    outside[8:232, 48:272] = GREY
    assert (outside == GREY).all()
    alone = frame_overlay.overlay(frame_of(224, 224), all_listen_to(4))
    np.testing.assert_array_equal(picture[8:232, 48:272], alone)


def test_messages_that_weigh_no_more_than_if_all_were_alike_get_no_arrow():
    assert blueness(frame_overlay.overlay(frame_of(96, 96), alike(14), num_lines=20)) == 0
    assert blueness(frame_overlay.overlay(frame_of(96, 96), all_listen_to(0), num_lines=4)) > 50
    assert blueness(frame_overlay.overlay(frame_of(96, 96), all_listen_to(0), num_lines=0)) == 0


def test_heavier_messages_get_wider_arrows():
    light, heavy = np.eye(5), np.eye(5)
    light[3], heavy[3] = [0.3, 0, 0, 0.7, 0], [0.9, 0, 0, 0.1, 0]  # 3 listens to 0
    found = [blueness(frame_overlay.overlay(frame_of(400, 400), weights)) for weights in (light, heavy)]
    assert found[1] > 1.4 * found[0]


def test_numbers_stand_on_frames_large_enough_to_read_them():
    side = frame_overlay.PLATE_PIXELS
    small, large = (frame_overlay.overlay(frame_of(size, size), alike(14), num_lines=0) for size in (side - 1, side))
    assert (small.min(axis=-1) > 200).sum() == 0  # no white
    whole_frame = large[side // 3 - 3 : side // 3 + 3, side // 2 - 5 : side // 2 + 5]
    assert (whole_frame.min(axis=-1) > 200).mean() > 0.3  # the light plate of the whole frame, a third down


@pytest.mark.parametrize("num_scales", [1, 2, 3, 4])
def test_no_two_nodes_sit_on_the_same_spot(num_scales):
    anchors = frame_overlay._anchors(num_scales)
    distances = np.hypot(*(anchors[:, None] - anchors[None]).transpose(2, 0, 1)) + np.eye(len(anchors))
    assert len(anchors) == regions.num_nodes(num_scales) and distances.min() > 0.05


def test_arrow_numbers_and_tint_differ_in_grey():
    def luminance(colour):
        return Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))

    tinted = luminance(tuple(colour // 2 for colour in frame_overlay.TINT))  # the strongest tint, on black
    assert luminance(frame_overlay.MESSAGE) > tinted + 60 and luminance(frame_overlay.INK) > tinted + 60


def test_a_small_frame_is_enlarged_in_hard_pixels_and_a_large_one_reduced():
    frame = np.array([[[0], [255]], [[255], [0]]], np.uint8)
    enlarged = np.asarray(frame_overlay.enlarged(frame, 10))
    assert enlarged.shape == (10, 10, 3) and set(np.unique(enlarged)) == {0, 255}
    assert frame_overlay.enlarged(frame_of(300, 400, 3), 200).size == (200, 150)


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1))])
def test_what_is_no_frame_is_refused_with_what_was_expected(frame):
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, C\], C 1 or 3"):
        frame_overlay.overlay(frame, alike(5))
