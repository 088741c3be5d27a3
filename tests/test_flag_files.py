"""The flag files against the release's configurations."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex

import pytest

from rstg_tf import flags, release

ROOT = pathlib.Path(__file__).parents[1]
PARTS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*_common.flags"))  # only included by others
FILES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.flags"), *ROOT.glob("configs/*.flags")])
EXPERIMENTS = [file for file in FILES if file not in PARTS]
PUBLISHED = {
    "configs/smt_i3d.flags": "41.6",
    "configs/kinetics_i3d.flags": "41.6",
    "configs/smt_nonlocal.flags": "44.4",
    "smt.flags": "49.2",
}
# The release's configurations: what its YAML files say, beside what they share.
SHARED = {
    "dataset": "smt-smt",
    "batch_size": 2,
    "learning_rate": 0.0001,
    "num_epochs": 100,
    "save_every": 5000,
    "print_every": 50,
    "eval_every": 1000,
    "num_classes": 174,
    "num_chan": 3,
    "dim_h": 224,
    "dim_w": 224,
    "video_num_frames": 32,
    "used_num_frames": 16,
    "num_filters": 512,
    "classification_dropout": 0.3,
    "final_norm": "LN",
    "num_process_iter": 3,
    "num_scales": 3,
    "use_norm": "LN",
    "node_feat_dim": 512,
    "message_dims": 512,
    "use_att": "dot",
    "scalewise_update": True,
    "comb_type": "plus",
    "dim_map": 6,
    "use_positional_emb": False,
    "update_layers": 2,
    "multihead_att": False,
    "place_graph": "none",
    "place_nonlocal": "none",
    "num_eval_spatial_clips": 1,
    "num_eval_temporal_clips": 1,
}
CONFIGURATIONS = {
    "configs/kinetics_c2d.flags": {"backbone_model": "c2d"},
    "configs/kinetics_i3d.flags": {"backbone_model": "i3d"},
    "configs/smt_c2d.flags": {"backbone_model": "c2d"},
    "configs/smt_i3d.flags": {"backbone_model": "i3d"},
    "configs/smt_nonlocal.flags": {"backbone_model": "non-local", "place_nonlocal": "res3-res4"},
    "configs/smt_c2d_rstg_final.flags": {"backbone_model": "c2d", "place_graph": "final"},
    "configs/smt_i3d_rstg_final.flags": {"backbone_model": "i3d", "place_graph": "final"},
    "smt.flags": {"backbone_model": "i3d", "place_graph": "res3-res4"},
    "configs/smt_dense_i3d_rstg_final.flags": {
        "backbone_model": "i3d",
        "place_graph": "final",
        "num_eval_spatial_clips": 11,
        "num_eval_temporal_clips": 2,
    },
    "configs/release_defaults.flags": {
        "backbone_model": "non-local",
        "batch_size": 32,
        "learning_rate": 0.001,
        "save_every": 10000,
        "eval_every": 50,
        "num_classes": 10,
        "video_num_frames": 10,
        "used_num_frames": 5,
        "num_process_iter": 8,
        "use_norm": "None",
        "final_norm": "None",
        "use_att": "simple",
        "scalewise_update": False,
        "multihead_att": True,
        "classification_dropout": 0.0,
        "use_positional_emb": "none",
    },
}


def included(file):
    """The flag files that `file` includes, in order."""
    return re.findall(r"^--flagfile=(.*)$", (ROOT / file).read_text(), re.MULTILINE)


def own_settings(file):
    """(flag, value) of each line of `file` itself."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if line.startswith("--")]
    pairs = [line[2:].partition("=") for line in lines]
    return [(name, value if mark else "true") for name, mark, value in pairs if name != "flagfile"]


def chain(file):
    """`file` and all files that it includes, directly or not, one entry for each time."""
    return [file, *(deeper for inner in included(file) for deeper in chain(inner))]


def head(file):
    """The lines of the comment that `file` opens with, its only one."""
    lines = (ROOT / file).read_text().splitlines()
    count = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    assert not any(line.startswith("#") for line in lines[count:])
    return lines[:count]


