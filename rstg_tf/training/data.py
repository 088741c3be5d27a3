"""What a run learns from, as the loop asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import tensorflow as tf
from tensorflow import keras


class TrainingData(Protocol):
    """The clips of a run.

    `num_clips`: of an epoch. `manifests`: name -> text of the dataset.json of each data set, which the run keeps.
    """

    num_clips: int
    manifests: Mapping[str, str]

    def batches(self, start_step: int) -> tf.data.Dataset:
        """The endless data set of global batches from that step on, see `TrainStep`."""

    def evaluate(self, model: keras.Model, stopped: Callable[[], bool]) -> float | None:
        """Top-1 accuracy on the test clips, a share 0…1; None where `stopped()` made it give up.

        Called every `eval_every` steps, so never where that is 0.
        """

    def sample(self) -> tf.Tensor | None:
        """A few clips [B, T, H, W, C] on which TensorBoard shows how sharp the attention is; None for no such view."""
