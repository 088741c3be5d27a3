"""The LSTM over time, shared by the nodes."""

from __future__ import annotations

import numpy as np
import pytest
import reference_stages
import tensorflow as tf
from layer_checks import check_layer

from rstg_tf import TemporalStage
from rstg_tf.layers.streaming_state import zero_state
from rstg_tf.layers.temporal_stage import UNROLLED_STEPS, GlorotPerGate
from rstg_tf.ops import lstm_recurrence


def stage_with_weights(kernel, recurrent, bias, **arguments):
    stage = TemporalStage(units=np.shape(recurrent)[0], **arguments)
    stage.build((None, None, None, np.shape(kernel)[0]))
    for variable, value in zip(
        (stage.lstm.cell.kernel, stage.lstm.cell.recurrent_kernel, stage.lstm.cell.bias), (kernel, recurrent, bias)
    ):
        variable.assign(np.asarray(value, np.float32))
    return stage


def random_stage(channels=3, units=4, **arguments):
    draw = np.random.default_rng(1).standard_normal
    return stage_with_weights(draw((channels, 4 * units)), draw((units, 4 * units)), draw(4 * units), **arguments)


def numpy_lstm(stage, nodes):
    """The recurrence once more with Keras' order of the gates i, f, c, o."""
    cell = stage.lstm.cell
    hidden = carry = np.zeros((*nodes.shape[:1], *nodes.shape[2:3], stage.units))
    outputs = []
    for step in range(nodes.shape[1]):
        gates = nodes[:, step] @ cell.kernel.numpy() + hidden @ cell.recurrent_kernel.numpy() + cell.bias.numpy()
        take, keep, candidate, show = np.split(gates, 4, axis=-1)
        carry = reference_stages.sigmoid(keep) * carry + reference_stages.sigmoid(take) * np.tanh(candidate)
        hidden = reference_stages.sigmoid(show) * np.tanh(carry)
        outputs.append(hidden)
    return np.stack(outputs, axis=1)


def test_two_steps_of_one_unit_by_hand():
    # Gates i, f, o get 0 and so are 1/2; the candidate is tanh(x). c1 = 1/2 tanh(1); c2 = 1/2 c1 + 1/2 tanh(2).
    stage = stage_with_weights([[0, 0, 1, 0]], [[0, 0, 0, 0]], [0, 0, 0, 0])
    output = stage(np.array([1, 2], np.float32).reshape(1, 2, 1, 1)).numpy().ravel()
    first = 0.5 * np.tanh(1)
    np.testing.assert_allclose(output, [0.5 * np.tanh(first), 0.5 * np.tanh(0.5 * first + 0.5 * np.tanh(2))], rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("steps", [1, 5, UNROLLED_STEPS + 3])
def test_any_length_equals_numpy_unrolled_and_as_a_loop(steps, compiled):
    stage = random_stage()
    nodes = np.random.default_rng(0).standard_normal((2, steps, 6, 3)).astype(np.float32)
    output = (tf.function(stage) if compiled else stage)(nodes)
    np.testing.assert_allclose(output, numpy_lstm(stage, nodes), atol=2e-6)


def test_the_number_of_steps_may_be_unknown_when_traced():
    stage = random_stage()
    function = tf.function(stage, input_signature=[tf.TensorSpec([None, None, 6, 3])])
    for steps in (2, 7):
        nodes = np.random.default_rng(steps).standard_normal((2, steps, 6, 3)).astype(np.float32)
        np.testing.assert_allclose(function(nodes), numpy_lstm(stage, nodes), atol=2e-6)


def test_the_layer_that_cudnn_can_run_computes_the_same():
    nodes = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(random_stage(fused=True)(nodes), random_stage(fused=False)(nodes), atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("lengths", [[1] * 5, [2, 3], [5], [4, 1]], ids=str)
def test_chunk_by_chunk_equals_the_whole_clip(lengths, fused):
    stage = random_stage(fused=fused)
    nodes = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    states = zero_state(stage.state_shapes(6), 2)
    outputs, begin = [], 0
    for length in lengths:
        output, states = stage(nodes[:, begin : begin + length], states=states)
        outputs.append(output)
        begin += length
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), stage(nodes), atol=1e-6)
    np.testing.assert_array_equal(states["hidden"], outputs[-1][:, -1])


