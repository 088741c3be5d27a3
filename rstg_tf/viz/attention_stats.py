"""What is said about attention in numbers: shares of the scales, entropy, change, and all of a clip as for JSON.

NumPy only. Weights α are [..., N, N], row i listens, column j is listened to, rows sum to 1 (to 0 where neighbours
alone are listened to and a node has none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rstg_tf.evaluation.metrics import attention_entropy
from rstg_tf.layers import regions

DIGITS = 5  # of numbers in JSON
MESSAGES_IN_JSON = 10


def scale_names(num_scales: int) -> list[str]:
    """'3×3', '2×2', '1×1': finest first, as the nodes come."""
    return [f"{size}×{size}" for size in regions.grid_sizes(num_scales)]


def scale_members(num_scales: int) -> np.ndarray:
    """bool [S, N]: which nodes are of which scale, finest first."""
    return regions.scale_of_nodes(num_scales) == np.array(regions.grid_sizes(num_scales))[:, None]


def mean_by_scale(values: np.ndarray, num_scales: int) -> np.ndarray:
    """Means of node values [..., N] over the nodes of each scale: [..., S]."""
    member = scale_members(num_scales).astype(np.float64)
    return values @ (member / member.sum(axis=1, keepdims=True)).T


def attention_by_scale(attention: np.ndarray) -> np.ndarray:
    """What share of its attention a node of scale r gives to the nodes of scale s together, on average.

    mean over the nodes i of r of Σ_(j in s) α_ij: [..., N, N] -> [..., S, S], finest scale first.
    """
    num_scales = count_scales(attention)
    given = attention @ scale_members(num_scales).T.astype(np.float64)  # [..., N, S]
    return np.swapaxes(mean_by_scale(np.swapaxes(given, -1, -2), num_scales), -1, -2)


def change(attention: np.ndarray) -> np.ndarray:
    """How much of the attention went elsewhere since the step before: [..., T, N, N] -> [..., T - 1] in 0…1.

    mean over i of ½ Σ_j |α_ij(t) - α_ij(t - 1)|: 0 when nothing changed, 1 when all listen to other nodes only.
    """
    return np.abs(np.diff(attention.astype(np.float64), axis=-3)).sum(axis=-1).mean(axis=-1) / 2


def attention_summary(clips: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Means over clips (each place -> α [K, T, N, N]) and time of attention by scale, per space stage, as for JSON.

    `share[k][r][s]`: see `attention_by_scale`; `share_spread`: standard deviation between the clips (of their own means
    over time). `share_if_all_alike[s]`: the part of the nodes that are of scale s. `share_to_itself[k][r]`: mean of
    α_ii. `entropy[k][r]`: see `attention_entropy`. `mean_attention[k][i][j]`: α itself.
    """
    places = {}
    for place in clips[0]:
        of_clips = np.stack([clip[place].astype(np.float64).mean(axis=1) for clip in clips])  # [clips, K, N, N]
        mean, shares = of_clips.mean(axis=0), attention_by_scale(of_clips)
        num_scales = count_scales(mean)
        entropies = np.mean([attention_entropy(clip[place]).mean(axis=1) for clip in clips], axis=0)  # [K, N]
        places[place] = {
            "scales": scale_names(num_scales),
            "share": shares.mean(axis=0).tolist(),
            "share_spread": shares.std(axis=0).tolist(),
            "share_if_all_alike": scale_members(num_scales).mean(axis=1).tolist(),
            "share_to_itself": mean_by_scale(np.diagonal(mean, axis1=1, axis2=2), num_scales).tolist(),
            "entropy": mean_by_scale(entropies, num_scales).tolist(),
            "nodes": node_names(num_scales),
            "mean_attention": mean.tolist(),
        }
    return {"clips": len(clips), "places": places}


def coarse_to_fine(place: str, found: Mapping[str, Any]) -> str:
    """A sentence on one graph of `attention_summary`: does the node of the whole frame listen to the finest ones?"""
    return (
        f"{place}: in the last space stage the {found['scales'][-1]} node gives {found['share'][-1][-1][0]:.2f} of "
        f"its attention to the {found['scales'][0]} nodes ({found['share_if_all_alike'][0]:.2f} if to all nodes "
        "alike)."
    )


