"""Pixels 0…255 -> what the first convolution takes."""

from __future__ import annotations

from tensorflow import keras


@keras.utils.register_keras_serializable("rstg")
class PixelScaling(keras.layers.Rescaling):
    """(x - mean) / scale in float32, inside the model, so that training, evaluation and serving cannot differ.

    `keras.layers.Rescaling` in the release's words. Any shape and dtype -> float32, whatever the policy: in bfloat16
    its factor would be off by up to 1/512.

    Example:

    >>> import numpy as np
    >>> np.asarray(PixelScaling(mean=100.0, scale=50.0)(np.array([[0, 100, 200]]))).tolist()
    [[-2.0, 0.0, 2.0]]
    """

    def __init__(self, *, mean: float = 0.0, scale: float = 1.0, **kwargs):
        super().__init__(scale=1.0 / scale, offset=-mean / scale, **{**kwargs, "dtype": "float32"})
        self.mean = mean
        self.pixels_per_unit = scale

    @classmethod
    def from_config(cls, config):
        return cls(**config)  # Keras 3's own wants the offset

    def get_config(self):
        config = super().get_config()
        config.pop("offset", None)
        return {**config, "mean": self.mean, "scale": self.pixels_per_unit}
