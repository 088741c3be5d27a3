"""Boxes, neighbours, pooling weights and positional maps, against numbers that a reader can redo by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rstg_tf.layers import regions


def test_grids_come_finest_first_and_three_scales_have_fourteen_nodes():
    assert regions.grid_sizes(3) == [3, 2, 1]
    assert regions.num_nodes(3) == 14
    np.testing.assert_array_equal(regions.scale_of_nodes(2), [2, 2, 2, 2, 1])


def test_boxes_are_row_major_and_leave_the_remainder_of_the_division_out():
    found = regions.boxes(2, height=5, width=8)
    np.testing.assert_array_equal(found, [[0, 0, 2, 4], [0, 4, 2, 8], [2, 0, 4, 4], [2, 4, 4, 8], [0, 0, 5, 8]])


def test_neighbours_touch_along_an_edge_but_not_in_a_corner():
    found = regions.adjacency(2, height=64, width=64)
    #        top-left, top-right, bottom-left, bottom-right, whole
    np.testing.assert_array_equal(
        found, [[0, 1, 1, 0, 1], [1, 0, 0, 1, 1], [1, 0, 0, 1, 1], [0, 1, 1, 0, 1], [1, 1, 1, 1, 0]]
    )


@pytest.mark.parametrize(("height", "width"), [(64, 64), (224, 224), (48, 100), (7, 11)])
def test_adjacency_is_symmetric_without_self_loops_and_the_whole_frame_meets_all(height, width):
    found = regions.adjacency(3, height, width)
    np.testing.assert_array_equal(found, found.T)
    assert not found.diagonal().any()
    np.testing.assert_array_equal(found[-1, :-1], 1.0)


def test_regions_of_one_scale_have_the_neighbours_of_a_grid():
    found = regions.adjacency(3, 64, 64)[:9, :9]
    assert found[4].sum() == 4  # the middle one: up, down, left, right
    assert found[0].sum() == 2  # a corner


def test_six_pixels_over_four_cells_take_one_and_a_half_pixels_each():
    np.testing.assert_allclose(
        regions.area_weights(6, 4),
        np.array([[2, 1, 0, 0, 0, 0], [0, 1, 2, 0, 0, 0], [0, 0, 0, 2, 1, 0], [0, 0, 0, 0, 1, 2]]) / 3,
    )


def test_enlarging_two_cells_to_three_pixels_mixes_the_middle_one():
    np.testing.assert_allclose(regions.area_weights(2, 3), [[1, 0], [0.5, 0.5], [0, 1]])


@pytest.mark.parametrize(("height", "width"), [(6, 6), (14, 14), (5, 9), (1, 1)])
def test_pooling_rows_and_projection_columns_are_means(height, width):
    pooling = regions.pooling_weights(3, height, width)
    projection = regions.projection_weights(3, height, width)
    assert pooling.shape == (14, height * width) and projection.shape == (height * width, 14)
    np.testing.assert_allclose(pooling.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(projection.sum(axis=1), 3.0, rtol=1e-6)  # one whole per scale


def test_positional_map_is_a_gaussian_in_its_own_cell():
    maps = regions.positional_maps(3, 6).reshape(14, 6, 6)
    edge = np.exp(-0.5 * (0.5 / 2) ** 2)  # a window of two pixels lies at -0.5 and 0.5
    expected = np.zeros((6, 6))
    expected[2:4, 4:6] = edge * edge
    np.testing.assert_allclose(maps[5], expected, rtol=1e-6)  # second row, third column of the 3×3 grid
    assert (maps[13] > 0).all()
    assert maps[13, 0, 0] == pytest.approx(np.exp(-0.5 * (2.5 / 2) ** 2) ** 2)


def test_impossible_sizes_are_refused_with_their_numbers():
    with pytest.raises(ValueError, match="num_scales=0"):
        regions.grid_sizes(0)
    with pytest.raises(ValueError, match="2×9 pixels are too few for a grid of 3×3"):
        regions.boxes(3, 2, 9)
    with pytest.raises(ValueError, match="size of at least 4"):
        regions.positional_maps(4, 3)
