"""What the project's layers share with each other, as users of Keras expect it of any layer."""

from __future__ import annotations

import functools
import inspect

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_compat import traced_output_shape


class Layer(keras.layers.Layer):
    """A layer that names its weights LAYER/…/WEIGHT and refuses masks.

    Masks would have to reach norms, means and attention; Keras would drop them without a word. Subclasses write `build`
    as usual.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = under_own_name(cls.build)

    @classmethod
    def from_config(cls, config):
        """A layer from what `get_config` gave.

        Of a config in an .h5 file Keras 3 takes words for its functions of that name, such as 'dot'.
        """
        return cls(**{key: value.__name__ if inspect.isroutine(value) else value for key, value in config.items()})

    def compute_output_shape(self, input_shape):
        """Of a call with such an input alone, found by a trace."""
        return traced_output_shape(self, keras.layers.Layer, input_shape)

    def compute_output_spec(self, *args, **kwargs):
        """Asked by Keras 3 alone, found by a trace: a shape would not tell what comes back beside the output."""
        return super(keras.layers.Layer, self).compute_output_spec(*args, **kwargs)

    def compute_mask(self, inputs, mask=None):
        """Raises ValueError where an input has a mask."""
        if any(part is not None for part in tf.nest.flatten(mask)):
            raise ValueError(
                f"{self.name}: masks are not supported. Give clips of their real lengths, with their own "
                "call each, or as chunks of a stream (states)."
            )
        return None


def under_own_name(build):
    """A layer's `build`, so that Keras 2 also names weights LAYER/WEIGHT when `build` is not called by the layer.

    Weights that share a name cannot be saved as .h5. Keras 3 does so itself.
    """

    @functools.wraps(build)
    def named(self, input_shape=None):
        outer = tf.get_current_name_scope()
        if outer.split("/")[-1] == self.name:
            return build(self, input_shape)
        with tf.name_scope(f"{outer}/{self.name}/".lstrip("/")):  # the slash at the end: exactly this name
            return build(self, input_shape)

    return named


def build_part(part: keras.layers.Layer, input_shape) -> None:
    """Builds one of Keras' own layers that is a part of another one, under its name."""
    under_own_name(type(part).build)(part, input_shape)


def input_spec(ndim: int, channels: int | None = None) -> keras.layers.InputSpec:
    """What a built layer takes: so many axes, so many channels on the last one; others raise ValueError by Keras."""
    return keras.layers.InputSpec(ndim=ndim, axes={} if channels is None else {-1: channels})
