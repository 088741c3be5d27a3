"""Exported models in runtimes that don't have this project's code, on real clips, against the logits of eval.py.

A C program on TensorFlow's own library, whose loader and kernels TensorFlow Serving uses, answers for every signature;
OpenVINO and, converted by tf2onnx, ONNX Runtime for `serving_default`.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import c_server
import converters
import exported_runs
import malformed
import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.slow

KINDS = ["grey", "colour"]
CLIENTS, REQUESTS = 8, 200


@pytest.fixture(scope="module")
def grey_export(tmp_path_factory):
    return exported_runs.export_grey(tmp_path_factory.mktemp("grey"))


@pytest.fixture(scope="module")
def colour_export(tmp_path_factory):
    return exported_runs.export_colour(tmp_path_factory.mktemp("colour"))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return c_server.compile_server(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def grey_server(program, grey_export):
    with c_server.serving(program, grey_export.path) as server:
        yield server


@pytest.fixture(scope="module")
def colour_server(program, colour_export):
    with c_server.serving(program, colour_export.path) as server:
        yield server


@pytest.fixture(scope="module")
def packages(request):
    return converters.install(request.config.cache.mkdir("runtimes"))


def inputs(exported, server, start=0, stop=None):
    """Signature -> a good request for the clips from `start` to `stop`; states are not at their start."""
    video, frames = exported.video[start:stop], exported.frames[start:stop]
    given = {name: {"video": video} for name in ("serving_default", "features", "attention")}
    given["serving_bytes"] = {"frames": frames}
    if "stream" in server.signatures:
        width = server.signatures["stream"].inputs["state"].tensor_shape.dim[1].size
        state = np.random.default_rng(0).uniform(0, 1, (len(video), width)).astype(np.float32)
        given["stream"] = {"frame": video[:, 0], "state": state}
    return given


def assert_close(found, expected, tolerance):
    """Numbers within `tolerance` of the largest, of 1 if all are smaller; anything else the same."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype == np.float32:
            bound = tolerance * max(1.0, np.abs(value).max())
            np.testing.assert_allclose(found[name], value, rtol=0, atol=bound, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_same_bits(found, expected):
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in expected.items()
    }


