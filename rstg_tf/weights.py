"""Weights in the dtype of a product: read and cast once for all rounds of a graph that use them."""

from __future__ import annotations

import contextlib
import threading

import tensorflow as tf


class _Casts(threading.local):  # replicas are traced by threads of their own
    of_weights: dict | None = None


_casts = _Casts()


@contextlib.contextmanager
def cast_once():
    """Within it `weight_in` casts no weight twice. Its tensors belong to the graph that is traced there, if any.

    The gradients of a weight's uses are then summed in the dtype of the product, as many as a graph has rounds.
    """
    outer, _casts.of_weights = _casts.of_weights, {}
    try:
        yield
    finally:
        _casts.of_weights = outer


def weight_in(dtype, weight):
    """`weight` (a variable, or a tensor made of one) as a tensor of this dtype."""
    casts = _casts.of_weights
    if casts is None or not isinstance(weight, tf.Variable):
        return tf.cast(weight, dtype)
    key = id(weight), tf.as_dtype(dtype)
    if key not in casts:
        casts[key] = weight, tf.cast(weight, dtype)  # with the weight, so that no other one gets its id
    return casts[key][1]