@pytest.mark.parametrize("form", [lstm_recurrence.unrolled, lstm_recurrence.loop])
def test_the_written_gradient_is_that_of_the_formula_from_zeros_and_from_a_state(form):
    draw = np.random.default_rng(4).standard_normal
    projected, kernel, hidden, cell = (
        tf.constant(draw(shape), tf.float32) for shape in ((3, 5, 8), (2, 8), (5, 2), (5, 2))
    )
    weights = [tf.constant(draw(shape), tf.float32) for shape in ((3, 5, 2), (5, 2))]

    def formula(projected, kernel, hidden, cell):
        outputs = []
        for sums in tf.unstack(projected):
            i, f, j, o = tf.split(sums + hidden @ kernel, 4, axis=-1)
            cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(j)
            hidden = tf.sigmoid(o) * tf.tanh(cell)
            outputs.append(hidden)
        return tf.stack(outputs), cell

    def gradients(function, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = sum(tf.reduce_sum(output * weight) for output, weight in zip(function(*inputs), weights))
        return tape.gradient(loss, inputs)

    zeros = tf.zeros_like(hidden)
    for found, expected in (
        (
            gradients(form, [projected, kernel]),
            gradients(lambda *inputs: formula(*inputs, zeros, zeros), [projected, kernel]),
        ),
        (
            gradients(lambda x, u, h, c: form(x, u, (h, c)), [projected, kernel, hidden, cell]),
            gradients(formula, [projected, kernel, hidden, cell]),
        ),
    ):
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, atol=2e-6)


def test_nodes_do_not_see_each_other():
    stage = random_stage()
    nodes = np.random.default_rng(0).standard_normal((1, 5, 6, 3)).astype(np.float32)
    changed = nodes.copy()
    changed[:, :, 2] += 1
    differs = np.any(stage(nodes).numpy() != stage(changed).numpy(), axis=(0, 1, 3))
    np.testing.assert_array_equal(differs, [False, False, True, False, False, False])


def test_gates_are_drawn_apart_and_only_the_forget_gate_gets_its_bias():
    stage = TemporalStage(units=50, forget_bias=1.5)
    stage.build((None, None, None, 30))
    limit = (6 / (30 + 50)) ** 0.5
    assert 0.95 * limit < np.abs(stage.lstm.cell.kernel.numpy()).max() <= limit
    limit = (6 / (50 + 50)) ** 0.5
    assert 0.95 * limit < np.abs(stage.lstm.cell.recurrent_kernel.numpy()).max() <= limit
    np.testing.assert_array_equal(stage.lstm.cell.bias.numpy().reshape(4, 50)[:, 0], [0, 1.5, 0, 0])
    assert GlorotPerGate.from_config(GlorotPerGate(seed=3).get_config()).seed == 3


def test_the_stage_keeps_the_rules_of_layers():
    nodes = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    check_layer(TemporalStage, {"units": 6, "forget_bias": 1.0}, nodes, output_shape=(2, 3, 4, 6), weights=3)


def test_the_cell_state_stays_float32_under_bfloat16():
    # 200 steps that each add 1/256 or so to a carry near 1 would be lost in bfloat16's 8 bits.
    kernel, zeros = [[0.0, 0.0, 1.0, 0.0]], [[0.0] * 4]
    bias = [-5.0, 20.0, 0.0, 20.0]  # take little, keep everything, show everything
    nodes = np.ones((1, 200, 1, 1), np.float32)
    exact = stage_with_weights(kernel, zeros, bias)(nodes).numpy()[0, -1, 0, 0]
    half = stage_with_weights(kernel, zeros, bias, dtype="mixed_bfloat16")(nodes).numpy()[0, -1, 0, 0]
    assert float(half) == pytest.approx(exact, rel=1e-2)