def assert_eval_agrees(answer, exported, tolerance):
    np.testing.assert_allclose(answer["logits"], exported.logits, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(answer["class_index"], exported.logits.argmax(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_clips_are_many_and_their_scores_far_apart(kind, request):
    exported = request.getfixturevalue(f"{kind}_export")
    assert len(exported.video) == len(exported.logits) >= 32
    assert np.ptp(exported.logits, axis=0).min() > 1  # ten thousand times the coarsest bound below
    assert len(set(exported.logits.argmax(axis=1))) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signature", ["serving_default", "serving_bytes"])
def test_the_c_program_gives_evals_scores_for_pixels_and_for_the_stored_files(kind, signature, request):
    exported, server = (request.getfixturevalue(f"{kind}_{part}") for part in ("export", "server"))
    with server.client() as client:
        answer = client.ask(signature, inputs(exported, server)[signature])
    assert_eval_agrees(answer, exported, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_c_program_answers_every_signature_as_python_does(kind, request):
    exported, server = (request.getfixturevalue(f"{kind}_{part}") for part in ("export", "server"))
    loaded = tf.saved_model.load(exported.path).signatures
    given = inputs(exported, server, stop=5)
    assert set(given) == set(loaded)
    with server.client() as client:
        for name, signature in loaded.items():
            expected = signature(
                **{
                    key: tf.constant(value.tolist() if value.dtype == object else value)
                    for key, value in given[name].items()
                }
            )
            assert_close(client.ask(name, given[name]), {key: value.numpy() for key, value in expected.items()}, 1e-6)


def test_clips_streamed_through_the_c_program_end_with_evals_scores(grey_export, grey_server):
    state = np.zeros_like(inputs(grey_export, grey_server)["stream"]["state"])
    with grey_server.client() as client:
        for step in range(grey_export.video.shape[1]):
            answer = client.ask("stream", {"frame": grey_export.video[:, step], "state": state})
            state = answer["state"]
    assert_eval_agrees(answer, grey_export, 1e-5)


def test_the_malformed_requests_are_at_least_fifty_and_no_two_the_same():
    assert len(malformed.REQUESTS) == len(set(map(str, malformed.REQUESTS))) >= 50


@pytest.mark.parametrize("wrong", malformed.REQUESTS, ids=str)
def test_a_malformed_request_is_refused_by_name_and_the_next_good_one_gets_the_same_bits(
    wrong, grey_export, grey_server
):
    good = inputs(grey_export, grey_server, stop=2)[wrong.signature]
    with grey_server.client() as client:
        before = client.ask(wrong.signature, good)
        with pytest.raises(c_server.Refused, match=wrong.message):
            client.ask(wrong.signature, wrong.make(good))
        assert_same_bits(client.ask(wrong.signature, good), before)
    assert grey_server.process.poll() is None


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\1",
        struct.pack("<2I", 1, 1),
        struct.pack("<2I", 99, 1),
        b"\xff" * 1000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_its_own_connection_and_no_other(sent, grey_export, grey_server):
    good = inputs(grey_export, grey_server, stop=2)["serving_default"]
    with grey_server.client() as client:
        before = client.ask("serving_default", good)
        with socket.create_connection(("127.0.0.1", grey_server.port), timeout=c_server.PATIENCE) as other:
            other.sendall(sent)
            other.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert other.recv(1) == b""
        assert_same_bits(client.ask("serving_default", good), before)


def test_a_client_that_leaves_before_its_answer_disturbs_no_other(grey_export, grey_server):
    good = inputs(grey_export, grey_server)["serving_default"]
    with grey_server.client() as client:
        before = client.ask("serving_default", good)
        for _ in range(3):
            with grey_server.client() as leaving:
                leaving.send("serving_default", good)
        assert_same_bits(client.ask("serving_default", good), before)
    assert grey_server.process.poll() is None


def test_eight_clients_at_once_beside_one_that_sends_nonsense_get_what_one_alone_gets(grey_export, grey_server):
    batches = [inputs(grey_export, grey_server, start, start + 1 + start % 3) for start in range(8)]
    different = [(name, given[name]) for given in batches for name in given]
    with grey_server.client() as client:
        expected = [client.ask(*each) for each in different]

    def ask_many(number):
        order = np.random.default_rng(number).integers(0, len(different), REQUESTS)
        with grey_server.client() as client:
            return [(index, client.ask(*different[index])) for index in order]

    def ask_nonsense():
        refused = 0
        with grey_server.client() as client:
            for wrong in itertools.islice(itertools.cycle(malformed.REQUESTS), REQUESTS):
                with pytest.raises(c_server.Refused):
                    client.ask(wrong.signature, wrong.make(batches[1][wrong.signature]))
                refused += 1
        return refused

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        nonsense = pool.submit(ask_nonsense)
        answers = list(itertools.chain.from_iterable(pool.map(ask_many, range(CLIENTS))))
    assert nonsense.result() == REQUESTS and len(answers) == CLIENTS * REQUESTS
    for index, answer in answers:
        assert_close(answer, expected[index], 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_openvino_and_onnx_runtime_give_evals_scores_and_refuse_other_shapes(
    kind, runtime, packages, request, tmp_path
):
    exported = request.getfixturevalue(f"{kind}_export")
    model = exported.path
    if runtime == "onnx":
        model = tmp_path / "model.onnx"
        converters.convert_to_onnx(exported.path, model, packages)
    answer = converters.answer(runtime, model, exported.video, packages, tmp_path)
    assert len(answer["refusals"]) == 8 and all(answer.pop("refusals"))
    assert sorted(answer) == ["class_index", "logits", "probabilities"]
    assert_eval_agrees(answer, exported, 1e-4)


def test_what_cannot_be_had_is_told_as_the_reason_for_skipping(tmp_path, monkeypatch):
    (tmp_path / "requirements.txt").write_text("./missing-1.0-py3-none-any.whl\n")
    monkeypatch.setattr(converters, "REQUIREMENTS", tmp_path / "requirements.txt")
    with pytest.raises(pytest.skip.Exception, match="OpenVINO and ONNX Runtime cannot be installed: .*missing-1.0"):
        converters.install(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["requirements.txt"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="no C program can be tried: .* is missing"):
        c_server.compile_server(tmp_path)
