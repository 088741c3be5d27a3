"""Frame by frame: what a running clip remembers, which models can run so, and how its memory travels.

    state = model.initial_state(batch)                        # zeros
    logits, state = model.step(frame, state)                  # logits of the clip so far, as often as frames come

A state is a flat dict name -> float32 tensor [B, …] whatever the model computes in, all zeros before the first frame: a
row of zeros starts a new clip, and the clips of a batch may be at different frames. Its size and the cost of a step do
not depend on how many frames have passed. Every part of a model has

    noncausal_reasons()    a sentence for each thing in it that needs frames still to come; none where it can run so
    state_shapes(shape)    name -> shape of its entries, without B
    step(features, state)  one step of `call` without its T axis: the result, and the state after it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import tensorflow as tf

from rstg_tf.common.errors import ConfigError

HINT = ("Parts that see one frame at a time: --backbone_model=simple_c2d or c2d without --place_nonlocal, LN_per_step "
        "in the place of LN (--use_norm, --final_norm), --noshare_stages.")


def check_streamable(part) -> None:
    """Raises ConfigError naming everything in a model, or in a graph alone, that looks ahead, and why.

    ValueError if its weights do not exist yet.
    """
    reasons = part.noncausal_reasons()
    if reasons:
        raise ConfigError(f"{part.name} cannot run frame by frame. {'. '.join(reasons)}. {HINT}")
    if not part.built:
        raise ValueError(f"{part.name} has no weights yet: call it on a whole clip once, or build it with the shape of "
                         "one.")


def zero_state(shapes: Mapping[str, tuple[int, ...]], clips) -> dict[str, tf.Tensor]:
    """The state of `clips` (an int or a scalar tensor) clips before their first frame."""
    return {name: tf.zeros([clips, *shape]) for name, shape in shapes.items()}


def check_state(state: Mapping[str, tf.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError naming the entry that is missing, unknown, or of another shape than `shapes` says."""
    for name in sorted({*state, *shapes}):
        expected = [None, *shapes[name]] if name in shapes else "no such entry"
        found = list(state[name].shape) if name in state else "none"
        if name not in state or name not in shapes or not tf.TensorShape(expected).is_compatible_with(found):
            raise ValueError(f"state[{name!r}]: expected {expected}, got {found}; begin with initial_state(batch), and "
                             "hand on what step returned.")


def add_prefix(name: str, values: Mapping) -> dict:
    """The entries of a part, as they are called in the whole: {'steps': …} -> {'head/steps': …}."""
    return {f"{name}/{key}": value for key, value in values.items()}


def strip_prefix(name: str, values: Mapping) -> dict:
    """Inverse of `under`: the part's own entries out of the whole."""
    return {key[len(name) + 1:]: value for key, value in values.items() if key.startswith(f"{name}/")}


def running_mean(values, state: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Mean over all steps up to this one, mean ← mean + (values - mean) / steps: float32 [B, …], and the new state.

    A running mean and no sum, which would lose the digits of new values in a long clip.
    """
    steps = state["steps"] + 1.0
    share = tf.reshape(1.0 / steps, [-1] + [1] * (values.shape.rank - 1))
    mean = state["mean"] + (tf.cast(values, tf.float32) - state["mean"]) * share
    return mean, {"mean": mean, "steps": steps}


def mean_shapes(*shape: int) -> dict[str, tuple[int, ...]]:
    """`state_shapes` of `running_mean` for values [B, *shape]."""
    return {"mean": shape, "steps": ()}


def update_where(arrived, advance: Callable[[dict], dict], state: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """`advance(state)` for the clips with `arrived` (bool [B]; None: all), the others' entries as they are.

    Does not compute `advance` when no clip has arrived.
    """
    if arrived is None:
        return advance(dict(state))

    def some_advance():
        after = advance(dict(state))
        chosen = {}
        for name, before in state.items():
            rows = tf.reshape(arrived, [-1] + [1] * (before.shape.rank - 1))
            chosen[name] = tf.where(rows, after[name], before)
        return chosen

    return tf.cond(tf.reduce_any(arrived), some_advance, lambda: {name: tf.identity(state[name]) for name in state})


def pack_state(state: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """All entries side by side, in the order of their names: float32 [B, D]. A packed new clip is a row of zeros."""
    return tf.concat([tf.reshape(state[name], [tf.shape(state[name])[0], math.prod(state[name].shape[1:])])
                      for name in sorted(state)], axis=1)


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


