"""The benchmarks' commands on tiny sizes: what they print, write and refuse. How long anything takes is not tested."""

from __future__ import annotations

import io
import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks import (
    chaos,
    convolution_floor,
    decoding,
    experiments,
    graph,
    inference,
    measuring,
    model_table,
    page,
    pipeline,
    scaling,
    sync_mnist,
    training,
)
from benchmarks.plain_model import PlainModel, PlainStep, plain_model
from datasets.records.manifest import Manifest, shard_file
from datasets.records.sequence_examples import ShardWriter, encode_clip
from rstg_tf import flags as experiment_flags
from rstg_tf.model import build_model

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
    "--num_filters=4",
    "--num_conv_layers=2",
    "--node_feat_dim=4",
    "--message_dims=4",
    "--num_scales=2",
    "--dim_h=14",
    "--dim_w=14",
    "--video_num_frames=2",
    "--used_num_frames=2",
    "--num_classes=3",
]


def run(module, arguments, capsys, tmp_path):
    """What the command wrote as JSON, and the lines that it printed."""
    written = tmp_path / "result.json"
    assert module.main([f"--json={written}", "--runs=2", *arguments]) == 0
    return json.loads(written.read_text()), capsys.readouterr().out.splitlines()


def check_frame(result, printed):
    """Machine, versions, threads and runs are told; a Markdown table is printed, then a line of JSON."""
    assert result["machine"]["threads"] == result["machine"]["cores"] >= 1
    assert (result["machine"]["tensorflow"], result["machine"]["numpy"]) == (tf.__version__, np.__version__)
    assert result["runs"] == 2
    assert printed[0].startswith("| ") and set(printed[1]) <= set("|-: ")
    assert json.loads(printed[-1]) == result["summary"]


def check_timing(timing):
    assert 0 < timing["lowest"] <= timing["median"] <= timing["highest"]


@pytest.fixture
def tiny_config():
    return experiment_flags.config_from_flags(experiment_flags.parse(TINY))


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
def test_training_tells_steps_parts_and_floor(capsys, tmp_path):
    result, printed = run(training, [*TINY, "--batch_size=3"], capsys, tmp_path)
    check_frame(result, printed)
    (row,) = result["rows"]
    assert (row["name"], row["clips"]) == ("given@3", 3)
    check_timing(row["plain"])
    for precision in ("float32", "mixed_bfloat16"):
        found = row["precisions"][precision]
        step = found["step"]["median"]
        for part in ("step", "backbone", "graph"):
            check_timing(found[part])
        assert found["clips_per_second"]["median"] == pytest.approx(3 / step)
        assert found["times_plain"] == round(row["plain"]["median"] / step, 2)
        assert found["rest_seconds"] == pytest.approx(step - found["backbone"]["median"] - found["graph"]["median"])
        # 3 clips of 2 frames. conv0: 12×12 positions, 3×3×1 -> 4, forward and the kernel's gradient; pooled to 6×6.
        # conv1: 4×4 positions, 3×3×4 -> 4, forward and two gradients.
        assert found["convolutions"]["operations"] == 2 * 6 * (2 * 144 * 9 * 4 + 3 * 16 * 36 * 4)
        assert found["times_convolutions"] == round(step / found["convolutions"]["seconds"], 2)
    assert [line.split("|")[2].strip() for line in printed[2:4]] == ["float32", "mixed_bfloat16"]


@pytest.mark.parametrize("flags", [["--stage_norm"], ["--optimizer=adam"], ["--loss_reduction=mean"]])
def test_there_is_no_plain_step_for_what_it_does_not_compute(flags):
    config = experiment_flags.config_from_flags(experiment_flags.parse([*TINY, *flags]))
    assert training.plain_step(config) is None
    assert measuring.milliseconds(None) == "–"


def test_inference_tells_latency_and_throughput(capsys, tmp_path):
    result, printed = run(inference, [*TINY, "--batches=1,4", "--precisions=float32"], capsys, tmp_path)
    check_frame(result, printed)
    assert [row["name"] for row in result["rows"]] == ["given@1", "given@4"]
    for row in result["rows"]:
        found = row["precisions"]["float32"]
        check_timing(found["model"])
        check_timing(found["saved_model"])
        assert found["clips_per_second"]["median"] == pytest.approx(row["clips"] / found["model"]["median"])
        assert found["convolutions"]["operations"] == 2 * 2 * row["clips"] * (144 * 9 * 4 + 16 * 36 * 4)


