"""Where the graph's nodes lie in a frame: boxes, neighbours, pooling weights, positional maps. NumPy only.

Scale s is an s×s grid of equal regions in row-major order; scales come finest first, S, S-1, …, 1, so that
N = Σ s² (S = 3: 9 + 4 + 1 = 14). Paper, section 3.1.
"""

from __future__ import annotations

import numpy as np


def grid_sizes(num_scales: int) -> list[int]:
    """Side lengths of the grids, finest first: 3 -> [3, 2, 1]."""
    if num_scales < 1:
        raise ValueError(f"num_scales={num_scales}: expected at least 1.")
    return list(range(num_scales, 0, -1))


def num_nodes(num_scales: int) -> int:
    """N = Σ s²."""
    return sum(size * size for size in grid_sizes(num_scales))


def scale_of_nodes(num_scales: int) -> np.ndarray:
    """The grid size s of every node: int64 [N]."""
    return np.concatenate([np.full(size * size, size) for size in grid_sizes(num_scales)])


def boxes(num_scales: int, height: int, width: int) -> np.ndarray:
    """Region of every node in pixels: int64 [N, 4] as (top, left, bottom, right), closed rectangles.

    As in the release, a region of scale s is int(height / s) × int(width / s) pixels and regions start at multiples
    of that, so what the division leaves over at the bottom and at the right belongs to no region of that scale.
    """
    found = []
    for size in grid_sizes(num_scales):
        step_down, step_right = height // size, width // size
        if step_down < 1 or step_right < 1:
            raise ValueError(f"{height}×{width} pixels are too few for a grid of {size}×{size} regions.")
        for row in range(size):
            for column in range(size):
                top, left = row * step_down, column * step_right
                found.append((top, left, top + step_down, left + step_right))
    return np.array(found, np.int64)


def adjacency(num_scales: int, height: int, width: int) -> np.ndarray:
    """Which regions are neighbours: float32 [N, N] of 0 and 1, symmetric, zero diagonal.

    Two different regions are neighbours if their closed rectangles share more than a single point: touching along an
    edge counts, touching in a corner does not (docs/release.md, 'Nodes').
    """
    box = boxes(num_scales, height, width)
    overlap_down = _interval_overlap(box[:, 0], box[:, 2])
    overlap_right = _interval_overlap(box[:, 1], box[:, 3])
    neighbours = (overlap_down >= 0) & (overlap_right >= 0) & (overlap_down + overlap_right > 0)
    np.fill_diagonal(neighbours, False)
    return neighbours.astype(np.float32)


def _interval_overlap(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return np.minimum(end[:, None], end[None, :]) - np.maximum(start[:, None], start[None, :])


def area_weights(inputs: int, outputs: int) -> np.ndarray:
    """Area interpolation of one axis: float64 [outputs, inputs], rows summing to 1.

    Output cell i of m covers [i·n/m, (i+1)·n/m) of the n inputs; the weight of input p is the overlap of [p, p+1)
    with that interval, divided by n/m. With m > n the same formula enlarges.
    """
    edges = np.arange(outputs + 1) * (inputs / outputs)
    pixel = np.arange(inputs)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.clip(overlap, 0, None) / (inputs / outputs)


def _area_weights_2d(inputs: tuple[int, int], outputs: tuple[int, int]) -> np.ndarray:
    """[outputs_h · outputs_w, inputs_h · inputs_w]: the product of the weights of both axes."""
    return np.kron(area_weights(inputs[0], outputs[0]), area_weights(inputs[1], outputs[1]))


def pooling_weights(num_scales: int, height: int, width: int) -> np.ndarray:
    """Feature map -> nodes: float32 [N, H·W]. Row i holds the share of each pixel in region i."""
    grids = [_area_weights_2d((height, width), (size, size)) for size in grid_sizes(num_scales)]
    return np.concatenate(grids).astype(np.float32)


def projection_weights(num_scales: int, height: int, width: int) -> np.ndarray:
    """Nodes -> feature map: float32 [H·W, N]. Every pixel sums, over the scales, what it takes of each region."""
    grids = [_area_weights_2d((size, size), (height, width)) for size in grid_sizes(num_scales)]
    return np.concatenate(grids, axis=1).astype(np.float32)


def positional_maps(num_scales: int, size: int) -> np.ndarray:
    """Where a node lies, as a small picture of size×size pixels: float32 [N, size²], constants.

    For scale s the node's cell is h = size // s pixels wide and holds the outer product of a Gaussian window of length
    h and standard deviation 2 (in those pixels) with itself; the rest is 0 (docs/release.md, 'Positional maps').
    """
    if size < num_scales:
        raise ValueError(
            f"positional maps of {size}×{size} pixels cannot hold a grid of {num_scales}×{num_scales} "
            f"regions: expected a size of at least {num_scales}."
        )
    maps = []
    for grid in grid_sizes(num_scales):
        side = size // grid
        window = np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / 2) ** 2)
        for row in range(grid):
            for column in range(grid):
                picture = np.zeros((size, size))
                picture[row * side : (row + 1) * side, column * side : (column + 1) * side] = np.outer(window, window)
                maps.append(picture.ravel())
    return np.array(maps, np.float32)
