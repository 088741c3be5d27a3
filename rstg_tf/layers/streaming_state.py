"""Chunk by chunk: what a running clip remembers, which models can run so, and how its memory travels.

    states = model.initial_state(batch)                        # zeros
    logits, states = model(chunk, states)                      # logits of the clip so far, as often as chunks come

A chunk is any number of steps, one being the fewest. However a clip is cut into chunks, after the last one the outputs
are those of the whole clip, which is itself the stream of one chunk from zero states.

States are a flat dict name -> float32 tensor [B, …] whatever the model computes in, all zeros before the first frame: a
row of zeros starts a new clip, and the clips of a batch may be at different frames. Their size and the cost of a step
do not depend on how many frames have passed. Every part of a model has

    call(inputs, states)   the outputs; where states are given a pair of the outputs and the states after them
    state_shapes(shape)    name -> shape of its entries, without B
    noncausal_reasons()    a sentence for each thing in it that needs frames still to come: it refuses states

and a backbone also `chunks` and `arrived`: see the docstring of `rstg_tf.backbones`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import tensorflow as tf

from rstg_tf.common.errors import ConfigError


def check_streamable(part) -> None:
    """Raises ConfigError naming everything in a model, or in a layer alone, that looks ahead, and why.

    ValueError if its weights do not exist yet.
    """
    reasons = part.noncausal_reasons()
    if reasons:
        raise ConfigError(f"{part.name} cannot run frame by frame. {'. '.join(reasons)}.")
    if not part.built:
        raise ValueError(
            f"{part.name} has no weights yet: call it on a whole clip once, or build it with the shape of one."
        )


def call_part(part, inputs, states: Mapping[str, tf.Tensor] | None, **how) -> tuple:
    """A part's outputs and the states after them; with None for states, as for a whole clip, no states after either."""
    if states is None:
        return part(inputs, **how), {}
    return part(inputs, states=states, **how)


def zero_state(shapes: Mapping[str, tuple[int, ...]], clips) -> dict[str, tf.Tensor]:
    """The state of `clips` (an int or a scalar tensor) clips before their first frame."""
    return {name: tf.zeros([clips, *shape]) for name, shape in shapes.items()}


def check_state(state: Mapping[str, tf.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError naming the entry that is missing, unknown, or of another shape than `shapes` says."""
    for name in sorted({*state, *shapes}):
        expected = [None, *shapes[name]] if name in shapes else "no such entry"
        found = list(state[name].shape) if name in state else "none"
        if name not in state or name not in shapes or not tf.TensorShape(expected).is_compatible_with(found):
            raise ValueError(
                f"state[{name!r}]: expected {expected}, got {found}; begin with initial_state(batch), and "
                "hand on what step returned."
            )


def add_prefix(name: str, values: Mapping) -> dict:
    """The entries of a part, as they are called in the whole: {'steps': …} -> {'head/steps': …}."""
    return {f"{name}/{key}": value for key, value in values.items()}


def strip_prefix(name: str, values: Mapping | None) -> dict | None:
    """Inverse of `add_prefix`: the part's own entries out of the whole; None of None."""
    if values is None:
        return None
    return {key[len(name) + 1 :]: value for key, value in values.items() if key.startswith(f"{name}/")}


def running_mean(values, states: Mapping[str, tf.Tensor] | None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Mean over all steps up to the last of these, values [B, T, …] -> float32 [B, …], and the states after it.

    mean ← mean + (mean of these - mean)·T / steps: no sum, which would lose the digits of new values in a long clip.
    """
    mean = tf.reduce_mean(tf.cast(values, tf.float32), axis=1)
    return merge_mean(mean, tf.shape(values)[1], states)


def merge_mean(mean, steps, states: Mapping[str, tf.Tensor] | None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """`running_mean` of values whose own mean over their `steps` steps is known, float32 [B, …]."""
    if states is None:
        return mean, {}
    steps = tf.cast(steps, tf.float32)
    total = states["steps"] + steps
    share = tf.reshape(steps / total, [-1] + [1] * (mean.shape.rank - 1))
    mean = states["mean"] + (mean - states["mean"]) * share
    return mean, {"mean": mean, "steps": total}


def mean_shapes(*shape: int) -> dict[str, tuple[int, ...]]:
    """`state_shapes` of `running_mean` for values [B, T, *shape]."""
    return {"mean": shape, "steps": ()}


def update_where(arrived, update: Callable, states: Mapping[str, tf.Tensor] | None) -> dict[str, tf.Tensor]:
    """`update(states)` for the clips with `arrived` (bool [B]; None: all), the others' entries as they are.

    Does not compute `update` when no clip has arrived.
    """
    if arrived is None:
        return update(states)

    def some_update():
        after = update(states)
        chosen = {}
        for name, before in states.items():
            rows = tf.reshape(arrived, [-1] + [1] * (before.shape.rank - 1))
            chosen[name] = tf.where(rows, after[name], before)
        return chosen

    return tf.cond(tf.reduce_any(arrived), some_update, lambda: {name: tf.identity(states[name]) for name in states})


def pack_state(state: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """All entries side by side, in the order of their names: float32 [B, D]. A packed new clip is a row of zeros."""
    return tf.concat(
        [
            tf.reshape(state[name], [tf.shape(state[name])[0], math.prod(state[name].shape[1:])])
            for name in sorted(state)
        ],
        axis=1,
    )


def packed_size(model) -> int:
    """D of `pack_state` for this model."""
    return sum(math.prod(shape) for shape in model.state_shapes().values())


def unpack_state(model, packed) -> dict[str, tf.Tensor]:
    """Inverse of `pack_state` for a state of `model`. Raises ValueError for another D than the model's."""
    packed = tf.convert_to_tensor(packed, tf.float32)
    if packed.shape.rank != 2 or packed.shape[1] != packed_size(model):
        raise ValueError(f"packed state: expected float32 [B, {packed_size(model)}], got {tuple(packed.shape)}.")
    shapes = dict(sorted(model.state_shapes().items()))
    parts = tf.split(packed, [math.prod(shape) for shape in shapes.values()], axis=1)
    return {name: tf.reshape(part, [-1, *shape]) for (name, shape), part in zip(shapes.items(), parts)}
