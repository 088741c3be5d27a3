"""Starting from other weights: what counts as a checkpoint, what each scope takes from it, what it says."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import small_resnet
import tensorflow as tf
from weights_on_disk import save_run, save_tf1

import train
from rstg_tf import build_model, flags, release
from rstg_tf.common.choices import RESTORE_SCOPES
from rstg_tf.common.errors import ConfigError
from rstg_tf.release.checkpoint_files import find_weights
from rstg_tf.release.name_parts import kind_of, parts_of
from rstg_tf.release.names import weight_entries
from rstg_tf.release.warm_start import SCOPES, make_plan, restore_weights

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RELEASED = release.config_from_release(json.loads((GOLDEN / "syncmnist_small.json").read_text())["config"]).model
GRAPH = "tower/whole_graph_model_final/"


def _values(model) -> dict[str, np.ndarray]:
    return release.entry_tensors(weight_entries(model))


def _assert_equal(ours, theirs, names):
    assert names
    for name in names:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def _in_scope(names, scope: str) -> list[str]:
    """By the meaning of the words, apart from the code's table."""
    parts = {
        "all": lambda name: True,
        "except_head": lambda name: "/pred/" not in name,
        "backbone": lambda name: "graph" not in name and "lstm" not in name and "/pred/" not in name,
    }
    return [name for name in names if parts[scope](name)]


@pytest.fixture
def released(release_dir) -> dict[str, np.ndarray]:
    """Every variable of the release's real checkpoint."""
    reader = tf.train.load_checkpoint(str(release_dir / "checkpoint"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.fixture
def toy_config(toy_settings):
    return flags.config_from_settings({**toy_settings, "ema_momentum": 0.9})


def _tiny_tensors(config) -> dict[str, np.ndarray]:
    model = build_model(config)
    return {
        name: np.random.default_rng(3).normal(size=value.shape).astype(np.float32)
        for name, value in _values(model).items()
    }


# ------------------------------------------------------------------------------------------------------------- scopes
@pytest.mark.parametrize("scope", RESTORE_SCOPES)
@pytest.mark.parametrize("only_buffers", [False, True], ids=["lstm pairs", "opaque kernels alone"])
def test_a_scope_takes_its_part_of_the_release_s_own_checkpoint_and_leaves_the_rest(
    scope, only_buffers, released, release_dir, tmp_path
):
    path = release_dir / "checkpoint"
    if only_buffers:
        dropped = ("lstm_cell/kernel", "lstm_cell/bias", "global_step")
        kept = {name: value for name, value in released.items() if not name.endswith(dropped)}
        path = save_tf1(tmp_path, kept, step=1234)
    model = build_model(RELEASED)
    before, said = _values(model), []
    assert restore_weights(model, str(path), scope=scope, say=said.append) == 1234
    after = _values(model)
    taken = _in_scope(after, scope)
    _assert_equal(after, released, taken)
    if scope != "all":
        _assert_equal(after, before, set(after) - set(taken))
    assert f"loaded     {len(taken)} weights" in said[0] and f"--restore_scope={scope}" in said[0]
    assert "not found  0 weights" in said[0]
    assert "  beside     optimiser slots 27, cuDNN buffers 2, constants 4, counters 1" in said[0]


def test_the_scopes_are_those_that_the_flag_offers():
    assert tuple(SCOPES) == RESTORE_SCOPES


def test_another_number_of_classes_is_refused_under_all_and_started_anew_under_except_head(released, release_dir):
    model = build_model(dataclasses.replace(RELEASED, num_classes=7))
    before, said = _values(model), []
    with pytest.raises(ConfigError) as refusal:
        restore_weights(model, str(release_dir / "checkpoint"))
    for part in (
        "tower/pred/kernel has shape [1, 1, 1, 32, 46], expected [1, 1, 1, 32, 7]",
        "--restore_scope=except_head would load 27 of the model's 29 weights",
    ):
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)
    _assert_equal(_values(model), before, before)
    restore_weights(model, str(release_dir / "checkpoint"), scope="except_head", say=said.append)
    after = _values(model)
    _assert_equal(after, before, ["tower/pred/kernel", "tower/pred/bias"])
    _assert_equal(after, released, [name for name in after if "/pred/" not in name])
    lines = said[0].splitlines()
    assert "left       2 weights of the checkpoint: classifier 2 (pred/bias, pred/kernel)" in lines[2]
    assert "kept       2 weights of the model" in lines[4]


@pytest.mark.parametrize("scope", RESTORE_SCOPES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: tensors.pop("tower/conv0/conv2d/bias"), "missing in it: conv0 1 \\(conv2d/bias\\)"),
        (
            lambda tensors: tensors.update({"tower/conv0/conv2d/bias": np.zeros(5, np.float32)}),
            "tower/conv0/conv2d/bias has shape \\[5\\], expected \\[4\\]",
        ),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors)] and tensors.update({"x/y/z": np.zeros(2)}),
            "none of the .* weights to be loaded is in it \\(it holds x/y/…, the model has tower/",
        ),
    ],
)
def test_what_does_not_fit_is_refused_whatever_the_scope(scope, damage, message, toy_config, tmp_path):
    model = build_model(toy_config.model)
    tensors = _tiny_tensors(toy_config.model)
    damage(tensors)
    before = _values(model)
    with pytest.raises(ConfigError, match=message):
        restore_weights(model, save_tf1(tmp_path, tensors), scope=scope)
    _assert_equal(_values(model), before, before)


