"""The whole network: clip -> logits. `build_model` turns a ModelConfig into layers; no layer sees the config."""

from __future__ import annotations

import dataclasses

import tensorflow as tf
from tensorflow import keras

from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.keras_layer import under_own_name
from rstg_tf.config import ModelConfig
from rstg_tf.layers.heads import FrameLSTMHead, PoolingHead
from rstg_tf.layers.pixel_scaling import PixelScaling
from rstg_tf.layers.readout import Classifier
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.layers.residual_graph import ResidualGraph
from rstg_tf.layers.streaming_state import (
    add_prefix,
    call_part,
    check_state,
    check_streamable,
    strip_prefix,
    update_where,
    zero_state,
)

# (mean, scale) in pixels 0…255: x -> (x - mean) / scale. The release feeds SyncMNIST raw and centres RGB.
PIXEL_SCALINGS = {"none": (0.0, 1.0), "centred": (114.75, 57.375)}
STREAMABLE = (
    "Parts that see one frame at a time: --backbone_model=simple_c2d or c2d without --place_nonlocal, "
    "LN_per_step in the place of LN (--use_norm, --final_norm), --noshare_stages."
)


class VideoClassifier(keras.Model):
    """clip -> logits, as a chain of four parts.

        video  [B,T,H,W,C] uint8 or float, 0…255
          |  pixels      (x - mean) / scale
          |  backbone    SmallConvnet, or ResNet50 with graphs and non-local blocks inside its stages
        map    [B,T',H',W',C']
          |  head        RecurrentSpaceTimeGraph: nodes -> (time, space)×K -> time -> vector;  a baseline;
          |              or for a ResNet the pooled map, the graph's vector added to it or in its place
        vector [B,C''], or [B,P,Q,C''] where several positions remain
          |  classifier  dropout, dense, mean over the positions
        logits [B,classes] float32

    Args: the four layers; `video_shape` (T, H, W, C) of the training clips, with which weights are built. Other B, T, H
    and W may be given at any call as far as the backbone (and, for Conv + LSTM, the map's size) allows.

    Call with `states`, at first `initial_state(B)`: video is the next frames of running clips, any number of them, of
    the size that the model was built for; returns (logits of all frames so far, states after them). See
    `streaming_state`. A ResNet pools frames in pairs: its logits change with every second frame, and are 0 before the
    first pair is complete. The states also have the number of 'frames' so far, float32 [B]. Raises ConfigError naming
    the part that looks ahead, ValueError for frames of another size and for states that are none of its own.
    """

    def __init__(self, *, pixels, backbone, head, classifier, video_shape: tuple[int, int, int, int], **kwargs):
        super().__init__(**{**kwargs, "autocast": False})  # states stay float32
        self.pixels, self.backbone, self.head, self.classifier = pixels, backbone, head, classifier
        self.video_shape = tuple(video_shape)

    @under_own_name
    def build(self, input_shape=None):
        if self.built:
            return
        shape = (None, *self.video_shape)
        self.backbone.build(shape)
        shape = self.backbone.map_shape(shape)
        self.head.build(shape)
        self.classifier.build((None, self.head.vector_width(shape)))
        self.built = True

    def call(self, video, states=None, training=False):
        if states is None:
            return self._advance(video, None, training)["logits"]
        self.check_streamable()
        check_state(states, self.state_shapes())
        if tuple(video.shape[2:]) != self.video_shape[1:]:
            raise ValueError(
                f"{self.name}: expected frames [B, T, {', '.join(map(str, self.video_shape[1:]))}], got "
                f"{tuple(video.shape)}."
            )
        for chunk in self.backbone.chunks(video):
            states = self._advance(chunk, states, training)
        return states["logits"], states

    def _advance(self, video, states, training) -> dict[str, tf.Tensor]:
        """The states after a chunk, 'logits' among them; of a whole clip, whose `states` are None, these alone."""
        before = strip_prefix("backbone", states)
        arrived = None if states is None else self.backbone.arrived(before, video.shape[1])
        features, backbone = call_part(self.backbone, self.pixels(video), before, training=training)

        def classify(states):
            vector, head = call_part(self.head, features, strip_prefix("head", states), training=training)
            return {"logits": self.classifier(vector, training=training), **add_prefix("head", head)}

        if states is None:
            return classify(None)
        later = {"logits": states["logits"], **add_prefix("head", strip_prefix("head", states))}
        frames = states["frames"] + tf.cast(tf.shape(video)[1], tf.float32)
        return {"frames": frames, **add_prefix("backbone", backbone), **update_where(arrived, classify, later)}

    def initial_state(self, clips) -> dict[str, tf.Tensor]:
        """What `clips` clips remember before their first frame: zeros. Raises ConfigError if a part looks ahead."""
        self.check_streamable()
        return zero_state(self.state_shapes(), clips)

    def step(self, frame, state):
        """A chunk of one frame, in inference mode: pixels 0…255 [B, H, W, C] -> (logits so far, state after it)."""
        return self(frame[:, None], states=state)

    def check_streamable(self) -> None:
        """Raises ConfigError naming everything that looks ahead, why, and the flags of models without it."""
        try:
            check_streamable(self)
        except ConfigError as error:
            raise ConfigError(f"{error} {STREAMABLE}") from None

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every entry of the state, without B."""
        shape = (None, *self.video_shape)
        return {
            "frames": (),
            "logits": (self.classifier.num_classes,),
            **add_prefix("backbone", self.backbone.state_shapes(shape)),
            **add_prefix("head", self.head.state_shapes(self.backbone.map_shape(shape))),
        }

    def noncausal_reasons(self) -> list[str]:
        """Why it cannot run frame by frame: a sentence for each reason, naming the part."""
        return [*self.backbone.noncausal_reasons(), *self.head.noncausal_reasons()]

    def describe(self, video) -> dict:
        """In inference mode: 'logits'; and by the graph's place 'attention' [B, K, T, N, N], 'nodes' (first, last)."""
        features, traces = _traced(self.backbone, self.pixels(video))
        output, final_traces = _traced(self.head, features)
        traces = {**traces, **final_traces}
        return {
            "logits": self.classifier(output),
            "attention": {place: trace.attention for place, trace in traces.items()},
            "nodes": {place: (trace.input_nodes, trace.output_nodes) for place, trace in traces.items()},
        }


