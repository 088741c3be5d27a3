"""Regions in plain NumPy, by loops over cells and rectangles: what `layers.regions` and `layers.nodes` must equal.

Letters: B clips, T steps, N nodes, H×W map, C channels. Scales S, S-1, …, 1 in that order, each grid row-major.
"""

from __future__ import annotations

import numpy as np


def overlap_weights(num_cells: int, num_inputs: int) -> np.ndarray:
    """[cells, inputs]: the share of cell [i·n/m, (i+1)·n/m) that input [p, p+1) covers; each row sums to 1."""
    length = num_inputs / num_cells
    weights = np.zeros((num_cells, num_inputs))
    for cell in range(num_cells):
        for pixel in range(num_inputs):
            overlap = min(pixel + 1, (cell + 1) * length) - max(pixel, cell * length)
            weights[cell, pixel] = max(overlap, 0.0) / length
    return weights


def area_resize(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Area resize of [..., H, W, C] -> [..., rows, columns, C], up or down."""
    vertical = overlap_weights(rows, maps.shape[-3]).astype(maps.dtype)
    horizontal = overlap_weights(columns, maps.shape[-2]).astype(maps.dtype)
    return np.einsum("rh,cw,...hwd->...rcd", vertical, horizontal, maps, optimize=True)


def pool_nodes(maps: np.ndarray, num_scales: int) -> np.ndarray:
    """[B, T, H, W, C] -> nodes [B, T, N, C]: grids S×S, …, 1×1, each row-major."""
    pooled = [area_resize(maps, s, s).reshape(maps.shape[:2] + (s * s, -1)) for s in range(num_scales, 0, -1)]
    return np.concatenate(pooled, axis=2)


def boxes(num_scales: int, height: int, width: int) -> np.ndarray:
    """int [N, 4]: (top, left, bottom, right) of every region in pixels of the input image, patches of int(size/s)."""
    rows = []
    for s in range(num_scales, 0, -1):
        high, wide = height // s, width // s
        rows += [(r * high, c * wide, (r + 1) * high, (c + 1) * wide) for r in range(s) for c in range(s)]
    return np.array(rows)


def adjacency(num_scales: int, height: int, width: int) -> np.ndarray:
    """0/1 [N, N]: closed rectangles of two different regions share more than a single point."""
    regions = boxes(num_scales, height, width)
    matrix = np.zeros((len(regions), len(regions)))
    for i, (top, left, bottom, right) in enumerate(regions):
        for j, (other_top, other_left, other_bottom, other_right) in enumerate(regions):
            high = min(bottom, other_bottom) - max(top, other_top)
            wide = min(right, other_right) - max(left, other_left)
            matrix[i, j] = i != j and high >= 0 and wide >= 0 and high + wide > 0
    return matrix


def positional_maps(num_scales: int, size: int) -> np.ndarray:
    """[N, size²]: a Gaussian bump (deviation 2, cut to size // s entries) where the region lies on a size×size map."""
    maps = []
    for s in range(num_scales, 0, -1):
        length = size // s
        offsets = np.arange(length) - (length - 1) / 2
        window = np.exp(-0.5 * (offsets / 2.0) ** 2)
        for row in range(s):
            for column in range(s):
                canvas = np.zeros((size, size))
                top, left = row * length, column * length
                canvas[top : top + length, left : left + length] = np.outer(window, window)
                maps.append(canvas.reshape(-1))
    return np.stack(maps)


def nodes_to_map(nodes: np.ndarray, num_scales: int, height: int, width: int) -> np.ndarray:
    """Nodes [B, T, N, C] -> [B, T, H, W, C]: every scale's grid area-resized to H×W, and the scales summed."""
    total, start = 0.0, 0
    for s in range(num_scales, 0, -1):
        grid = nodes[:, :, start : start + s * s].reshape(nodes.shape[:2] + (s, s, -1))  # [B, T, s, s, C]
        total, start = total + area_resize(grid, height, width), start + s * s
    return total
