"""The recurrence of an LSTM on rows, whose inputs are projected already, and its gradient written down.

    i, f, o = σ(s), j = tanh(s), s = W x_t + b + U h_{t-1}        Keras' order of the gates: i, f, j, o
    c_t = f·c_{t-1} + i·j,  h_t = o·tanh(c_t),  from (h, c) of the step before the first one: zeros where none is given

Gates and c are float32, the products with U run in the dtype of the projected inputs. R rows, T steps.
"""

from __future__ import annotations

import tensorflow as tf


def loop(projected, kernel, state=None):
    """For any T: [T, R, 4·units], U [units, 4·units], (h, c) or None -> h of all steps [T, R, units], c of the last."""
    if state is None:
        shape = tf.shape(projected)[1], kernel.shape[0]
        state = tf.zeros(shape, projected.dtype), tf.zeros(shape)

    def step(state, inputs):
        hidden, cell = state
        sums = tf.cast(inputs, tf.float32) + tf.cast(tf.matmul(hidden, kernel), tf.float32)
        input_gate, forget_gate, candidate, output_gate = _gates(sums)
        cell = forget_gate * cell + input_gate * candidate
        return tf.cast(output_gate * tf.tanh(cell), hidden.dtype), cell

    hidden, cells = tf.scan(step, projected, initializer=state)
    return hidden, cells[-1]


def unrolled(projected, kernel, state=None):
    """`loop` for a known T, without a loop's bookkeeping between small products.

    Plain differentiation takes some thirty small ops for every step back. Here all factors of the chain rule are
    computed for all steps at once; what is left in the recurrence are seven ops a step.
    """

    @tf.custom_gradient
    def run(projected, kernel, *state):
        before, cell_before = state or (None, None)
        hidden, gates, cells, cell_tanh = [before], [], [cell_before], []
        for sums in tf.unstack(tf.cast(projected, tf.float32)):
            if hidden[-1] is not None:  # from zeros the first step has neither U h nor f·c
                sums += tf.cast(tf.matmul(hidden[-1], kernel), tf.float32)
            input_gate, forget_gate, candidate, output_gate = _gates(sums)
            cell = input_gate * candidate
            if cells[-1] is not None:
                cell += forget_gate * cells[-1]
            gates.append((input_gate, forget_gate, candidate, output_gate))
            cells.append(cell)
            cell_tanh.append(tf.tanh(cell))
            hidden.append(tf.cast(output_gate * cell_tanh[-1], projected.dtype))
        stacked = tf.stack(hidden[1:])

        def gradient(upstream, of_last_cell):
            of_sums, of_state = _gradients(upstream, of_last_cell, kernel, gates, cells, cell_tanh)
            # s = W x_t + b + U h_{t-1}, so ∂/∂U = Σ_t h_{t-1}ᵀ · ∂/∂s_t: one product over all steps.
            first = 0 if state else 1
            earlier = tf.concat([before[None], stacked[:-1]], axis=0) if state else stacked[:-1]
            earlier = tf.reshape(earlier, [-1, kernel.shape[0]])  # [T·R, units], from zeros [(T-1)·R, units]
            later = tf.reshape(of_sums[first:], [-1, kernel.shape[1]])  # the same rows, [.., 4·units]
            return of_sums, tf.matmul(earlier, later, transpose_a=True), *(of_state if state else ())

        return (stacked, cells[-1]), gradient

    return run(projected, kernel, *(state or ()))


def _gates(sums):
    """i, f, j, o: four [R, units]."""
    input_gate, forget_gate, candidate, output_gate = tf.split(sums, 4, axis=-1)
    return tf.sigmoid(input_gate), tf.sigmoid(forget_gate), tf.tanh(candidate), tf.sigmoid(output_gate)


def _gradients(upstream, of_last_cell, kernel, gates, cells, cell_tanh):
    """∂/∂s of all steps [T, R, 4·units] and ∂/∂(h, c) before the first, from ∂/∂h of all steps and ∂/∂c of the last.

    `cells`: c before the first step (None: zeros) and after each. ∂/∂s is of the upstream's dtype.
    """
    input_gate, forget_gate, candidate, output_gate = (tf.stack(values) for values in zip(*gates))  # [T, R, units]
    earlier = tf.stack([tf.zeros_like(cells[1]) if cells[0] is None else cells[0], *cells[1:-1]])
    cell_tanh = tf.stack(cell_tanh)
    # i, f and j act through c, o through h.
    factors = tf.unstack(
        tf.concat(
            [
                candidate * input_gate * (1.0 - input_gate),
                earlier * forget_gate * (1.0 - forget_gate),
                input_gate * (1.0 - candidate * candidate),
                cell_tanh * output_gate * (1.0 - output_gate),
            ],
            axis=-1,
        )
    )
    cell_per_hidden = tf.unstack(output_gate * (1.0 - cell_tanh * cell_tanh))
    backwards = kernel.dtype != tf.float32
    transposed = kernel if backwards else _transposed(kernel)
    of_hidden = tf.unstack(tf.cast(upstream, tf.float32))
    of_sums, of_cell = [], of_last_cell

    def of_hidden_before():
        return tf.cast(tf.matmul(of_sums[-1], transposed, transpose_b=backwards), tf.float32)

    for now in reversed(range(len(gates))):
        if of_sums:
            of_hidden[now] += of_hidden_before()
            of_cell *= gates[now + 1][1]
        of_cell += of_hidden[now] * cell_per_hidden[now]
        joined = tf.concat([of_cell, of_cell, of_cell, of_hidden[now]], axis=-1)  # [R, 4·units]
        of_sums.append(tf.cast(joined * factors[now], upstream.dtype))
    of_state = ()
    if cells[0] is not None:
        of_state = tf.cast(of_hidden_before(), upstream.dtype), of_cell * gates[0][1]
    return tf.stack(of_sums[::-1]), of_state


def _transposed(kernel):
    """Uᵀ in memory: [units, 4·units] -> [4·units, units].

    With few rows, a CPU takes four times as long for a float32 product that reads U backwards (not for a bfloat16 one).
    That is what TensorFlow makes of a product with `transpose_b`, and of one behind a plain `tf.transpose`.
    """
    by_gate = tf.transpose(tf.reshape(kernel, [kernel.shape[0], 4, -1]), [1, 2, 0])  # [4, units, units]
    return tf.reshape(by_gate, kernel.shape[::-1])
