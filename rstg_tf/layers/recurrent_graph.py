"""The recurrent space-time graph: the schedule of its stages and nothing else. Paper, figure 2 and algorithm 1."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.choices import require_choice
from rstg_tf.layers import regions
from rstg_tf.layers.graph_parts import GraphParts
from rstg_tf.layers.normalization import apply_norm
from rstg_tf.layers.readout import vector_from_nodes
from rstg_tf.layers.schedules import SCHEDULES
from rstg_tf.layers.streaming_state import (
    add_prefix,
    call_part,
    check_state,
    check_streamable,
    mean_shapes,
    merge_mean,
    strip_prefix,
    zero_state,
)

OUTPUTS = ("vector", "map")
NODE_REDUCTIONS = ("sum", "mean")
# Of the constructor, but for `output`; each is kept under its name.
_ARGUMENTS = tuple(
    """num_scales space_iterations time_stages share_stages node_width message_width attention
    attention_heads neighbourhood normalization input_batch_norm positional_map_size update_layers scalewise_update
    project_features adjacency_size stage_norm residual_stages forget_bias node_reduction""".split()
)


class GraphTrace(NamedTuple):
    """What happened in one run: pooled nodes [B, T, N, C], final nodes [B, T, N, C'], attention α [B, K, T, N, N].

    Row i of α receives, column j sends; it and the pooled nodes are float32.
    """

    input_nodes: tf.Tensor
    output_nodes: tf.Tensor
    attention: tf.Tensor


@keras.utils.register_keras_serializable("rstg")
class RecurrentSpaceTimeGraph(GraphParts):
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

    Causal in time: with `states`, at first `initial_state(B)`, features are the next steps of running clips, any number
    of them, and a call returns (output, states after them): of a 'map' these steps, of a 'vector' that of all steps so
    far. See `streaming_state`. Raises ConfigError if the graph looks ahead, ValueError for states that are none of its
    own.

    Example:

    >>> graph = RecurrentSpaceTimeGraph(node_width=8, message_width=8, num_scales=2)
    >>> tuple(graph(tf.zeros([2, 3, 4, 6, 8])).shape)
    (2, 8)
    >>> vector, states = graph(tf.zeros([2, 1, 4, 6, 8]), states=graph.initial_state(2))
    >>> states['steps'].numpy().tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        *,
        output: str = "vector",
        num_scales: int = 3,
        space_iterations: int = 3,
        time_stages: str = "all",
        share_stages: bool = False,
        node_width: int = 512,
        message_width: int = 512,
        attention: str = "simple",
        attention_heads: int = 1,
        neighbourhood: str = "soft",
        normalization: str = "none",
        input_batch_norm: bool = False,
        positional_map_size: int = 0,
        update_layers: int = 2,
        scalewise_update: bool = False,
        project_features: bool | None = None,
        adjacency_size: tuple[int, int] | None = None,
        stage_norm: bool = False,
        residual_stages: bool = False,
        forget_bias: float = 0.0,
        node_reduction: str = "sum",
        **kwargs,
    ):
        super().__init__(**{**kwargs, "autocast": False})  # states stay float32
        require_choice("output", output, OUTPUTS)
        require_choice("time_stages", time_stages, tuple(SCHEDULES))
        require_choice("node_reduction", node_reduction, NODE_REDUCTIONS)
        if space_iterations < 0 or (space_iterations == 0 and (share_stages or time_stages == "none")):
            raise ValueError(
                f"space_iterations={space_iterations} with time_stages={time_stages!r} and share_stages="
                f"{share_stages} leaves no stage to run."
            )
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

    def call(self, features, states=None, training=False, return_trace=False):
        if states is not None:
            check_streamable(self)
            check_state(states, self.state_shapes())
        features = tf.cast(features, self.compute_dtype)
        trace, after = self._run(features, states, training)
        nodes = trace.output_nodes
        if self.output_kind == "map":
            height, width = features.shape[2:4]
            output = self.map_from_nodes(nodes, height=height, width=width)
        else:
            vector = vector_from_nodes(tf.cast(nodes, tf.float32), self.node_reduction)  # [B, C'] of these steps
            vector, mean = merge_mean(vector, tf.shape(nodes)[1], states)
            output, after = tf.cast(vector, nodes.dtype), {**after, **mean}
        results = [output, *([trace] if return_trace else []), *([after] if states is not None else [])]
        return tuple(results) if len(results) > 1 else output

    def initial_state(self, clips) -> dict[str, tf.Tensor]:
        """What `clips` clips remember before their first step: zeros. Raises ConfigError if the graph looks ahead."""
        check_streamable(self)
        return zero_state(self.state_shapes(), clips)

    def step(self, features, state):
        """A chunk of one step, in inference mode: features [B, H, W, C] -> (output, state after it).

        'map': this step's [B, H, W, C']; 'vector': of the steps so far, [B, C'].
        """
        output, state = self(features[:, None], states=state)
        return (output[:, 0] if self.output_kind == "map" else output), state

    def state_shapes(self, input_shape=None) -> dict[str, tuple[int, ...]]:
        """Entries of the states without B: (h, c) of every node for each time that time passes, and the mean so far."""
        width = self.project_back.units if self.projected else self.node_width
        shapes = mean_shapes(width) if self.output_kind == "vector" else {}
        schedule, count = SCHEDULES[self.time_stages], regions.num_nodes(self.num_scales)
        for name in schedule.time_rounds(self.space_iterations):
            stage = self.last_time_stage if name == "last_time" else self.time_stage
            shapes.update(add_prefix(name, stage.state_shapes(count)))
        return shapes

    def noncausal_reasons(self) -> list[str]:
        """Why it cannot run in chunks of steps: a sentence for each reason, naming the part."""
        shared = self.share_stages and self.time_stages != "none"
        return [
            f"{self.name}: {reason}"
            for applies, reason in (
                (self.normalization == "LN", "before_norm, normalization='LN', takes its statistics over all steps"),
                (shared, "share_stages lets every step hear all earlier ones, so its memory would grow with the clip"),
            )
            if applies
        ]

    def _run(self, features, states, training) -> tuple[GraphTrace, dict]:
        """What happened, and the LSTMs' states after it; without states none."""
        input_nodes = self.nodes_from_map(features)  # [B, T, N, C]
        nodes = self._enter(input_nodes, training)
        schedule = SCHEDULES[self.time_stages]
        attention, after = [], {}

        def pass_time(name: str, round_name: str, nodes):
            nodes, memory = self._pass_time(name, nodes, strip_prefix(round_name, states), training)
            after.update(add_prefix(round_name, memory))
            return nodes

        for k in range(self.space_iterations):
            if schedule.time_before(k):
                nodes = pass_time("time_stage", f"time_{k}", nodes)
            nodes, weights = self._pass_space(nodes, training)
            attention.append(weights)
        if schedule.time_last:
            nodes = pass_time("last_time_stage", "last_time", nodes)
        if self.project_back is not None:
            nodes = self.project_back(nodes)
        return GraphTrace(input_nodes, nodes, self._stack_rounds(attention, nodes)), after

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

    def _pass_time(self, name: str, nodes, states, training):
        """One time round: nodes, and its LSTM's states after it."""
        if self.share_stages:
            return self._pass_time_by_messages(nodes, training), {}
        updated, after = call_part(getattr(self, name), self._normed(name, nodes), states, training=training)
        return self._joined(nodes, updated), after

    def _pass_time_by_messages(self, nodes, training):
        """The space stage with the steps of a region in the place of the regions of a step."""
        steps = tf.shape(nodes)[1]
        earlier = tf.linalg.band_part(tf.ones([steps, steps]), -1, 0) - tf.eye(steps)  # [T, T]
        series = tf.transpose(self._normed("space_stage", nodes), [0, 2, 1, 3])  # [B, N, T, C]
        positions = None if self.positions is None else self.positions[:, None]  # [N, 1, P]
        updated, _ = self.space_stage(series, earlier, positions=positions, training=training, over_time=True)
        return self._joined(nodes, tf.transpose(updated, [0, 2, 1, 3]))

    def _normed(self, name: str, nodes):
        return apply_norm(getattr(self.stage_norms, name, None), nodes, False)

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
        arguments = {name: getattr(self, name) for name in _ARGUMENTS}
        return {**super().get_config(), "output": self.output_kind, **arguments}
