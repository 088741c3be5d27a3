"""The time stage: one LSTM, shared by all nodes, carries each node through the steps; and when it runs. Paper, 3.3."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.devices import has_gpu
from rstg_tf.common.keras_layer import Layer, build_part, input_spec
from rstg_tf.ops import lstm_recurrence
from rstg_tf.ops.dense import dense

# Up to this many steps the recurrence is unrolled; longer ones loop, since every unrolled step makes the graph larger.
UNROLLED_STEPS = 64


@keras.utils.register_keras_serializable("rstg")
class GlorotPerGate(keras.initializers.Initializer):
    """Glorot uniform for each of the four gate matrices [in, units] in a kernel [in, 4·units].

    Plain Glorot would count the four gates as one layer of 4·units and draw too small a range. Source: docs/release.md,
    'LSTM'.
    """

    def __init__(self, *, seed: int | None = None):
        self.seed = seed

    def __call__(self, shape, dtype=None, **kwargs):
        inputs, units = shape[0], shape[1] // 4
        limit = (6.0 / (inputs + units)) ** 0.5
        draw = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)
        return draw(shape, dtype=dtype)

    def get_config(self):
        return {"seed": self.seed}


@keras.utils.register_keras_serializable("rstg")
class ForgetGateBias(keras.initializers.Initializer):
    """Zero, but `value` for the forget gate (Keras' order of the gates: i, f, c, o)."""

    def __init__(self, *, value: float = 0.0):
        self.value = value

    def __call__(self, shape, dtype=None, **kwargs):
        units = shape[0] // 4
        return tf.concat(
            [
                tf.zeros([units], dtype),
                tf.fill([units], tf.cast(self.value, dtype or tf.float32)),
                tf.zeros([2 * units], dtype),
            ],
            axis=0,
        )

    def get_config(self):
        return {"value": self.value}


@keras.utils.register_keras_serializable("rstg")
class TemporalStage(Layer):
    """LSTM over T for every node alike: [B, T, N, C] -> [B, T, N, units].

    i, f, o = σ(W x_t + U h_{t-1} + b), j = tanh(…), c_t = f·c_{t-1} + i·j, h_t = o·tanh(c_t), from zero state. The
    projection W x_t of all steps is one matrix product before the recurrence. Gates and cell state are float32, matrix
    products run in the compute dtype. The weights live in a `keras.layers.LSTM`; in training with a GPU and float32
    that layer itself runs, so that it can pick the cuDNN kernel (`fused=True`: always, `fused=False`: never). In
    inference its loop would go into exports, which converters for other runtimes do not take.

    With `states`, float32 'hidden' and 'carry' [B, N, units], a call goes on from them and returns a pair of the
    outputs and the states after them.

    Source: paper, equation 5; docs/release.md, 'LSTM' (BasicLSTM with forget bias 0, Glorot per gate, zero bias).
    `forget_bias` (release: 0) is the initial bias of the forget gate.
    Deviation: the release's cuDNN layer trains two bias vectors per gate, whose sum thus learns twice as fast.

    Example:

    >>> stage = TemporalStage(units=4)
    >>> tuple(stage(tf.zeros([2, 3, 5, 8])).shape)
    (2, 3, 5, 4)
    """

    def __init__(self, *, units: int, forget_bias: float = 0.0, fused: bool | None = None, **kwargs):
        super().__init__(**{**kwargs, "autocast": False})  # states stay float32
        self.units = units
        self.forget_bias = forget_bias
        self.fused = fused
        self.lstm = keras.layers.LSTM(
            units,
            return_sequences=True,
            return_state=True,
            unit_forget_bias=False,
            name="lstm",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        self.input_spec = input_spec(4, input_shape[-1])
        cell = self.lstm.cell
        own = cell.kernel_initializer, cell.recurrent_initializer, cell.bias_initializer
        cell.kernel_initializer = cell.recurrent_initializer = GlorotPerGate()
        cell.bias_initializer = ForgetGateBias(value=self.forget_bias)
        build_part(self.lstm, (None, None, input_shape[-1]))
        # A SavedModel tells how Keras' layer is made: by Keras alone, so that a program without this package loads it.
        cell.kernel_initializer, cell.recurrent_initializer, cell.bias_initializer = own
        super().build(input_shape)

    def call(self, nodes, states=None, training=False):
        steps, count, channels = nodes.shape[1:]
        length = tf.shape(nodes)[1] if steps is None else steps
        before = None
        if states is not None:
            before = tuple(tf.reshape(states[name], [-1, self.units]) for name in ("hidden", "carry"))  # [B·N, units]
        if self._uses_keras_layer(training):
            series = tf.reshape(tf.transpose(nodes, [0, 2, 1, 3]), [-1, length, channels])  # [B·N, T, C]
            hidden, _, cell = self.lstm(series, initial_state=before)  # [B·N, T, units], [B·N, units]
            hidden = tf.transpose(tf.reshape(hidden, [-1, count, length, self.units]), [0, 2, 1, 3])
        else:
            rows = tf.reshape(tf.transpose(tf.cast(nodes, self.compute_dtype), [1, 0, 2, 3]), [-1, channels])
            projected = dense(rows, self.lstm.cell.kernel, self.lstm.cell.bias)  # [T·B·N, 4·units]
            hidden, cell = self._recur(tf.reshape(projected, [length, -1, 4 * self.units]), steps, before)
            hidden = tf.reshape(hidden, [length, -1, count, self.units])  # [T, B, N, units]
            hidden = tf.transpose(hidden, [1, 0, 2, 3])  # [B, T, N, units]
        if states is None:
            return hidden
        after = {"hidden": hidden[:, -1], "carry": tf.reshape(cell, [-1, count, self.units])}  # [B, N, units]
        return hidden, {name: tf.cast(value, tf.float32) for name, value in after.items()}

    def state_shapes(self, count: int) -> dict[str, tuple[int, int]]:
        """Entries of the states over `count` nodes, without B: h and c of every node."""
        return {"hidden": (count, self.units), "carry": (count, self.units)}

    def _uses_keras_layer(self, training: bool) -> bool:
        if self.fused is not None:
            return self.fused
        return bool(training) and self.compute_dtype == "float32" and has_gpu()

    def _recur(self, projected, steps: int | None, before):
        """h of all steps and c of the last one: [T, B·N, 4·units] -> [T, B·N, units], [B·N, units]."""
        kernel = tf.cast(self.lstm.cell.recurrent_kernel, self.compute_dtype)  # [units, 4·units]
        if before is not None:
            before = tf.cast(before[0], self.compute_dtype), before[1]
        if steps is None or steps > UNROLLED_STEPS:
            return lstm_recurrence.loop(projected, kernel, before)
        return lstm_recurrence.unrolled(projected, kernel, before)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "forget_bias": self.forget_bias, "fused": self.fused}
