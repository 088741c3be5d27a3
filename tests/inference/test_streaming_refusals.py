"""What cannot run chunk by chunk is refused by its name, and so are states and frames that do not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from small_resnet import SMALL
from tiny_configs import TINY

from rstg_tf import RecurrentSpaceTimeGraph, build_model
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.inference.streaming import packed_step, stream_clip
from rstg_tf.layers.streaming_state import packed_size, unpack_state


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"backbone": "i3d"},
            [
                "rstg cannot run frame by frame",
                "backbone: conv1, res2_0, res2_1, res2_2, res3_0, res3_2,",
                "convolve over frames still to come",
                "--backbone_model=simple_c2d or c2d",
            ],
        ),
        (
            {"backbone": "c2d", "graph_places": (), "nonlocal_places": ("res3", "res5")},
            ["backbone: nonlocal_res3_1, nonlocal_res3_3, nonlocal_res5_1 attend over all frames", "--place_nonlocal"],
        ),
        (
            {"backbone": "c2d", "final_norm": "LN", "graph_places": ("res2", "res4")},
            ["res2: the norm after the graph, final_norm='LN', takes its statistics over all steps", "res4: the norm"],
        ),
        (
            {"graph": GraphConfig(node_width=8, message_width=8, normalization="LN")},
            ["graph_final: before_norm, normalization='LN', takes its statistics over all steps", "LN_per_step"],
        ),
        (
            {"graph": GraphConfig(node_width=8, message_width=8, share_stages=True)},
            ["graph_final: share_stages lets every step hear all earlier ones, so its memory would grow with the clip"],
        ),
        (
            {
                "backbone": "c2d",
                "graph_places": ("res3",),
                "final_norm": "BN",
                "graph": GraphConfig(node_width=8, message_width=8, normalization="LN"),
            },
            ["graph_res3: before_norm"],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_model_that_looks_ahead_is_refused_by_the_name_of_the_part(changes, messages):
    model = build_model(dataclasses.replace(SMALL if "backbone" in changes else TINY, **changes))
    frame = np.zeros((1, *model.video_shape[1:]), np.uint8)
    for attempt in (
        lambda: model.check_streamable(),
        lambda: model.initial_state(1),
        lambda: model.step(frame, {}),
        lambda: model(frame[:, None], states={}),
        lambda: packed_step(model),
    ):
        with pytest.raises(ConfigError) as error:
            attempt()
        for message in messages:
            assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "part", "message"),
    [
        (
            {"backbone": "i3d"},
            lambda model: model.backbone,
            "backbone cannot run frame by frame. backbone: conv1, res2_0",
        ),
        (
            {"backbone": "c2d", "final_norm": "LN", "graph_places": ("res2",)},
            lambda model: model.backbone.graphs["res2"],
            "res2 cannot run frame by frame. res2: the norm after the graph, final_norm='LN', takes its "
            "statistics over all",
        ),
        (
            {"graph": GraphConfig(node_width=8, message_width=8, share_stages=True)},
            lambda model: model.head,
            "graph_final cannot run frame by frame. graph_final: share_stages lets every step hear all earlier ones",
        ),
        (
            {
                "backbone": "c2d",
                "graph_places": ("final",),
                "graph": GraphConfig(node_width=8, message_width=8, normalization="LN"),
            },
            lambda model: model.head,
            "head cannot run frame by frame. graph_final: before_norm, normalization='LN'",
        ),
    ],
    ids=["convolution in time", "norm over the clip", "shared stages", "norm before the graph"],
)
def test_a_part_that_looks_ahead_refuses_states_without_a_word_of_flags(changes, part, message):
    model = build_model(dataclasses.replace(SMALL if "backbone" in changes else TINY, **changes))
    part = part(model)
    with pytest.raises(ValueError) as error:
        part(np.zeros((1, 2, 32, 32, part.input_spec.axes[-1]), np.float32), states={})
    assert message in str(error.value) and "--" not in str(error.value)


def test_nothing_else_is_named_where_one_part_alone_looks_ahead():
    model = build_model(dataclasses.replace(SMALL, backbone="c2d", final_norm="LN", graph_places=("res3", "final")))
    assert model.noncausal_reasons() == [
        "res3: the norm after the graph, final_norm='LN', takes its statistics over all steps"
    ]


def test_a_graph_alone_is_refused_too():
    graph = RecurrentSpaceTimeGraph(normalization="LN", node_width=8, message_width=8, name="mine")
    graph.build((None, None, 5, 6, 8))
    with pytest.raises(ConfigError, match="mine cannot run frame by frame. mine: before_norm"):
        graph.initial_state(1)


def test_a_graph_without_weights_is_told_to_get_them_first():
    with pytest.raises(ValueError, match="mine has no weights yet: call it on a whole clip once"):
        RecurrentSpaceTimeGraph(name="mine").initial_state(1)


def test_a_state_of_another_model_is_refused_by_its_entry():
    model = build_model(TINY)
    frame, state = np.zeros((2, 20, 24, 1), np.uint8), model.initial_state(2)
    with pytest.raises(ValueError, match=r"state\['head/mean'\]: expected \[None, 8\], got \[2, 9\]"):
        model.step(frame, {**state, "head/mean": tf.zeros([2, 9])})
    with pytest.raises(ValueError, match=r"state\['spare'\]: expected no such entry, got \[2\]"):
        model.step(frame, {**state, "spare": tf.zeros([2])})
    del state["frames"]
    with pytest.raises(ValueError, match=r"state\['frames'\]: expected \[None\], got none; begin with initial_state"):
        model.step(frame, state)
    with pytest.raises(ValueError, match=rf"expected float32 \[B, {packed_size(model)}\], got \(2, 5\)"):
        unpack_state(model, tf.zeros([2, 5]))


def test_frames_of_another_size_or_type_are_refused():
    model = build_model(TINY)
    with pytest.raises(ValueError, match=r"rstg: expected frames \[B, T, 20, 24, 1\], got \(1, 1, 20, 25, 1\)"):
        model.step(np.zeros((1, 20, 25, 1), np.uint8), model.initial_state(1))
    frames = [np.zeros((20, 24, 1), np.uint8), np.zeros((20, 24, 1), np.float32)]
    with pytest.raises(ValueError, match=r"frame 1: expected uint8 \(20, 24, 1\), got float32 \(20, 24, 1\)"):
        list(stream_clip(model, frames))
