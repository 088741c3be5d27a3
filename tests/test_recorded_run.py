"""A run, half finished, and its SavedModel as release 1.0 wrote them: later versions go on from them."""

from __future__ import annotations

import json
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from golden_vectors import GOLDEN, assert_equals_golden
from keras_stack import old_stack_alone

import eval as eval_script
import train
from rstg_tf import predict
from rstg_tf.runs import open_run
from rstg_tf.serving import saved_model

RECORDED = GOLDEN / "recorded_run"


@pytest.fixture
def recorded(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder with records/, run/ (step 5 of 10), run.flags, and export/1/; the working directory of the test."""
    folder = shutil.copytree(RECORDED, tmp_path / "recorded")
    with zipfile.ZipFile(folder / "export.zip") as archive:
        archive.extractall(folder)
    monkeypatch.chdir(folder)
    return folder


def test_its_checkpoint_evaluates_to_the_recorded_logits(recorded):
    assert eval_script.main(["--model_dir=run", "--noreport"]) == 0
    found, expected = np.load("run/scores.npz"), np.load("scores_at_step_5.npz")
    assert_equals_golden(found["logits"], expected["logits"], "logits")
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    assert found["media_ids"].tolist() == expected["media_ids"].tolist()


@old_stack_alone
def test_it_goes_on_from_the_middle_and_ends_with_the_recorded_logits(recorded, capsys):
    assert train.main(["--flagfile=run.flags", "--model_dir=run"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == 10
    assert eval_script.main(["--model_dir=run", "--noreport"]) == 0
    # After five more steps of Adam, as close as golden vectors are after six of Nesterov's.
    np.testing.assert_allclose(
        np.load("run/scores.npz")["logits"], np.load("scores_at_step_10.npz")["logits"], rtol=0, atol=1e-4
    )


def test_its_saved_model_answers_as_recorded(recorded, capsys):
    video = np.stack([frame for frame in _test_clip(0)])
    logits = tf.saved_model.load("export/1").signatures["serving_default"](video=tf.constant(video[None]))["logits"]
    assert_equals_golden(logits[0], np.load("scores_at_step_5.npz")["logits"][0], "logits")
    np.save("clip.npy", video)
    assert predict.main(["--export_dir=export", "--video=clip.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "export/1"


def test_its_export_of_today_gives_the_logits_of_its_saved_model(recorded):
    path = saved_model.export_run(open_run("run"), base="again")
    video = tf.constant(_test_clip(1)[None])
    logits = [
        tf.saved_model.load(folder).signatures["serving_default"](video=video)["logits"]
        for folder in (path, "export/1")
    ]
    assert_equals_golden(logits[0], logits[1].numpy(), "logits")


def _test_clip(index: int) -> np.ndarray:
    """Clip `index` of records/test in the order in which evaluation reads them: uint8 [T, H, W, C]."""
    from datasets.input_pipeline.pipeline import evaluation_clips
    from datasets.input_pipeline.reading_options import ReadingOptions
    from datasets.records.dataset import RecordedDataset

    dataset = RecordedDataset.open("records/test")
    batches = evaluation_clips(dataset=dataset, options=ReadingOptions(dataset.manifest.clip_spec), batch_size=7)
    batch = next(iter(batches))
    return batch["video"].numpy()[batch["index"].numpy().tolist().index(index)]
