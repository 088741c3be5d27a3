"""What the paper compares the graph with on SyncMNIST: one LSTM over whole frames instead of one per region."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.rows import RowsDense
from rstg_tf.streaming import mean_shapes, mean_so_far
from rstg_tf.temporal import TemporalStage, ThroughStep, memory_shapes, through_clip


@keras.utils.register_keras_serializable("rstg")
class FrameLSTM(keras.layers.Layer):
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
            self.convolution = RowsDense(units, activation="relu", name="convolution", dtype=self.dtype_policy)

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

    def looks_ahead(self) -> list[str]:
        """Nothing does; see `streaming`."""
        return []

    def state_shapes(self, map_shape) -> dict[str, tuple[int, ...]]:
        """Entries of the state without B: the LSTM's, and the mean so far."""
        return {**memory_shapes("lstm", 1, self.units), **mean_shapes(self.units)}

    def step(self, features, state):
        """The next step of running clips: [B, H, W, C] -> (mean over the steps so far [B, units], state after it)."""
        through_step = ThroughStep(state)
        hidden = self._hidden(features[:, None], through_step)[:, 0]
        mean, mean_state = mean_so_far(hidden, state)
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
