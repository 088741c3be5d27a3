"""Pixels 0…255 -> what the first convolution takes."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras


@keras.utils.register_keras_serializable("rstg")
class PixelScaling(keras.layers.Layer):
    """(x - mean) / scale in float32, inside the model, so that training, evaluation and serving cannot differ."""

    def __init__(self, *, mean: float = 0.0, scale: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.mean = mean
        self.scale = scale

    def call(self, video):
        scaled = tf.cast(video, tf.float32)
        if (self.mean, self.scale) != (0.0, 1.0):
            scaled = (scaled - self.mean) / self.scale
        return tf.cast(scaled, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "scale": self.scale}