def test_a_weight_that_is_not_used_is_an_error_under_all_and_named_under_except_head(toy_config, tmp_path):
    model, said = build_model(toy_config.model), []
    path = save_tf1(tmp_path, {**_tiny_tensors(toy_config.model), f"{GRAPH}extra/kernel": np.zeros(2, np.float32)})
    with pytest.raises(ConfigError, match=r"not used of it: graph final 1 \(extra/kernel\)"):
        restore_weights(model, path)
    restore_weights(model, path, scope="except_head", say=said.append)
    assert "left       3 weights of the checkpoint: classifier 2 (pred/bias, pred/kernel), graph final 1" in said[0]


def test_a_graph_of_which_a_part_is_missing_is_another_graph(toy_config, tmp_path):
    model = build_model(toy_config.model)
    tensors = _tiny_tensors(toy_config.model)
    del tensors[f"{GRAPH}send_messages_mlp/send_conv2/bias"]
    path = save_tf1(tmp_path, tensors)
    with pytest.raises(ConfigError, match="missing in it: graph final 1 .send_conv2/bias.*backbone would load 2 of"):
        restore_weights(model, path, scope="except_head")


def test_a_buffer_of_another_size_is_refused_by_its_name(toy_config, tmp_path):
    tensors = {name: value for name, value in _tiny_tensors(toy_config.model).items() if "lstm" not in name}
    path = save_tf1(tmp_path, {**tensors, f"{GRAPH}cudnn_lstm/opaque_kernel": np.zeros(9, np.float32)})
    with pytest.raises(ConfigError, match="cudnn_lstm/opaque_kernel: 9 values, expected 160"):
        restore_weights(build_model(toy_config.model), path, scope="except_head")


@pytest.mark.slow
def test_a_plain_i3d_starts_models_with_graphs_and_with_non_local_blocks(tmp_path):
    plain = build_model(dataclasses.replace(small_resnet.SMALL, graph_places=()))
    small_resnet.randomise(plain)
    tensors = _values(plain)
    path, said = save_tf1(tmp_path, tensors), []
    graphs = build_model(small_resnet.SMALL)
    with pytest.raises(ConfigError, match="missing in it: graph res3 .*, graph final"):
        restore_weights(graphs, path)
    before = _values(graphs)
    restore_weights(graphs, path, scope="except_head", say=said.append)
    after = _values(graphs)
    shared = [name for name in tensors if "/pred/" not in name]
    _assert_equal(after, tensors, shared)
    _assert_equal(after, before, set(after) - set(shared))
    assert "graph res3" in said[0] and "which keep their initial values" in said[0]
    blocks = build_model(dataclasses.replace(small_resnet.SMALL, graph_places=(), nonlocal_places=("res3",)))
    restore_weights(blocks, path, scope="backbone", say=said.append)
    _assert_equal(_values(blocks), tensors, shared)
    assert "not found  24 weights of the model: non-local 3_1 12 (nonlocal_conv3_1_theta/kernel" in said[1]
    frame_by_frame = build_model(dataclasses.replace(small_resnet.SMALL, backbone="c2d", graph_places=()))
    with pytest.raises(ConfigError, match="it holds tower/resnet_i3d/…, the model has tower/resnet_c2d/…"):
        restore_weights(frame_by_frame, path, scope="backbone")


