"""examples/serving_client.py against stand-in servers (see `stand_in_servers`), which are not TensorFlow Serving."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import runpy
import socket
import subprocess
import sys

import numpy as np
import pytest
import served_models
import stand_in_servers
from PIL import Image
from served_models import GREY, clips, encode
from tiny_videos import copy_video, moving_frames, write_video

from rstg_tf.video.clip_spec import ClipSpec
from rstg_tf.video.sources import FrameSource, open_source

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "serving_client.py"
client = runpy.run_path(str(SCRIPT))
main = client["main"]
PROTOCOLS = ["grpc", "rest"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return served_models.serve(served_models.build_grey(), GREY, tmp_path_factory.mktemp("served") / "grey")


@pytest.fixture(scope="module")
def model(served):
    return stand_in_servers.StandInModel("rstg", served.path)


@pytest.fixture(scope="module", params=PROTOCOLS)
def server(request, model):
    """(flags that name the server, the protocol)."""
    start = {"grpc": stand_in_servers.grpc_server, "rest": stand_in_servers.rest_server}[request.param]
    with start(model) as address:
        yield [f"--server={address}", f"--protocol={request.param}"]


@pytest.fixture
def clip(tmp_path):
    """uint8 [4, 20, 16, 1], and the .npy file that holds it."""
    [video] = clips(GREY, 1, seed=3)
    np.save(tmp_path / "clip.npy", video)
    return video, str(tmp_path / "clip.npy")


def ask(capsys, *arguments):
    """What the client prints, which must succeed."""
    code = main(arguments)
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, ""), printed.err
    return printed.out


def refused(capsys, code, *arguments):
    """The sentence that the client ends with."""
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("serving_client: ") and printed.err.count("\n") == 1
    return printed.err


def expected_classes(served, video, top=5):
    scores = np.exp(served.model(video[None], training=False)[0].numpy().astype(np.float64))
    order = np.argsort(-scores)[:top]
    names = served_models.class_names(GREY)
    return [names[index] for index in order], (scores / scores.sum())[order]


def test_frames_are_sent_encoded_and_names_come_back(server, served, clip, capsys):
    video, path = clip
    found = json.loads(ask(capsys, *server, f"--video={path}", "--json"))
    names, probabilities = expected_classes(served, video)
    assert [row["name"] for row in found["classes"]] == names
    np.testing.assert_allclose([row["probability"] for row in found["classes"]], probabilities, atol=1e-5)
    assert (found["video"], found["model"]) == (path, "rstg")


def test_pixels_are_sent_as_numbers_and_names_come_from_the_models_assets(server, served, clip, capsys):
    video, path = clip
    message = ask(
        capsys,
        *server,
        f"--video={path}",
        "--signature=serving_default",
        "--top=7",
        f"--class_names={served.path}/assets/class_names.txt",
    )
    names, probabilities = expected_classes(served, video, top=7)
    rows = [line.split("  ") for line in message.splitlines()]
    assert [name for _, name in rows] == names
    np.testing.assert_allclose([float(value) for value, _ in rows], probabilities, atol=6e-5)


def test_without_names_classes_are_numbered(server, served, clip, capsys):
    video, path = clip
    message = ask(capsys, *server, f"--video={path}", "--signature=serving_default", "--top=1")
    best = int(np.argmax(served.model(video[None], training=False)[0]))
    assert message.split("  ")[1] == f"class {best}\n"


def test_of_a_longer_video_frames_at_even_distances_are_sent(server, served, tmp_path, capsys):
    seven = clips(GREY, 2).reshape(8, 20, 16, 1)[:7]
    np.save(tmp_path / "seven.npy", seven)
    found = json.loads(ask(capsys, *server, f"--video={tmp_path / 'seven.npy'}", "--json"))
    assert [row["name"] for row in found["classes"]] == expected_classes(served, seven[::2])[0]


def test_the_files_of_a_folder_are_sent_as_they_are_in_the_order_of_their_numbers(server, served, tmp_path, capsys):
    eleven = clips(GREY, 3).reshape(12, 20, 16, 1)[:11]
    for number, frame in enumerate(encode(eleven), start=1):  # frame10 stands before frame2 in the order of letters
        (tmp_path / f"frame{number}.png").write_bytes(frame)
    found = json.loads(ask(capsys, *server, f"--video={tmp_path}", "--json"))
    names, probabilities = expected_classes(served, eleven[[0, 3, 6, 10]])  # linspace(0, 10, 4), truncated
    assert [row["name"] for row in found["classes"]] == names
    np.testing.assert_allclose([row["probability"] for row in found["classes"]], probabilities, atol=1e-5)


def test_what_the_server_refuses_is_told_with_its_reason(server, tmp_path, capsys):
    np.save(tmp_path / "large.npy", np.zeros((4, 20, 20, 1), np.uint8))
    message = refused(capsys, 1, *server, f"--video={tmp_path / 'large.npy'}")
    assert "the server refused the request" in message
    assert "[frame] [0] [of clip] [0] [is of height, width] [20 20] [pixels, expected] [20 16]" in message


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--model=other", "has no model other (Servable not found"),
        ("--version=7", "has no model rstg, version 7, (Servable not found"),
    ],
)
def test_an_unknown_model_or_version_is_told(server, clip, capsys, flag, message):
    assert message in refused(capsys, 1, *server, f"--video={clip[1]}", flag)


def test_the_version_that_is_there_can_be_named(server, clip, capsys):
    assert ask(capsys, *server, f"--video={clip[1]}", "--version=1", "--top=2").count("\n") == 2


def test_a_late_answer_ends_with_the_time_that_was_given(server, model, clip, capsys):
    model.awake.clear()
    model.asleep.set()
    try:
        message = refused(capsys, 1, *server, f"--video={clip[1]}", "--timeout=0.5")
    finally:
        model.asleep.clear()
        model.awake.set()
    assert "did not answer within 0.5 seconds; give a longer --timeout" in message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_server_at_the_address_is_told_with_the_usual_port(protocol, clip, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        message = refused(
            capsys, 1, f"--server={address}", f"--protocol={protocol}", f"--video={clip[1]}", "--timeout=20"
        )
    assert f"no {protocol} server answers at {address}" in message
    assert {"grpc": "8500", "rest": "8501"}[protocol] in message


def test_a_rest_request_to_the_grpc_port_is_told(model, clip, capsys):
    with stand_in_servers.grpc_server(model) as address:
        message = refused(capsys, 1, f"--server={address}", "--protocol=rest", f"--video={clip[1]}", "--timeout=20")
    assert "is this its rest port" in message


def test_wrong_use_is_told_before_any_server_is_asked(clip, tmp_path, capsys):
    (tmp_path / "text.npy").write_text("no array")
    assert "missing.mp4 does not exist" in refused(capsys, 2, "--video=missing.mp4")
    assert "text.npy" in refused(capsys, 2, f"--video={tmp_path / 'text.npy'}")
    assert "--class_names=nowhere" in refused(capsys, 2, f"--video={clip[1]}", "--class_names=nowhere")
    for arguments in ([], ["--video=x", "--top=0"], ["--video=x", "--protocol=soap"], ["--video=x", "--timeout=-1"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_names_of_another_model_are_refused(server, clip, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert "holds 2 names, but the model has 7 classes" in refused(
        capsys, 2, *server, f"--video={clip[1]}", f"--class_names={tmp_path / 'names.txt'}"
    )


@pytest.mark.parametrize("signature", ["serving_bytes", "serving_default"])
def test_frames_are_drawn_from_those_that_are_shown(tmp_path, signature):
    """An edit list hides the first 13 of 40 frames; the header counts them."""
    frames = moving_frames(40, height=64, width=96)
    whole = write_video(tmp_path / "whole.mp4", frames, rate=10, g="40")
    cut = copy_video(whole, tmp_path / "cut.mp4", from_second=1.3)
    assert open_source(cut).num_frames > 27
    chosen = frames[13:][np.linspace(0, 26, 10).astype(int)]
    inputs = client["clip_inputs"](str(cut), signature, ClipSpec(10, 64, 96, 3, short_side=None))
    if signature == "serving_bytes":
        sent = np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in inputs["frames"][0]])
    else:
        sent = inputs["video"][0]
    np.testing.assert_array_equal(sent, chosen)


def test_of_a_file_that_counts_too_few_frames_the_shown_ones_are_drawn():
    frames = np.arange(30, dtype=np.uint8)[:, None, None, None] + np.zeros((30, 4, 4, 3), np.uint8)
    for said in (None, 7, 30, 99):
        source = FrameSource(name="a", read=lambda short_side: iter(frames), num_frames=said)
        found = client["sampled_frames"](source, 4, None)
        assert [int(frame[0, 0, 0]) for frame in found] == [0, 9, 19, 29]


@pytest.mark.slow
def test_the_script_sends_a_real_video_file_to_a_colour_model(tmp_path):
    video = tmp_path / "a video.mp4"
    write_video(video, moving_frames(9, height=64, width=96), rate=10)
    config = dataclasses.replace(GREY, model=dataclasses.replace(GREY.model, channels=3))
    served = served_models.serve(served_models.build_grey(config), config, tmp_path / "colour")
    answers = []
    with stand_in_servers.grpc_server(stand_in_servers.StandInModel("colour", served.path)) as address:
        for signature in ("serving_bytes", "serving_default"):
            done = subprocess.run(
                [
                    sys.executable,
                    str(SCRIPT),
                    f"--video={video}",
                    f"--server={address}",
                    "--model=colour",
                    "--json",
                    f"--signature={signature}",
                    "--short_side=256",
                    "--top=7",
                    f"--class_names={served.path}/assets/class_names.txt",
                ],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            answers.append({row["name"]: row["probability"] for row in json.loads(done.stdout)["classes"]})
    assert set(answers[0]) == set(served_models.class_names(GREY))
    assert sum(answers[0].values()) == pytest.approx(1.0, abs=1e-5)
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)  # resized there as here
