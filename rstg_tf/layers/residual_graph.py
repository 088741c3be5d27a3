"""Where graphs sit in a ResNet: inside a stage, added to its map; or at the end, beside or instead of the pooling."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.choices import require_choice
from rstg_tf.common.keras_layer import Layer, input_spec
from rstg_tf.layers.normalization import BatchNorm, JointLayerNorm, apply_norm
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.layers.streaming_state import check_streamable

FINAL_NORMS = ("LN", "LN_per_step", "BN", "none")


@keras.utils.register_keras_serializable("rstg")
class AfterGraphNorm(Layer):
    """What a graph's output passes before it is added: a norm whose scale starts at 0, so a new graph adds nothing.

    LN           scale · ((x - mean) / sqrt(variance + 1e-12) + beta), statistics over all axes but B jointly
    LN_per_step  the same, statistics over (H, W, C) of each step, so that no step needs the later ones
    BN           `normalization.BatchNorm` over all axes but C, gamma starting at 0
    none         x

    Source: docs/release.md, 'ResNet-50' (`final_norm`). Deviation: LN_per_step is not in the release; its
    weights are LN's.

    Example:

    >>> tf.abs(AfterGraphNorm(kind='LN')(tf.constant([[1.0, 3.0]]))).numpy().tolist()  # the scale starts at 0
    [[0.0, 0.0]]
    """

    def __init__(self, *, kind: str = "LN", **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        require_choice("final_norm", kind, FINAL_NORMS)
        self.kind = kind

    def build(self, input_shape):
        self.input_spec = input_spec(len(input_shape), input_shape[-1])
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
class ResidualGraph(Layer):
    """map + norm(graph(map)) for a graph with output 'map': [B, T, H, W, C] -> [B, T, H, W, C].

    Call with `return_trace=True`: also the graph's `GraphTrace`; with `states`: last, the graph's states after it.

    Example:

    >>> graph = RecurrentSpaceTimeGraph(output='map', node_width=8, message_width=8, num_scales=2)
    >>> tuple(ResidualGraph(graph=graph)(tf.zeros([1, 3, 4, 6, 8])).shape)
    (1, 3, 4, 6, 8)
    """

    def __init__(self, *, graph: RecurrentSpaceTimeGraph, final_norm: str = "LN", **kwargs):
        super().__init__(**{**kwargs, "autocast": False})  # states stay float32
        require_choice("graph.output", graph.output_kind, ("map",))
        self.graph = graph
        self.norm = AfterGraphNorm(kind=final_norm, name="norm")

    def build(self, input_shape):
        self.input_spec = input_spec(5, input_shape[-1])
        if not self.graph.built:
            self.graph.build(input_shape)
        if self.graph.vector_width(input_shape) != input_shape[-1]:
            raise ValueError(
                f"{self.name}: the graph returns {self.graph.vector_width(input_shape)} channels, which "
                f"cannot be added to a map with {input_shape[-1]}: set project_features to True."
            )
        self.norm.build(tuple(input_shape))
        super().build(input_shape)

    def call(self, features, states=None, training=False, return_trace=False):
        if states is not None:
            check_streamable(self)
        features = tf.cast(features, self.compute_dtype)
        output, trace, *after = self.graph(features, states=states, training=training, return_trace=True)
        joined = features + self.norm(output, training=training)
        results = [joined, *([trace] if return_trace else []), *after]
        return tuple(results) if len(results) > 1 else joined

    def noncausal_reasons(self) -> list[str]:
        """Why it cannot run in chunks of steps; see `streaming_state`."""
        reasons = self.graph.noncausal_reasons()
        if self.norm.kind == "LN":
            reasons.append(
                f"{self.name}: the norm after the graph, final_norm='LN', takes its statistics over all steps"
            )
        return reasons

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Entries of the states without B: the graph's."""
        return self.graph.state_shapes()

    def get_config(self):
        return {**super().get_config(), "graph": self.graph.get_config(), "final_norm": self.norm.kind}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "graph": RecurrentSpaceTimeGraph.from_config(config["graph"])})
