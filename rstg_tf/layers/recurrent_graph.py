"""The recurrent space-time graph: the schedule of its stages and nothing else. Paper, figure 2 and algorithm 1."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.choices import require_choice
from rstg_tf.layers import regions
from rstg_tf.layers.nodes import MapFromNodes, NodesFromMap
from rstg_tf.layers.normalization import JointLayerNorm, apply_norm, normalization_layer
from rstg_tf.layers.readout import vector_from_nodes
from rstg_tf.layers.schedules import SCHEDULES
from rstg_tf.layers.spatial_stage import SpatialStage
from rstg_tf.layers.streaming_state import check_state, check_streamable, mean_shapes, running_mean, zero_state
from rstg_tf.layers.temporal_stage import TemporalStage, ThroughStep, lstm_state_shapes, through_clip
from rstg_tf.ops.batch_split import map_halves
from rstg_tf.ops.cast_cache import cast_once
from rstg_tf.ops.dense import FlatDense

OUTPUTS = ("vector", "map")
NODE_REDUCTIONS = ("sum", "mean")


class GraphTrace(NamedTuple):
    """What happened in one run: pooled nodes [B, T, N, C], final nodes [B, T, N, C'], attention α [B, K, T, N, N].

    Row i of α receives, column j sends; it and the pooled nodes are float32.
    """

    input_nodes: tf.Tensor
    output_nodes: tf.Tensor
    attention: tf.Tensor


@keras.utils.register_keras_serializable("rstg")
class RecurrentSpaceTimeGraph(keras.layers.Layer):
    """Feature map of a clip -> regions that talk in space and remember in time -> vector or map.

        map [B,T,H,W,C]
          |  mean over each region of every scale
        nodes [B,T,N,C] --(project to message_width)--> norms
          |
          |   +--------------------- K times ---------------------+
          +-> | time:  one LSTM per node, over T                   |
              | space: messages -> attention -> update, per frame  | -> time: a second LSTM
              +----------------------------------------------------+          |
                                        vector [B,C']  = mean over T, sum over N
                                        map [B,T,H,W,C'] = every node back over its region, scales summed

    Source: Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, section 3; numbers as in docs/release.md, 'Graph'.

    Args:
      output: 'vector' or 'map'.
      num_scales: S grids S×S … 1×1, N = Σ s² nodes.
      space_iterations: K. 0 leaves the time stages only.
      time_stages: a row of SCHEDULES: 'all' (release: before each of the first three space stages, and the last),
        'every' (no cap at three), 'final' (only the last), 'none' (space only).
      share_stages: no LSTMs; a time round is the space stage itself, same weights, in which the earlier steps of the
        same region send the messages (the paper's homogeneous ablation). Always masked, so it stays causal.
      node_width, message_width: channels of nodes and of messages.
      attention, attention_heads, neighbourhood: see `spatial.NeighbourAttention`.
      normalization: 'LN', 'BN' or 'none', the release's `use_norm`, on the nodes entering and inside the space stages;
        'LN_per_step': LN, but the statistics of the entering nodes are each step's own. Not in the release.
      input_batch_norm: batch norm over (B, T, N) on the nodes first (the release: for SyncMNIST).
      positional_map_size: messages also see where both nodes lie, on maps of this size (release: 6); 0 for none.
      update_layers, scalewise_update: see `spatial.NodeUpdate`.
      project_features: a dense layer C -> message_width before and node_width -> C after the stages. None: when
        C differs from message_width.
      adjacency_size: (height, width) in pixels on which regions are called neighbours; the release takes the input
        image's. None: sizes that every grid divides.
      stage_norm: layer norm of each node at the entrance of each stage. Not in the release.
      residual_stages: every stage adds to its input. Not in the release.
      forget_bias: see `temporal.TemporalStage`.
      node_reduction: 'sum' (release) or 'mean' over the nodes in the vector.

    Call: features [B, T, H, W, C] -> [B, C'] or [B, T, H, W, C'], C' = C if projected, else node_width. H, W, C must be
    known when traced; B and T need not be. With `return_trace=True` a pair: the output and a GraphTrace.

    Causal in time: `step` runs it step by step, in inference mode, from `initial_state`; see `streaming`.
    """

    def __init__(self, *, output: str = "vector", num_scales: int = 3, space_iterations: int = 3,
                 time_stages: str = "all", share_stages: bool = False, node_width: int = 512,
                 message_width: int = 512, attention: str = "simple", attention_heads: int = 1,
                 neighbourhood: str = "soft", normalization: str = "none", input_batch_norm: bool = False,
                 positional_map_size: int = 0, update_layers: int = 2, scalewise_update: bool = False,
                 project_features: bool | None = None, adjacency_size: tuple[int, int] | None = None,
                 stage_norm: bool = False, residual_stages: bool = False, forget_bias: float = 0.0,
                 node_reduction: str = "sum", **kwargs):
        super().__init__(**kwargs)
        require_choice("output", output, OUTPUTS)
        require_choice("time_stages", time_stages, tuple(SCHEDULES))
        require_choice("node_reduction", node_reduction, NODE_REDUCTIONS)
        if space_iterations < 0 or (space_iterations == 0 and (share_stages or time_stages == "none")):
            raise ValueError(f"space_iterations={space_iterations} with time_stages={time_stages!r} and share_stages="
                             f"{share_stages} leaves no stage to run.")
        self.output_kind, self.num_scales, self.space_iterations = output, num_scales, space_iterations
        self.time_stages, self.share_stages = time_stages, share_stages
        self.node_width, self.message_width = node_width, message_width
        self.attention, self.attention_heads, self.neighbourhood = attention, attention_heads, neighbourhood
        self.normalization, self.input_batch_norm = normalization, input_batch_norm
        self.positional_map_size, self.update_layers = positional_map_size, update_layers
        self.scalewise_update, self.project_features = scalewise_update, project_features
        self.adjacency_size = None if adjacency_size is None else tuple(adjacency_size)
        self.stage_norm, self.residual_stages, self.forget_bias = stage_norm, residual_stages, forget_bias
        self.node_reduction = node_reduction

    def build(self, input_shape):
        channels = input_shape[-1]
        if len(input_shape) != 5 or None in (input_shape[2], input_shape[3], channels):
            raise ValueError(f"{self.name}: expected features [B, T, H, W, C] with known H, W and C, got "
                             f"{tuple(input_shape)}.")
        self.projected = channels != self.message_width if self.project_features is None else self.project_features
        if not self.projected and channels != self.message_width:
            raise ValueError(f"{self.name}: features have {channels} channels, message_width is {self.message_width}: "
                             "make them equal, or set project_features to True.")
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
                node_width=self.node_width, message_width=self.message_width, attention=self.attention,
                attention_heads=self.attention_heads, neighbourhood=self.neighbourhood,
                normalization=self.normalization, update_layers=self.update_layers, scale_sizes=sizes,
                positions_width=self.positional_map_size**2, name="space", dtype=self.dtype_policy)
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

    def call(self, features, training=False, return_trace=False):
        trace = self._run(features, True, through_clip) if training else self._infer(features)
        if self.output_kind == "map":
            height, width = features.shape[2:4]
            output = self.map_from_nodes(trace.output_nodes, height=height, width=width)
        else:
            output = vector_from_nodes(trace.output_nodes, self.node_reduction)
        return (output, trace) if return_trace else output

    def initial_state(self, clips) -> dict[str, tf.Tensor]:
        """What `clips` clips remember before their first step: zeros. Raises ConfigError if the graph looks ahead."""
        check_streamable(self)
        return zero_state(self.state_shapes(), clips)

    def step(self, features, state):
        """The next step of running clips, in inference mode: features [B, H, W, C] -> (output, state after it).

        'map': this step's [B, H, W, C']; 'vector': of the steps so far, [B, C'], after the last one that of the clip.
        Raises ConfigError if the graph looks ahead, ValueError for a state that is none of its own.
        """
        check_streamable(self)
        check_state(state, self.state_shapes())
        through_step = ThroughStep(state)
        with cast_once():
            nodes = self._run(tf.cast(features, self.compute_dtype)[:, None], False, through_step).output_nodes
        if self.output_kind == "map":
            height, width = features.shape[1:3]
            return self.map_from_nodes(nodes, height=height, width=width)[:, 0], through_step.state
        vector, mean_state = running_mean(vector_from_nodes(tf.cast(nodes, tf.float32), self.node_reduction), state)
        return tf.cast(vector, nodes.dtype), {**through_step.state, **mean_state}

    def state_shapes(self, input_shape=None) -> dict[str, tuple[int, ...]]:
        """Entries of the state without B: (h, c) of every node for each time that time passes, and the mean so far."""
        width = self.project_back.units if self.projected else self.node_width
        shapes = mean_shapes(width) if self.output_kind == "vector" else {}
        for name in SCHEDULES[self.time_stages].time_rounds(self.space_iterations):
            shapes.update(lstm_state_shapes(name, regions.num_nodes(self.num_scales), self.node_width))
        return shapes

    def noncausal_reasons(self) -> list[str]:
        """Why it cannot run step by step: a sentence for each reason, naming the part."""
        shared = self.share_stages and self.time_stages != "none"
        return [f"{self.name}: {reason}" for applies, reason in (
            (self.normalization == "LN", "before_norm, normalization='LN', takes its statistics over all steps"),
            (shared, "share_stages lets every step hear all earlier ones, so its memory would grow with the clip"),
        ) if applies]

    def _infer(self, features) -> GraphTrace:
        with cast_once():
            return map_halves(lambda clips: self._run(clips, False, through_clip), features)

    def _run(self, features, training, through_time) -> GraphTrace:
        """`through_time(stage, nodes, name of the round)`: how nodes pass an LSTM, as whole clips or by one step."""
        input_nodes = self.nodes_from_map(features)  # [B, T, N, C]
        nodes = self._enter(input_nodes, training)
        schedule = SCHEDULES[self.time_stages]
        attention = []
        for k in range(self.space_iterations):
            if schedule.time_before(k):
                nodes = self._pass_time("time_stage", f"time_{k}", nodes, training, through_time)
            nodes, weights = self._pass_space(nodes, training)
            attention.append(weights)
        if schedule.time_last:
            nodes = self._pass_time("last_time_stage", "last_time", nodes, training, through_time)
        if self.project_back is not None:
            nodes = self.project_back(nodes)
        return GraphTrace(input_nodes, nodes, self._stack_rounds(attention, nodes))

    def _enter(self, nodes, training):
        if self.project is not None:
            nodes = self.project(nodes)
        nodes = apply_norm(self.input_norm, nodes, training)
        nodes = tf.cast(apply_norm(self.before_norm, nodes, training), self.compute_dtype)
        if self.resize is not None:
            nodes = apply_norm(self.resize_norm, self.resize(nodes), training)
        return nodes

    def _pass_space(self, nodes, training):
        """One space stage: nodes and α [B, T, N, N]."""
        entering = self._normed("space_stage", nodes)
        updated, weights = self.space_stage(entering, self.adjacency, positions=self.positions, training=training)
        return self._joined(nodes, updated), weights

    def _pass_time(self, name: str, round_name: str, nodes, training, through_time):
        if self.share_stages:
            return self._pass_time_by_messages(nodes, training)
        return self._joined(nodes, through_time(getattr(self, name), self._normed(name, nodes), round_name))

    def _pass_time_by_messages(self, nodes, training):
        """The space stage with the steps of a region in the place of the regions of a step."""
        steps = tf.shape(nodes)[1]
        earlier = tf.linalg.band_part(tf.ones([steps, steps]), -1, 0) - tf.eye(steps)  # [T, T]
        series = tf.transpose(self._normed("space_stage", nodes), [0, 2, 1, 3])  # [B, N, T, C]
        positions = None if self.positions is None else self.positions[:, None]  # [N, 1, P]
        updated, _ = self.space_stage(series, earlier, positions=positions, training=training, over_time=True)
        return self._joined(nodes, tf.transpose(updated, [0, 2, 1, 3]))

    def norm_of_stage(self, name: str) -> JointLayerNorm | None:
        """The norm at the entrance of 'space_stage', 'time_stage' or 'last_time_stage'; None where it has none."""
        return getattr(self.stage_norms, name, None)

    def _normed(self, name: str, nodes):
        return apply_norm(self.norm_of_stage(name), nodes, False)

    def _joined(self, nodes, updated):
        return nodes + updated if self.residual_stages else updated

    @staticmethod
    def _stack_rounds(attention, nodes):
        """[B, K, T, N, N]; K = 0 without space stages."""
        if attention:
            return tf.stack(attention, axis=1)
        clips, steps, count, _ = tf.unstack(tf.shape(nodes))
        return tf.zeros(tf.stack([clips, 0, steps, count, count]))

    def vector_width(self, input_shape) -> int:
        """C' for features of this shape."""
        return input_shape[-1] if self.projected else self.node_width

    def get_config(self):
        return {**super().get_config(), "output": self.output_kind, "num_scales": self.num_scales,
                "space_iterations": self.space_iterations, "time_stages": self.time_stages,
                "share_stages": self.share_stages, "node_width": self.node_width,
                "message_width": self.message_width, "attention": self.attention,
                "attention_heads": self.attention_heads, "neighbourhood": self.neighbourhood,
                "normalization": self.normalization, "input_batch_norm": self.input_batch_norm,
                "positional_map_size": self.positional_map_size, "update_layers": self.update_layers,
                "scalewise_update": self.scalewise_update, "project_features": self.project_features,
                "adjacency_size": self.adjacency_size, "stage_norm": self.stage_norm,
                "residual_stages": self.residual_stages, "forget_bias": self.forget_bias,
                "node_reduction": self.node_reduction}
