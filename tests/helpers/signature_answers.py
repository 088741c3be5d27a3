"""Asking a signature of an exported model."""

from __future__ import annotations

import tensorflow as tf


def ask(signature, given):
    """The signature's answer, as arrays, to those of the inputs that it takes."""
    taken = {}
    for name, spec in signature.structured_input_signature[1].items():
        value = given[name][:, : spec.shape[1]] if name == "state" else given[name]
        taken[name] = tf.constant(value, spec.dtype)
    return {name: value.numpy() for name, value in signature(**taken).items()}
