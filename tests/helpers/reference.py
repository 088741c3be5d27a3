"""RSTG's graph in plain NumPy, the obvious way: what the layers of `rstg_tf` are compared with.

Written from a description of the authors' release and the paper, never from `rstg_tf`: frame by frame, messages from
the N×N concatenation, one LSTM step after the other. Weights come as a dict under the release's names below the
graph's prefix (`send_messages_mlp/send_conv1/kernel`), in the release's shapes.
Letters: B clips, T steps, N nodes, H×W map, C channels, P entries of a positional map, K space stages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from reference_stages import (
    Weights,
    as_dtype,
    batch_norm,
    dense,
    layer_norm,
    lstm,
    normalize,
    space_stage_at_every_step,
)

LSTM = "cudnn_lstm/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell"
EXTERN_LSTM = "time_update_extern/" + LSTM
STAGE_NORM_EPSILON = 1e-6


class GraphOutput(NamedTuple):
    """`moving`: moving_mean / moving_variance of every batch norm after the call (unchanged in inference)."""

    nodes: np.ndarray  # [B, T, N, C]
    attention: np.ndarray | None  # [B, K, T, heads, N, N], row i receives; None without space stages
    moving: dict[str, np.ndarray]


def graph_input(
    nodes: np.ndarray,
    weights: dict[str, np.ndarray],
    *,
    input_projection: bool,
    input_batch_norm: bool,
    node_projection: bool,
    normalization: str,
    training: bool,
) -> np.ndarray:
    """What precedes the stages: project_i3d, SyncMNIST's batch norm, the norm, and a projection to another width."""
    norm = {"kind": normalization, "training": training}
    if input_projection:
        nodes = dense(nodes, weights, "project_i3d")
    if input_batch_norm:
        nodes = batch_norm(nodes, weights, "batch_normalization", training=training)
    nodes = normalize(nodes, weights, "before_graf", **norm)
    if node_projection:
        nodes = normalize(dense(nodes, weights, "conv2d"), weights, "before_graf2", **norm)
    return nodes


def has_time_stage(time_stages: str, iteration: int) -> bool:
    """Whether an intern time stage precedes space stage `iteration` (from 0); `all` stops after three."""
    return {"all": iteration < 3, "every": True, "final": False, "none": False}[time_stages]


def normed_residual(
    x: np.ndarray, weights: Weights, stage: str, function: Callable, *, stage_norm: bool, residual: bool
) -> tuple[np.ndarray, Any]:
    """function(x), with `stage_norm` function(norm(x)), with `residual` x + that; and what else `function` returns."""
    y = x
    if stage_norm:
        y = layer_norm(x, weights, f"{stage}_stage_norm", axes=(-1,), epsilon=STAGE_NORM_EPSILON)
    y, extra = function(y)
    return (x + y if residual else y), extra


def graph(
    nodes: np.ndarray,
    weights: Weights,
    *,
    adjacency: np.ndarray,
    positions: np.ndarray | None = None,
    num_scales: int = 3,
    space_iterations: int = 3,
    time_stages: str = "all",
    attention: str = "simple",
    heads: int = 1,
    neighbourhood: str = "soft",
    normalization: str = "none",
    input_batch_norm: bool = False,
    input_projection: bool = False,
    node_projection: bool = False,
    output_projection: bool = False,
    update_layers: int = 2,
    scalewise_update: bool = False,
    stage_norm: bool = False,
    residual_stages: bool = False,
    forget_bias: float = 0.0,
    training: bool = False,
    dtype: type = np.float64,
) -> GraphOutput:
    """Nodes [B, T, N, C] -> (time stage, space stage) × K, last time stage -> nodes [B, T, N, C'].

    `stage_norm` normalises each node's channels before a stage (`{intern,space,extern}_stage_norm/gamma|beta`),
    `residual_stages` adds the stage's input (before that norm) to its output; both are ours, not the release's.
    In training, batch norms of the space stage see one step at a time and move their averages at t = 0, …, T-1.
    """
    weights = as_dtype(weights, dtype)  # a copy: batch norms move their averages in it
    positions = None if positions is None else np.asarray(positions, dtype)
    norm = {"normalization": normalization, "training": training}
    wrap = {"stage_norm": stage_norm, "residual": residual_stages}
    space = functools.partial(
        space_stage_at_every_step,
        weights=weights,
        adjacency=np.asarray(adjacency, dtype),
        positions=positions,
        num_scales=num_scales,
        attention=attention,
        heads=heads,
        neighbourhood=neighbourhood,
        update_layers=update_layers,
        scalewise_update=scalewise_update,
        **norm,
    )

    def time(name):
        return lambda x: (lstm(x, weights, name, forget_bias=forget_bias), None)

    x = graph_input(
        np.asarray(nodes, dtype),
        weights,
        input_projection=input_projection,
        input_batch_norm=input_batch_norm,
        node_projection=node_projection,
        **norm,
    )
    alphas = []
    for iteration in range(space_iterations):
        if has_time_stage(time_stages, iteration):
            x, _ = normed_residual(x, weights, "intern", time(LSTM), **wrap)
        x, alpha = normed_residual(x, weights, "space", space, **wrap)
        alphas.append(alpha)
    if time_stages != "none":
        x, _ = normed_residual(x, weights, "extern", time(EXTERN_LSTM), **wrap)
    if output_projection:
        x = dense(x, weights, "project_back_to_i3d")
    moving = {name: value for name, value in weights.items() if "/moving_" in name}
    return GraphOutput(x, np.stack(alphas, axis=1) if alphas else None, moving)


def frame_vectors(nodes: np.ndarray, node_reduction: str = "sum") -> np.ndarray:
    """[B, T, N, C] -> [B, T, C]: the nodes of each step summed or averaged."""
    return {"sum": np.sum, "mean": np.mean}[node_reduction](nodes, axis=2)


def video_vector(nodes: np.ndarray, node_reduction: str = "sum") -> np.ndarray:
    """[B, T, N, C] -> [B, C]: mean over the steps, then sum (the release) or mean over the nodes."""
    return frame_vectors(nodes, node_reduction).mean(axis=1)
