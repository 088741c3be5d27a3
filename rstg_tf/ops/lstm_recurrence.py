"""The recurrence of an LSTM on rows, whose inputs are projected already, and its gradient written down.

    i, f, o = σ(s), j = tanh(s), s = W x_t + b + U h_{t-1}        Keras' order of the gates: i, f, j, o
    c_t = f·c_{t-1} + i·j,  h_t = o·tanh(c_t),  from zero state

Gates and c are float32, the products with U run in the dtype of the projected inputs. R rows, T steps.
"""

from __future__ import annotations

import tensorflow as tf


def step(projected, state, kernel):
    """One step: W x_t + b [R, 4·units], (h, c) before it, U [units, 4·units] -> (h, c) after it."""
    hidden, carry = state
    sums = tf.cast(projected, tf.float32) + tf.cast(tf.matmul(hidden, kernel), tf.float32)
    take, keep, candidate, show = _gates(sums)
    carry = keep * carry + take * candidate
    return tf.cast(show * tf.tanh(carry), hidden.dtype), carry


def loop(projected, kernel):
    """h of all steps, for any number of them: [T, R, 4·units], U -> [T, R, units]."""
    shape = tf.shape(projected)[1], kernel.shape[0]
    zeros = tf.zeros(shape, projected.dtype), tf.zeros(shape)
    return tf.scan(lambda state, inputs: step(inputs, state, kernel), projected, initializer=zeros)[0]


@tf.custom_gradient
def unrolled(projected, kernel):
    """`loop` for a known T, without a loop's bookkeeping between small products.

    Plain differentiation takes some thirty small ops for every step back. Here all factors of the chain rule are
    computed for all steps at once; what is left in the recurrence are seven ops a step.
    """
    hidden, gates, carries, squashed = [], [], [], []
    for sums in tf.unstack(tf.cast(projected, tf.float32)):
        if hidden:
            sums += tf.cast(tf.matmul(hidden[-1], kernel), tf.float32)
        take, keep, candidate, show = _gates(sums)
        carry = take * candidate
        if hidden:
            carry += keep * carries[-1]
        gates.append((take, keep, candidate, show))
        carries.append(carry)
        squashed.append(tf.tanh(carry))
        hidden.append(tf.cast(show * squashed[-1], projected.dtype))
    stacked = tf.stack(hidden)

    def gradient(upstream):
        of_sums = _gradient_of_sums(upstream, kernel, gates, carries, squashed)
        # s = W x_t + b + U h_{t-1}, so ∂/∂U = Σ_t h_{t-1}ᵀ · ∂/∂s_t: one product over all steps.
        before = tf.reshape(stacked[:-1], [-1, kernel.shape[0]])  # [(T-1)·R, units]
        after = tf.reshape(of_sums[1:], [-1, kernel.shape[1]])  # [(T-1)·R, 4·units]
        return of_sums, tf.matmul(before, after, transpose_a=True)

    return stacked, gradient


def _gates(sums):
    """i, f, j, o: four [R, units]."""
    take, keep, candidate, show = tf.split(sums, 4, axis=-1)
    return tf.sigmoid(take), tf.sigmoid(keep), tf.tanh(candidate), tf.sigmoid(show)


def _gradient_of_sums(upstream, kernel, gates, carries, squashed):
    """∂/∂s of all steps from ∂/∂h of all steps: [T, R, units] -> [T, R, 4·units], in the upstream's dtype."""
    take, keep, candidate, show = (tf.stack(values) for values in zip(*gates))  # [T, R, units]
    earlier = tf.stack([tf.zeros_like(carries[0]), *carries[:-1]])
    shown = tf.stack(squashed)
    # i, f and j act through c, o through h.
    factors = tf.unstack(tf.concat([candidate * take * (1.0 - take), earlier * keep * (1.0 - keep),
                                    take * (1.0 - candidate * candidate), shown * show * (1.0 - show)], axis=-1))
    carry_per_hidden = tf.unstack(show * (1.0 - shown * shown))
    backwards = kernel.dtype != tf.float32
    transposed = kernel if backwards else _transposed(kernel)
    of_hidden = tf.unstack(tf.cast(upstream, tf.float32))
    of_sums, of_carry = [], None
    for now in reversed(range(len(gates))):
        if of_sums:
            of_hidden[now] += tf.cast(tf.matmul(of_sums[-1], transposed, transpose_b=backwards), tf.float32)
        direct = of_hidden[now] * carry_per_hidden[now]
        of_carry = direct if of_carry is None else direct + of_carry * gates[now + 1][1]
        joined = tf.concat([of_carry, of_carry, of_carry, of_hidden[now]], axis=-1)  # [R, 4·units]
        of_sums.append(tf.cast(joined * factors[now], upstream.dtype))
    return tf.stack(of_sums[::-1])


def _transposed(kernel):
    """Uᵀ in memory: [units, 4·units] -> [4·units, units].

    With few rows, a CPU takes four times as long for a float32 product that reads U backwards (not for a bfloat16 one).
    That is what TensorFlow makes of a product with `transpose_b`, and of one behind a plain `tf.transpose`.
    """
    by_gate = tf.transpose(tf.reshape(kernel, [kernel.shape[0], 4, -1]), [1, 2, 0])  # [4, units, units]
    return tf.reshape(by_gate, kernel.shape[::-1])
