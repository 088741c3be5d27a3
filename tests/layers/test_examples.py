"""Every public layer shows how it is used, and what it shows is so."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest
from tensorflow import keras

import rstg_tf
import rstg_tf.backbones
import rstg_tf.layers
import rstg_tf.ops


def public_objects():
    """All layers of the three rooms, and what the package hands out."""
    names = [
        module.name
        for room in (rstg_tf.ops, rstg_tf.layers, rstg_tf.backbones)
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")
    ]
    layers = {
        value
        for name in names
        for value in vars(importlib.import_module(name)).values()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer) and value.__module__ == name
    }
    handed_out = {value for name in rstg_tf.__all__ if callable(value := getattr(rstg_tf, name))}
    return sorted(layers | handed_out, key=lambda value: value.__qualname__)


def test_the_layers_are_found():
    assert len(public_objects()) >= 21


@pytest.mark.parametrize("public", public_objects(), ids=lambda public: public.__qualname__)
def test_the_example_gives_what_it_says(public):
    module = importlib.import_module(public.__module__)
    examples = doctest.DocTestParser().get_doctest(
        public.__doc__, {**vars(module)}, public.__qualname__, module.__file__, 0
    )
    assert examples.examples, f"{public.__qualname__} has no Example in its docstring"
    found = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(examples, out=found.append)
    assert not failed, "".join(found)
