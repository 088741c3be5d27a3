"""Graphs for what users of Keras expect of layers: with few weights, and with all."""

from __future__ import annotations

GRAPH = {"node_width": 4, "message_width": 4, "num_scales": 2, "space_iterations": 1}
# Every option that adds weights of its own.
RICH = {
    **GRAPH,
    "space_iterations": 2,
    "stage_norm": True,
    "normalization": "BN",
    "input_batch_norm": True,
    "attention": "dot",
    "attention_heads": 2,
    "scalewise_update": True,
    "positional_map_size": 3,
    "node_width": 8,
}
