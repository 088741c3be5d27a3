"""Where graphs sit in a ResNet: inside a stage, added to its map; or at the end, beside or instead of the pooling."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.normalization import BatchNorm, JointLayerNorm, apply_norm
from rstg_tf.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.spatial import require_choice
from rstg_tf.streaming import entries_of, mean_shapes, mean_so_far, under

FINAL_NORMS = ("LN", "LN_per_step", "BN", "none")
COMBINATIONS = ("plus", "serial")
POOL_WINDOW = 14  # pixels of the last map


@keras.utils.register_keras_serializable("rstg")
class AfterGraphNorm(keras.layers.Layer):
    """What a graph's output passes before it is added: a norm whose scale starts at 0, so a new graph adds nothing.

    LN           scale · ((x - mean) / sqrt(variance + 1e-12) + beta), statistics over all axes but B jointly
    LN_per_step  the same, statistics over (H, W, C) of each step, so that no step needs the later ones
    BN           `normalization.BatchNorm` over all axes but C, gamma starting at 0
    none         x

    Source: release, section 4 (`final_norm`). Deviation: LN_per_step is not in the release; its weights are LN's.
    """

    def __init__(self, *, kind: str = "LN", **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        require_choice("final_norm", kind, FINAL_NORMS)
        self.kind = kind

    def build(self, input_shape):
        self.norm = self.scale = None
        if self.kind in ("LN", "LN_per_step"):
            axes = len(input_shape) - 1
            if self.kind == "LN_per_step":
                axes = min(axes, 3)  # H, W, C; a vector has no T to leave out
            self.norm = JointLayerNorm(trailing_axes=axes, scale=False, name="norm")
            self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="zeros")
        elif self.kind == "BN":
            # TF1 has no fused kernel for these ranks: its moving variance is the plain one.
            self.norm = BatchNorm(unbiased=False, gamma_initializer="zeros", name="norm")
        if self.norm is not None:
            self.norm.build(input_shape)
        super().build(input_shape)

    def call(self, inputs, training=False):
        normed = apply_norm(self.norm, inputs, training)
        return normed if self.scale is None else normed * tf.cast(self.scale, inputs.dtype)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


@keras.utils.register_keras_serializable("rstg")
class ResidualGraph(keras.layers.Layer):
    """map + norm(graph(map)) for a graph with output 'map': [B, T, H, W, C] -> [B, T, H, W, C].

    Call with `return_trace=True`: a pair of the map and the graph's `GraphTrace`.
    """

    def __init__(self, *, graph: RecurrentSpaceTimeGraph, final_norm: str = "LN", **kwargs):
        super().__init__(**kwargs)
        require_choice("graph.output", graph.output_kind, ("map",))
        self.graph = graph
        self.norm = AfterGraphNorm(kind=final_norm, name="norm")

    def build(self, input_shape):
        if not self.graph.built:
            self.graph.build(input_shape)
        if self.graph.vector_width(input_shape) != input_shape[-1]:
            raise ValueError(f"{self.name}: the graph returns {self.graph.vector_width(input_shape)} channels, which "
                             f"cannot be added to a map with {input_shape[-1]}: set project_features to True.")
        self.norm.build(tuple(input_shape))
        super().build(input_shape)

    def call(self, features, training=False, return_trace=False):
        output, trace = self.graph(features, training=training, return_trace=True)
        joined = features + self.norm(output, training=training)
        return (joined, trace) if return_trace else joined

    def looks_ahead(self) -> list[str]:
        """Why it cannot run step by step; see `streaming`."""
        reasons = self.graph.looks_ahead()
        if self.norm.kind == "LN":
            reasons.append(f"{self.name}: the norm after the graph, final_norm='LN', takes its statistics over all "
                           "steps")
        return reasons

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Entries of the state without B: the graph's."""
        return self.graph.state_shapes()

    def step(self, features, state):
        """The next step of running clips, in inference mode: map [B, H, W, C] -> (map, state after it)."""
        output, state = self.graph.step(features, state)
        return features + self.norm(output[:, None])[:, 0], state

    def get_config(self):
        return {**super().get_config(), "graph": self.graph.get_config(), "final_norm": self.norm.kind}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "graph": RecurrentSpaceTimeGraph.from_config(config["graph"])})


