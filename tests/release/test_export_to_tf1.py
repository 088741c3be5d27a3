"""The way back to TF1: what an exported checkpoint holds, bit for bit, and what cannot be exported."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import resource

import numpy as np
import pytest
import small_resnet
import tensorflow as tf
from release_cases import CASES, shapes_of
from weights_on_disk import entry_values, load_tf1

from rstg_tf import build_model, flags, release, runs
from rstg_tf.common.errors import ConfigError
from rstg_tf.release import tool, writer
from rstg_tf.release.name_parts import kind_of


def _assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and ours[name].tobytes() == value.tobytes(), name


def test_a_run_exported_to_tf1_comes_back_bit_for_bit(toy_folder, toy_settings, capsys):
    assert tool.main(["export-tf1", "--model_dir=run", "--checkpoint=best", "--out=tf1/model.ckpt"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = entry_values(runs.open_run("run").load_model()[0])
    assert said == {
        "checkpoint": "tf1/model.ckpt",
        "model_dir": "run",
        "step": 0,
        "weights": len(expected),
        "values": sum(value.size for value in expected.values()),
        "constants": 2,
        "cudnn_buffers": 2,
        "unlike_the_release": ["num_conv_layers=1"],
    }
    assert os.path.normpath(tf.train.latest_checkpoint("tf1")) == "tf1/model.ckpt"
    model = build_model(flags.config_from_settings(toy_settings).model)
    assert release.load_checkpoint(model, "tf1") == 0
    _assert_same_bits(entry_values(model), expected)
    read = load_tf1("tf1/model.ckpt")  # by TensorFlow 1's own Saver
    _assert_same_bits({name: read[name] for name in expected}, expected)
    assert sorted(path.name for path in pathlib.Path("tf1").iterdir()) == [
        "checkpoint",
        "model.ckpt.data-00000-of-00001",
        "model.ckpt.index",
    ]


def test_the_release_s_checkpoint_comes_back_with_its_constants_and_buffers(release_dir, tmp_path):
    reader = tf.train.load_checkpoint(str(release_dir / "checkpoint"))
    theirs = {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if kind_of(name) != "optimiser slots"
    }
    model = build_model(release.config_from_release(CASES["syncmnist_small"]["config"]).model)
    step = release.load_checkpoint(model, release_dir / "checkpoint")
    writer.write_checkpoint(model, str(tmp_path / "model.ckpt"), step=step)
    _assert_same_bits(load_tf1(str(tmp_path / "model.ckpt")), theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": "c2d", "graph_places": ("res4",), "final_norm": "BN"},
        {"graph_places": ("res2",), "nonlocal_places": ("res3", "res5")},
    ],
    ids=str,
)
def test_a_resnet_comes_back_bit_for_bit(changes, tmp_path):
    model = small_resnet.build_with_recipe_weights(**changes)
    written = writer.write_checkpoint(model, str(tmp_path / "model.ckpt"), step=7)
    other = build_model(dataclasses.replace(small_resnet.SMALL, **changes))
    assert release.load_checkpoint(other, tmp_path) == 7
    _assert_same_bits(entry_values(other), entry_values(model))
    np.testing.assert_array_equal(other(small_resnet.VIDEO), model(small_resnet.VIDEO))
    assert written.values == sum(value.size for value in entry_values(model).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smt_i3d_rstg_res3_res4", "smt_c2d_rstg_final", "syncmnist_full"])
def test_constants_have_the_release_s_names_and_shapes(name):
    model = build_model(release.config_from_release(CASES[name]["config"]).model)
    ours = {constant: value.shape for constant, value in writer.graph_constants(model)}
    assert ours == {
        constant: shape for constant, shape in shapes_of(CASES[name]).items() if kind_of(constant) == "constants"
    }


def test_a_filter_is_the_share_of_each_pixel_in_each_cell():
    found = writer.area_filter((2, 3), (1, 2))  # [1, 2, 2, 3]: 3 columns on 2 cells, the middle one shared
    np.testing.assert_allclose(found[0, 0], [[1 / 3, 1 / 6, 0]] * 2, rtol=1e-6)
    np.testing.assert_allclose(found[0, 1], [[0, 1 / 6, 1 / 3]] * 2, rtol=1e-6)


def test_a_buffer_of_cudnn_holds_gates_row_by_row_and_half_a_bias_twice():
    kernel = np.arange(1.0, 9.0, dtype=np.float32).reshape(2, 4)  # one input, one unit; gates i, c, f, o
    bias = np.array([10, 20, 30, 40], np.float32)
    buffer = release.opaque_kernel_from_lstm(kernel, bias)
    np.testing.assert_array_equal(buffer, [1, 3, 2, 4, 5, 7, 6, 8, 5, 15, 10, 20, 5, 15, 10, 20])
    again = release.lstm_from_opaque_kernel(buffer, inputs=1, units=1, name="it")
    np.testing.assert_array_equal(again[0], kernel)
    np.testing.assert_array_equal(again[1], bias)


def test_a_second_checkpoint_becomes_the_newest_and_the_first_stays(toy_folder):
    for name in ("one", "two"):
        assert tool.main(["export-tf1", "--model_dir=run", f"--out=tf1/{name}"]) == 0
    state = tf.train.get_checkpoint_state("tf1")
    assert [os.path.basename(path) for path in state.all_model_checkpoint_paths] == ["one", "two"]
    assert os.path.basename(state.model_checkpoint_path) == "two"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("tf1/model.ckpt", "tf1/model.ckpt.index exists"),
        ("tf1", "expected a prefix such as DIR/model.ckpt"),
        ("tf1/", "expected a prefix"),
        ("run/checkpoints/ours", "lies among a run's own checkpoints"),
        ("run/checkpoints/best/ours", "lies among a run's own checkpoints"),
    ],
)
def test_a_prefix_that_cannot_be_written_is_refused_and_nothing_is_touched(out, message, toy_folder, capsys):
    assert tool.main(["export-tf1", "--model_dir=run", "--out=tf1/model.ckpt"]) == 0
    before = {path: path.read_bytes() for path in toy_folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert tool.main(["export-tf1", "--model_dir=run", f"--out={out}"]) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in toy_folder.rglob("*") if path.is_file()} == before


def test_a_disk_that_refuses_ends_with_1_and_leaves_nothing_behind(toy_folder, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # no file above 200 bytes: as if the disk were full
    try:
        code = tool.main(["export-tf1", "--model_dir=run", "--out=tf1/model.ckpt"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refusal = capsys.readouterr().err
    assert code == 1 and "model.ckpt could not be written: " in refusal and refusal.count("\n") == 1
    assert not list(pathlib.Path("tf1").iterdir())


def test_a_baseline_cannot_be_exported(toy_settings, tmp_path):
    config = flags.config_from_settings({**toy_settings, "head": "mean_lstm"})
    with pytest.raises(ConfigError, match="mean_lstm: the release has no such model"):
        writer.write_checkpoint(build_model(config.model), str(tmp_path / "model"))
    assert not list(tmp_path.iterdir())


def test_what_the_release_would_compute_otherwise_is_named(toy_settings):
    config = flags.config_from_settings({**toy_settings, "num_conv_layers": 3, "dim_h": 64, "dim_w": 64})
    assert writer.unlike_the_release(config.model) == []
    ours = flags.config_from_settings(
        {
            **toy_settings,
            "stage_norm": True,
            "neighbourhood": "masked",
            "time_stages": "final",
            "node_reduction": "mean",
        }
    )
    assert set(writer.unlike_the_release(ours.model)) == {
        "stage_norm=True",
        "neighbourhood=masked",
        "time_stages=final",
        "node_reduction=mean",
        "num_conv_layers=1",
    }
