"""Configs of models that are built in a second."""

from __future__ import annotations

from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.config import ModelConfig

TINY = ModelConfig(
    backbone_filters=8,
    backbone_layers=2,
    height=20,
    width=24,
    num_frames=4,
    graph_frames=4,
    num_classes=5,
    graph=GraphConfig(node_width=8, message_width=8, positional_map_size=6),
)