def test_the_exported_model_that_is_timed_answers_like_the_model(tiny_config):
    works = inference._model_works(tiny_config, 2, "float32")
    expected, served = works["model", "float32"]().numpy(), works["saved", "float32"]().numpy()
    np.testing.assert_allclose(served, expected, rtol=1e-6, atol=1e-6)


def test_convolution_floor_times_each_distinct_convolution_once(capsys, tmp_path):
    result, printed = run(
        convolution_floor, [*TINY, "--num_conv_layers=3", "--dim_h=30", "--dim_w=30"], capsys, tmp_path
    )
    check_frame(result, printed)
    assert [(row["convolution"], row["times"]) for row in result["rows"][::4]] == [
        ("4×30×30×1, 3×3 → 4, first", 1),
        ("4×14×14×4, 3×3 → 4", 1),
        ("4×6×6×4, 3×3 → 4", 1),
    ]
    forward = [row for row in result["rows"] if row["direction"] == "forward" and row["precision"] == "float32"]
    operations = 2 * 4 * 28 * 28 * 9 * 4
    assert forward[0]["gflops"] == pytest.approx(operations / forward[0]["seconds"]["median"] / 1e9)
    for found in result["floors"].values():
        assert found["seconds"] > 0


def test_scaling_fits_exponents_and_draws(capsys, tmp_path, in_root):
    plot = tmp_path / "scaling.png"
    arguments = ["--axes=clips,scales", "--points=2", "--base=1x2x4x1", f"--out={plot}"]
    result, printed = run(scaling, arguments, capsys, tmp_path)
    check_frame(result, printed)
    clips = result["axes"]["clips"]
    assert [point["size"] for point in clips["points"]] == [1, 2]
    assert [point["size"] for point in result["axes"]["scales"]["points"]] == [1, 5]  # nodes
    (one, two) = (point["bytes"] for point in clips["points"])
    assert one < two <= 2 * one
    assert clips["memory_exponent"] == round(float(np.log2(two / one)), 2)
    with Image.open(plot) as picture:
        assert picture.size == (1000, 420)


@pytest.mark.slow
def test_scaling_counts_the_memory_of_all_replicas(tiny_config):
    found = scaling.measure_replicas(experiments.with_batch(tiny_config, 4), runs=1)
    assert [point["size"] for point in found["points"]] == [1, 2, 4]
    model = build_model(tiny_config.model)
    # The clips are shared out; weights, gradients and momenta, 4 bytes a number, come once more for each replica.
    weights = 3 * 4 * sum(weight.shape.num_elements() for weight in model.trainable_weights)
    assert [point["bytes"] for point in found["points"]] == [
        model_table.activation_bytes(model, clips=4) + weights,
        2 * (model_table.activation_bytes(model, clips=2) + weights),
        4 * (model_table.activation_bytes(model) + weights),
    ]


def test_an_exponent_is_the_slope_between_logarithms():
    assert scaling.exponent([(1, 3.0), (2, 12.0), (4, 48.0)]) == 2.0
    assert scaling.exponent([(1, 5.0), (10, 5.0)]) == 0.0
    assert scaling.exponent([(1, 5.0)]) is None


