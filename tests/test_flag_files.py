"""The flag files against the release's configurations."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from rstg_tf import flags, release

ROOT = pathlib.Path(__file__).parents[1]
# The release's configurations: what its YAML files say, beside what they share.
SHARED = {
    "dataset": "smt-smt", "batch_size": 2, "learning_rate": 0.0001, "num_epochs": 100, "save_every": 5000,
    "print_every": 50, "eval_every": 1000, "num_classes": 174, "num_chan": 3, "dim_h": 224, "dim_w": 224,
    "video_num_frames": 32, "used_num_frames": 16, "num_filters": 512, "classification_dropout": 0.3,
    "final_norm": "LN", "num_process_iter": 3, "num_scales": 3, "use_norm": "LN", "node_feat_dim": 512,
    "message_dims": 512, "use_att": "dot", "scalewise_update": True, "comb_type": "plus", "dim_map": 6,
    "use_positional_emb": False, "update_layers": 2, "multihead_att": False, "place_graph": "none",
    "place_nonlocal": "none", "num_eval_spatial_clips": 1, "num_eval_temporal_clips": 1}
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
        "backbone_model": "i3d", "place_graph": "final", "num_eval_spatial_clips": 11, "num_eval_temporal_clips": 2},
    "configs/release_defaults.flags": {
        "backbone_model": "non-local", "batch_size": 32, "learning_rate": 0.001, "save_every": 10000, "eval_every": 50,
        "num_classes": 10, "video_num_frames": 10, "used_num_frames": 5, "num_process_iter": 8, "use_norm": "None",
        "final_norm": "None", "use_att": "simple", "scalewise_update": False, "multihead_att": True,
        "classification_dropout": 0.0, "use_positional_emb": "none"},
}


@pytest.mark.parametrize("file", CONFIGURATIONS)
def test_a_flag_file_says_what_the_release_s_configuration_says(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    ours = flags.config_from_flags(flags.parse([f"--flagfile={file}"]))
    theirs = release.config_from_release({**SHARED, **CONFIGURATIONS[file]})
    assert ours.model == theirs.model
    assert dataclasses.replace(ours.train, restore_dir="") == theirs.train
    paths = {"train_dataset": "", "test_dataset": ""}
    assert dataclasses.replace(ours.data, **paths) == theirs.data


@pytest.mark.parametrize("file", CONFIGURATIONS)
def test_a_flag_file_opens_with_its_command(file):
    comment = [line for line in (ROOT / file).read_text().splitlines() if line.startswith("#")]
    assert any(f"python train.py --flagfile={file}" in line for line in comment)
