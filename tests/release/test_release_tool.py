"""`python -m rstg_tf.release`: what is in a checkpoint, which configuration it fits, and the way back to TF1."""

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
import small_resnet
import tensorflow as tf
from keras_stack import without_greeting
from weights_on_disk import load_tf1, save_run, save_tf1

from rstg_tf import build_model, flags, release, runs
from rstg_tf.common.errors import ConfigError
from rstg_tf.release import config_matching, tool, writer
from rstg_tf.release.name_parts import kind_of
from rstg_tf.release.names import weight_entries

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = {path.stem: json.loads(path.read_text()) for path in GOLDEN.glob("s*.json") if "checksums" not in path.name}
# The flag files that each list of variables belongs to: they differ only in what no weight shows.
FLAG_FILES = {
    "smt_c2d": {"configs/smt_c2d.flags", "configs/kinetics_c2d.flags"},
    "smt_i3d": {"configs/smt_i3d.flags", "configs/kinetics_i3d.flags", "configs/smt_common.flags"},
    "smt_nonlocal": {"configs/smt_nonlocal.flags"},
    "smt_c2d_rstg_final": {"configs/smt_c2d_rstg_final.flags"},
    "smt_i3d_rstg_final": {"configs/smt_i3d_rstg_final.flags", "configs/smt_dense_i3d_rstg_final.flags"},
    "smt_i3d_rstg_res3_res4": {"smt.flags"},
    "syncmnist_full": {"syncmnist.flags"},
}


def _shapes(case: dict) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape, _ in case["variables"]}


def _weights(shapes) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if kind_of(name) == "weights"}


def _values(model) -> dict[str, np.ndarray]:
    return release.entry_tensors(weight_entries(model))


def _assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and ours[name].tobytes() == value.tobytes(), name


@pytest.fixture
def toy_folder(toy_settings, tmp_path, monkeypatch):
    """The present folder, with toy.flags, other.flags (three scales) and run/, a run of toy.flags."""
    for name, changes in (("toy", {}), ("other", {"num_scales": 3})):
        settings = {**toy_settings, **changes}
        (tmp_path / f"{name}.flags").write_text("\n".join(f"--{flag}={value}" for flag, value in settings.items()))
    monkeypatch.chdir(tmp_path)
    save_run("run", flags.config_from_settings({**toy_settings, "ema_momentum": 0.9}), averaged=True)
    return tmp_path


