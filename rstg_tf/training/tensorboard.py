"""What a run tells TensorBoard."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from rstg_tf.evaluation.metrics import attention_entropy
from rstg_tf.training.progress import TrainingMetrics


class TensorBoardWriter:
    """TensorBoard's files of a run: scalars, and how sharp the graph's attention is."""

    def __init__(self, directory: str):
        self._writer = tf.summary.create_file_writer(directory)

    def scalars(self, step: int, **values: float) -> None:
        """Writes values of this step, by their names."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def report(self, report: TrainingMetrics) -> None:
        """Writes the figures of a report, as train/NAME."""
        values = dataclasses.asdict(report)
        step = values.pop("step")
        values.pop("seconds_left")
        self.scalars(step, **{f"train/{name}": value for name, value in values.items()})

    def attention_entropy(self, step: int, entropies: dict) -> None:
        """A histogram per place of the graph, in shares of the entropy of attending to all nodes alike."""
        with self._writer.as_default(step=step):
            for place, entropy in entropies.items():
                tf.summary.histogram(f"attention_entropy/{place}", entropy)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


class AttentionProbe:
    """The attention of a few fixed clips, looked at in every tenth report: cheap beside the steps between."""

    EVERY = 10

    def __init__(self, model, video):
        self._describe = tf.function(model.describe) if video is not None and hasattr(model, "describe") else None
        self._video = video
        self._reports = 0

    def measure(self) -> dict:
        """Place of the graph -> `attention_entropy` [B, K, T, N]; empty when it is not time."""
        self._reports += 1
        if self._describe is None or self._reports % self.EVERY != 1:
            return {}
        attention = self._describe(self._video).get("attention", {})
        return {place: attention_entropy(weights.numpy()) for place, weights in attention.items()}
