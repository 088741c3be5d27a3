"""Weights in the dtype of a product, read and cast once for all rounds of a graph that use them."""

from __future__ import annotations

import contextlib
import threading

import tensorflow as tf


class _Casts(threading.local):  # replicas are traced by threads of their own
    of_weights: dict | None = None


_casts = _Casts()


@contextlib.contextmanager
def cast_once():
    """Within it `cast_weight` reads and casts no weight twice: K rounds of a graph need K - 1 casts less.

    For inference. In training the uses of a weight would have their gradients added in the dtype of the product, where
    casts of their own add them in float32; it took no less time.
    """
    outer, _casts.of_weights = _casts.of_weights, {}
    try:
        yield
    finally:
        _casts.of_weights = outer


def cast_weight(dtype, weight):
    """`weight` (a variable, or a tensor made of one) as a tensor of this dtype."""
    casts = _casts.of_weights
    if casts is None or isinstance(weight, tf.Tensor):
        return tf.cast(weight, dtype)
    place = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    key = id(weight), tf.as_dtype(dtype), place
    if key not in casts:
        # With the weight itself, so that no other one gets its id.
        casts[key] = weight, tf.cast(tf.convert_to_tensor(weight), dtype)
    return casts[key][1]