def steps_in_json(attention: np.ndarray) -> dict[str, Any]:
    """What is drawn over the steps of one stage, α [T, N, N]: by step, attention received and strongest messages."""
    names = node_names(count_scales(attention))
    return {
        "nodes": names,
        "received": np.round(received_attention(attention), 4).tolist(),
        "strongest_messages": [
            [
                {"from": names[sender], "to": names[receiver], "weight": round(weight, 4)}
                for sender, receiver, weight in strongest_messages(step, MESSAGES_IN_JSON)
            ]
            for step in attention
        ],
    }


def clip_in_json(attention: np.ndarray, *, height: int, width: int) -> dict[str, Any]:
    """Everything that is drawn of one graph on one clip, α [K, T, N, N], by space stage k and step t.

    `regions[i]`: name and box of node i in pixels of frames of `height` × `width` (top, left, bottom, right).
    `attention[k][t][i][j]` rounded to 5 digits; per stage `received[k][t][i]`, `strongest_messages[k][t]`,
    `entropy[k][t][scale]`, `change[k][t - 1]`; `change_of_stage[k - 1][t]`: the same measure from stage to stage.
    """
    num_scales = count_scales(attention)
    boxes = regions.boxes(num_scales, height, width).tolist()
    stages = [steps_in_json(stage) for stage in attention]
    return {
        "regions": [
            {"node": node, "name": name, "box": box}
            for node, (name, box) in enumerate(zip(node_names(num_scales), boxes))
        ],
        "scales": scale_names(num_scales),
        "attention": _rounded(attention),
        "received": [stage["received"] for stage in stages],
        "strongest_messages": [stage["strongest_messages"] for stage in stages],
        "share": _rounded(attention_by_scale(attention.astype(np.float64).mean(axis=1))),
        "entropy": _rounded(mean_by_scale(attention_entropy(attention), num_scales)),
        "change": _rounded(change(attention)),
        "change_of_stage": _rounded(change(np.swapaxes(attention, 0, 1)).T),
    }


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(np.float64), DIGITS).tolist()


def node_names(num_scales: int) -> list[str]:
    """Names of the N nodes: '3×3 (1,2)' is row 1, column 2, counted from 1, of the 3×3 grid; '1×1' the whole frame."""
    return [
        f"{size}×{size} ({row + 1},{column + 1})" if size > 1 else "1×1"
        for size in regions.grid_sizes(num_scales)
        for row in range(size)
        for column in range(size)
    ]


def received_attention(attention: np.ndarray) -> np.ndarray:
    """How much the nodes listen to each node, 1 being the share it would have if all listened to all alike.

    Σ_i α_ij of weights [..., N, N] whose rows sum to 1: [..., N], with mean 1.
    """
    return attention.sum(axis=-2)


def strongest_messages(attention: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The `count` largest weights between two different nodes of α [N, N], as (sender j, receiver i, α_ij)."""
    weights = attention.astype(np.float64)  # a copy, since the diagonal is struck out
    np.fill_diagonal(weights, -1.0)
    order = np.argsort(-weights, axis=None, kind="stable")[: min(count, weights.size - len(weights))]
    receivers, senders = np.unravel_index(order, weights.shape)
    return [
        (int(sender), int(receiver), float(weights[receiver, sender])) for sender, receiver in zip(senders, receivers)
    ]


def count_scales(weights: np.ndarray) -> int:
    """The number of scales S whose grids have the N nodes of weights [..., N, N]: N = 1 + 4 + … + S²."""
    nodes, scales = weights.shape[-1], 1
    while regions.num_nodes(scales) < nodes:
        scales += 1
    if regions.num_nodes(scales) != nodes:
        raise ValueError(f"attention of {nodes} nodes: expected 1, 5, 14, 30, …, the nodes of whole scales.")
    return scales