def _traced(part, inputs):
    """Output of a backbone or head in inference mode, and {place: GraphTrace} of the graphs in it."""
    if isinstance(part, RecurrentSpaceTimeGraph):
        output, trace = part(inputs, return_trace=True)
        return output, {"final": trace}
    if isinstance(part, (ResNet50, PoolingHead)):
        return part(inputs, return_traces=True)
    return part(inputs), {}


def build_model(config: ModelConfig) -> VideoClassifier:
    """The network that `config` describes, with its weights. Raises ConfigError if the parts don't fit.

    Example:

    >>> from rstg_tf.common.graph_config import GraphConfig
    >>> config = ModelConfig(backbone_filters=4, backbone_layers=1, height=12, width=12, num_frames=3, graph_frames=3,
    ...                      num_classes=5, graph=GraphConfig(num_scales=2, node_width=8, message_width=8))
    >>> tuple(build_model(config)(tf.zeros([2, 3, 12, 12, 1], tf.uint8)).shape)
    (2, 5)
    """
    config.check()
    mean, scale = PIXEL_SCALINGS[config.pixel_scaling]
    model = VideoClassifier(
        pixels=PixelScaling(mean=mean, scale=scale, name="pixels"),
        backbone=_build_backbone(config),
        head=_build_head(config),
        classifier=Classifier(num_classes=config.num_classes, dropout=config.dropout, name="classifier"),
        video_shape=(config.num_frames, config.height, config.width, config.channels),
        name="rstg",
    )
    try:
        model.build()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return model


def _build_backbone(config: ModelConfig):
    if config.backbone == "simple_c2d":
        return SmallConvnet(filters=config.backbone_filters, layers=config.backbone_layers, name="backbone")
    graphs = {
        place: ResidualGraph(graph=_build_graph(config, place, "map"), final_norm=config.final_norm, name=place)
        for place in config.graph_places
        if place != "final"
    }
    return ResNet50(
        variant="c2d" if config.backbone == "c2d" else "i3d",
        graphs=graphs,
        nonlocal_places=config.nonlocal_places,
        remat=config.remat,
        name="backbone",
    )


def _build_head(config: ModelConfig):
    if config.head != "graph":
        pooling = {"mean_lstm": "mean", "conv_lstm": "conv"}[config.head]
        return FrameLSTMHead(
            units=config.graph.node_width, pooling=pooling, forget_bias=config.graph.forget_bias, name=config.head
        )
    if config.backbone == "simple_c2d":
        return _build_graph(config, "final", "vector")
    graph = _build_graph(config, "final", "vector") if "final" in config.graph_places else None
    return PoolingHead(graph=graph, final_norm=config.final_norm, combination=config.combination, name="head")


def _build_graph(config: ModelConfig, place: str, output: str) -> RecurrentSpaceTimeGraph:
    return RecurrentSpaceTimeGraph(
        output=output,
        adjacency_size=(config.height, config.width),
        project_features=_projects_features(config, place),
        name=f"graph_{place}",
        **dataclasses.asdict(config.graph),
    )


def _projects_features(config: ModelConfig, place: str) -> bool | None:
    """Whether dense layers lead into the graph and back; None leaves it to the widths.

    The release has them in every ResNet graph but res3's, whatever the widths; res3's map is 512 wide, like its nodes.
    """
    if config.backbone == "simple_c2d":
        return None
    return place != "res3" or (config.graph.node_width, config.graph.message_width) != (512, 512)
