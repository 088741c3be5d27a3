"""What an exported model answers: a row per signature of the SavedModel. Graph functions; no file is touched here.

A server compares the names and types of what it is sent, not the shapes, and a reshape further on could absorb a clip
of another size and answer nonsense. So every signature checks its inputs before it computes anything. Nothing in them
mixes the clips of a batch: a server may join requests along the first axis. `autograph=False`, since the model has no
Python condition on a tensor, and looking for one takes half of the export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.backbones.resnet50_stages import STAGES
from rstg_tf.common.errors import ConfigError
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.layers.streaming_state import pack_state, packed_size, unpack_state
from rstg_tf.serving.request_clips import checked_video, clips_from_frames, require
from rstg_tf.serving.request_limits import RequestLimits
from rstg_tf.video.clip_spec import ClipSpec

NAMED_CLASSES = 5  # at most so many names come with an answer of serving_bytes


class Signature(NamedTuple):
    """`build(model, clip, class_names, limits)` gives a tf.function from named tensors to a dict of named tensors.

    `about` tells in a few words what it answers; `obstacle(model, clip)` why a model cannot have it, None if it can.
    """

    about: str
    build: Callable
    obstacle: Callable = lambda model, clip: None


def classify_clips(model, clip: ClipSpec, class_names: Sequence[str], limits: RequestLimits):
    """uint8 `video` [B, T, H, W, C] -> `logits`, `probabilities` [B, classes], `class_index` int32 [B].

    Numbers only and no control flow, so that converters for other runtimes take it.
    """

    @tf.function(autograph=False, input_signature=[_video_spec(clip)])
    def serving_default(video):
        return _answer(model(checked_video(video, clip), training=False))

    return serving_default


def classify_frames(model, clip: ClipSpec, class_names: Sequence[str], limits: RequestLimits):
    """string `frames` [B, D], JPEG or PNG, D ≥ T -> the answer of `classify_clips`, and the best classes by name.

    `classes` string [B, k], best first, and their probabilities `scores` [B, k]. No name ends in _bytes: REST would
    send such strings in base64. See `clips_from_frames` for what becomes of the frames.
    """
    names = tf.constant(list(class_names))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None], tf.string, name="frames")])
    def serving_bytes(frames):
        answer = _answer(model(clips_from_frames(frames, clip, limits), training=False))
        best = tf.math.top_k(answer["probabilities"], min(NAMED_CLASSES, len(class_names)))
        return {**answer, "classes": tf.gather(names, best.indices), "scores": best.values}

    return serving_bytes


def describe_clips(model, clip: ClipSpec, class_names: Sequence[str], limits: RequestLimits):
    """uint8 `video` -> `vector` [B, C], and for graphs inside stages what they add there: `map` [B, T', H', W', C'].

    The vector is that of the graph at the end; without one there what the classifier reads, mean over its positions.
    With graphs in several stages the maps are called map_res2, …
    """

    @tf.function(autograph=False, input_signature=[_video_spec(clip)])
    def features(video):
        pixels, maps = model.pixels(checked_video(video, clip)), {}
        if isinstance(model.backbone, ResNet50):
            hidden, traces = model.backbone(pixels, training=False, return_traces=True)
            maps = _graph_maps(model.backbone, traces, clip)
        else:
            hidden = model.backbone(pixels, training=False)
        vector = (_final_graph(model) or model.head)(hidden, training=False)
        vector = tf.reduce_mean(vector, axis=list(range(1, vector.shape.rank - 1)))  # [B, C]
        return _floats({"vector": vector, **_by_place("map", maps)})

    return features


def _graph_maps(backbone: ResNet50, traces: Mapping, clip: ClipSpec) -> dict[str, tf.Tensor]:
    """Place -> the output of the graph there, from its final nodes: [B, T', H', W', C']."""
    shapes = dict(zip((stage.name for stage in STAGES), backbone.stage_shapes(clip.shape)))
    return {
        place: backbone.graphs[place].graph.map_from_nodes(
            trace.output_nodes, height=shapes[place][2], width=shapes[place][3]
        )
        for place, trace in traces.items()
    }


def show_attention(model, clip: ClipSpec, class_names: Sequence[str], limits: RequestLimits):
    """uint8 `video` -> `attention` [B, K, T', N, N]: row i receives, column j sends, by space stage and step.

    With graphs at several places: attention_res2, …, attention_final.
    """

    @tf.function(autograph=False, input_signature=[_video_spec(clip)])
    def attention(video):
        return _floats(_by_place("attention", model.describe(checked_video(video, clip))["attention"]))

    return attention


def continue_clips(model, clip: ClipSpec, class_names: Sequence[str], limits: RequestLimits):
    """uint8 `frame` [B, H, W, C] and float32 `state` [B, D] -> the answer so far, and the `state` after the frame.

    A state of zeros starts a clip.
    """
    frame_shape, state_shape = [None, *clip.shape[2:]], [None, packed_size(model)]

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec(frame_shape, tf.uint8, name="frame"),
            tf.TensorSpec(state_shape, tf.float32, name="state"),
        ],
    )
    def stream(frame, state):
        frame, state = tf.ensure_shape(frame, frame_shape), tf.ensure_shape(state, state_shape)
        clips, states = tf.shape(frame)[0], tf.shape(state)[0]
        checks = [
            require(clips > 0, "frame holds no clip, expected at least one"),
            require(tf.equal(clips, states), "frame holds", clips, "clips, but state", states),
        ]
        with tf.control_dependencies(checks):
            logits, after = model.step(tf.identity(frame), unpack_state(model, state))
        return {**_answer(logits), "state": pack_state(after)}

    return stream


def _no_attention(model, clip: ClipSpec) -> str | None:
    graphs = _graphs(model)
    if not graphs:
        return "the model has no graph"
    return None if graphs[0].space_iterations else "the graph has no space stage"


def _cannot_stream(model, clip: ClipSpec) -> str | None:
    if clip.shape[2:] != list(model.video_shape[1:]):
        return f"a state is laid out for the frames of the training, not for {clip.height}×{clip.width} pixels"
    try:
        model.check_streamable()
    except ConfigError as error:
        return str(error)
    return None


SIGNATURES: Mapping[str, Signature] = {
    "serving_default": Signature("clips -> scores of the classes", classify_clips),
    "serving_bytes": Signature("JPEG or PNG frames -> scores of the classes, names of the best", classify_frames),
    "features": Signature("clips -> the vector of the graph, and the maps of graphs inside stages", describe_clips),
    "attention": Signature("clips -> who listens to whom in the graph", show_attention, _no_attention),
    "stream": Signature("the next frame of running clips -> scores so far", continue_clips, _cannot_stream),
}
# What each tensor holds; of names such as map_res3 the part before the place.
TENSORS: Mapping[str, str] = {
    "video": "clips [B,T,H,W,C]: pixels 0…255, grey or RGB",
    "frames": "clips [B,D] of D ≥ T whole JPEG or PNG files; of more than T frames, T at even distances are taken",
    "frame": "the next frame of each clip [B,H,W,C]: pixels 0…255, grey or RGB",
    "state": "what the clips remember [B,D]; zeros before their first frame",
    "logits": "scores before the softmax",
    "probabilities": "softmax of the logits",
    "class_index": "the class with the largest logit, as numbered in class_names.txt from 0",
    "classes": "names of the most probable classes, best first, UTF-8",
    "scores": "their probabilities",
    "vector": "what the graph at the end says about the clip; without one, what the classifier reads",
    "map": "the output of the graph inside a stage [B,T',H',W',C']",
    "attention": "weights [B,K,T',N,N]: row i receives, column j sends; nodes from the finest grid to 1×1, row by row",
}


def build_signatures(
    model, clip: ClipSpec, class_names: Sequence[str], limits: RequestLimits | None = None
) -> tuple[dict, dict[str, str]]:
    """The rows of SIGNATURES for a model: name -> traced tf.function, and name -> why the model cannot have that one.

    `limits`: of requests of encoded frames; None for the default ones.
    Raises ValueError when the model cannot take such clips.
    """
    functions, left_out = {}, {}
    for name, row in SIGNATURES.items():
        obstacle = row.obstacle(model, clip)
        if obstacle:
            left_out[name] = obstacle
            continue
        functions[name] = row.build(model, clip, class_names, limits or RequestLimits())
        functions[name].get_concrete_function()
    return functions, left_out


def explain(name: str, function) -> dict:
    """A signature in words and numbers: {'about', 'inputs', 'outputs': {name: {'dtype', 'shape', 'about'}}}."""
    outputs = function.get_concrete_function().structured_outputs
    return {
        "about": SIGNATURES[name].about,
        "inputs": {spec.name: _explain_tensor(spec.name, spec) for spec in function.input_signature},
        "outputs": {key: _explain_tensor(key, spec) for key, spec in sorted(outputs.items())},
    }


def _explain_tensor(name: str, spec) -> dict:
    return {
        "dtype": spec.dtype.name,
        "shape": spec.shape.as_list(),
        "about": TENSORS.get(name) or TENSORS[name.rpartition("_")[0]],
    }


def _video_spec(clip: ClipSpec) -> tf.TensorSpec:
    return tf.TensorSpec(clip.shape, tf.uint8, name="video")


def _answer(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    logits = tf.cast(logits, tf.float32)
    return {
        "logits": logits,
        "probabilities": tf.nn.softmax(logits),
        "class_index": tf.argmax(logits, axis=-1, output_type=tf.int32),
    }


def _final_graph(model) -> RecurrentSpaceTimeGraph | None:
    """The graph at the end of the network, whose output is a vector."""
    return model.head if isinstance(model.head, RecurrentSpaceTimeGraph) else getattr(model.head, "graph", None)


def _graphs(model) -> list[RecurrentSpaceTimeGraph]:
    inside = [part.graph for part in getattr(model.backbone, "graphs", {}).values()]
    final = _final_graph(model)
    return inside if final is None else [*inside, final]


def _by_place(kind: str, values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """One place: under the name of the kind; several: kind_place."""
    return {kind if len(values) == 1 else f"{kind}_{place}": value for place, value in values.items()}


def _floats(values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: tf.cast(value, tf.float32) for name, value in values.items()}