# --------------------------------------------------------------------------------------------------------------- runs
@pytest.mark.parametrize("averaged", [True, False])
def test_a_run_gives_its_averages_where_it_keeps_them(averaged, toy_config, tmp_path):
    saved, average = save_run(tmp_path / "run", toy_config, averaged=averaged)
    model = build_model(toy_config.model)
    assert restore_weights(model, str(tmp_path / "run"), say=lambda line: None) == 0
    expected = average.values if averaged else saved.trainable_variables
    for weight, value in zip(
        [*model.trainable_variables, *model.non_trainable_weights], [*expected, *saved.non_trainable_weights]
    ):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("head", ["mean_lstm", "conv_lstm"])
def test_a_baseline_starts_from_its_own_runs_and_shares_its_backbone_with_graphs(
    head, toy_settings, toy_config, tmp_path
):
    settings = {name: value for name, value in toy_settings.items() if name != "input_batch_norm"}
    baseline = flags.config_from_settings({**settings, "head": head})
    saved, _ = save_run(tmp_path / head, baseline)
    again, said = build_model(baseline.model), []
    restore_weights(again, str(tmp_path / head), say=said.append)
    _assert_equal(_values(again), _values(saved), _values(saved))
    assert f"{head} " in said[0]
    graph = build_model(toy_config.model)
    with pytest.raises(ConfigError, match=f"missing in it: graph final .* not used of it: {head}"):
        restore_weights(graph, str(tmp_path / head))
    restore_weights(graph, str(tmp_path / head), scope="backbone", say=said.append)
    _assert_equal(_values(graph), _values(saved), ["tower/conv0/conv2d/kernel", "tower/conv0/conv2d/bias"])
    assert f"left       {len(_values(saved)) - 2} weights" in said[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": "mean_lstm"},
        {"head": "conv_lstm"},
        {"stage_norm": True},
        {"use_att": "dot", "attention_heads": 2, "use_norm": "BN"},
    ],
    ids=str,
)
def test_the_table_holds_every_weight_but_the_dropout_s_count(changes, toy_settings):
    model = build_model(flags.config_from_settings({**toy_settings, **changes}).model)
    entries = weight_entries(model)
    listed = {id(target.variable) for entry in entries for target in entry.targets}
    rest = [weight for weight in model.weights if id(weight) not in listed]
    assert len(rest) == 1 and rest[0].shape == ()
    assert sum(np.prod(entry.shape) for entry in entries) == sum(np.prod(weight.shape) for weight in model.weights) - 1


