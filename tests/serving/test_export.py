"""From a model to BASE/<version>/: what lies there, how it gets there, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys

import numpy as np
import pytest
import served_models
import tensorflow as tf
from google.protobuf import text_format
from keras_stack import without_greeting
from served_models import COLOUR, GREY, clips, encode
from tensorflow import keras
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from rstg_tf import build_model, export, flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig
from rstg_tf.inference.classifier import SavedModelPredictor
from rstg_tf.runs.run import Run
from rstg_tf.runs.run_flags import parse_run_flags
from rstg_tf.serving import saved_model, signatures, warmup

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Loads a SavedModel without this project and writes the scores of some clips, whole and one by one.
RELOAD = """
import sys
import numpy as np, tensorflow as tf
folder, clips, out = sys.argv[1:]
signature = tf.saved_model.load(folder).signatures["serving_default"]
video = np.load(clips)
whole = signature(video=tf.constant(video))
single = [signature(video=tf.constant(video[number:number + 1]))["logits"].numpy() for number in range(len(video))]
assert not [name for name in sys.modules if name.split(".")[0] in ("rstg_tf", "datasets")], "our code was imported"
np.savez(out, single=np.concatenate(single), **{name: value.numpy() for name, value in whole.items()})
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return served_models.serve(served_models.build_grey(), GREY, tmp_path_factory.mktemp("served") / "grey")


def test_a_process_without_our_code_gets_the_models_scores(served, tmp_path):
    video = clips(GREY, 5)
    np.save(tmp_path / "clips.npy", video)
    subprocess.run(
        [sys.executable, "-c", RELOAD, served.path, str(tmp_path / "clips.npy"), str(tmp_path / "out.npz")],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        timeout=120,
    )
    expected = served.model(video, training=False).numpy()
    assert np.ptp(expected) > 1e-2  # no constant answer
    with np.load(tmp_path / "out.npz") as found:
        assert sorted(found) == ["class_index", "logits", "probabilities", "single"]
        np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["single"], found["logits"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["probabilities"], tf.nn.softmax(expected), atol=1e-5)


def test_names_settings_and_what_every_signature_takes_travel_with_the_model(served):
    assets = pathlib.Path(served.path) / "assets"
    names = (assets / "class_names.txt").read_text(encoding="utf-8").splitlines()
    assert names == list(served_models.class_names(GREY))
    assert ExperimentConfig.from_json((assets / "experiment.json").read_text()) == GREY
    facts = json.loads((assets / "export.json").read_text(encoding="utf-8"))
    assert (facts["step"], facts["precision"], facts["left_out"]) == (7, "float32", {})
    video = facts["video"]
    assert [video[key] for key in ("frames", "height", "width", "channels", "short_side")] == [4, 20, 16, 1, None]
    assert set(facts["signatures"]) == set(served.signatures)
    for name, signature in served.signatures.items():
        message = facts["signatures"][name]
        for kind, specs in (
            ("inputs", signature.structured_input_signature[1]),
            ("outputs", signature.structured_outputs),
        ):
            assert {key: (tensor["dtype"], tensor["shape"]) for key, tensor in message[kind].items()} == {
                key: (spec.dtype.name, spec.shape.as_list()) for key, spec in specs.items()
            }
            assert all(tensor["about"] for tensor in message[kind].values())


def test_the_saved_model_holds_the_networks_variables_once_and_no_layers(served):
    names = [
        name
        for name, _ in tf.train.list_variables(os.path.join(served.path, "variables", "variables"))
        if name.startswith("weights")
    ]
    assert len(names) == len(served.model.weights)


def test_a_server_finds_a_request_for_clips_and_one_for_frames_to_warm_up_with(served):
    records = tf.data.TFRecordDataset(os.path.join(served.path, warmup.WARMUP_FILE)).as_numpy_iterator()
    requests = [PredictionLog.FromString(record).predict_log.request for record in records]
    assert [request.model_spec.signature_name for request in requests] == ["serving_default", "serving_bytes"]
    assert {request.model_spec.name for request in requests} == {"grey"}
    answers = []
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answers.append(served.signatures[request.model_spec.signature_name](**inputs)["logits"].numpy())
    np.testing.assert_array_equal(*answers)  # one and the same clip
    facts = json.loads((pathlib.Path(served.path) / "assets" / "export.json").read_text())
    assert facts["warmup"] == "drawn (no recorded one was asked for)"


def test_an_export_names_no_folder_of_its_makers_and_holds_no_clip_of_theirs(toy_records, tmp_path):
    """Nor does anything that TensorFlow writes beside the graph."""
    config = dataclasses.replace(
        GREY,
        data=dataclasses.replace(GREY.data, train_dataset=str(toy_records / "train"), test_dataset=str(toy_records)),
        train=dataclasses.replace(GREY.train, restore_dir=str(tmp_path / "weights"), restore_scope="backbone"),
    )
    served = served_models.serve(served_models.build_grey(config), config, tmp_path / "base" / "grey")
    private = [str(toy_records), str(tmp_path), str(ROOT), os.path.expanduser("~") + "/", *encode(clips(GREY, 1)[0])]
    [*files] = (path for path in pathlib.Path(served.path).rglob("*") if path.is_file())
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        found = [word for word in private if (word.encode() if isinstance(word, str) else word) in content]
        assert not found, f"{path} holds {found}"
    told = ExperimentConfig.from_json((pathlib.Path(served.path) / "assets" / "experiment.json").read_text())
    assert (told.model, told.data.test_dataset, told.train.restore_dir) == (GREY.model, "", "")


