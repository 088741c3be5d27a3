"""`python -m rstg_tf.release`: what is in a checkpoint, which configuration it fits, and wrong use."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import small_resnet
from keras_stack import without_greeting
from release_cases import CASES, shapes_of
from weights_on_disk import entry_values, save_tf1

from rstg_tf import build_model, flags, release
from rstg_tf.release import config_matching, tool
from rstg_tf.release.name_parts import kind_of
from rstg_tf.release.names import weight_entries

ROOT = pathlib.Path(__file__).resolve().parents[2]
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


def _weights(shapes) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if kind_of(name) == "weights"}


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
    assert listed == _weights(shapes_of(CASES["syncmnist_small"]))
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
    shapes = shapes_of(CASES[name])
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
    shapes = {name: value.shape for name, value in entry_values(build_model(config.model)).items()}
    found = config_matching.settings_from_weights(shapes)
    expected = config_matching.settings_from_config(config)
    assert len(found) >= 11
    for flag, values in found.items():
        assert expected[flag][0] in values, flag
    assert config_matching.compare(found, shapes, {"it.flags": config}) == [config_matching.Fit("it.flags", {}, ())]


@pytest.mark.parametrize("name", ["conv0/conv2d/kernel", "resnet_i3d/backbone/conv1/kernel", "pred/kernel"])
def test_names_of_the_release_with_too_few_dimensions_tell_nothing(name):
    backbone = {} if "resnet" in name else {"tower/conv0/conv2d/kernel": (5, 5, 1, 16)}
    for shape in ((), (7,)):
        found = config_matching.settings_from_weights({**backbone, f"tower/{name}": shape})
        assert "num_classes" not in found and found.get("num_filters", (16,)) == (16,)


def test_the_settings_of_a_resnet_are_read_off_too():
    changes = {"graph_places": ("res3", "final"), "nonlocal_places": ("res4",), "final_norm": "BN"}
    model = small_resnet.build_with_recipe_weights(**changes)
    found = config_matching.settings_from_weights({name: value.shape for name, value in entry_values(model).items()})
    assert found["place_graph"] == (("res3", "final"),) and found["place_nonlocal"] == (("res4",),)
    assert found["backbone_model"] == ("non-local", "i3d") and found["final_norm"] == ("BN",)
    assert found["num_classes"] == (5,) and found["node_feat_dim"] == found["message_dims"] == (8,)
    assert "num_scales" not in found and "num_scales" in config_matching.unknown_settings(found)


def test_buffers_alone_are_taken_for_the_lstms_that_they_hold(toy_folder, toy_settings, capsys):
    model = build_model(flags.config_from_settings(toy_settings).model)
    tensors, entries = entry_values(model), weight_entries(model)
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
    tensors = entry_values(build_model(flags.config_from_settings(toy_settings).model))
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
