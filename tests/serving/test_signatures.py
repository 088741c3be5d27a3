"""The signatures of exported models, loaded again without the model that they were made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import served_models
import tensorflow as tf
from served_models import COLOUR, GREY, clips, encode
from signature_answers import ask
from tiny_clips import tiny_record, write_shards

from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset
from rstg_tf.layers import regions
from rstg_tf.model import build_model
from rstg_tf.runs import clip_spec_of_run
from rstg_tf.serving import signatures


def inputs(config, count):
    """Every signature's inputs for `count` clips; the stream's state is not at its start."""
    video = clips(config, count)
    frames = [encode(clip) for clip in video]
    state = np.random.default_rng(1).uniform(0, 1, (count, 1000)).astype(np.float32)
    return {"video": video, "frames": frames, "frame": video[:, 0], "state": state}


def shapes(served):
    return {
        name: (
            {
                key: (spec.dtype.name, spec.shape.as_list())
                for key, spec in signature.structured_input_signature[1].items()
            },
            {key: spec.shape.as_list() for key, spec in signature.structured_outputs.items()},
        )
        for name, signature in served.signatures.items()
    }


def test_a_grey_graph_has_all_signatures_with_sizes_that_are_fixed_but_for_the_batch(grey):
    video = {"video": ("uint8", [None, 4, 20, 16, 1])}
    scores = {"logits": [None, 7], "probabilities": [None, 7], "class_index": [None]}
    found = shapes(grey)
    [state] = {found["stream"][0]["state"][1][1], found["stream"][1]["state"][1]}
    assert found == {
        "serving_default": (video, scores),
        "serving_bytes": ({"frames": ("string", [None, None])}, {**scores, "classes": [None, 5], "scores": [None, 5]}),
        "features": (video, {"vector": [None, 8]}),
        "attention": (video, {"attention": [None, 2, 4, 5, 5]}),  # 2 space stages, 4 steps, 4 + 1 nodes
        "stream": (
            {"frame": ("uint8", [None, 20, 16, 1]), "state": ("float32", [None, state])},
            {**scores, "state": [None, state]},
        ),
    }


def test_graphs_at_two_places_answer_under_their_names_and_an_i3d_has_no_stream(colour):
    found = shapes(colour)
    assert set(found) == {"serving_default", "serving_bytes", "features", "attention"}
    assert found["features"][1] == {"vector": [None, 2048], "map": [None, 2, 4, 4, 512]}
    assert found["attention"][1] == {"attention_res3": [None, 1, 2, 5, 5], "attention_final": [None, 1, 2, 5, 5]}


def test_no_output_has_a_name_that_rest_would_send_in_base64(grey, colour):
    assert not [
        name
        for served in (grey, colour)
        for _, outputs in shapes(served).values()
        for name in outputs
        if name.endswith("_bytes")
    ]


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_a_batch_of_five_gets_the_answers_of_five_batches_of_one(kind, request):
    served, config = request.getfixturevalue(kind), {"grey": GREY, "colour": COLOUR}[kind]
    given = inputs(config, 5)
    for name, signature in served.signatures.items():
        whole = ask(signature, given)
        single = [ask(signature, {key: value[row : row + 1] for key, value in given.items()}) for row in range(5)]
        for output, values in whole.items():
            joined = np.concatenate([answer[output] for answer in single])
            if values.dtype == np.float32:
                largest = max(1.0, np.abs(values).max())
                np.testing.assert_allclose(values / largest, joined / largest, atol=1e-5, err_msg=f"{name}: {output}")
            else:
                np.testing.assert_array_equal(values, joined, err_msg=f"{name}: {output}")


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_the_scores_are_the_models(kind, request):
    served, config = request.getfixturevalue(kind), {"grey": GREY, "colour": COLOUR}[kind]
    video = clips(config, 3)
    expected = served.model(video, training=False).numpy()
    assert np.ptp(expected) > 1e-2  # no constant answer
    answer = ask(served.signatures["serving_default"], {"video": video})
    np.testing.assert_allclose(answer["logits"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(expected), atol=1e-5)
    np.testing.assert_array_equal(answer["class_index"], expected.argmax(axis=1))
    assert answer["logits"].dtype == answer["probabilities"].dtype == np.float32


def test_encoded_frames_get_the_scores_of_their_pixels_and_the_best_names(grey):
    video = clips(GREY, 2)
    pixels = ask(grey.signatures["serving_default"], {"video": video})
    answer = ask(grey.signatures["serving_bytes"], {"frames": [encode(clip) for clip in video]})
    for name, values in pixels.items():
        np.testing.assert_array_equal(answer[name], values)
    order = np.argsort(-pixels["probabilities"], axis=1)[:, :5]
    np.testing.assert_array_equal(answer["scores"], np.take_along_axis(pixels["probabilities"], order, axis=1))
    names = served_models.class_names(GREY)
    assert [[name.decode() for name in row] for row in answer["classes"]] == [[names[i] for i in row] for row in order]


def test_of_seven_frames_for_four_every_second_one_is_taken(grey):
    seven = clips(GREY, 2).reshape(8, 20, 16, 1)[:7]
    answer = ask(grey.signatures["serving_bytes"], {"frames": [encode(seven)]})
    expected = ask(grey.signatures["serving_default"], {"video": seven[None, [0, 2, 4, 6]]})  # linspace(0, 6, 4)
    np.testing.assert_array_equal(answer["logits"], expected["logits"])


def test_jpeg_frames_of_any_size_become_the_clip_that_evaluation_makes_of_them(colour, tmp_path):
    generator = np.random.default_rng(5)
    sizes = [(40, 56), (300, 260)]  # smaller than the short side, and larger
    files = []
    for height, width in sizes:
        coarse = generator.integers(0, 256, (9, 5, 7, 3)).astype(np.uint8)
        files.append(encode(np.repeat(np.repeat(coarse, height // 5, 1), width // 7, 2), "JPEG"))
    records = [
        tiny_record(number, frames=frames, image_format="JPEG", timestamps=range(9))
        for number, frames in enumerate(files)
    ]
    manifest = write_shards(
        tmp_path, [records], num_frames=None, height=None, width=None, channels=3, image_format="JPEG"
    )
    options = ReadingOptions(COLOUR.clip_spec)
    [batch] = evaluation_clips(dataset=RecordedDataset(tmp_path, manifest), options=options, batch_size=2)
    expected = ask(colour.signatures["serving_default"], {"video": batch["video"].numpy()})
    answer = ask(colour.signatures["serving_bytes"], {"frames": files})
    np.testing.assert_allclose(answer["logits"], expected["logits"], rtol=1e-5, atol=1e-4)
    assert np.ptp(expected["logits"], axis=0).max() > 1e-2  # the two clips are told apart


def test_the_vector_is_what_the_classifier_gets_and_the_map_every_node_over_its_region(grey, colour):
    video = clips(GREY, 2)
    vector = ask(grey.signatures["features"], {"video": video})["vector"]
    np.testing.assert_allclose(grey.model.classifier.dense(vector), grey.model(video), rtol=1e-5, atol=1e-5)
    video = clips(COLOUR, 2)
    found = ask(colour.signatures["features"], {"video": video})
    nodes = {place: last.numpy() for place, (_, last) in colour.model.describe(video)["nodes"].items()}
    spread = regions.projection_weights(2, 4, 4)  # [H·W, N]
    expected = np.einsum("pn,btnc->btpc", spread, nodes["res3"]).reshape(2, 2, 4, 4, 512)
    np.testing.assert_allclose(found["map"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    summed = nodes["final"].mean(axis=1).sum(axis=1)
    np.testing.assert_allclose(found["vector"], summed, rtol=1e-4, atol=1e-4 * np.abs(summed).max())


def test_attention_is_the_models_and_its_rows_are_shares(grey):
    video = clips(GREY, 2)
    found = ask(grey.signatures["attention"], {"video": video})["attention"]
    np.testing.assert_allclose(found, grey.model.describe(video)["attention"]["final"], atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, atol=1e-5)


def test_streamed_clips_end_with_the_whole_clips_scores_whatever_runs_beside_them(grey):
    video = clips(GREY, 2)
    stream = grey.signatures["stream"]
    state = np.zeros([2, stream.structured_input_signature[1]["state"].shape[1]], np.float32)
    for step in range(GREY.model.num_frames):
        answer = ask(stream, {"frame": video[:, step], "state": state})
        state = answer["state"]
        if step == 1:  # a new clip begins in the second row
            state, video = np.stack([state[0], np.zeros_like(state[0])]), np.stack([video[0], np.roll(video[0], 2, 0)])
    expected = grey.model(video[:1], training=False).numpy()
    np.testing.assert_allclose(answer["logits"][0], expected[0], rtol=1e-5, atol=1e-5)
    half = build_model(dataclasses.replace(GREY.model, num_frames=2, graph_frames=2))
    half.set_weights(grey.model.get_weights())
    np.testing.assert_allclose(answer["logits"][1], half(video[1:, 2:], training=False)[0], rtol=1e-5, atol=1e-5)


def obstacles(**changes):
    model = build_model(dataclasses.replace(GREY.model, **changes))
    clip = clip_spec_of_run.served_clip_spec(GREY)
    return {name: row.obstacle(model, clip) for name, row in signatures.SIGNATURES.items() if row.obstacle(model, clip)}


def test_what_a_model_cannot_have_is_left_out_with_the_reason(colour):
    assert obstacles() == {}
    assert obstacles(head="mean_lstm")["attention"] == "the model has no graph"
    without_space = dataclasses.replace(GREY.model.graph, space_iterations=0)
    assert obstacles(graph=without_space) == {"attention": "the graph has no space stage"}
    row = signatures.SIGNATURES["stream"]
    assert "convolve over frames still to come" in row.obstacle(colour.model, clip_spec_of_run.served_clip_spec(COLOUR))
    larger = clip_spec_of_run.served_clip_spec(GREY, height=24)
    assert "not for 24×16 pixels" in row.obstacle(served_models.build_grey(), larger)


def test_clips_of_other_sizes_are_served_where_the_model_takes_them(grey):
    clip = clip_spec_of_run.served_clip_spec(GREY, num_frames=6, height=24, width=28)
    functions, left_out = signatures.build_signatures(grey.model, clip, served_models.class_names(GREY))
    video = np.random.default_rng(0).integers(0, 256, (2, 6, 24, 28, 1), np.uint8)
    np.testing.assert_allclose(
        functions["serving_default"](video=video)["logits"], grey.model(video), rtol=1e-4, atol=1e-4
    )
    assert list(left_out) == ["stream"]
