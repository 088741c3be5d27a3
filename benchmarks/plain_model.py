"""The SyncMNIST model and its training step written the obvious way: what the real ones are timed against.

It stands in for the authors' own graph and computes the same numbers: plain convolutions, `PlainGraph` frame by frame,
the summed loss of the clips, one call of TensorFlow per step, the update by the same Nesterov kernel as the release's.
"""

from __future__ import annotations

import tensorflow as tf

from benchmarks.plain_graph import PlainGraph
from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.common import devices
from rstg_tf.config import ExperimentConfig
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.model import build_model


class PlainModel(tf.Module):
    """video [B, T, H, W, C] pixels 0…255 -> logits [B, classes], float32, like the given VideoClassifier.

    Raises ValueError for a model other than convnet and graph, and for options that PlainGraph does not have.
    """

    def __init__(self, model):
        super().__init__()
        if not isinstance(model.backbone, SmallConvnet) or not isinstance(model.head, RecurrentSpaceTimeGraph):
            raise ValueError("the plain model has a small convnet and a graph, nothing else.")
        if model.classifier.rate or (model.pixels.mean, model.pixels.scale) != (0.0, 1.0):
            raise ValueError("the plain model has no dropout and takes pixels as they are.")
        self.convolutions = [
            [tf.Variable(weight) for weight in layer.get_weights()] for layer in model.backbone.convolutions
        ]
        self.graph = PlainGraph(model.head)
        self.classifier = [tf.Variable(weight) for weight in model.classifier.dense.get_weights()]

    def __call__(self, video, training: bool = False):
        clips, steps = video.shape[:2]
        frames = tf.reshape(tf.cast(video, tf.float32), [-1, *video.shape[2:]])  # [B·T, H, W, C]
        for kernel, bias in self.convolutions:
            frames = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(frames, kernel, 1, "VALID"), bias))
            frames = tf.nn.max_pool2d(frames, 2, 2, "VALID")
        vector = self.graph(tf.reshape(frames, [clips, steps, *frames.shape[1:]]), training=training)  # [B, C']
        kernel, bias = self.classifier
        return tf.matmul(vector, kernel) + bias


def plain_model(config: ExperimentConfig) -> PlainModel | None:
    """That of an experiment's model, newly built; None for one with options that PlainModel does not have."""
    devices.set_precision("float32")
    try:
        return PlainModel(build_model(config.model))
    except ValueError:
        return None


class PlainStep:
    """`step(video, label)`: one update by the summed loss, which it returns; w ← w - rate·(g + momentum·v)."""

    def __init__(self, model: PlainModel, *, rate: float, momentum: float):
        self.model, self.rate, self.momentum = model, rate, momentum
        self.weights = list(model.trainable_variables)
        self.slots = [tf.Variable(tf.zeros_like(weight)) for weight in self.weights]

    @tf.function(autograph=False)
    def __call__(self, video, label):
        with tf.GradientTape() as tape:
            logits = self.model(video, training=True)
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits))
        for weight, slot, gradient in zip(self.weights, self.slots, tape.gradient(loss, self.weights)):
            if gradient is not None:  # batch norm's statistics have none
                tf.raw_ops.ResourceApplyMomentum(
                    var=weight.handle,
                    accum=slot.handle,
                    lr=self.rate,
                    grad=gradient,
                    momentum=self.momentum,
                    use_nesterov=True,
                )
        return loss