# ------------------------------------------------------------------------------------------------------------ inspect
def test_the_command_lists_the_release_s_own_checkpoint_and_names_the_flags_that_fit(release_dir):
    finished = subprocess.run(
        [sys.executable, "-m", "rstg_tf.release", str(release_dir / "checkpoint")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert (finished.returncode, without_greeting(finished.stderr)) == (0, "")
    for line in (
        "model_1234.ckpt, step 1234",
        "weights: 29, 45,776 values, 0.17 MiB",
        "optimiser slots: 27",
        "cuDNN buffers: 2, 16,896 values",
        "constants: 4",
        "nearest: syncmnist.flags",
        "  with --num_filters=32 --node_feat_dim=32 --message_dims=32",
        "has then just these weights",
    ):
        assert line in finished.stdout
    kernel = next(line for line in finished.stdout.splitlines() if "conv1/conv2d/kernel" in line)
    assert kernel.split(maxsplit=2) == ["tower/conv1/conv2d/kernel", "9,216", "[3, 3, 32, 32]"]


def test_a_wrong_path_is_answered_without_loading_tensorflow():
    code = (
        "import runpy, sys\ntry: runpy.run_module('rstg_tf.release', run_name='__main__', alter_sys=True)\n"
        "finally: assert 'tensorflow' not in sys.modules"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, "/no/such/path"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("release: /no/such/path: no checkpoint there")
    assert finished.stderr.count("\n") == 1


def test_json_holds_the_whole_list(release_dir, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert tool.main([str(release_dir / "checkpoint"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    listed = {row["name"]: tuple(row["shape"]) for row in found["variables"] if row["kind"] == "weights"}
    assert listed == _weights(_shapes(CASES["syncmnist_small"]))
    assert found["step"] == 1234 and found["settings"]["num_scales"] == [3] and found["settings"]["dim_map"] == [6]
    assert "num_process_iter" in found["unknown"]
    assert found["fits"] == [
        {
            "file": "syncmnist.flags",
            "changes": {"num_filters": 32, "node_feat_dim": 32, "message_dims": 32},
            "flags": "--num_filters=32 --node_feat_dim=32 --message_dims=32",
            "differences": [],
        }
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", FLAG_FILES)
def test_the_release_s_lists_of_variables_fit_their_flag_files(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    files, faulty = config_matching.read_flag_files()
    assert not faulty
    shapes = _shapes(CASES[name])
    fits = config_matching.compare(config_matching.settings_from_weights(shapes), _weights(shapes), files)
    assert all(fit.exact and not fit.changes for fit in fits)
    assert {fit.file for fit in fits} >= FLAG_FILES[name]
    others = set().union(*FLAG_FILES.values()) - FLAG_FILES[name]
    assert not others & {fit.file for fit in fits}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_att": "dot", "attention_heads": 2, "use_norm": "LN", "scalewise_update": True},
        {"num_process_iter": 0},
        {"time_stages": "final", "update_layers": 3, "use_norm": "BN"},
        {"time_stages": "none"},
        {"use_positional_emb": True, "dim_map": 3, "message_dims": 6, "num_conv_layers": 2},
        {"stage_norm": True},
        {"input_batch_norm": False, "num_chan": 3, "num_classes": 9},
    ],
    ids=str,
)
def test_settings_are_read_off_names_and_shapes(changes, toy_settings):
    config = flags.config_from_settings({**toy_settings, **changes})
    shapes = {name: value.shape for name, value in _values(build_model(config.model)).items()}
    found = config_matching.settings_from_weights(shapes)
    expected = config_matching.settings_from_config(config)
    assert len(found) >= 11
    for flag, values in found.items():
        assert expected[flag][0] in values, flag
    assert config_matching.compare(found, shapes, {"it.flags": config}) == [config_matching.Fit("it.flags", {}, ())]


def test_the_settings_of_a_resnet_are_read_off_too():
    changes = {"graph_places": ("res3", "final"), "nonlocal_places": ("res4",), "final_norm": "BN"}
    model = small_resnet.build_with_recipe_weights(**changes)
    found = config_matching.settings_from_weights({name: value.shape for name, value in _values(model).items()})
    assert found["place_graph"] == (("res3", "final"),) and found["place_nonlocal"] == (("res4",),)
    assert found["backbone_model"] == ("non-local", "i3d") and found["final_norm"] == ("BN",)
    assert found["num_classes"] == (5,) and found["node_feat_dim"] == found["message_dims"] == (8,)
    assert "num_scales" not in found and "num_scales" in config_matching.unknown_settings(found)


def test_buffers_alone_are_taken_for_the_lstms_that_they_hold(toy_folder, toy_settings, capsys):
    model = build_model(flags.config_from_settings(toy_settings).model)
    tensors, entries = _values(model), weight_entries(model)
    buffers = release.opaque_kernels(entries, tensors)
    assert len(buffers) == 2
    prefix = save_tf1("weights", {**{name: value for name, value in tensors.items() if "lstm" not in name}, **buffers})
    assert tool.main([prefix]) == 0
    # Nothing in it tells the number of scales, so both files fit.
    assert "fits: other.flags, toy.flags" in capsys.readouterr().out


def test_a_run_is_listed_under_the_release_s_names_and_fits_its_own_flag_file(toy_folder, capsys):
    assert tool.main(["run"]) == 0
    printed = capsys.readouterr().out
    assert "the run run, newest checkpoint, step 0" in printed and "tower/whole_graph_model_final/" in printed
    assert printed.splitlines()[-1] == "fits: toy.flags"


def test_a_checkpoint_that_no_flag_file_describes_ends_with_1_and_says_what_differs(toy_folder, toy_settings, capsys):
    tensors = _values(build_model(flags.config_from_settings(toy_settings).model))
    tensors["tower/pred/extra"] = tensors.pop("tower/conv0/conv2d/bias")
    assert tool.main([save_tf1("weights", tensors)]) == 1
    printed = capsys.readouterr().out
    assert "differs: tower/conv0/conv2d/bias [4] is missing" in printed
    assert "differs: tower/pred/extra [4] fits no weight of the model" in printed
    assert tool.main([save_tf1("strange", {"a/b": np.zeros(2, np.float32)}, step=None)]) == 1
    printed = capsys.readouterr().out
    assert "no step" in printed and "none of the release's backbones" in printed


def test_a_flag_file_that_cannot_be_read_is_named_and_passed_over(toy_folder, capsys):
    (toy_folder / "broken.flags").write_text("--bach_size=3")
    assert tool.main(["run"]) == 0
    printed = capsys.readouterr().out
    assert "not compared: " in printed and "bach_size" in printed and "fits: toy.flags" in printed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["/no/such/checkpoint"], "/no/such/checkpoint: no checkpoint there"),
        (["one", "two"], "expected one PATH"),
        (["--jason", "one"], "expected one PATH"),
        (["--json"], "expected one PATH"),
        (["export-tf1"], "--out is missing"),
        (["export-tf1", "--out=x", "--precision=run"], "--precision has no effect"),
        (["export-tf1", "--out=x", "--model_dir=/no/run"], "--model_dir=/no/run: no run there"),
        (["export-tf1", "--out=x", "stray"], "'stray' is no flag"),
    ],
)
def test_wrong_use_ends_with_2_and_a_sentence(arguments, named, capsys):
    assert tool.main(arguments) == 2
    refusal = capsys.readouterr().err
    assert named in refusal and refusal.startswith("release") and refusal.count("\n") == 1


def test_help_says_both_commands(capsys):
    assert tool.main(["--help"]) == 0
    assert "export-tf1 --model_dir=RUN" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- the way back
def test_a_run_exported_to_tf1_comes_back_bit_for_bit(toy_folder, toy_settings, capsys):
    assert tool.main(["export-tf1", "--model_dir=run", "--checkpoint=best", "--out=tf1/model.ckpt"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = _values(runs.open_run("run").load_model()[0])
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
    _assert_same_bits(_values(model), expected)
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
    _assert_same_bits(_values(other), _values(model))
    np.testing.assert_array_equal(other(small_resnet.VIDEO), model(small_resnet.VIDEO))
    assert written.values == sum(value.size for value in _values(model).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smt_i3d_rstg_res3_res4", "smt_c2d_rstg_final", "syncmnist_full"])
def test_constants_have_the_release_s_names_and_shapes(name):
    model = build_model(release.config_from_release(CASES[name]["config"]).model)
    ours = {constant: value.shape for constant, value in writer.graph_constants(model)}
    assert ours == {
        constant: shape for constant, shape in _shapes(CASES[name]).items() if kind_of(constant) == "constants"
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
