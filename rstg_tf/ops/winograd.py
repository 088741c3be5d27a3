"""A 3×3 convolution with little more than half of the multiplications: Winograd's F(4, 3) down the columns of a frame.

Four outputs of three taps, y_i = Σ_k g_k d_{i+k}, take twelve multiplications. The product of a polynomial of three
coefficients and one of four takes six: it has six coefficients, so its values at six points, the last of them infinity,
determine it. Transposed, the same algorithm computes the four outputs:

    y = Aᵀ [(G g) ⊙ (Bᵀ d)]

A [6, 4] and G [6, 3] are the powers of the points, Bᵀ [6, 6] the inverse of all their powers' transpose.

Here y, g and d are rows of pixels, so that each of the six ⊙ is a convolution of 1×3 over all channels. Bᵀ and Aᵀ act
on whole columns, as one matrix product each. Plain differentiation of this form saves as much in both gradients.

Source: Lavin and Gray, Fast algorithms for convolutional neural networks, 2016, arXiv:1509.09308. The points are not
theirs (0, ±1, ±2): with 0, ±2/3, ±4/3 the rounding error is a third smaller, about twice that of a plain sum.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import tensorflow as tf

TAPS = 3
OUTPUTS = 4  # rows of one tile
POINTS = (0.0, 2 / 3, -2 / 3, 4 / 3, -4 / 3)  # and infinity
PARTS = OUTPUTS + TAPS - 1


def convolve(frames, kernel, convolution):
    """VALID convolution of stride 1: [F, H, W, C] × [3, 3, C, D] -> [F, H-2, W-2, D], of one dtype; H, W, C, D known.

    convolution: what convolves each of the six parts (VALID): [F, tiles, W, C], [1, 3, C, D] -> [F, tiles, W-2, D].
    """
    height, width, channels = frames.shape[1:]
    filters, tiles = kernel.shape[-1], _tiles(height)
    to_parts, to_kernels, to_rows = (tf.constant(matrix, frames.dtype) for matrix in matrices(height))
    parts = tf.matmul(to_parts, tf.reshape(frames, [-1, height, width * channels]))  # [F, 6·tiles, W·C]
    parts = tf.split(tf.reshape(parts, [-1, PARTS * tiles, width, channels]), PARTS, axis=1)  # 6 × [F, tiles, W, C]
    kernels = tf.unstack(tf.tensordot(to_kernels, kernel, axes=1))  # 6 × [3, C, D]
    rows = [convolution(part, factor[None]) for part, factor in zip(parts, kernels)]
    rows = tf.reshape(tf.concat(rows, axis=1), [-1, PARTS * tiles, (width - 2) * filters])  # [F, 6·tiles, (W-2)·D]
    return tf.reshape(tf.matmul(to_rows, rows), [-1, height - 2, width - 2, filters])


def share_of_products(height: int) -> float:
    """Multiplications of `convolve` as a share of those of the plain sum, for frames of this height."""
    return PARTS * _tiles(height) / (TAPS * (height - 2))


@cache
def matrices(height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bᵀ for all tiles of a column [6·tiles, height], G [6, 3], Aᵀ for all tiles [height-2, 6·tiles], in float64.

    Rows of the tiles below the frame are left out: as inputs they are zero, as outputs they are not used.
    """
    tiles, to_outputs, to_kernel = _tiles(height), _powers(OUTPUTS), _powers(TAPS)
    to_products = np.linalg.inv(_powers(PARTS).T)
    scale = np.abs(to_products).max(axis=1, keepdims=True)  # moved into G, so that the largest entry of a row is 1
    rows_in, rows_out = tiles * OUTPUTS + 2, tiles * OUTPUTS
    into, out = np.zeros([PARTS, tiles, rows_in]), np.zeros([rows_out, PARTS, tiles])
    for tile in range(tiles):
        begin = tile * OUTPUTS
        into[:, tile, begin : begin + PARTS] = to_products / scale
        out[begin : begin + OUTPUTS, :, tile] = to_outputs.T
    return (into.reshape(-1, rows_in)[:, :height], scale * to_kernel, out.reshape(rows_out, -1)[: height - 2])


def _powers(terms: int) -> np.ndarray:
    """What a polynomial's coefficients give at each point: [6, terms]. At infinity the highest power is left."""
    return np.vstack([np.vander(POINTS, terms, increasing=True), np.eye(terms)[-1]])


def _tiles(height: int) -> int:
    return -(-(height - 2) // OUTPUTS)
