"""A running clip in chunks of any length: the results of the whole clip, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
import recipe
import tensorflow as tf
from graph_options import features_of, graph_and_weights, name_of
from hypothesis import given, settings
from hypothesis import strategies as some
from streamed_models import GRAPH_OPTIONS, PER_STEP, RESNETS, assert_close, c2d, random_model

from rstg_tf.common.graph_config import GraphConfig


def chunks_through(part, inputs, lengths):
    """Outputs after each chunk of `inputs` [B, T, …], whose lengths sum to T, and the last states."""
    states, outputs, begin = part.initial_state(len(inputs)), [], 0
    for length in lengths:
        output, states = part(inputs[:, begin : begin + length], states=states)
        outputs.append(output.numpy())
        begin += length
    assert begin == inputs.shape[1]
    return outputs, states


def random_lengths(steps, generator):
    """Chunks from a random cut of `steps` steps: every place is cut with the same chance."""
    cuts = np.flatnonzero(generator.random(steps - 1) < generator.random()) + 1
    return np.diff([0, *cuts, steps]).tolist()


STREAMED = [
    {},
    {"head": "mean_lstm"},
    {"head": "conv_lstm"},
    {"graph": GraphConfig(node_width=8, message_width=8, input_batch_norm=True, normalization="BN")},
    {"graph": GraphConfig(node_width=8, message_width=8, share_stages=True, time_stages="none")},
    {
        "pixel_scaling": "centred",
        "graph": GraphConfig(
            node_width=8,
            message_width=12,
            attention="dot",
            attention_heads=4,
            time_stages="every",
            neighbourhood="masked",
            stage_norm=True,
            residual_stages=True,
            **PER_STEP,
        ),
    },
    *({"backbone": "c2d", **changes} for changes in RESNETS),
]


@pytest.mark.parametrize("changes", STREAMED, ids=str)
def test_however_a_clip_is_cut_into_chunks_its_logits_are_the_same(changes):
    model = random_model(**changes)
    generator = np.random.default_rng(7)
    steps = 8 if "backbone" in changes else 13
    video = recipe.video(5, (2, steps, *model.video_shape[1:]))
    whole = model(video)
    for lengths in ([1, steps - 1], *(random_lengths(steps, generator) for _ in range(3))):
        outputs, states = chunks_through(model, video, lengths)
        assert_close(outputs[-1], whole, tolerance=2e-6)
        np.testing.assert_array_equal(states["frames"], [steps] * 2)
    outputs, _ = chunks_through(model, video, [steps])
    np.testing.assert_array_equal(outputs[0], whole)  # a whole clip is the stream of one chunk from zero states


@pytest.fixture(scope="module")
def streamed():
    """A model with memory in space and time stages, a video of 13 steps, and the logits of the whole clip."""
    model = random_model()
    video = recipe.video(8, (1, 13, *model.video_shape[1:]))
    return model, video, model(video)


@settings(max_examples=25)
@given(some.sets(some.integers(1, 12)))
def test_a_clip_cut_at_any_places_ends_with_the_same_logits(streamed, places):
    model, video, whole = streamed
    outputs, _ = chunks_through(model, video, np.diff([0, *sorted(places), 13]).tolist())
    assert_close(outputs[-1], whole, tolerance=2e-6)


@pytest.mark.parametrize("options", GRAPH_OPTIONS, ids=name_of)
def test_however_a_clip_is_cut_a_graph_s_maps_and_vectors_are_the_same(options):
    features = features_of(5, clips=2, steps=9)
    for output in ("map", "vector"):
        graph, _ = graph_and_weights(features, **{**options, "output": output})
        outputs, _ = chunks_through(graph, features, [2, 1, 4, 2])
        found = np.concatenate(outputs, axis=1) if output == "map" else outputs[-1]
        assert_close(found, graph(features), tolerance=2e-6)


def test_clips_of_a_batch_may_be_in_the_midst_of_pairs_or_between_them():
    model = c2d(graph_places=("res2", "res5"), final_norm="LN_per_step")
    video = recipe.video(6, (2, 9, *model.video_shape[1:]))
    _, states = model(video[:, :3], states=model.initial_state(2))
    states = {
        name: value * np.reshape([1.0, 0.0], [2] + [1] * (value.shape.rank - 1)) for name, value in states.items()
    }  # another clip takes the second place
    for begin, end in ((3, 6), (6, 8), (8, 9)):
        logits, states = model(video[:, begin:end], states=states)
    assert_close(logits[:1], model(video[:1, :8]))
    assert_close(logits[1:], model(video[1:, 3:]))


def test_a_chunk_of_a_length_that_is_unknown_when_traced():
    model = random_model()
    video = recipe.video(2, (2, 7, *model.video_shape[1:]))
    chunk = tf.function(lambda frames, states: model(frames, states=states)).get_concrete_function(
        tf.TensorSpec([None, None, *model.video_shape[1:]], tf.uint8),
        {name: tf.TensorSpec([None, *shape]) for name, shape in model.state_shapes().items()},
    )
    states = model.initial_state(2)
    for begin, end in ((0, 5), (5, 7)):
        logits, states = chunk(tf.constant(video[:, begin:end]), states)
    assert_close(logits, model(video))
    with pytest.raises(ValueError, match="length of a chunk must be known when traced, got \\(None, None, 32"):
        resnet = c2d(graph_places=())
        tf.function(lambda frames: resnet(frames, states=resnet.initial_state(1))).get_concrete_function(
            tf.TensorSpec([None, None, *resnet.video_shape[1:]], tf.uint8)
        )


def test_gradients_flow_through_the_states_as_through_the_clip():
    model = random_model()
    video = tf.cast(recipe.video(2, (2, 6, *model.video_shape[1:])), tf.float32)
    weights = model.trainable_variables
    found = []
    for lengths in ([6], [2, 1, 3]):
        with tf.GradientTape() as tape:
            states, begin = model.initial_state(2), 0
            for length in lengths:
                logits, states = model(video[:, begin : begin + length], states=states)
                begin += length
            loss = tf.reduce_sum(logits * tf.constant([[1.0, -2.0, 3.0, -4.0, 5.0]]))
        found.append(tape.gradient(loss, weights))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(video) * tf.constant([[1.0, -2.0, 3.0, -4.0, 5.0]]))
    for expected, *others in zip(tape.gradient(loss, weights), *found):
        for other in others:
            assert_close(other, expected)
