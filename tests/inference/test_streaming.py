"""Chunk by chunk: after every chunk the result of the clip so far."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import recipe
import tensorflow as tf
from golden_vectors import assert_equals_golden, clips, golden_model
from graph_options import features_of, graph_and_weights, name_of
from small_resnet import SMALL_GRAPH, random_inputs, randomise
from streamed_models import GRAPH_OPTIONS, PER_STEP, RESNETS, assert_close, c2d, random_model
from tensorflow import keras
from tiny_configs import TINY

from rstg_tf import RecurrentSpaceTimeGraph, build_model
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.inference.streaming import packed_step, stream_clip
from rstg_tf.layers.heads import PoolingHead
from rstg_tf.layers.streaming_state import pack_state, packed_size, unpack_state, zero_state

LENGTHS = (1, 2, 3, 7, 16)


def step_through(part, inputs):
    """Outputs after each step of `inputs` [B, T, …], and the last state."""
    step, state, outputs = tf.function(part.step), part.initial_state(len(inputs)), []
    for t in range(inputs.shape[1]):
        output, state = step(tf.constant(inputs[:, t]), state)
        outputs.append(tf.cast(output, tf.float32).numpy())
    return outputs, state


# The graph alone


@pytest.mark.parametrize("options", GRAPH_OPTIONS, ids=name_of)
def test_the_vector_so_far_is_that_of_the_clip_so_far(options):
    features = features_of(5, clips=2, steps=max(LENGTHS))
    graph, _ = graph_and_weights(features, **options)
    outputs, state = step_through(graph, features)
    for length in LENGTHS:
        assert_close(outputs[length - 1], graph(features[:, :length]))
    np.testing.assert_array_equal(state["steps"], [max(LENGTHS)] * 2)


@pytest.mark.parametrize("time_stages", ["all", "every", "final", "none"])
@pytest.mark.parametrize("clips", [1, 3])
def test_the_map_of_a_step_is_that_of_the_clip(time_stages, clips):
    features = features_of(8, clips=clips, steps=7)
    graph, _ = graph_and_weights(features, output="map", time_stages=time_stages, space_iterations=4)
    outputs, state = step_through(graph, features)
    assert_close(np.stack(outputs, axis=1), graph(features))
    rounds = {"all": 4, "every": 5, "final": 1, "none": 0}[time_stages]
    assert len(state) == 2 * rounds  # (h, c) for each time that time passes: every round starts from a zero state


def test_the_state_after_one_step_of_one_unit_by_hand():
    # One node of 1 channel and no space stage: gates i, f, o are σ(0) = 1/2, the candidate is tanh(x).
    graph = RecurrentSpaceTimeGraph(num_scales=1, space_iterations=0, node_width=1, message_width=1)
    graph.build((None, None, 1, 1, 1))
    for variable, value in zip(graph.last_time_stage.weights, ([[0, 0, 1, 0]], [[0, 0, 0, 0]], [0, 0, 0, 0])):
        variable.assign(np.asarray(value, np.float32))
    state = graph.initial_state(1)
    assert {name: value.shape for name, value in state.items()} == {
        "last_time/hidden": (1, 1, 1),
        "last_time/carry": (1, 1, 1),
        "mean": (1, 1),
        "steps": (1,),
    }
    _, state = graph.step(np.array([[[[1.0]]]], np.float32), state)
    output, state = graph.step(np.array([[[[2.0]]]], np.float32), state)
    first = 0.5 * np.tanh(1)
    second = 0.5 * first + 0.5 * np.tanh(2)
    assert state["last_time/carry"].numpy().item() == pytest.approx(second)
    assert output.numpy().item() == pytest.approx((0.5 * np.tanh(first) + 0.5 * np.tanh(second)) / 2)


def test_a_mean_over_many_steps_keeps_its_digits():
    features = features_of(8, clips=1, steps=1)
    graph, _ = graph_and_weights(features, time_stages="none")
    _, state = graph.step(features[:, 0], graph.initial_state(1))
    state = {**state, "steps": tf.fill([1], 1e6)}  # as after a day at 12 frames per second
    output, state = graph.step(features[:, 0], state)
    assert_close(output, graph(features))


# Whole models


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": "mean_lstm"},
        {"head": "conv_lstm"},
        {
            "pixel_scaling": "centred",
            "graph": GraphConfig(
                node_width=8,
                message_width=12,
                attention="dot",
                attention_heads=4,
                normalization="LN_per_step",
                neighbourhood="masked",
                stage_norm=True,
                residual_stages=True,
                input_batch_norm=True,
            ),
        },
    ],
    ids=str,
)
def test_logits_so_far_are_those_of_the_clip_so_far(changes):
    model = random_model(**changes)
    video = recipe.video(2, (2, max(LENGTHS), *model.video_shape[1:]))
    outputs, state = step_through(model, video)
    for length in LENGTHS:
        assert_close(outputs[length - 1], model(video[:, :length]))
    np.testing.assert_array_equal(state["frames"], [max(LENGTHS)] * 2)
    assert all(value.dtype == tf.float32 for value in state.values())


@pytest.mark.parametrize("changes", RESNETS, ids=lambda changes: "-".join(changes["graph_places"]) or "none")
def test_a_c2d_gives_the_clip_s_logits_after_every_second_frame(changes):
    model = c2d(**changes)
    video = recipe.video(3, (2, 7, *model.video_shape[1:]))
    outputs, _ = step_through(model, video)
    np.testing.assert_array_equal(outputs[0], np.zeros((2, 5)))
    for length in (2, 4, 6):
        assert_close(outputs[length - 1], model(video[:, :length]))
        np.testing.assert_array_equal(outputs[length], outputs[length - 1])
    assert np.abs(outputs[3] - outputs[1]).max() > 1e-3


@pytest.mark.parametrize("combination", ["plus", "serial"])
def test_a_map_of_several_windows_keeps_them_apart(combination):
    features = random_inputs(2, 3, 15, 16, 6)  # 2×3 windows of 14×14
    head = PoolingHead(graph=RecurrentSpaceTimeGraph(project_features=True, **SMALL_GRAPH), combination=combination)
    head(features)
    randomise(head)
    shapes = head.state_shapes(features.shape)
    assert shapes.get("pooled/mean") == {"plus": (2, 3, 6), "serial": None}[combination]
    states = zero_state(shapes, 2)
    for begin, end in ((0, 2), (2, 3)):
        output, states = head(features[:, begin:end], states=states)
        assert_close(output, head(features[:, :end]))


@pytest.mark.parametrize(
    ("make", "whole"),
    [(random_model, 5), (lambda: c2d(graph_places=("res2", "res5"), final_norm="LN_per_step"), 4)],
    ids=["every frame", "pairs"],
)
def test_clips_of_a_batch_may_be_at_different_frames(make, whole):
    model = make()
    video = recipe.video(4, (2, 5, *model.video_shape[1:]))
    state = model.initial_state(2)
    for t in range(5):
        if t == 3:  # another clip takes the second place: a row of zeros
            state = {
                name: value * np.reshape([1.0, 0.0], [2] + [1] * (value.shape.rank - 1))
                for name, value in state.items()
            }
        logits, state = model.step(video[:, t], state)
    assert_close(logits[:1], model(video[:1, :whole]))
    assert_close(logits[1:], model(video[1:, 3:]))
    np.testing.assert_array_equal(state["frames"], [5, 2])


def test_the_golden_clip_frame_by_frame_gives_the_golden_logits():
    model, case, golden = golden_model("syncmnist_small")
    outputs, _ = step_through(model, clips(case, seed=1))
    assert_equals_golden(outputs[-1], golden["logits"], "logits")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": "conv_lstm"},
        {"graph": GraphConfig(node_width=8, message_width=8, **PER_STEP)},
        {"backbone": "c2d", "graph_places": ("res2", "final"), "final_norm": "BN"},
    ],
    ids=["graph", "conv_lstm", "LN_per_step", "c2d"],
)
def test_bfloat16_steps_stay_as_near_the_whole_clip_as_bfloat16_is_to_float32(changes):
    # Both round the same products to 8 bits but sum them in another order, so that here and there a last bit differs,
    # 2⁻⁸, and the next stages take it in. State and means are float32, which keeps that from adding up over the steps.
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = random_model(**changes)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    video = recipe.video(2, (2, 16, *model.video_shape[1:]))
    outputs, state = step_through(model, video)
    for length in (2, 16) if "backbone" in changes else LENGTHS:
        expected = model(video[:, :length]).numpy()
        assert np.linalg.norm(outputs[length - 1] - expected) <= 3e-2 * np.linalg.norm(expected)
    assert all(value.dtype == tf.float32 for value in state.values())


# What a step costs


@pytest.mark.parametrize("changes", [{}, {"head": "mean_lstm"}], ids=str)
def test_a_step_is_traced_once_and_neither_it_nor_the_state_grows_with_the_clip(changes):
    sizes = set()
    for num_frames in (4, 32):
        model = build_model(dataclasses.replace(TINY, num_frames=num_frames, graph_frames=num_frames, **changes))
        step = packed_step(model)
        state = tf.zeros([2, packed_size(model)])
        for frame in np.moveaxis(recipe.video(1, (2, 12, 20, 24, 1)), 1, 0):
            _, state = step(frame, state)
            assert state.shape == (2, packed_size(model))
        assert step.experimental_get_tracing_count() == 1
        sizes.add((len(step.get_concrete_function().graph.get_operations()), packed_size(model)))
    assert len(sizes) == 1


def test_the_operations_of_a_step_are_fewer_than_those_of_a_clip():
    model = build_model(TINY)
    clip = tf.function(model).get_concrete_function(tf.TensorSpec([None, 12, 20, 24, 1], tf.uint8))
    step = packed_step(model).get_concrete_function()
    assert len(step.graph.get_operations()) < len(clip.graph.get_operations())


# The state on its way


def test_a_state_packs_into_a_row_per_clip_and_back():
    model = random_model()
    video = recipe.video(2, (3, 4, *model.video_shape[1:]))
    _, state = step_through(model, video)
    packed = pack_state(state)
    assert packed.dtype == tf.float32 and packed.shape == (3, packed_size(model))
    unpacked = unpack_state(model, packed)
    assert set(unpacked) == set(state) == set(model.state_shapes())
    for name, value in state.items():
        np.testing.assert_array_equal(unpacked[name], value, err_msg=name)
    np.testing.assert_array_equal(pack_state(model.initial_state(2)), np.zeros((2, packed_size(model))))
    assert not any(np.any(value) for value in unpack_state(model, np.zeros((2, packed_size(model)))).values())


def test_packing_keeps_every_bit_of_a_bfloat16_model_s_state():
    hidden = tf.cast(tf.cast(np.random.default_rng(0).standard_normal((2, 3, 4)), tf.bfloat16), tf.float32)
    np.testing.assert_array_equal(
        tf.cast(tf.cast(pack_state({"hidden": hidden}), tf.bfloat16), tf.float32), np.reshape(hidden, (2, 12))
    )


def test_streaming_a_clip_yields_the_logits_after_every_frame():
    model = random_model()
    video = recipe.video(2, (1, 5, *model.video_shape[1:]))
    logits = list(stream_clip(model, iter(video[0])))
    assert len(logits) == 5 and logits[0].shape == (5,)
    for length in (1, 5):
        assert_close(logits[length - 1], model(video[:, :length])[0])
    step = packed_step(model)
    for _ in range(2):
        np.testing.assert_array_equal(list(stream_clip(model, video[0], step)), logits)
    assert step.experimental_get_tracing_count() == 1