def test_the_plain_model_and_its_step_compute_what_ours_do(tiny_config):
    model = build_model(tiny_config.model)
    plain = PlainModel(model)
    video, label = experiments.random_clips(tiny_config, 2)
    np.testing.assert_allclose(plain(video), model(video), rtol=1e-5, atol=1e-5)

    config = experiments.with_batch(tiny_config, 2)
    ours = training.TrainingStep(config, "float32", steps=1)
    plain = PlainStep(PlainModel(ours.model), rate=config.train.learning_rate, momentum=config.train.momentum)
    for _ in range(3):
        np.testing.assert_allclose(ours().loss, plain(video, label), rtol=1e-5)
    after = [weight for weight in plain.weights if weight.shape == (4, 3)]
    np.testing.assert_allclose(ours.model.classifier.dense.kernel, after[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "flags", [["--stage_norm"], ["--pixel_scaling=centred"], ["--classification_dropout=0.5"], ["--head=mean_lstm"]]
)
def test_there_is_no_plain_model_for_other_options(flags):
    assert plain_model(experiment_flags.config_from_flags(experiment_flags.parse([*TINY, *flags]))) is None


def test_graph_prints_and_writes_every_column(capsys, tmp_path):
    arguments = ["--rows=1x2x4x2", "--kinds=simple"]
    result, printed = run(graph, arguments, capsys, tmp_path)
    assert json.loads(printed[-1]) == result["summary"]
    assert [row["backward"] for row in result["rows"]] == [False, True]
    for row in result["rows"]:
        assert set(row["seconds"]) >= {"plain", "float32", "bfloat16"}
        for timing in row["seconds"].values():
            check_timing(timing)


def test_sync_mnist_tells_rates(capsys, tmp_path, monkeypatch):
    bound = []
    if hasattr(os, "sched_setaffinity"):  # not the tests themselves
        monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: bound.append(len(cores)))
    result, printed = run(sync_mnist, ["--clips=8"], capsys, tmp_path)
    check_frame(result, printed)
    assert set(result["rows"]) == {"drawn", "written", "resize alone"}
    for rates in result["rows"].values():
        check_timing(rates)
    assert bound in ([1], [])


def test_pipeline_tells_rates_beside_bare_decoding(capsys, tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 40, 3), 90, np.uint8)).save(buffer, "JPEG")
    with ShardWriter(records / shard_file("tiny", 0, 1)) as shard:
        for index in range(4):
            shard.write(
                encode_clip(
                    frames=[buffer.getvalue()] * 2,
                    label=0,
                    label_name="any",
                    media_id=str(index),
                    image_format="JPEG",
                    timestamps=(0, 40_000),
                )
            )
    Manifest(
        name="tiny",
        split="train",
        shards=(shard.info,),
        num_frames=None,
        height=None,
        width=None,
        channels=3,
        image_format="JPEG",
        classes=("any",),
        made_by={},
    ).write(records)
    result, printed = run(pipeline, [f"--records={records}", "--clips=4"], capsys, tmp_path)
    check_frame(result, printed)
    row = result["rows"][str(records)]
    assert row["ratio"] == row["pipeline"]["median"] / row["bare decode"]["median"]
    assert pipeline.main([f"--records={tmp_path / 'none'}"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (training, ["--rows=full"], "--rows=full: expected MODEL@CLIPS"),
        (training, ["--rows=half@2"], "--rows=half: expected some of full, narrow"),
        (training, ["--precisions=float16"], "--precisions=float16: expected some of float32, mixed_bfloat16"),
        (training, ["--no_such=1"], "no_such"),
        (inference, ["--models=half"], "--models=half: expected some of"),
        (inference, ["--batches=1,0"], "--batches=1,0: expected numbers above 0"),
        (inference, ["a_file"], "'a_file' is no flag"),
        (scaling, ["--axes=width"], "--axes=width: expected some of clips"),
        (scaling, ["--base=1x2x3"], "--base=1x2x3: expected BxTxCxS"),
        (scaling, ["--out=no/such/plot.png"], "--out=no/such/plot.png: there is no such folder"),
        (convolution_floor, ["--json=no/such/floor.json"], "--json=no/such/floor.json: there is no such folder"),
        (convolution_floor, ["--runs=0"], "runs"),
        (page, [], "give the JSON files"),
        (chaos, ["--only=kill,flood"], "--only=kill,flood: no flood; there are kill, damage"),
        (chaos, ["--kills=0"], "kills"),
    ],
)
def test_wrong_use_ends_with_exit_code_2_and_one_sentence(module, arguments, message, capsys):
    assert module.main(arguments) == 2
    reported = capsys.readouterr().err.strip()
    assert message in reported and "Traceback" not in reported and reported.startswith("benchmarks.")


def test_decoding_tells_the_rates_of_each_clip(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "CLIPS", ("carphone_distorted.mp4",))
    found, lines = run(decoding, ["--runs=1"], capsys, tmp_path)
    assert list(found["rows"]) == [
        "short.webm, 426×240",
        "carphone_distorted.mp4, 176×144",
        "carphone_distorted.mp4, 313×256",
    ]
    for row in found["rows"].values():
        assert row["here"]["median"] > 0 and (row["ffmpeg"] is None) == (row["ratio"] is None)
    assert lines[0].startswith("| clip")
