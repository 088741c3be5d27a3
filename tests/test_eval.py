"""The real eval.py on runs of the real train.py, and what it says to wrong use."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import eval as eval_script
from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import Manifest
from rstg_tf import export, runs
from rstg_tf.serving import saved_model

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS = 150
# The logits of the clips in a file by a SavedModel, in a process that doesn't have this project.
RELOAD = """
import sys
import numpy as np, tensorflow as tf
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
np.save(sys.argv[3], signature(video=tf.constant(np.load(sys.argv[2])))["logits"].numpy())
assert not [name for name in sys.modules if name.split(".")[0] in ("rstg_tf", "datasets")]
"""


def run_script(name, *arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, str(ROOT / name), *arguments], cwd=cwd, capture_output=True, text=True, timeout=240
    )


def as_flags(settings):
    return [f"--{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, toy_records):
    """A folder with runs/toy, trained by train.py for 150 steps with averaged weights, best and newest checkpoint."""
    folder = tmp_path_factory.mktemp("work")
    settings = {
        "num_conv_layers": 1,
        "num_filters": 4,
        "num_scales": 2,
        "num_process_iter": 2,
        "node_feat_dim": 4,
        "message_dims": 4,
        "dim_h": 12,
        "dim_w": 12,
        "video_num_frames": 4,
        "num_classes": 2,
        "batch_size": 4,
        "pixel_scaling": "centred",
        "input_batch_norm": True,
        "loss_reduction": "mean",
        "optimizer": "adam",
        "learning_rate": 3e-3,
        "num_steps": STEPS,
        "ema_momentum": 0.5,
        "save_every": 20,
        "eval_every": 10,
        "train_dataset": toy_records / "train",
        "test_dataset": toy_records / "test",
    }
    (folder / "toy.flags").write_text("\n".join(as_flags(settings)))
    done = run_script("train.py", "--flagfile=toy.flags", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def evaluated(trained):
    """What `python eval.py --export_dir=served` printed in that folder."""
    done = run_script("eval.py", "--export_dir=served", cwd=trained)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(capsys, *arguments):
    """The one line that eval.py ends with, with exit code 2."""
    assert eval_script.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("eval.py: ") and "Traceback" not in message
    return message


@pytest.mark.slow
def test_the_newest_run_is_evaluated_and_the_result_is_the_last_line(trained, evaluated):
    result = json.loads(evaluated.splitlines()[-1])
    assert result.pop("export") == os.path.join("served", "1")
    assert result == json.loads((trained / "runs" / "toy" / "result.json").read_text())
    facts = {key: result[key] for key in ("dataset", "split", "clips", "views", "step", "checkpoint", "model_dir")}
    assert facts == {
        "dataset": "toy",
        "split": "test",
        "clips": 7,
        "views": 1,
        "step": STEPS,
        "checkpoint": f"ckpt-{STEPS}",
        "model_dir": os.path.join("runs", "toy"),
    }
    low, high = result["top1_interval"]
    assert low < result["top1"] <= high and (result["top5"], result["precision"]) == (1.0, "float32")
    assert result["top1"] >= 6 / 7  # which half is bright: learnt in 150 steps


@pytest.mark.slow
def test_scores_agree_with_the_result_and_with_the_models_own_answers(trained, evaluated, toy_records):
    result = json.loads((trained / "runs" / "toy" / "result.json").read_text())
    run = runs.open_run(str(trained / "runs" / "toy"))
    model, _ = run.load_model()
    dataset = RecordedDataset.open(toy_records / "test")
    [batch] = evaluation_clips(dataset=dataset, options=ReadingOptions(dataset.manifest.clip_spec), batch_size=7)
    with np.load(trained / "runs" / "toy" / "scores.npz") as scores:
        np.testing.assert_allclose(scores["logits"], model(batch["video"]), atol=1e-5)
        np.testing.assert_array_equal(scores["labels"], batch["label"])
        assert scores["media_ids"].tolist() == [name.decode() for name in batch["media_id"].numpy()]
        assert result["top1"] == np.mean(scores["logits"].argmax(axis=1) == scores["labels"])


@pytest.mark.slow
def test_the_export_gives_evals_logits_without_our_code(trained, evaluated, toy_records, tmp_path):
    dataset = RecordedDataset.open(toy_records / "test")
    [batch] = evaluation_clips(dataset=dataset, options=ReadingOptions(dataset.manifest.clip_spec), batch_size=7)
    np.save(tmp_path / "clips.npy", batch["video"])
    subprocess.run(
        [sys.executable, "-c", RELOAD, str(trained / "served" / "1"), "clips.npy", "logits.npy"],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        timeout=120,
    )
    with np.load(trained / "runs" / "toy" / "scores.npz") as scores:
        np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), scores["logits"], atol=1e-5)


@pytest.mark.slow
def test_the_report_shows_the_clips_and_the_attention(trained, evaluated):
    report = trained / "runs" / "toy" / "report"
    shown = json.loads((report / "clips.json").read_text(encoding="utf-8"))
    assert len(shown) == 6
    for record in shown:
        with Image.open(report / record["file"]) as animation:
            assert animation.n_frames == 4
    share = json.loads((report / "graph" / "scales.json").read_text(encoding="utf-8"))["places"]["final"]["share"]
    assert np.array(share).shape == (2, 2, 2)  # stages, scales, scales
    np.testing.assert_allclose(np.sum(share, axis=-1), 1.0, atol=1e-5)
    assert not [path for path in (trained / "runs" / "toy").iterdir() if ".tmp" in path.name]


@pytest.mark.slow
def test_batch_size_and_replicas_change_no_score(trained, evaluated):
    with np.load(trained / "runs" / "toy" / "scores.npz") as scores:
        before = scores["logits"]
    done = run_script("eval.py", "--noreport", "--batch_size=3", "--num_virtual_devices=2", cwd=trained)
    assert done.returncode == 0, done.stderr
    with np.load(trained / "runs" / "toy" / "scores.npz") as scores:
        np.testing.assert_allclose(scores["logits"], before, atol=1e-5)
    assert json.loads(done.stdout.splitlines()[-1])["clips"] == 7


@pytest.mark.slow
def test_another_checkpoint_and_split_of_the_same_run(trained, evaluated):
    checkpoint = os.path.join("runs", "toy", "checkpoints", "ckpt-140")
    done = run_script("eval.py", "--noreport", f"--checkpoint={checkpoint}", "--split=train", cwd=trained)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["step"], result["split"], result["clips"]) == (140, "train", 20)


def test_a_shard_that_was_cut_is_refused_before_tensorflow_starts(small_run, toy_records, tmp_path, capsys):
    shutil.copytree(toy_records / "test", tmp_path / "cut")
    shard = next((tmp_path / "cut").glob("*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-10])
    assert shard.name in refused(capsys, f"--model_dir={small_run.path}", f"--dataset={tmp_path / 'cut'}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model_dir=nowhere"], "--model_dir=nowhere: no run there (nowhere/config.json is missing)"),
        (["--modeldir=x"], "modeldir"),
        (["--split=valid"], "split"),
        (["--batch_size=-1"], "batch_size"),
        (["toy"], "'toy' is no flag"),
        (["--checkpoint=a/b"], "--checkpoint=a/b: expected a step, 'best', or a path"),
    ],
)
def test_wrong_use_ends_with_exit_code_2_and_a_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)


def test_without_any_run_it_says_how_to_get_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no run under runs/: train one first (python train.py), or give --model_dir" in refused(capsys)


def test_a_run_without_a_checkpoint_is_not_the_newest_and_is_refused(small_run, capsys, monkeypatch):
    young = pathlib.Path(small_run.path).with_name("young")
    (young / "checkpoints").mkdir(parents=True)
    shutil.copy(pathlib.Path(small_run.path) / "config.json", young)
    monkeypatch.chdir(young.parents[1])
    assert runs.newest_run() == pathlib.Path("runs", "small")
    assert f"no checkpoint in {young / 'checkpoints'} yet" in refused(capsys, f"--model_dir={young}")


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(small_run, capsys):
    assert "--checkpoint=6: not in" in (message := refused(capsys, f"--model_dir={small_run.path}", "--checkpoint=6"))
    assert "there are: 5." in message


def test_data_that_is_missing_or_of_other_classes_or_sizes_is_refused(small_run, toy_records, tmp_path, capsys):
    run = f"--model_dir={small_run.path}"
    assert "dataset.json does not exist" in refused(capsys, run, f"--dataset={tmp_path / 'missing'}")
    for number, (change, message) in enumerate(
        [
            ({"classes": ("up", "left")}, "Class 1 is 'left' in "),
            ({"classes": ("up", "down", "left")}, "has 3 classes, but the run"),
            ({"num_frames": 5}, "has 5 frames per clip"),
            ({"height": 16}, "has 16 pixels of height"),
            ({"channels": 3}, "has 3 channels"),
        ]
    ):
        folder = tmp_path / f"other{number}"
        shutil.copytree(toy_records / "test", folder)
        dataclasses.replace(Manifest.read(folder), **change).write(folder)
        assert message in refused(capsys, run, f"--dataset={folder}")


def test_wrong_use_is_told_without_waiting_for_tensorflow(tmp_path):
    program = "import sys, eval; code = eval.main(['--model_dir=nowhere']); print(code, 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2", "False"]


def test_an_export_computes_in_float32_unless_asked_for_the_runs_precision(small_run, toy_records, tmp_path):
    mixed = dataclasses.replace(
        small_run,
        config=dataclasses.replace(
            small_run.config, train=dataclasses.replace(small_run.config.train, precision="mixed_bfloat16")
        ),
    )
    dataset = RecordedDataset.open(toy_records / "test")
    [batch] = evaluation_clips(dataset=dataset, options=ReadingOptions(dataset.manifest.clip_spec), batch_size=7)
    exact = small_run.load_model()[0](batch["video"]).numpy()

    def difference(path):
        loaded = tf.saved_model.load(path).signatures["serving_default"](video=batch["video"])["logits"]
        return np.abs(loaded.numpy() - exact).max()

    assert difference(saved_model.export_run(mixed, base=str(tmp_path / "served"))) < 1e-5
    assert difference(saved_model.export_run(mixed, base=str(tmp_path / "served"), precision="run")) > 1e-5
    facts = json.loads((tmp_path / "served" / "2" / "assets" / "export.json").read_text())
    assert facts["precision"] == "mixed_bfloat16"
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_the_export_command_publishes_and_refuses_a_version_twice(small_run, tmp_path, capsys):
    arguments = [f"--model_dir={small_run.path}", f"--out={tmp_path / 'served'}", "--version=3"]
    assert export.main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["export"] == str(tmp_path / "served" / "3")
    assert export.main(arguments) == 2
    error = capsys.readouterr().err
    assert "--version=3: " in error and "exists, and a published version never changes" in error
    assert export.main(arguments[:1]) == 2
    assert "--out is missing" in capsys.readouterr().err
