"""What the paper compares the graph with on SyncMNIST: one LSTM over whole frames instead of one per region."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.choices import require_choice
from rstg_tf.common.keras_layer import Layer, input_spec
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.layers.residual_graph import AfterGraphNorm
from rstg_tf.layers.streaming_state import (
    add_prefix,
    call_part,
    check_streamable,
    mean_shapes,
    merge_mean,
    running_mean,
    strip_prefix,
)
from rstg_tf.layers.temporal_stage import TemporalStage
from rstg_tf.ops.dense import FlatDense

COMBINATIONS = ("plus", "serial")
POOL_WINDOW = 14  # pixels of the last map


@keras.utils.register_keras_serializable("rstg", name="FrameLSTM")  # the name that saved models hold
class FrameLSTMHead(Layer):
    """Feature map -> one vector per frame -> LSTM over T -> mean over T: [B, T, H, W, C] -> [B, units].

    pooling 'mean'  the frame's vector is the mean over H·W (the paper's Mean + LSTM).
    pooling 'conv'  it is a convolution over the whole map, relu, `units` wide, so that it still knows where things are
                    (the paper's Conv + LSTM); H and W are then fixed by the first call.

    With `states`: the mean over all steps so far, and the states after them.

    Source: paper, section 4.1; the release has no code for them, so widths and the mean over T follow the graph.

    Example:

    >>> tuple(FrameLSTMHead(units=4, pooling='mean')(tf.zeros([2, 3, 4, 6, 8])).shape)
    (2, 4)
    """

    def __init__(self, *, units: int = 512, pooling: str = "mean", forget_bias: float = 0.0, **kwargs):
        super().__init__(**{**kwargs, "autocast": False})  # states stay float32
        if pooling not in ("mean", "conv"):
            raise ValueError(f"pooling={pooling!r}: expected 'mean' or 'conv'.")
        self.units, self.pooling, self.forget_bias = units, pooling, forget_bias
        self.lstm = TemporalStage(units=units, forget_bias=forget_bias, name="lstm", dtype=self.dtype_policy)
        self.convolution = None
        if pooling == "conv":
            # A convolution as large as the map is a dense layer on the flattened map.
            self.convolution = FlatDense(units, activation="relu", name="convolution", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.input_spec = input_spec(5, input_shape[-1])
        height, width, channels = input_shape[2:]
        inputs = channels
        if self.convolution is not None:
            self.convolution.build((None, height * width * channels))
            inputs = self.units
        self.lstm.build((None, None, 1, inputs))
        super().build(input_shape)

    def vector_width(self, input_shape) -> int:
        """Width of the result."""
        return self.units

    def call(self, features, states=None, training=False):
        features = tf.cast(features, self.compute_dtype)
        _, steps, height, width, channels = features.shape
        length = tf.shape(features)[1] if steps is None else steps
        if self.convolution is None:
            frames = tf.reduce_mean(features, axis=[2, 3])  # [B, T, C]
        else:
            frames = self.convolution(tf.reshape(features, [-1, length, height * width * channels]))  # [B, T, units]
        # [B, T, 1, units]
        hidden, memory = call_part(self.lstm, frames[:, :, None], strip_prefix("lstm", states), training=training)
        mean, mean_state = running_mean(hidden[:, :, 0], states)
        mean = tf.cast(mean, features.dtype)
        return mean if states is None else (mean, {**add_prefix("lstm", memory), **mean_state})

    def noncausal_reasons(self) -> list[str]:
        """Nothing looks ahead; see `streaming_state`."""
        return []

    def state_shapes(self, map_shape) -> dict[str, tuple[int, ...]]:
        """Entries of the states without B: the LSTM's, and the mean so far."""
        return {**add_prefix("lstm", self.lstm.state_shapes(1)), **mean_shapes(self.units)}

    def get_config(self):
        return {**super().get_config(), "units": self.units, "pooling": self.pooling, "forget_bias": self.forget_bias}


@keras.utils.register_keras_serializable("rstg", name="MapHead")  # the name that saved models hold
class PoolingHead(Layer):
    """The last map [B, T, H, W, C] -> what the classifier gets, with one step left and P×Q positions.

        pooled  = mean over T and over windows of 14×14 pixels, stride 1: [B, P, Q, C]; 14×14 -> 1×1, 16×16 -> 3×3;
                  over the whole map, 1×1, where that is smaller than the window
        no graph           pooled
        graph, 'plus'      pooled + norm(graph(map)) at every position
        graph, 'serial'    norm(graph(map)): [B, C]

    Source: docs/release.md, 'ResNet-50'. Call with `return_traces=True`: also {'final': GraphTrace}, or {}. With
    `states`: the result of all steps so far, and last the states after them.

    Example:

    >>> tuple(PoolingHead()(tf.zeros([2, 3, 16, 16, 8])).shape)
    (2, 3, 3, 8)
    """

    def __init__(
        self,
        *,
        graph: RecurrentSpaceTimeGraph | None = None,
        final_norm: str = "LN",
        combination: str = "plus",
        **kwargs,
    ):
        super().__init__(**{**kwargs, "autocast": False})  # states stay float32
        require_choice("combination", combination, COMBINATIONS)
        self.graph = graph
        self.combination = combination
        self.norm = None
        if graph is not None:
            require_choice("graph.output", graph.output_kind, ("vector",))
            self.norm = AfterGraphNorm(kind=final_norm, name="norm")

    def build(self, input_shape):
        self.input_spec = input_spec(5, input_shape[-1])
        if self.graph is not None:
            if not self.graph.built:
                self.graph.build(input_shape)
            width = self.graph.vector_width(input_shape)
            if self.combination == "plus" and width != input_shape[-1]:
                raise ValueError(
                    f"{self.name}: the graph's vector has {width} channels, which cannot be added to the "
                    f"{input_shape[-1]} of the pooled map: set project_features to True."
                )
            self.norm.build((None, width))
        super().build(input_shape)

    def vector_width(self, input_shape) -> int:
        """Channels of the result for a map of this shape."""
        if self.graph is None or self.combination == "plus":
            return input_shape[-1]
        return self.graph.vector_width(input_shape)

    def call(self, features, states=None, training=False, return_traces=False):
        if states is not None:
            check_streamable(self)
        features = tf.cast(features, self.compute_dtype)
        output, traces, after = None, {}, {}
        if self.graph is None or self.combination == "plus":
            pooled, mean = merge_mean(_pool(features), tf.shape(features)[1], strip_prefix("pooled", states))
            output, after = tf.cast(pooled, features.dtype), add_prefix("pooled", mean)
        if self.graph is not None:
            vector, traces["final"], *graph_state = self.graph(
                features, states=strip_prefix("graph", states), training=training, return_trace=True
            )
            vector = self.norm(vector, training=training)
            output = vector if output is None else output + vector[:, None, None, :]
            after.update(add_prefix("graph", graph_state[0]) if graph_state else {})
        results = [output, *([traces] if return_traces else []), *([after] if states is not None else [])]
        return tuple(results) if len(results) > 1 else output

    def noncausal_reasons(self) -> list[str]:
        """Why it cannot run in chunks of steps: what the graph says; the norm sees its vector alone."""
        return [] if self.graph is None else self.graph.noncausal_reasons()

    def state_shapes(self, map_shape) -> dict[str, tuple[int, ...]]:
        """Entries of the states without B: the graph's, and the mean so far of the pooled maps."""
        shapes = {} if self.graph is None else add_prefix("graph", self.graph.state_shapes())
        if self.graph is None or self.combination == "plus":
            shapes.update(add_prefix("pooled", mean_shapes(*_positions(*map_shape[2:4]), map_shape[-1])))
        return shapes

    def get_config(self):
        return {
            **super().get_config(),
            "graph": None if self.graph is None else self.graph.get_config(),
            "final_norm": "LN" if self.norm is None else self.norm.kind,
            "combination": self.combination,
        }

    @classmethod
    def from_config(cls, config):
        graph = None if config["graph"] is None else RecurrentSpaceTimeGraph.from_config(config["graph"])
        return cls(**{**config, "graph": graph})


def _positions(height: int, width: int) -> tuple[int, int]:
    """P and Q for a map of this size."""
    return (1, 1) if min(height, width) < POOL_WINDOW else (height - POOL_WINDOW + 1, width - POOL_WINDOW + 1)


def _pool(features):
    """[B, T, H, W, C] -> float32 [B, P, Q, C]."""
    height, width = features.shape[2:4]
    frame = tf.reduce_mean(tf.cast(features, tf.float32), axis=1)  # [B, H, W, C]
    if min(height, width) < POOL_WINDOW:
        return tf.reduce_mean(frame, axis=[1, 2], keepdims=True)  # [B, 1, 1, C]
    return tf.nn.avg_pool2d(frame, POOL_WINDOW, 1, padding="VALID")
