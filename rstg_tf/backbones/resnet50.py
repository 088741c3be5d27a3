"""ResNet-50 on clips: C2D, I3D and, with non-local blocks, the Non-Local network. Wang et al., CVPR 2018, table 1."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from rstg_tf.backbones.frozen_norm import FrozenNormConvolution
from rstg_tf.backbones.nonlocal_block import NonLocalBlock
from rstg_tf.common.choices import require_choice
from rstg_tf.layers.residual_graph import ResidualGraph
from rstg_tf.layers.streaming_state import add_prefix, strip_prefix, update_where

SMALLEST_SIDE = 32  # pixels; leaves maps of 2×2


class Stage(NamedTuple):
    """Blocks of one resolution: channels inside and out, stride of the first block."""

    name: str
    blocks: int
    inner: int
    outer: int
    stride: int


STAGES = (
    Stage("res2", blocks=3, inner=64, outer=256, stride=1),
    Stage("res3", blocks=4, inner=128, outer=512, stride=2),
    Stage("res4", blocks=6, inner=256, outer=1024, stride=2),
    Stage("res5", blocks=3, inner=512, outer=2048, stride=1),
)
BEFORE_PAIRS, AFTER_PAIRS = STAGES[:1], STAGES[1:]  # of the max pool over pairs of frames
# How many frames the first convolution sees, and the first one of every block.
TEMPORAL_KERNELS = {
    "c2d": {"conv1": 1, "res2": (1, 1, 1), "res3": (1, 1, 1, 1), "res4": (1, 1, 1, 1, 1, 1), "res5": (1, 1, 1)},
    "i3d": {"conv1": 5, "res2": (3, 3, 3), "res3": (3, 1, 3, 1), "res4": (3, 1, 3, 1, 3, 1), "res5": (1, 3, 1)},
}


@keras.utils.register_keras_serializable("rstg")
class Bottleneck(keras.layers.Layer):
    """relu(shortcut(x) + 1×1(relu(3×3(relu(1×1(x)))))): [B, T, H, W, C] -> [B, T, H', W', outer].

    The first convolution spans `temporal_kernel` frames, the second carries the stride. The shortcut is x itself, or a
    1×1 convolution with the stride where channels or size change. Every convolution has its norm.
    """

    def __init__(self, *, inner: int, outer: int, temporal_kernel: int = 1, stride: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.outer, self.temporal_kernel, self.stride = inner, outer, temporal_kernel, stride
        self.reduce = FrozenNormConvolution(filters=inner, kernel_size=(temporal_kernel, 1, 1), name="reduce")
        self.spatial = FrozenNormConvolution(filters=inner, kernel_size=(1, 3, 3), stride=stride, name="spatial")
        self.expand = FrozenNormConvolution(filters=outer, name="expand")
        self.shortcut = None

    def build(self, input_shape):
        channels = input_shape[-1]
        self.reduce.build((None, None, None, None, channels))
        self.spatial.build((None, None, None, None, self.inner))
        self.expand.build((None, None, None, None, self.inner))
        if (channels, self.stride) != (self.outer, 1):
            self.shortcut = FrozenNormConvolution(filters=self.outer, stride=self.stride, name="shortcut")
            self.shortcut.build((None, None, None, None, channels))
        super().build(input_shape)

    def call(self, features):
        hidden = tf.nn.relu(self.reduce(features))
        hidden = tf.nn.relu(self.spatial(hidden))
        kept = features if self.shortcut is None else self.shortcut(features)
        return tf.nn.relu(self.expand(hidden) + kept)

    def get_config(self):
        return {**super().get_config(), "inner": self.inner, "outer": self.outer,
                "temporal_kernel": self.temporal_kernel, "stride": self.stride}


@keras.utils.register_keras_serializable("rstg")
class ResNet50(keras.layers.Layer):
    """Clip -> feature map: [B, T, H, W, C] -> [B, T/2, ≈H/16, ≈W/16, 2048].

        video  [B,T,224,224,C]
          |  conv1 7×7 /2, relu, 3×3 max pool /2        [B,T,55,55,64]
          |  res2  3 blocks                             [B,T,55,55,256]
          |  max pool over pairs of frames              [B,T/2,55,55,256]
          |  res3  4 blocks                             [B,T/2,28,28,512]
          |  res4  6 blocks                             [B,T/2,14,14,1024]
          |  res5  3 blocks, no stride                  [B,T/2,14,14,2048]
        map

    A graph sits after the last block but one of its stage, non-local blocks after every second block.

    Args:
      variant: a row of TEMPORAL_KERNELS: 'c2d' (frame by frame) or 'i3d'.
      graphs: stage name -> ResidualGraph.
      nonlocal_places: names of the stages with non-local blocks.
      remat: in the backward pass, compute each stage's activations again from its input instead of keeping them.

    Call: T even, H and W known when traced and at least 32. With `return_traces=True` a pair: the map and
    {stage name: GraphTrace}.

    Source: docs/release.md, 'ResNet-50'. Raises ValueError for unknown stages, a stage with a graph and non-local
    blocks, odd T.
    """

    def __init__(self, *, variant: str = "i3d", graphs: dict[str, ResidualGraph] | None = None,
                 nonlocal_places: tuple[str, ...] = (), remat: bool = False, **kwargs):
        super().__init__(**kwargs)
        require_choice("variant", variant, tuple(TEMPORAL_KERNELS))
        self.variant, self.remat = variant, remat
        graphs = dict(graphs or {})
        self.graph_places, self.nonlocal_places = tuple(graphs), tuple(nonlocal_places)
        for place in (*self.graph_places, *self.nonlocal_places):
            require_choice("place", place, tuple(stage.name for stage in STAGES))
        both = sorted(set(self.graph_places) & set(self.nonlocal_places))
        if both:
            raise ValueError(f"{', '.join(both)}: a stage takes a graph or non-local blocks, not both.")
        self.conv1 = FrozenNormConvolution(filters=64, kernel_size=(TEMPORAL_KERNELS[variant]["conv1"], 7, 7),
                                           stride=2, name="conv1")
        for place, graph in graphs.items():
            setattr(self, f"graph_{place}", graph)
        for stage in STAGES:
            self._add_blocks(stage)

    def _add_blocks(self, stage: Stage):
        """As attributes, each under its name: in dicts and lists the checkpoints of Keras 3 would not find them."""
        for index, kernel in enumerate(TEMPORAL_KERNELS[self.variant][stage.name]):
            name = f"{stage.name}_{index}"
            stride = stage.stride if index == 0 else 1
            setattr(self, name, Bottleneck(inner=stage.inner, outer=stage.outer, temporal_kernel=kernel, stride=stride,
                                           name=name, dtype=self.dtype_policy))
            if stage.name in self.nonlocal_places and index % 2:
                setattr(self, f"nonlocal_{name}", NonLocalBlock(name=f"nonlocal_{name}", dtype=self.dtype_policy))

    @property
    def graphs(self) -> dict[str, ResidualGraph]:
        """Stage name -> the graph inside it."""
        return {place: getattr(self, f"graph_{place}") for place in self.graph_places}

    def parts(self, stage: Stage) -> list[keras.layers.Layer]:
        """The stage's blocks, non-local blocks and graph, in the order in which the map passes them."""
        parts = []
        for index in range(stage.blocks):
            parts.append(getattr(self, f"{stage.name}_{index}"))
            if stage.name in self.nonlocal_places and index % 2:
                parts.append(getattr(self, f"nonlocal_{stage.name}_{index}"))
            if stage.name in self.graph_places and index == stage.blocks - 2:
                parts.append(getattr(self, f"graph_{stage.name}"))
        return parts

    def map_shape(self, video_shape):
        """Shape of the last map for a video of this shape."""
        return self.stage_shapes(video_shape)[-1]

    @staticmethod
    def stage_shapes(video_shape) -> list[tuple]:
        """Shape of the map that each stage returns."""
        clips, steps, *sides, _ = video_shape
        sides = [((side + 1) // 2 - 1) // 2 for side in sides]
        shapes = []
        for stage in STAGES:
            sides = [(side + stage.stride - 1) // stage.stride for side in sides]
            shapes.append((clips, steps, *sides, stage.outer))
            if stage.name == "res2" and steps is not None:
                steps //= 2
        return shapes

    def build(self, input_shape):
        self._check_video(input_shape)
        self.conv1.build(tuple(input_shape))
        channels = self.conv1.filters
        for stage, shape in zip(STAGES, self.stage_shapes(input_shape)):
            for part in self.parts(stage):
                part.build((*shape[:-1], channels))
                channels = stage.outer
        super().build(input_shape)

    def _check_video(self, shape):
        steps, height, width = shape[1:4]
        if None in (height, width) or min(height, width) < SMALLEST_SIDE:
            raise ValueError(f"{self.name}: frames of {height}×{width} pixels; a ResNet-50 needs known sizes of at "
                             f"least {SMALLEST_SIDE}.")
        if steps is not None and (steps < 2 or steps % 2):
            raise ValueError(f"{self.name}: clips of {steps} frames; expected an even number, as frames are pooled in "
                             "pairs.")

    def call(self, video, training=False, return_traces=False):
        self._check_video(video.shape)
        traces = {}

        def through_graph(place, graph, features):
            features, traces[place] = graph(features, training=training, return_trace=True)
            return features

        features = self._recomputed(self._stem)(video)
        features = self._pass_stages(BEFORE_PAIRS, features, through_graph)
        features = tf.nn.max_pool3d(features, [1, 2, 1, 1, 1], [1, 2, 1, 1, 1], padding="VALID")
        features = self._pass_stages(AFTER_PAIRS, features, through_graph)
        return (features, traces) if return_traces else features

    def noncausal_reasons(self) -> list[str]:
        """Why it cannot run frame by frame: a sentence for each reason, naming the layers."""
        parts = [part for stage in STAGES for part in self.parts(stage)]
        spanning = [part.name for part in (self.conv1, *parts) if _frames_seen(part) > 1]
        nonlocal_blocks = [part.name for part in parts if isinstance(part, NonLocalBlock)]
        reasons = [f"{self.name}: {', '.join(names)} {what}" for names, what in (
            (spanning, "convolve over frames still to come"),
            (nonlocal_blocks, "attend over all frames of the clip"),
        ) if names]
        return reasons + [reason for graph in self.graphs.values() for reason in graph.noncausal_reasons()]

    def state_shapes(self, video_shape) -> dict[str, tuple[int, ...]]:
        """Entries of the state without B: frames so far, res2's map of the last one, what the graphs remember."""
        shapes = {"frames": (), "last_map": self.stage_shapes(video_shape)[0][2:]}
        for place, graph in self.graphs.items():
            shapes.update(add_prefix(place, graph.state_shapes()))
        return shapes

    def step(self, frame, state):
        """The next frame of running clips: [B, H, W, C] -> (map [B, H', W', 2048], arrived bool [B], state after it).

        Stages after the pooling over pairs see every second frame. For a clip whose pair is still open `arrived` is
        False, the map means nothing, and what later graphs remember stays; they run when any clip's pair is complete.
        """
        through_graph = _StepThroughGraph(state)
        features = self._pass_stages(BEFORE_PAIRS, self._stem(frame[:, None]), through_graph)  # [B, 1, H, W, C]
        pair = tf.maximum(tf.cast(state["last_map"], features.dtype)[:, None], features)

        def after_pair(later):
            through_graph = _StepThroughGraph(later)
            features = self._pass_stages(AFTER_PAIRS, pair, through_graph)
            return {**through_graph.state, "map": features[:, 0]}

        arrived = tf.math.floormod(state["frames"], 2.0) == 1.0
        later = {"map": tf.zeros([tf.shape(frame)[0], *self.map_shape((None, None, *frame.shape[1:]))[2:]], pair.dtype)}
        for stage in AFTER_PAIRS:
            later.update(add_prefix(stage.name, strip_prefix(stage.name, state)))
        later = update_where(arrived, after_pair, later)
        after = {**through_graph.state, "frames": state["frames"] + 1.0,
                 "last_map": tf.cast(features[:, 0], tf.float32)}
        return later.pop("map"), arrived, {**after, **later}

    def _pass_stages(self, stages, features, through_graph):
        """The map of the last of `stages`; `through_graph(place, graph, map)` returns the map after a graph."""
        for stage in stages:
            for is_graph, parts in itertools.groupby(self.parts(stage), lambda part: isinstance(part, ResidualGraph)):
                if is_graph:
                    features = through_graph(stage.name, next(parts), features)
                else:
                    features = self._recomputed(_chain(list(parts)))(features)
        return features

    def _stem(self, video):
        """[B, T, H, W, C] -> [B, T, H', W', 64]"""
        features = tf.nn.relu(self.conv1(video))
        return tf.nn.max_pool3d(features, [1, 1, 3, 3, 1], [1, 1, 2, 2, 1], padding="VALID")

    def _recomputed(self, function):
        return tf.recompute_grad(function) if self.remat else function

    def get_config(self):
        return {**super().get_config(), "variant": self.variant, "nonlocal_places": self.nonlocal_places,
                "graphs": {place: graph.get_config() for place, graph in self.graphs.items()}, "remat": self.remat}

    @classmethod
    def from_config(cls, config):
        graphs = {place: ResidualGraph.from_config(graph) for place, graph in config["graphs"].items()}
        return cls(**{**config, "graphs": graphs})


class _StepThroughGraph:
    """How a step of running clips passes the graphs: from their entries of a state, and into them."""

    def __init__(self, state):
        self.state = dict(state)

    def __call__(self, place, graph, features):
        output, after = graph.step(features[:, 0], strip_prefix(place, self.state))
        self.state.update(add_prefix(place, after))
        return output[:, None]  # [B, 1, H, W, C]


def _frames_seen(part) -> int:
    """How many frames a layer's convolutions span."""
    convolution = part.reduce if isinstance(part, Bottleneck) else part
    return convolution.kernel_size[0] if isinstance(convolution, FrozenNormConvolution) else 1


def _chain(layers):
    def run(features):
        for layer in layers:
            features = layer(features)
        return features
    return run
