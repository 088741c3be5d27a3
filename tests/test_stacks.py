"""The two stacks, Keras 2.15 and Keras 3: what a checkpoint finds, and what crosses from one to the other."""

from __future__ import annotations

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import recorded_runs
import tensorflow as tf
from keras_stack import HERE
from tensorflow import keras

from rstg_tf import build_model, flags, runs
from rstg_tf.common.errors import ConfigError
from rstg_tf.runs.run_folder import RunFolder
from rstg_tf.runs.stack import STACK_FILE, present_stack
from rstg_tf.training import loop

ROOT = pathlib.Path(__file__).parents[1]
FLAG_FILES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.flags"), *ROOT.glob("configs/*.flags")])
OTHER = {"new": "old", "old": "new"}[HERE]
# What other numerics change in the logits, by the largest of them; see docs/stacks.md.
ALLOWED = 5e-7


def edges_to(root) -> dict[int, list[str]]:
    """id of every object that a checkpoint of `root` finds -> the names of the edges that lead to it."""
    view, names, waiting = tf.train.TrackableView(root), {}, [root]
    while waiting:
        for name, child in view.children(waiting.pop()).items():
            if id(child) not in names:
                waiting.append(child)
            names.setdefault(id(child), []).append(name)
    return names


@pytest.mark.parametrize("file", FLAG_FILES)
def test_a_checkpoint_of_the_model_alone_finds_every_weight_under_a_name_that_both_stacks_have(file):
    model = build_model(flags.config_from_flags(flags.parse([f"--flagfile={ROOT / file}"])).model)
    names = edges_to(model)
    lost = [weight.name for weight in model.weights if id(weight) not in names]
    assert not lost, f"{len(lost)} of {len(model.weights)} weights are in no checkpoint: {lost}"
    # Keras 3 has names of its own, '_kernel' for one, which Keras 2 would look for in vain.
    private = [weight.name for weight in model.weights if all(name.startswith("_") for name in names[id(weight)])]
    assert not private, private


def test_a_weight_in_a_plain_dict_would_be_noticed():
    """The check above sees what it is made for: on Keras 3 no checkpoint finds a layer in a dict."""
    layer = keras.layers.Layer()
    layer.parts = {"norm": keras.layers.LayerNormalization()}
    layer.parts["norm"].build((None, 3))
    found = [id(weight) in edges_to(layer) for weight in layer.parts["norm"].weights]
    assert found == [HERE == "old"] * 2


def recorded(stack: str, tmp_path) -> pathlib.Path:
    """A copy of the run recorded on `stack`, to go on with."""
    return pathlib.Path(shutil.copytree(recorded_runs.RUNS / stack, tmp_path / stack))


@pytest.mark.parametrize("stack", ["old", "new"])
def test_weights_of_either_stack_load_to_the_same_bits_and_answer_alike(stack):
    expected = np.load(recorded_runs.RUNS / stack / "expected.npz")
    model, step = runs.open_run(str(recorded_runs.RUNS / stack)).load_model()
    assert step == recorded_runs.STEP
    np.testing.assert_array_equal(recorded_runs.all_weights(model), expected["weights"])
    logits = model(recorded_runs.clips(seed=9)["video"], training=False)
    assert np.abs(expected["logits"]).max() > 0.5
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=ALLOWED * np.abs(expected["logits"]).max())


def go_on(folder: pathlib.Path, num_steps: int = 6) -> loop.TrainingResult:
    config = flags.config_from_settings({**recorded_runs.SETTINGS, "num_steps": num_steps})
    return loop.train(config, str(folder), recorded_runs.Data())


def test_training_goes_on_from_a_checkpoint_of_its_own_stack(tmp_path, capsys):
    folder = recorded(HERE, tmp_path)
    assert go_on(folder).step == 6
    assert "going on from step 3" in capsys.readouterr().out
    assert (folder / STACK_FILE).exists() == (HERE == "new"), "a run keeps the record that it was begun with"


def test_training_of_the_other_stack_is_refused_and_left_as_it_was(tmp_path):
    folder = recorded(OTHER, tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    begun, present = {"old": ("Keras 2.15.0", "Keras 3"), "new": ("Keras 3.15.1", "Keras 2.15")}[OTHER]
    with pytest.raises(ConfigError, match=rf"was begun with {begun} .*cannot go on with {present}.*--restore_dir="):
        go_on(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_new_run_starts_from_the_weights_of_the_other_stack(tmp_path, capsys):
    config = flags.config_from_settings(
        {
            **recorded_runs.SETTINGS,
            "num_steps": 1,
            "warmup_steps": 0,
            "learning_rate": 1e-30,
            "weight_decay": 0.0,
            "optimizer": "adam",
            "restore_dir": str(recorded_runs.RUNS / OTHER),
        }
    )
    folder = tmp_path / "run"
    loop.train(config, str(folder), recorded_runs.Data())
    assert re.search(r"weights of the run .*loaded", capsys.readouterr().out, re.DOTALL)
    ours, _ = runs.open_run(str(folder)).load_model()
    theirs, _ = runs.open_run(str(recorded_runs.RUNS / OTHER)).load_model()
    for one, other in zip(ours.trainable_variables, theirs.trainable_variables):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=1e-7)


def test_a_run_records_its_stack_as_long_as_it_has_no_checkpoint(tmp_path):
    config = flags.config_from_settings({})
    record = tmp_path / "run" / STACK_FILE
    with RunFolder(str(tmp_path / "run"), config):
        assert json.loads(record.read_text()) == present_stack()
        assert {"python", "tensorflow", "keras", "numpy"} == set(present_stack())
    other = json.dumps({"keras": {"old": "2.15.0", "new": "3.15.1"}[OTHER]})
    record.write_text(other)
    with RunFolder(str(tmp_path / "run"), config):
        assert json.loads(record.read_text()) == present_stack()
    record.write_text(other)
    (tmp_path / "run" / "checkpoints" / "ckpt-7.index").touch()
    with pytest.raises(ConfigError, match="cannot go on"), RunFolder(str(tmp_path / "run"), config):
        pass
    assert record.read_text() == other


def test_a_record_that_says_nothing_is_an_error_with_the_file(tmp_path):
    folder = recorded(HERE, tmp_path)
    (folder / STACK_FILE).write_text("[]")
    with pytest.raises(ConfigError, match=f"{STACK_FILE} does not say which Keras"):
        go_on(folder)
