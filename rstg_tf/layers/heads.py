"""What the paper compares the graph with on SyncMNIST: one LSTM over whole frames instead of one per region."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.choices import require_choice
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.layers.residual_graph import AfterGraphNorm
from rstg_tf.layers.streaming_state import add_prefix, mean_shapes, running_mean, strip_prefix
from rstg_tf.layers.temporal_stage import TemporalStage, ThroughStep, lstm_state_shapes, through_clip
from rstg_tf.ops.dense import FlatDense

COMBINATIONS = ("plus", "serial")
POOL_WINDOW = 14  # pixels of the last map


@keras.utils.register_keras_serializable("rstg", name="FrameLSTM")  # the name that saved models hold
class FrameLSTMHead(keras.layers.Layer):
    """Feature map -> one vector per frame -> LSTM over T -> mean over T: [B, T, H, W, C] -> [B, units].

    pooling 'mean'  the frame's vector is the mean over H·W (the paper's Mean + LSTM).
    pooling 'conv'  it is a convolution over the whole map, relu, `units` wide, so that it still knows where things are
                    (the paper's Conv + LSTM); H and W are then fixed by the first call.

    Source: paper, section 4.1; the release has no code for them, so widths and the mean over T follow the graph.
    """

    def __init__(self, *, units: int = 512, pooling: str = "mean", forget_bias: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if pooling not in ("mean", "conv"):
            raise ValueError(f"pooling={pooling!r}: expected 'mean' or 'conv'.")
        self.units, self.pooling, self.forget_bias = units, pooling, forget_bias
        self.lstm = TemporalStage(units=units, forget_bias=forget_bias, name="lstm", dtype=self.dtype_policy)
        self.convolution = None
        if pooling == "conv":
            # A convolution as large as the map is a dense layer on the flattened map.
            self.convolution = FlatDense(units, activation="relu", name="convolution", dtype=self.dtype_policy)

    def build(self, input_shape):
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

    def call(self, features, training=False):
        return tf.cast(tf.reduce_mean(self._hidden(features, through_clip), axis=1), features.dtype)

    def noncausal_reasons(self) -> list[str]:
        """Nothing does; see `streaming`."""
        return []

    def state_shapes(self, map_shape) -> dict[str, tuple[int, ...]]:
        """Entries of the state without B: the LSTM's, and the mean so far."""
        return {**lstm_state_shapes("lstm", 1, self.units), **mean_shapes(self.units)}

    def step(self, features, state):
        """The next step of running clips: [B, H, W, C] -> (mean over the steps so far [B, units], state after it)."""
        through_step = ThroughStep(state)
        hidden = self._hidden(features[:, None], through_step)[:, 0]
        mean, mean_state = running_mean(hidden, state)
        return tf.cast(mean, features.dtype), {**through_step.state, **mean_state}

    def _hidden(self, features, through_time):
        """The LSTM's output at every step, float32 [B, T, units]; `through_time` as in the graph."""
        _, steps, height, width, channels = features.shape
        length = tf.shape(features)[1] if steps is None else steps
        if self.convolution is None:
            frames = tf.reduce_mean(features, axis=[2, 3])  # [B, T, C]
        else:
            frames = self.convolution(tf.reshape(features, [-1, length, height * width * channels]))  # [B, T, units]
        return tf.cast(through_time(self.lstm, frames[:, :, None], "lstm")[:, :, 0], tf.float32)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "pooling": self.pooling, "forget_bias": self.forget_bias}


@keras.utils.register_keras_serializable("rstg", name="MapHead")  # the name that saved models hold
class PoolingHead(keras.layers.Layer):
    """The last map [B, T, H, W, C] -> what the classifier gets, with one step left and P×Q positions.

        pooled  = mean over T and over windows of 14×14 pixels, stride 1: [B, P, Q, C]; 14×14 -> 1×1, 16×16 -> 3×3;
                  over the whole map, 1×1, where that is smaller than the window
        no graph           pooled
        graph, 'plus'      pooled + norm(graph(map)) at every position
        graph, 'serial'    norm(graph(map)): [B, C]

    Source: docs/release.md, 'ResNet-50'. Call with `return_traces=True`: a pair of the result and
    {'final': GraphTrace}, or {}.
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

    def noncausal_reasons(self) -> list[str]:
        """Why it cannot run step by step: what the graph says; the norm sees its vector alone."""
        return [] if self.graph is None else self.graph.noncausal_reasons()

    def state_shapes(self, map_shape) -> dict[str, tuple[int, ...]]:
        """Entries of the state without B: the graph's, and the mean so far of the pooled maps."""
        shapes = {} if self.graph is None else add_prefix("graph", self.graph.state_shapes())
        if self.graph is None or self.combination == "plus":
            shapes.update(add_prefix("pooled", mean_shapes(*_positions(*map_shape[2:4]), map_shape[-1])))
        return shapes

    def step(self, features, state):
        """The next step of running clips, in inference mode: map [B, H, W, C] -> (result so far, state after it)."""
        output, after = None, {}
        if self.graph is None or self.combination == "plus":
            pooled, pooled_state = running_mean(_pool(tf.cast(features[:, None], tf.float32)),
                                               strip_prefix("pooled", state))
            output, after = tf.cast(pooled, features.dtype), add_prefix("pooled", pooled_state)
        if self.graph is not None:
            vector, graph_state = self.graph.step(features, strip_prefix("graph", state))
            vector, after = self.norm(vector), {**after, **add_prefix("graph", graph_state)}
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
