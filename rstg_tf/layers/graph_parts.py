"""The layers that a recurrent space-time graph is made of, built from its arguments for features of a shape."""

from __future__ import annotations

import math

from tensorflow import keras

from rstg_tf.common.keras_layer import Layer, input_spec
from rstg_tf.layers import regions
from rstg_tf.layers.nodes import MapFromNodes, NodesFromMap
from rstg_tf.layers.normalization import JointLayerNorm, normalization_layer
from rstg_tf.layers.schedules import SCHEDULES
from rstg_tf.layers.spatial_stage import SpatialStage
from rstg_tf.layers.temporal_stage import TemporalStage
from rstg_tf.ops.dense import FlatDense


class GraphParts(Layer):
    """Builds what `RecurrentSpaceTimeGraph` runs: the entrance, the stages in space and time, the way back to the map.

    Reads the graph's arguments from attributes of their names. The attributes set here are the edges by which
    checkpoints find the weights.

    Example:

    >>> from rstg_tf import RecurrentSpaceTimeGraph
    >>> graph = RecurrentSpaceTimeGraph(node_width=8, message_width=8, time_stages="final")
    >>> graph.build((None, None, 4, 6, 8))
    >>> graph.time_stage is None, graph.last_time_stage.units
    (True, 8)
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        if len(input_shape) != 5 or None in (input_shape[2], input_shape[3], channels):
            raise ValueError(
                f"{self.name}: expected features [B, T, H, W, C] with known H, W and C, got {tuple(input_shape)}."
            )
        self.projected = channels != self.message_width if self.project_features is None else self.project_features
        if not self.projected and channels != self.message_width:
            raise ValueError(
                f"{self.name}: features have {channels} channels, message_width is {self.message_width}: "
                "make them equal, or set project_features to True."
            )
        self.input_spec = input_spec(5, channels)
        size = self.adjacency_size or (math.lcm(*range(1, self.num_scales + 1)),) * 2
        self.adjacency = regions.adjacency(self.num_scales, *size)
        self.positions = None
        if self.positional_map_size:
            self.positions = regions.positional_maps(self.num_scales, self.positional_map_size)
        self._build_entrance(channels)
        self._build_stages()
        self.project_back = None
        if self.projected:
            self.project_back = self._dense(channels, "project_back", self.node_width)
        self.map_from_nodes = MapFromNodes(num_scales=self.num_scales, name="map", dtype=self.dtype_policy)
        super().build(input_shape)

    def _build_entrance(self, channels: int):
        self.nodes_from_map = NodesFromMap(num_scales=self.num_scales, name="nodes", dtype=self.dtype_policy)
        self.project = self._dense(self.message_width, "project", channels) if self.projected else None
        self.input_norm = self._entrance_norm("BN" if self.input_batch_norm else "none", "input_norm")
        self.before_norm = self._entrance_norm(self.normalization, "before_norm")
        self.resize = self.resize_norm = None
        if self.node_width != self.message_width:
            self.resize = self._dense(self.node_width, "resize", self.message_width)
            self.resize_norm = self._entrance_norm(self.normalization, "resize_norm", self.node_width)

    def _build_stages(self):
        count = regions.num_nodes(self.num_scales)
        shape = (None, None, count, self.node_width)
        schedule = SCHEDULES[self.time_stages]
        self.space_stage = self.time_stage = self.last_time_stage = None
        if self.space_iterations:
            sizes = [size * size for size in regions.grid_sizes(self.num_scales)] if self.scalewise_update else None
            self.space_stage = SpatialStage(
                node_width=self.node_width,
                message_width=self.message_width,
                attention=self.attention,
                attention_heads=self.attention_heads,
                neighbourhood=self.neighbourhood,
                normalization=self.normalization,
                update_layers=self.update_layers,
                scale_sizes=sizes,
                positions_width=self.positional_map_size**2,
                name="space",
                dtype=self.dtype_policy,
            )
            self.space_stage.build(shape)
        if not self.share_stages:
            if any(schedule.time_before(k) for k in range(self.space_iterations)):
                self.time_stage = self._temporal_stage("time", shape)
            if schedule.time_last:
                self.last_time_stage = self._temporal_stage("last_time", shape)
        # A layer holds them under the names of their stages: a checkpoint of Keras 3 does not find layers in dicts.
        self.stage_norms = keras.layers.Layer(name="stage_norms", dtype=self.dtype_policy)
        for name in ("last_time_stage", "space_stage", "time_stage"):  # the order of the weights in older checkpoints
            if self.stage_norm and getattr(self, name) is not None:
                norm = JointLayerNorm(trailing_axes=1, epsilon=1e-6, name=f"{name}_norm")
                norm.build(shape)
                setattr(self.stage_norms, name, norm)

    def _temporal_stage(self, name: str, shape):
        stage = TemporalStage(units=self.node_width, forget_bias=self.forget_bias, name=name, dtype=self.dtype_policy)
        stage.build(shape)
        return stage

    def _dense(self, units: int, name: str, inputs: int):
        layer = FlatDense(units, name=name, dtype=self.dtype_policy)
        layer.build((None, inputs))
        return layer

    def _entrance_norm(self, kind: str, name: str, width: int | None = None):
        norm = normalization_layer(kind, trailing_axes=3, per_step=False, unbiased=True, name=name)
        if norm is not None:
            norm.build((None, None, None, width or self.message_width))
        return norm
