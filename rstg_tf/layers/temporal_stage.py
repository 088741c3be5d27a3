"""The time stage: one LSTM, shared by all nodes, carries each node through the steps; and when it runs. Paper, 3.3."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.devices import has_gpu
from rstg_tf.ops import lstm_recurrence
from rstg_tf.ops.cast_cache import cast_weight
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
        return tf.concat([tf.zeros([units], dtype), tf.fill([units], tf.cast(self.value, dtype or tf.float32)),
                          tf.zeros([2 * units], dtype)], axis=0)

    def get_config(self):
        return {"value": self.value}


@keras.utils.register_keras_serializable("rstg")
class TemporalStage(keras.layers.Layer):
    """LSTM over T for every node alike: [B, T, N, C] -> [B, T, N, units].

    i, f, o = σ(W x_t + U h_{t-1} + b), j = tanh(…), c_t = f·c_{t-1} + i·j, h_t = o·tanh(c_t), from zero state. The
    projection W x_t of all steps is one matrix product before the recurrence. Gates and cell state are float32, matrix
    products run in the compute dtype. The weights live in a `keras.layers.LSTM`; with a GPU and float32 that layer
    itself runs, so that it can pick the cuDNN kernel (`fused=True` forces it, `fused=False` never).

    Source: paper, equation 5; docs/release.md, 'LSTM' (BasicLSTM with forget bias 0, Glorot per gate, zero bias).
    `forget_bias` (release: 0) is the initial bias of the forget gate.
    Deviation: the release's cuDNN layer trains two bias vectors per gate, whose sum thus learns twice as fast.
    """

    def __init__(self, *, units: int, forget_bias: float = 0.0, fused: bool | None = None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.forget_bias = forget_bias
        self.fused = fused
        self.lstm = keras.layers.LSTM(
            units, return_sequences=True, unit_forget_bias=False, kernel_initializer=GlorotPerGate(),
            recurrent_initializer=GlorotPerGate(), bias_initializer=ForgetGateBias(value=forget_bias), name="lstm",
            dtype=self.dtype_policy)

    def build(self, input_shape):
        self.lstm.build((None, None, input_shape[-1]))
        super().build(input_shape)

    def call(self, nodes):
        steps, count, channels = nodes.shape[1:]
        length = tf.shape(nodes)[1] if steps is None else steps
        if self._uses_keras_layer():
            series = tf.reshape(tf.transpose(nodes, [0, 2, 1, 3]), [-1, length, channels])  # [B·N, T, C]
            hidden = tf.reshape(self.lstm(series), [-1, count, length, self.units])  # [B, N, T, units]
            return tf.transpose(hidden, [0, 2, 1, 3])  # [B, T, N, units]
        rows = tf.reshape(tf.transpose(nodes, [1, 0, 2, 3]), [-1, channels])  # [T·B·N, C]
        projected = tf.reshape(self._project(rows), [length, -1, 4 * self.units])  # [T, B·N, 4·units]
        hidden = tf.reshape(self._recur(projected, steps), [length, -1, count, self.units])  # [T, B, N, units]
        return tf.transpose(hidden, [1, 0, 2, 3])  # [B, T, N, units]

    def initial_state(self, clips, count: int):
        """(h, c) of `clips` clips of `count` nodes before the first step: zeros, each float32 [clips, count, units]."""
        return tf.zeros([clips, count, self.units]), tf.zeros([clips, count, self.units])

    def step(self, nodes, state):
        """One step: nodes [B, N, C], state of `initial_state` -> ([B, N, units], new state). Equals `call` stepwise."""
        count, channels = nodes.shape[1:]
        projected = self._project(tf.reshape(tf.cast(nodes, self.compute_dtype), [-1, channels]))  # [B·N, 4·units]
        hidden, carry = (tf.reshape(part, [-1, self.units]) for part in state)  # [B·N, units]
        state = lstm_recurrence.step(projected, (tf.cast(hidden, self.compute_dtype), carry), self._recurrent_kernel())
        hidden, carry = (tf.reshape(part, [-1, count, self.units]) for part in state)  # [B, N, units]
        return hidden, (tf.cast(hidden, tf.float32), carry)

    def _uses_keras_layer(self) -> bool:
        if self.fused is not None:
            return self.fused
        return self.compute_dtype == "float32" and has_gpu()

    def _project(self, rows):
        return dense(rows, self.lstm.cell.kernel, self.lstm.cell.bias)

    def _recurrent_kernel(self):
        return cast_weight(self.compute_dtype, self.lstm.cell.recurrent_kernel)  # [units, 4·units]

    def _recur(self, projected, steps: int | None):
        """Hidden states of all steps: [T, B·N, 4·units] -> [T, B·N, units]."""
        kernel = self._recurrent_kernel()
        if steps is None or steps > UNROLLED_STEPS:
            return lstm_recurrence.loop(projected, kernel)
        return lstm_recurrence.unrolled(projected, kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "forget_bias": self.forget_bias, "fused": self.fused}


def through_clip(stage: TemporalStage, nodes, name: str):
    """How whole clips pass a time stage: all steps of `nodes` [B, T, N, C], from zero state."""
    return stage(nodes)


class ThroughStep:
    """How running clips pass their time stages: one step of `nodes` [B, 1, N, C], from a state and into it.

    Every round, even of one stage, has a state of its own: NAME/hidden and NAME/carry, float32 [B, N, units].
    """

    def __init__(self, state: Mapping[str, tf.Tensor]):
        self.state = dict(state)

    def __call__(self, stage: TemporalStage, nodes, name: str):
        memory = self.state[f"{name}/hidden"], self.state[f"{name}/carry"]
        hidden, memory = stage.step(nodes[:, 0], memory)
        self.state[f"{name}/hidden"], self.state[f"{name}/carry"] = memory
        return hidden[:, None]  # [B, 1, N, units]


def lstm_state_shapes(name: str, count: int, units: int) -> dict[str, tuple[int, int]]:
    """What `ThroughStep` keeps of one round over `count` nodes, without B."""
    return {f"{name}/hidden": (count, units), f"{name}/carry": (count, units)}
