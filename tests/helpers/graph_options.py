"""Graphs of every option, small enough to be compared with NumPy."""

from __future__ import annotations

import numpy as np
import recipe

from rstg_tf import RecurrentSpaceTimeGraph, release
from rstg_tf.release.names import graph_entries

SIZE = (48, 64)  # pixels on which regions are neighbours
SMALL = {"node_width": 8, "message_width": 8, "adjacency_size": SIZE}
OPTIONS = [
    {},
    {"positional_map_size": 6, "input_batch_norm": True},
    {"normalization": "LN", "attention": "dot", "scalewise_update": True},
    {"normalization": "LN", "attention": "simple", "positional_map_size": 6},
    {"normalization": "BN", "attention": "simple"},
    {"normalization": "BN", "attention": "dot", "attention_heads": 4},
    {"attention": "dot", "attention_heads": 2, "neighbourhood": "masked", "normalization": "LN"},
    {"attention": "simple", "attention_heads": 8},
    {"neighbourhood": "masked"},
    {"neighbourhood": "masked", "attention": "dot"},
    {"num_scales": 1, "neighbourhood": "masked"},
    {"num_scales": 4, "attention": "dot"},
    {"num_scales": 2, "scalewise_update": True, "update_layers": 3},
    {"update_layers": 1},
    {"space_iterations": 5},
    {"space_iterations": 5, "time_stages": "every"},
    {"time_stages": "final"},
    {"time_stages": "none"},
    {"space_iterations": 0},
    {"stage_norm": True, "residual_stages": True},
    {"node_width": 12, "normalization": "LN", "attention": "dot"},
]


def features_of(channels=8, clips=2, steps=4, height=5, width=6):
    draw = np.random.default_rng(3).standard_normal((clips, steps, height, width, channels))
    return np.maximum(draw, 0).astype(np.float32)


def graph_and_weights(features, **options):
    """A graph with weights by the recipe, and the same weights for the reference."""
    graph = RecurrentSpaceTimeGraph(**{**SMALL, **options})
    graph(features)
    entries = list(graph_entries("", graph))
    weights = {entry.name: recipe.weight(entry.name, entry.shape) for entry in entries}
    release.assign_entries(entries, weights)
    return graph, weights


def name_of(options):
    return "-".join(f"{name}={value}" for name, value in options.items()) or "defaults"