def test_names_of_classes_come_back_as_they_were_even_with_line_ends_in_them(served, tmp_path):
    names = ("a\nb", "c\u2028d", "e\r\nf", "\x85", " g ", "=1", "h\\n")
    path = saved_model.export_model(served.model, base=str(tmp_path / "base"), config=GREY, class_names=names)
    assert SavedModelPredictor(path).class_names == names
    lines = (pathlib.Path(path) / "assets" / "class_names.txt").read_text(encoding="utf-8")
    assert lines.count("\n") == 7 and len(lines.splitlines()) == 7
    video = tf.constant([encode(clips(GREY, 1)[0])])
    answer = tf.saved_model.load(path).signatures["serving_bytes"](frames=video)
    assert {name.decode() for name in answer["classes"].numpy()[0]} <= set(names)


def test_a_model_that_reloads_differently_is_not_published(served, tmp_path, monkeypatch):
    load = tf.saved_model.load

    def load_another(folder):
        loaded = load(folder)
        signature = loaded.signatures["features"]

        class Another:
            signatures = {
                **loaded.signatures,
                "features": lambda **given: {key: value + 1 for key, value in signature(**given).items()},
            }

        return Another

    monkeypatch.setattr(tf.saved_model, "load", load_another)
    monkeypatch.setattr(signatures, "SIGNATURES", {"features": signatures.SIGNATURES["features"]})
    with pytest.raises(saved_model.ExportError, match="vector of features differ by 1"):
        saved_model.export_model(
            served.model, base=str(tmp_path / "base"), config=GREY, class_names=served_models.class_names(GREY)
        )
    assert not list((tmp_path / "base").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_model_is_published_in_bfloat16_too(tmp_path):
    """Op by op, bfloat16 is rounded where a traced graph does not: the comparison must not take that for a fault."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    config = flags.config_from_flags(flags.parse([f"--flagfile={ROOT / 'configs' / 'demo.flags'}"]))
    model = build_model(config.model)
    names = [str(label) for label in range(config.model.num_classes)]
    path = saved_model.export_model(model, base=str(tmp_path / "served"), config=config, class_names=names)
    video = tf.cast(tf.random.stateless_uniform([3, *model.video_shape], [0, 1], 0, 256, tf.int32), tf.uint8)
    found = tf.saved_model.load(path).signatures["serving_default"](video=video)["logits"]
    traced = tf.function(lambda video: model(video, training=False), autograph=False)(video)
    np.testing.assert_allclose(found, traced, rtol=0, atol=3e-2 * np.abs(traced).max())


@pytest.mark.slow
def test_the_command_publishes_a_run_and_its_last_line_says_what_and_where(small_run, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "rstg_tf.export",
            f"--model_dir={small_run.path}",
            f"--out={tmp_path / 'served'}",
            "--version=3",
            "--warmup_clips=recorded",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, without_greeting(done.stderr)) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "export": str(tmp_path / "served" / "3"),
        "model_dir": str(small_run.path),
        "step": 5,
        "signatures": ["serving_default", "serving_bytes", "features", "attention", "stream"],
        "left_out": {},
        "warmup": "clip test-0 of the run's data",
    }
    assert (tmp_path / "served" / "3" / "assets" / "class_names.txt").read_text() == "up\ndown\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "served"]


def test_wrong_use_is_told_in_a_sentence_without_waiting_for_tensorflow(small_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    run = f"--model_dir={small_run.path}"
    for arguments, message in [
        ([], "--out is missing"),
        (["--out=x"], "no run under runs"),
        (["--model_dir=nowhere", "--out=x"], "--model_dir=nowhere: no run there"),
        ([run], "--out is missing"),
        ([run, "--out=x", "--versoin=1"], "versoin"),
        ([run, f"--out={tmp_path / 'file'}"], "file, cannot be written (File exists"),
        ([run, f"--out={tmp_path / 'file' / 'base'}"], "cannot be written (Not a directory"),
        ([run, "--out=/proc/served"], "/proc/served, cannot be written"),
        ([run, "--out=x", "--version=-1"], "--version=-1: version -1: expected an integer from 0"),
        ([run, "--out=x", "--height=-1"], "height"),
        ([run, "--out=x", "--checkpoint=a/b"], "--checkpoint=a/b"),
    ]:
        code = export.main(arguments)
        printed = capsys.readouterr()
        assert (code, printed.out) == (2, ""), arguments
        assert printed.err.startswith("export: ") and message in printed.err and "Traceback" not in printed.err
    program = (
        "import sys; from rstg_tf import export; print(export.main(['--model_dir=nowhere', '--out=x']), "
        "export.main([sys.argv[1], '--out=/proc/served']), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, run], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2", "2", "False"], done.stderr


def test_sizes_that_the_model_cannot_take_are_refused_by_their_flags(tmp_path):
    arguments = parse_run_flags(["--out=x", "--num_frames=3"], export._define_flags, description="")
    with pytest.raises(ConfigError, match="--num_frames=3: clips of 3 frames of 32×32 pixels: .*must be even"):
        export.clip_from_flags(Run(path=tmp_path, config=COLOUR), arguments)


def test_the_example_of_a_server_configuration_is_one():
    config = text_format.Parse((ROOT / "examples" / "models.config").read_text(), ModelServerConfig())
    [model] = config.model_config_list.config
    assert (model.name, model.model_platform) == ("rstg", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 2


@pytest.mark.slow
def test_a_disk_that_refuses_ends_with_1_and_a_sentence_and_publishes_nothing(small_run, tmp_path, capsys):
    base = tmp_path / "served"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # no file above 30,000 bytes: as if the disk were full
    try:
        code = export.main([f"--model_dir={small_run.path}", f"--out={base}"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = capsys.readouterr().err
    assert code == 1 and message.count("\n") == 1 and "nothing was published" in message
    assert [path.name for path in tmp_path.iterdir() if "served" in path.name] == ["served"]
    assert list(base.iterdir()) == []