def test_the_eleven_configurations_of_the_release_have_a_flag_file_each():
    assert len({"syncmnist.flags", *CONFIGURATIONS}) == 11
    assert {"syncmnist.flags", *CONFIGURATIONS} <= set(EXPERIMENTS)


@pytest.mark.parametrize("file", CONFIGURATIONS)
def test_a_flag_file_says_what_the_release_s_configuration_says(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    ours = flags.config_from_flags(flags.parse([f"--flagfile={file}"]))
    theirs = release.config_from_release({**SHARED, **CONFIGURATIONS[file]})
    assert ours.model == theirs.model
    assert dataclasses.replace(ours.train, restore_dir="", restore_scope="all") == theirs.train
    # Where records lie, and how many wait in memory, is about this implementation's records.
    ours_alone = {"train_dataset": "", "test_dataset": "", "shuffle_buffer": theirs.data.shuffle_buffer}
    assert dataclasses.replace(ours.data, **ours_alone) == theirs.data


@pytest.mark.parametrize("file", EXPERIMENTS)
def test_a_flag_file_opens_with_the_command_that_reads_it(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    title, blank, *rest = head(file)
    commands = [line[1:].strip() for line in rest if line.startswith("#   python train.py")]
    assert len(title) > 20 and blank == "#" and len(commands) == 1
    arguments = shlex.split(commands[0])[2:]
    assert arguments[0] == f"--flagfile={file}"
    given = flags.config_from_flags(flags.parse(arguments))
    assert given.model == flags.config_from_flags(flags.parse([f"--flagfile={file}"])).model


@pytest.mark.parametrize("file", EXPERIMENTS)
def test_a_flag_file_s_head_states_accuracy_memory_gpus_and_the_rule_for_the_rate(file):
    text = " ".join(line.lstrip("# ") for line in head(file))
    if file in PUBLISHED:
        assert re.search(rf"Published top-1 \(validation, v1\)[^:]*: {PUBLISHED[file]} %", text)
    else:
        assert re.search(r"Published: table 1|Published top-1: none|none published", text)
        assert not re.search(r"4\d\.\d %", text)
    assert re.search(r"Memory: [\d.]+ [GM]iB a clip", text)
    assert re.search(r"fits \d+ GPU of \d+ GB|no GPU is needed", text)
    assert re.search(r"Rate: .*--batch_size", text)


@pytest.mark.parametrize("file", EXPERIMENTS)
def test_the_rule_for_the_rate_is_that_of_the_loss_s_reduction(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    train = flags.config_from_flags(flags.parse([f"--flagfile={file}"])).train
    text = " ".join(line.lstrip("# ") for line in head(file))
    assert ("Rate: per clip (--loss_reduction=sum)" in text) == (train.loss_reduction == "sum")
    assert "no GPU is needed" in text or f"the batch of {train.batch_size} fits" in text


@pytest.mark.parametrize("file", FILES)
def test_a_flag_file_includes_and_sets_nothing_twice(file):
    files = chain(file)
    assert len(files) == len(set(files))
    names = [name for name, _ in own_settings(file)]
    assert len(names) == len(set(names))
    inherited = {}
    for inner in reversed(files[1:]):
        inherited.update(own_settings(inner))
    assert [pair for pair in own_settings(file) if inherited.get(pair[0]) == pair[1]] == []


@pytest.mark.parametrize("file", FILES)
def test_what_a_flag_file_includes_comes_before_what_it_changes(file):
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    assert [line.startswith("--flagfile=") for line in lines] == [True] * len(included(file)) + [False] * (
        len(lines) - len(included(file))
    )


def test_every_part_is_included_somewhere():
    assert set(PARTS) <= {inner for file in EXPERIMENTS for inner in chain(file)}


@pytest.mark.parametrize("name", ["c2d", "i3d"])
def test_the_kinetics_files_add_where_to_start_and_nothing_else(name):
    assert included(f"configs/kinetics_{name}.flags") == [f"configs/smt_{name}.flags"]
    assert own_settings(f"configs/kinetics_{name}.flags") == [
        ("restore_dir", f"checkpoints/model_backbone_{name}_kinetics"),
        ("restore_scope", "backbone"),
    ]
