"""The whole network: clip -> logits. `build_model` turns a ModelConfig into layers; no layer sees the config."""

from __future__ import annotations

import dataclasses

import tensorflow as tf
from tensorflow import keras

from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.baselines import FrameLSTM
from rstg_tf.config import ConfigError, ModelConfig
from rstg_tf.readout import Classifier
from rstg_tf.recurrent_graph import RecurrentSpaceTimeGraph

# (mean, scale) in pixels 0…255: x -> (x - mean) / scale. The release feeds SyncMNIST raw and centres RGB.
PIXEL_SCALINGS = {"none": (0.0, 1.0), "centred": (114.75, 57.375)}


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


class VideoClassifier(keras.Model):
    """clip -> logits, as a chain of four parts.

        video  [B,T,H,W,C] uint8 or float, 0…255
          |  pixels      (x - mean) / scale
          |  backbone    convolutions, frame by frame
        map    [B,T,H',W',C']
          |  head        RecurrentSpaceTimeGraph: nodes -> (time, space)×K -> time -> vector;  or a baseline
        vector [B,C'']
          |  classifier  dropout, dense
        logits [B,classes] float32

    Args: the four layers; `video_shape` (T, H, W, C) of the training clips, with which weights are built. Other B, T, H
    and W may be given at any call as far as the backbone (and, for Conv + LSTM, the map's size) allows.
    """

    def __init__(self, *, pixels, backbone, head, classifier, video_shape: tuple[int, int, int, int], **kwargs):
        super().__init__(**kwargs)
        self.pixels, self.backbone, self.head, self.classifier = pixels, backbone, head, classifier
        self.video_shape = tuple(video_shape)

    def build(self, input_shape=None):
        if self.built:
            return
        shape = (None, *self.video_shape)
        self.backbone.build(shape)
        shape = self.backbone.map_shape(shape)
        self.head.build(shape)
        self.classifier.build((None, self.head.vector_width(shape)))
        self.built = True

    def call(self, video, training=False):
        features = self.backbone(self.pixels(video), training=training)
        return self.classifier(self.head(features, training=training), training=training)

    def describe(self, video) -> dict:
        """In inference mode: 'logits'; and by the graph's place 'attention' [B, K, T, N, N], 'nodes' (first, last)."""
        features = self.backbone(self.pixels(video), training=False)
        if not isinstance(self.head, RecurrentSpaceTimeGraph):
            return {"logits": self.classifier(self.head(features)), "attention": {}, "nodes": {}}
        vector, trace = self.head(features, return_trace=True)
        return {"logits": self.classifier(vector), "attention": {"final": trace.attention},
                "nodes": {"final": (trace.input_nodes, trace.output_nodes)}}


def build_model(config: ModelConfig) -> VideoClassifier:
    """The network that `config` describes, with its weights. Raises ConfigError if the parts don't fit."""
    config.check()
    if config.backbone != "simple_c2d":
        raise ConfigError(f"--backbone_model={config.backbone}: only simple_c2d is built so far.")
    mean, scale = PIXEL_SCALINGS[config.pixel_scaling]
    model = VideoClassifier(
        pixels=PixelScaling(mean=mean, scale=scale, name="pixels"),
        backbone=SmallConvnet(filters=config.backbone_filters, layers=config.backbone_layers, name="backbone"),
        head=_build_head(config),
        classifier=Classifier(num_classes=config.num_classes, dropout=config.dropout, name="classifier"),
        video_shape=(config.num_frames, config.height, config.width, config.channels),
        name="rstg")
    try:
        model.build()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return model


def _build_head(config: ModelConfig):
    if config.head == "graph":
        return RecurrentSpaceTimeGraph(output="vector", adjacency_size=(config.height, config.width),
                                       name="graph_final", **dataclasses.asdict(config.graph))
    pooling = {"mean_lstm": "mean", "conv_lstm": "conv"}[config.head]
    return FrameLSTM(units=config.graph.node_width, pooling=pooling, forget_bias=config.graph.forget_bias,
                     name=config.head)
