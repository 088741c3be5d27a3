"""Recurrent Space-time Graph Neural Networks (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019) in TensorFlow.

The public names, in the order a clip meets them. They load on first use, so that `rstg_tf.config` and the data-set
tools start without waiting for TensorFlow.
"""

from __future__ import annotations

import importlib

_HOME = {
    "build_model": "rstg_tf.model",
    "NodesFromMap": "rstg_tf.layers.nodes",
    "TemporalStage": "rstg_tf.layers.temporal_stage",
    "SpatialStage": "rstg_tf.layers.spatial_stage",
    "MapFromNodes": "rstg_tf.layers.nodes",
    "RecurrentSpaceTimeGraph": "rstg_tf.layers.recurrent_graph",
}
_MODULES = ("config", "release")
__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"rstg_tf.{name}")
    raise AttributeError(f"module 'rstg_tf' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