# ------------------------------------------------------------------------------------------------------ what is there
def test_every_way_to_name_a_run_and_its_checkpoints_is_understood(toy_config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    save_run(run, toy_config)
    for path, checkpoint in (
        (run, None),
        (run / "checkpoints", None),
        (run / "checkpoints" / "best", "best"),
        (run / "checkpoints" / "ckpt-0", "ckpt-0"),
        (run / "checkpoints" / "ckpt-0.index", "ckpt-0"),
        (run / "checkpoints" / "best" / "ckpt-0", "best"),
    ):
        found = find_weights(str(path))
        assert (found.run.path, found.run.checkpoint) == (run, checkpoint), path
    monkeypatch.chdir(run / "checkpoints")
    for path, checkpoint in (("ckpt-0", "ckpt-0"), (".", None), ("best", "best"), ("..", None)):
        found = find_weights(path)
        assert (str(found.run.path), found.run.checkpoint) == ("..", checkpoint)
        assert restore_weights(build_model(toy_config.model), path, say=lambda line: None) == 0


def test_every_way_to_name_a_tf1_checkpoint_is_understood(tmp_path):
    folder = tmp_path / "weights"
    prefix = save_tf1(folder, {"a": np.zeros(2, np.float32)})
    for path in (
        prefix,
        f"{prefix}.index",
        f"{prefix}.data-00000-of-00001",
        f"{prefix}.meta",
        str(folder),
        f"{folder}/",
    ):
        found = find_weights(path)
        assert found.run is None and pathlib.Path(found.prefix) == pathlib.Path(prefix), path
    (folder / "checkpoint").write_text('model_checkpoint_path: "/their/machine/model_12.ckpt"\n')
    assert find_weights(str(folder)).prefix == prefix  # a folder that was moved
    (folder / "checkpoint").unlink()
    assert find_weights(str(folder)).prefix == prefix  # the only one there


def test_what_is_no_checkpoint_is_refused_with_what_is_there(toy_config, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    with pytest.raises(ConfigError, match="no checkpoint there.*checkpoints in it: none"):
        find_weights(str(folder))
    with pytest.raises(ConfigError, match="nowhere: no checkpoint there; expected the folder of a run"):
        find_weights(str(tmp_path / "nowhere"))
    for step in (1, 2):
        prefix = save_tf1(folder, {"a": np.zeros(2, np.float32)}, step=step)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model_3.ckpt"\n')
    with pytest.raises(ConfigError, match="model_3.ckpt, which is not there; checkpoints in it: model_1.ckpt, model_2"):
        find_weights(str(folder))
    pathlib.Path(f"{prefix}.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ConfigError, match="--restore_dir=.*model_2.ckpt cannot be read as a checkpoint"):
        restore_weights(build_model(toy_config.model), prefix)


def test_a_checkpoint_of_ours_without_its_settings_is_refused(toy_config, tmp_path):
    save_run(tmp_path / "run", toy_config)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(ConfigError, match="no config.json says which model; give the folder of the run"):
        restore_weights(build_model(toy_config.model), str(tmp_path / "run" / "checkpoints" / "ckpt-0"))


# -------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize("file", sorted(path.name for path in GOLDEN.glob("s*.json") if "checksums" not in path.name))
def test_every_name_of_the_release_belongs_to_a_part(file):
    names = [name for name, _, _ in json.loads((GOLDEN / file).read_text())["variables"] if kind_of(name) == "weights"]
    parts = set(parts_of(names).values())
    assert "unknown" not in parts and "classifier" in parts
    places = json.loads((GOLDEN / file).read_text())["config"]["place_graph"]
    assert {part for part in parts if part.startswith("graph")} == {
        f"graph {place}" for place in places.split("-") if place != "none"
    }


def test_a_name_behind_a_graph_inside_c2d_belongs_to_that_graph():
    names = [
        "tower/resnet_c2d/backbone/whole_graph_model_res4/project_i3d/kernel",
        "tower/resnet_c2d/backbone/after_graph_ln_scale",
        "tower/resnet_c2d/after_graph_ln/beta",
    ]
    assert list(parts_of(names).values()) == ["graph res4", "graph res4", "graph final"]


def test_a_plan_goes_by_shapes_alone(toy_config):
    entries = weight_entries(build_model(toy_config.model))
    plan = make_plan(entries, _tiny_tensors(toy_config.model), "all")
    assert len(plan.loaded) == len(entries) and not (plan.faults or plan.left or plan.not_found or plan.kept)


# -------------------------------------------------------------------------------------------------------- command line
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--restore_scope=backbone"], "--restore_scope=backbone has no effect without --restore_dir"),
        (
            ["--restore_scope=head", "--restore_dir=x"],
            "--restore_scope=head: expected one of all, backbone, except_head",
        ),
    ],
)
def test_a_scope_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        flags.config_from_flags(flags.parse(arguments))


@pytest.mark.slow
def test_train_starts_from_the_release_s_weights_and_says_what_it_took(toy_settings, toy_records, tmp_path, capsys):
    five_classes = flags.config_from_settings({**toy_settings, "num_classes": 5})
    weights = save_tf1(tmp_path / "weights", _tiny_tensors(five_classes.model))
    arguments = [
        f"--{name}={value}"
        for name, value in {
            **toy_settings,
            "num_steps": 1,
            "train_dataset": toy_records / "train",
            "restore_dir": weights,
        }.items()
    ]
    flag_file = tmp_path / "toy.flags"
    flag_file.write_text("\n".join(arguments))
    run = tmp_path / "run"
    assert train.main([f"--flagfile={flag_file}", f"--model_dir={run}"]) == 2
    refusal = capsys.readouterr().err
    assert "tower/pred/bias has shape [5], expected [2]" in refusal and refusal.count("\n") == 1
    assert not run.exists()
    assert train.main([f"--flagfile={flag_file}", f"--model_dir={run}", "--restore_scope=except_head"]) == 0
    printed = capsys.readouterr().out
    for part in (
        f"weights of the TF1 checkpoint {weights} (step 12), --restore_scope=except_head:",
        "  loaded     23 weights, ",
        "  not found  0 weights",
        "  kept       2 weights of the model outside",
        "  left       2 weights of the checkpoint: classifier 2 (pred/bias, pred/kernel)",
    ):
        assert part in printed
    assert train.main([f"--flagfile={flag_file}", f"--model_dir={run}", "--restore_scope=backbone"]) == 0
    assert "going on from step 1" in capsys.readouterr().out  # its own weights, whatever the scope is now
