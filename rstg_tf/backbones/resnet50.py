"""ResNet-50 on clips: C2D, I3D and, with non-local blocks, the Non-Local network. Wang et al., CVPR 2018, table 1."""

from __future__ import annotations

import itertools

import tensorflow as tf
from tensorflow import keras

from rstg_tf.backbones.bottleneck import Bottleneck
from rstg_tf.backbones.frozen_norm import FrozenNormConvolution
from rstg_tf.backbones.nonlocal_block import NonLocalBlock
from rstg_tf.backbones.resnet50_stages import STAGES, TEMPORAL_KERNELS, Stage
from rstg_tf.common.choices import require_choice
from rstg_tf.common.keras_layer import Layer, input_spec
from rstg_tf.layers.residual_graph import ResidualGraph
from rstg_tf.layers.streaming_state import add_prefix, check_streamable, strip_prefix, update_where

SMALLEST_SIDE = 32  # pixels; leaves maps of 2×2
BEFORE_PAIRS, AFTER_PAIRS = STAGES[:1], STAGES[1:]  # of the max pool over pairs of frames


@keras.utils.register_keras_serializable("rstg")
class ResNet50(Layer):
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
    {stage name: GraphTrace}. With `states`: the maps of an even number of a running clip's next frames or of one frame
    (`chunks` cuts others so), which mean something where `arrived` says so, and the states after them. Stages after the
    pooling over pairs see one frame only when it completes the pair of any clip.

    Source: docs/release.md, 'ResNet-50'. Raises ValueError for unknown stages, a stage with a graph and non-local
    blocks, odd T.

    Example:

    >>> ResNet50(variant='c2d').map_shape((1, 4, 224, 224, 3))
    (1, 2, 14, 14, 2048)
    """

    def __init__(
        self,
        *,
        variant: str = "i3d",
        graphs: dict[str, ResidualGraph] | None = None,
        nonlocal_places: tuple[str, ...] = (),
        remat: bool = False,
        **kwargs,
    ):
        super().__init__(**{**kwargs, "autocast": False})  # states stay float32
        require_choice("variant", variant, tuple(TEMPORAL_KERNELS))
        self.variant, self.remat = variant, remat
        graphs = dict(graphs or {})
        self.graph_places, self.nonlocal_places = tuple(graphs), tuple(nonlocal_places)
        for place in (*self.graph_places, *self.nonlocal_places):
            require_choice("place", place, tuple(stage.name for stage in STAGES))
        both = sorted(set(self.graph_places) & set(self.nonlocal_places))
        if both:
            raise ValueError(f"{', '.join(both)}: a stage takes a graph or non-local blocks, not both.")
        self.conv1 = FrozenNormConvolution(
            filters=64, kernel_size=(TEMPORAL_KERNELS[variant]["conv1"], 7, 7), stride=2, name="conv1"
        )
        for place, graph in graphs.items():
            setattr(self, f"graph_{place}", graph)
        for stage in STAGES:
            self._add_blocks(stage)

    def _add_blocks(self, stage: Stage):
        """As attributes, each under its name: in dicts and lists the checkpoints of Keras 3 would not find them."""
        for index, kernel in enumerate(TEMPORAL_KERNELS[self.variant][stage.name]):
            name = f"{stage.name}_{index}"
            stride = stage.stride if index == 0 else 1
            setattr(
                self,
                name,
                Bottleneck(
                    inner=stage.inner,
                    outer=stage.outer,
                    temporal_kernel=kernel,
                    stride=stride,
                    name=name,
                    dtype=self.dtype_policy,
                ),
            )
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
        self.input_spec = input_spec(5, input_shape[-1])
        self.conv1.build(tuple(input_shape))
        channels = self.conv1.filters
        for stage, shape in zip(STAGES, self.stage_shapes(input_shape)):
            for part in self.parts(stage):
                part.build((*shape[:-1], channels))
                channels = stage.outer
        super().build(input_shape)

    def _check_video(self, shape, streamed: bool = False):
        steps, height, width = shape[1:4]
        if None in (height, width) or min(height, width) < SMALLEST_SIDE:
            raise ValueError(
                f"{self.name}: frames of {height}×{width} pixels; a ResNet-50 needs known sizes of at "
                f"least {SMALLEST_SIDE}."
            )
        if steps is not None and (steps < 2 or steps % 2) and not (streamed and steps == 1):
            raise ValueError(
                f"{self.name}: clips of {steps} frames; expected an even number, as frames are pooled in pairs."
            )

    def call(self, video, states=None, training=False, return_traces=False):
        if states is not None:
            check_streamable(self)
            if return_traces:
                raise ValueError(f"{self.name}: traces are of whole clips; leave out states or return_traces.")
        self._check_video(video.shape, streamed=states is not None)
        traces, after = {}, {}
        features = self._recomputed(self._stem)(tf.cast(video, self.compute_dtype))
        features = self._pass_stages(BEFORE_PAIRS, features, states, after, traces, training)
        pairs, arrived, open_pair = self._pool_pairs(features, states)

        def pass_pairs(states):
            after = {}
            return {"map": self._pass_stages(AFTER_PAIRS, pairs, states, after, traces, training), **after}

        later = states
        if arrived is not None:
            shape = self.map_shape((None, None, *video.shape[2:]))
            later = {"map": tf.zeros([tf.shape(video)[0], 1, *shape[2:]], pairs.dtype)}
            for stage in AFTER_PAIRS:
                later.update(add_prefix(stage.name, strip_prefix(stage.name, states)))
        later = update_where(arrived, pass_pairs, later)
        features = later.pop("map")
        if states is None:
            return (features, traces) if return_traces else features
        return features, {**after, **open_pair, **later}

    def chunks(self, video) -> list:
        """A running clip's next frames [B, T, H, W, C] as chunks that can be its next ones: even lengths, or one frame.

        An odd number of frames is cut before the last one. Raises ValueError for a T that is unknown when traced.
        """
        steps = video.shape[1]
        if steps is None:
            raise ValueError(
                f"{self.name}: frames are pooled in pairs, so the length of a chunk must be known when "
                f"traced, got {tuple(video.shape)}."
            )
        return [video] if steps % 2 == 0 or steps == 1 else [video[:, :-1], video[:, -1:]]

    def arrived(self, states, steps: int):
        """Which clips' maps mean something, bool [B]; None: all. After one frame only those whose pair is complete."""
        return tf.math.floormod(states["frames"], 2.0) == 1.0 if steps == 1 else None

    def noncausal_reasons(self) -> list[str]:
        """Why it cannot run in chunks of frames: a sentence for each reason, naming the layers."""
        parts = [part for stage in STAGES for part in self.parts(stage)]
        spanning = [part.name for part in (self.conv1, *parts) if _frames_seen(part) > 1]
        nonlocal_blocks = [part.name for part in parts if isinstance(part, NonLocalBlock)]
        reasons = [
            f"{self.name}: {', '.join(names)} {what}"
            for names, what in (
                (spanning, "convolve over frames still to come"),
                (nonlocal_blocks, "attend over all frames of the clip"),
            )
            if names
        ]
        return reasons + [reason for graph in self.graphs.values() for reason in graph.noncausal_reasons()]

    def state_shapes(self, video_shape) -> dict[str, tuple[int, ...]]:
        """Entries of the states without B: frames so far, res2's map of the last one, what the graphs remember."""
        shapes = {"frames": (), "last_map": self.stage_shapes(video_shape)[0][2:]}
        for place, graph in self.graphs.items():
            shapes.update(add_prefix(place, graph.state_shapes()))
        return shapes

    def _pool_pairs(self, features, states):
        """Larger value of each pair of frames: [B, T, H, W, C] -> [B, T/2, H, W, C]; `arrived`; entries of the states.

        In a running clip after an odd number of frames, the pairs begin with the frame before the chunk.
        """
        if states is None:
            return _max_of_pairs(features), None, {}
        arrived = self.arrived(states, features.shape[1])
        last_map = tf.cast(states["last_map"], features.dtype)[:, None]  # [B, 1, H, W, C]
        if arrived is None:
            odd = tf.reshape(tf.math.floormod(states["frames"], 2.0) == 1.0, [-1, 1, 1, 1, 1])
            pairs = tf.where(odd, tf.concat([last_map, features[:, :-1]], axis=1), features)
        else:
            pairs = tf.concat([last_map, features], axis=1)
        return (
            _max_of_pairs(pairs),
            arrived,
            {"frames": states["frames"] + float(features.shape[1]), "last_map": tf.cast(features[:, -1], tf.float32)},
        )

    def _pass_stages(self, stages, features, states, after, traces, training):
        """The map of the last of `stages`; what their graphs remember goes into `after`, their traces into `traces`."""
        for stage in stages:
            for is_graph, parts in itertools.groupby(self.parts(stage), lambda part: isinstance(part, ResidualGraph)):
                if not is_graph:
                    features = self._recomputed(_chain(list(parts)))(features)
                    continue
                features, traces[stage.name], *graph_state = next(parts)(
                    features, states=strip_prefix(stage.name, states), training=training, return_trace=True
                )
                after.update(add_prefix(stage.name, graph_state[0]) if graph_state else {})
        return features

    def _stem(self, video):
        """[B, T, H, W, C] -> [B, T, H', W', 64]"""
        features = tf.nn.relu(self.conv1(video))
        return tf.nn.max_pool3d(features, [1, 1, 3, 3, 1], [1, 1, 2, 2, 1], padding="VALID")

    def _recomputed(self, function):
        return tf.recompute_grad(function) if self.remat else function

    def get_config(self):
        return {
            **super().get_config(),
            "variant": self.variant,
            "nonlocal_places": self.nonlocal_places,
            "graphs": {place: graph.get_config() for place, graph in self.graphs.items()},
            "remat": self.remat,
        }

    @classmethod
    def from_config(cls, config):
        graphs = {place: ResidualGraph.from_config(graph) for place, graph in config["graphs"].items()}
        return cls(**{**config, "graphs": graphs})


def _max_of_pairs(features):
    return tf.nn.max_pool3d(features, [1, 2, 1, 1, 1], [1, 2, 1, 1, 1], padding="VALID")


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