@keras.utils.register_keras_serializable("rstg")
class MapHead(keras.layers.Layer):
    """The last map [B, T, H, W, C] -> what the classifier gets, with one step left and P×Q positions.

        pooled  = mean over T and over windows of 14×14 pixels, stride 1: [B, P, Q, C]; 14×14 -> 1×1, 16×16 -> 3×3;
                  over the whole map, 1×1, where that is smaller than the window
        no graph           pooled
        graph, 'plus'      pooled + norm(graph(map)) at every position
        graph, 'serial'    norm(graph(map)): [B, C]

    Source: release, section 4. Call with `return_traces=True`: a pair of the result and {'final': GraphTrace}, or {}.
    """

    def __init__(self, *, graph: RecurrentSpaceTimeGraph | None = None, final_norm: str = "LN",
                 combination: str = "plus", **kwargs):
        super().__init__(**kwargs)
        require_choice("combination", combination, COMBINATIONS)
        self.graph = graph
        self.combination = combination
        self.norm = None
        if graph is not None:
            require_choice("graph.output", graph.output_kind, ("vector",))
            self.norm = AfterGraphNorm(kind=final_norm, name="norm")

    def build(self, input_shape):
        if self.graph is not None:
            if not self.graph.built:
                self.graph.build(input_shape)
            width = self.graph.vector_width(input_shape)
            if self.combination == "plus" and width != input_shape[-1]:
                raise ValueError(f"{self.name}: the graph's vector has {width} channels, which cannot be added to the "
                                 f"{input_shape[-1]} of the pooled map: set project_features to True.")
            self.norm.build((None, width))
        super().build(input_shape)

    def vector_width(self, input_shape) -> int:
        """Channels of the result for a map of this shape."""
        if self.graph is None or self.combination == "plus":
            return input_shape[-1]
        return self.graph.vector_width(input_shape)

    def call(self, features, training=False, return_traces=False):
        if self.graph is None:
            output, traces = _pool(features), {}
        else:
            vector, trace = self.graph(features, training=training, return_trace=True)
            output, traces = self.norm(vector, training=training), {"final": trace}
            if self.combination == "plus":
                output = _pool(features) + output[:, None, None, :]
        return (output, traces) if return_traces else output

    def looks_ahead(self) -> list[str]:
        """Why it cannot run step by step: what the graph says; the norm sees its vector alone."""
        return [] if self.graph is None else self.graph.looks_ahead()

    def state_shapes(self, map_shape) -> dict[str, tuple[int, ...]]:
        """Entries of the state without B: the graph's, and the mean so far of the pooled maps."""
        shapes = {} if self.graph is None else under("graph", self.graph.state_shapes())
        if self.graph is None or self.combination == "plus":
            shapes.update(under("pooled", mean_shapes(*_positions(*map_shape[2:4]), map_shape[-1])))
        return shapes

    def step(self, features, state):
        """The next step of running clips, in inference mode: map [B, H, W, C] -> (result so far, state after it)."""
        output, after = None, {}
        if self.graph is None or self.combination == "plus":
            pooled, pooled_state = mean_so_far(_pool(tf.cast(features[:, None], tf.float32)),
                                               entries_of("pooled", state))
            output, after = tf.cast(pooled, features.dtype), under("pooled", pooled_state)
        if self.graph is not None:
            vector, graph_state = self.graph.step(features, entries_of("graph", state))
            vector, after = self.norm(vector), {**after, **under("graph", graph_state)}
            output = vector if output is None else output + vector[:, None, None, :]
        return output, after

    def get_config(self):
        return {**super().get_config(), "graph": None if self.graph is None else self.graph.get_config(),
                "final_norm": "LN" if self.norm is None else self.norm.kind, "combination": self.combination}

    @classmethod
    def from_config(cls, config):
        graph = None if config["graph"] is None else RecurrentSpaceTimeGraph.from_config(config["graph"])
        return cls(**{**config, "graph": graph})


def _positions(height: int, width: int) -> tuple[int, int]:
    """P and Q for a map of this size."""
    return (1, 1) if min(height, width) < POOL_WINDOW else (height - POOL_WINDOW + 1, width - POOL_WINDOW + 1)


def _pool(features):
    """[B, T, H, W, C] -> [B, P, Q, C], summed in float32."""
    height, width = features.shape[2:4]
    frame = tf.reduce_mean(tf.cast(features, tf.float32), axis=1)  # [B, H, W, C]
    if min(height, width) < POOL_WINDOW:
        pooled = tf.reduce_mean(frame, axis=[1, 2], keepdims=True)  # [B, 1, 1, C]
    else:
        pooled = tf.nn.avg_pool2d(frame, POOL_WINDOW, 1, padding="VALID")  # [B, P, Q, C]
    return tf.cast(pooled, features.dtype)
