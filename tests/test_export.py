import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import recipe
import tensorflow as tf

from rstg_tf import export, release
from rstg_tf.config import ConfigError, ExperimentConfig, GraphConfig, ModelConfig
from rstg_tf.model import build_model

GOLDEN = pathlib.Path(__file__).parent / "golden"
CLASS_NAMES = tuple(f"pair {number}" for number in range(46))
# Loads a SavedModel without this project and writes the logits of some clips, whole and one by one.
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
def clips():
    """Five clips of the release's test set: uint8 [5, 10, 64, 64, 1]."""
    with np.load(GOLDEN / "syncmnist_test_first16.npz") as golden:
        return golden["videos"][:5, ..., None]


@pytest.fixture(scope="module")
def config():
    return ExperimentConfig(model=ModelConfig(
        backbone_filters=8, pixel_scaling="centred",
        graph=GraphConfig(node_width=8, message_width=8, input_batch_norm=True)))


@pytest.fixture(scope="module")
def model(config):
    """Weights by the golden vectors' recipe: the same under Keras 2 and 3, and large enough for answers to differ."""
    model = build_model(config.model)
    names = release.release_tensors(model)
    release.assign_weights(model, {name: recipe.weight(name, value.shape) for name, value in names.items()})
    return model


@pytest.fixture(scope="module")
def exported(model, config, tmp_path_factory):
    base = tmp_path_factory.mktemp("served") / "rstg"
    return export.export_model(model, base=str(base), config=config, class_names=CLASS_NAMES, step=7)


@pytest.fixture(scope="module")
def signature(exported):
    return tf.saved_model.load(exported).signatures["serving_default"]


def test_a_process_without_our_code_gets_the_models_logits(exported, model, clips, tmp_path):
    np.save(tmp_path / "clips.npy", clips)
    subprocess.run([sys.executable, "-c", RELOAD, exported, str(tmp_path / "clips.npy"), str(tmp_path / "out.npz")],
                   check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, timeout=120)
    expected = model(clips, training=False).numpy()
    assert np.ptp(expected) > 1e-2  # no constant answer
    with np.load(tmp_path / "out.npz") as found:
        assert sorted(found) == ["logits", "probabilities", "single"]
        np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
        np.testing.assert_allclose(found["single"], found["logits"], atol=1e-5)
        np.testing.assert_allclose(found["probabilities"], tf.nn.softmax(expected), atol=1e-6)
        assert found["logits"].dtype == found["probabilities"].dtype == np.float32


def test_the_signature_fixes_everything_but_the_batch(signature):
    _, inputs = signature.structured_input_signature
    assert inputs == {"video": tf.TensorSpec([None, 10, 64, 64, 1], tf.uint8, name="video")}
    assert {name: (spec.shape.as_list(), spec.dtype) for name, spec in signature.structured_outputs.items()} == {
        "logits": ([None, 46], tf.float32), "probabilities": ([None, 46], tf.float32)}


@pytest.mark.parametrize("shape", [(1, 10, 32, 64, 1), (1, 9, 64, 64, 1), (1, 10, 64, 64, 3), (10, 64, 64, 1), (2, 64)])
def test_the_graph_refuses_a_clip_of_another_shape_or_rank_and_then_answers_the_next(signature, clips, shape):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"not compatible with expected shape \[\?,10,64,64,1\]"):
        signature(video=tf.zeros(shape, tf.uint8))
    assert signature(video=tf.constant(clips))["logits"].shape == (5, 46)


def test_pixels_of_another_type_are_refused(signature):
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected to be a uint8 tensor but is a float"):
        signature(video=tf.zeros([1, 10, 64, 64, 1]))


def test_names_and_settings_travel_with_the_model(exported, config):
    assets = pathlib.Path(exported) / "assets"
    assert (assets / "class_names.txt").read_text().splitlines() == list(CLASS_NAMES)
    assert ExperimentConfig.from_json((assets / "experiment.json").read_text()) == config
    facts = json.loads((assets / "export.json").read_text())
    assert (facts["step"], facts["precision"], facts["video"]["frames"]) == (7, "float32", 10)


def test_the_saved_model_holds_the_networks_variables_and_no_layers(exported, model):
    names = [name for name, _ in tf.train.list_variables(os.path.join(exported, "variables", "variables"))
             if name.startswith("weights")]
    assert len(names) == len(model.variables)


def test_versions_count_up_and_a_published_one_is_refused(model, config, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_compare", lambda *arguments: None)  # tested below
    base = tmp_path / "base"

    def publish(version=None):
        return export.export_model(model, base=str(base), config=config, class_names=CLASS_NAMES, version=version)

    assert publish() == str(base / "1")
    assert publish(20) == str(base / "20")
    content = (base / "20" / "saved_model.pb").read_bytes()
    with pytest.raises(ConfigError, match="--version=20: .*exists, and a published version never changes"):
        publish(20)
    assert (base / "20" / "saved_model.pb").read_bytes() == content
    assert publish() == str(base / "21")
    assert sorted(path.name for path in base.iterdir()) == ["1", "20", "21"]
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_model_that_reloads_differently_is_not_published(model, config, tmp_path, monkeypatch):
    def another(model, config):
        shape = [None, config.num_frames, config.height, config.width, config.channels]
        return tf.function(lambda video: {"logits": model(video) + 1e-2},
                           input_signature=[tf.TensorSpec(shape, tf.uint8, name="video")])

    monkeypatch.setattr(export, "SIGNATURES", {"serving_default": another})
    with pytest.raises(export.ExportError, match="logits differ by 0.01"):
        export.export_model(model, base=str(tmp_path / "base"), config=config, class_names=CLASS_NAMES)
    assert not list((tmp_path / "base").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_what_a_killed_export_left_is_swept_and_a_running_ones_is_not(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    ours = pathlib.Path(export._building_folder(str(base)))
    assert ours.parent == tmp_path and ours.name.startswith(".base.exporting-")
    prefix = ours.name[:-len(str(os.getpid()))]
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        (tmp_path / f"{prefix}{child.pid}").mkdir()
        export._building_folder(str(base))
        assert (tmp_path / f"{prefix}{child.pid}").exists()
        child.communicate(b"\n")
    export._building_folder(str(base))
    assert not (tmp_path / f"{prefix}{child.pid}").exists()


def test_another_number_of_class_names_is_refused(model, config, tmp_path):
    with pytest.raises(ConfigError, match="2 class names for 46 classes"):
        export.export_model(model, base=str(tmp_path), config=config, class_names=("a", "b"))
