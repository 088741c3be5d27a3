"""The small convolutional network and the whole SyncMNIST model in plain NumPy, beside `reference.py`.

Weights keep the names of the authors' release, prefix `tower/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import reference
import reference_regions
import reference_stages

TOWER = "tower/"
GRAPH = "tower/whole_graph_model_final/"


class SyncMnistOutput(NamedTuple):
    """What `syncmnist_model` computes."""

    logits: np.ndarray  # [B, num_classes]
    input_nodes: np.ndarray  # [B, T, N, C]
    graph: reference.GraphOutput


def convolve_valid(frame: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Cross-correlation of one frame [H, W, C] with kernel [h, w, C, C'], no padding -> [H-h+1, W-w+1, C']."""
    rows = frame.shape[0] - kernel.shape[0] + 1
    columns = frame.shape[1] - kernel.shape[1] + 1
    total = np.zeros((rows, columns, kernel.shape[-1]), frame.dtype)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            total += frame[row : row + rows, column : column + columns] @ kernel[row, column]
    return total + bias


def max_pool_2x2(frame: np.ndarray) -> np.ndarray:
    """Largest value of each 2×2 block; an odd last row or column is dropped. [H, W, C] -> [H//2, W//2, C]."""
    even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
    return np.maximum(np.maximum(even[0::2, 0::2], even[0::2, 1::2]), np.maximum(even[1::2, 0::2], even[1::2, 1::2]))


def small_convnet(
    video: np.ndarray, weights: Mapping[str, np.ndarray], *, num_layers: int = 3, dtype: type = np.float64
) -> np.ndarray:
    """Raw pixels [B, T, H, W, C] through `num_layers` × (3×3 convolution, relu, 2×2 max pool) -> [B, T, h, w, C'].

    `weights` has `convL/conv2d/kernel|bias`, L from 0. One frame at a time: the first maps of a wide network are large.
    """
    frames = []
    for frame in video.reshape((-1,) + video.shape[2:]):
        frame = frame.astype(dtype)
        for layer in range(num_layers):
            kernel = weights[f"conv{layer}/conv2d/kernel"].astype(dtype)
            bias = weights[f"conv{layer}/conv2d/bias"].astype(dtype)
            frame = max_pool_2x2(np.maximum(convolve_valid(frame, kernel, bias), 0.0))
        frames.append(frame)
    return np.stack(frames).reshape(video.shape[:2] + frames[0].shape)


def syncmnist_head(
    input_nodes: np.ndarray,
    weights: Mapping[str, np.ndarray],
    *,
    height: int,
    width: int,
    num_scales: int = 3,
    positional_map_size: int = 6,
    node_reduction: str = "sum",
    input_batch_norm: bool = True,
    dtype: type = np.float64,
    **graph_options: Any,
) -> SyncMnistOutput:
    """Pooled nodes [B, T, N, C] of frames of `height`×`width` pixels -> graph -> vector -> logits (no dropout).

    The defaults are the release's SyncMNIST settings; `graph_options` are further arguments of `reference.graph`.
    """
    positions = reference_regions.positional_maps(num_scales, positional_map_size) if positional_map_size else None
    neighbours = reference_regions.adjacency(num_scales, height, width)
    output = reference.graph(
        input_nodes,
        reference_stages.below(GRAPH, weights),
        adjacency=neighbours,
        positions=positions,
        num_scales=num_scales,
        input_batch_norm=input_batch_norm,
        dtype=dtype,
        **graph_options,
    )
    vector = reference.video_vector(output.nodes, node_reduction)  # [B, C]
    logits = reference_stages.dense(
        vector, reference_stages.as_dtype(reference_stages.below(TOWER, weights), dtype), "pred"
    )
    return SyncMnistOutput(logits=logits, input_nodes=input_nodes, graph=output)


def syncmnist_model(
    video: np.ndarray,
    weights: Mapping[str, np.ndarray],
    *,
    num_layers: int = 3,
    num_scales: int = 3,
    dtype: type = np.float64,
    **head_options: Any,
) -> SyncMnistOutput:
    """The release's SyncMNIST model: clip [B, T, H, W, 1] in 0…255 -> logits; `head_options` as `syncmnist_head`."""
    maps = small_convnet(video, reference_stages.below(TOWER, weights), num_layers=num_layers, dtype=dtype)
    nodes = reference_regions.pool_nodes(maps, num_scales)
    return syncmnist_head(
        nodes, weights, height=video.shape[2], width=video.shape[3], num_scales=num_scales, dtype=dtype, **head_options
    )


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[label] for each clip: [B, classes], [B] -> [B]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
