"""The dataclasses that say what an experiment is."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.config import DataConfig, ExperimentConfig, ModelConfig, TrainConfig
from rstg_tf.video.clip_spec import ClipSpec


def test_the_defaults_are_a_valid_experiment():
    assert ExperimentConfig().check() == ExperimentConfig()


def test_an_experiment_comes_back_from_its_json():
    config = ExperimentConfig(
        model=ModelConfig(
            backbone="i3d",
            graph_places=("res3", "res4"),
            channels=3,
            combination="plus",
            graph=GraphConfig(attention="dot", attention_heads=8),
        ),
        data=DataConfig(train_dataset="somewhere", brightness=0.1),
        train=TrainConfig(schedule="step", decay_at=(0.25, 0.5), precision="mixed_bfloat16"),
    )
    assert ExperimentConfig.from_json(config.to_json()) == config


def test_the_clips_of_an_experiment_are_those_of_its_model_cut_out_of_frames_of_its_short_side():
    config = ExperimentConfig(
        model=ModelConfig(num_frames=8, height=48, width=64, channels=3), data=DataConfig(short_side=72)
    )
    assert config.clip_spec == ClipSpec(num_frames=8, height=48, width=64, channels=3, short_side=72)


def test_json_with_a_setting_that_no_field_has_is_refused():
    values = json.loads(ExperimentConfig().to_json())
    values["model"]["graph"]["colour"] = "green"
    with pytest.raises(ConfigError, match=r"config.model.graph: unknown setting colour"):
        ExperimentConfig.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("graph", {"num_scales": 0}, "--num_scales=0: expected at least 1"),
        ("graph", {"attention": "cosine"}, "--use_att=cosine: expected one of simple, dot"),
        ("graph", {"space_iterations": 0, "time_stages": "none"}, "leaves a graph without any stage"),
        ("graph", {"space_iterations": 0, "share_stages": True}, "--share_stages needs --num_process_iter"),
        ("graph", {"attention": "dot", "attention_heads": 3}, "--message_dims=512 is not divisible by the 3"),
        ("model", {"channels": 2}, "--num_chan=2"),
        ("model", {"dropout": 1.0}, "--classification_dropout=1.0"),
        ("model", {"graph_places": ("res9",)}, "--place_graph=res9"),
        ("model", {"backbone": "i3d", "graph_places": ("res3", "res3")}, "--place_graph=res3-res3 names a place twice"),
        ("model", {"backbone": "i3d", "graph_places": ("res3",), "nonlocal_places": ("res3",)}, "both name res3"),
        ("model", {"graph_frames": 5}, "--used_num_frames=5: simple_c2d keeps every frame"),
        ("model", {"combination": "plus"}, "--comb_type=plus needs a ResNet"),
        ("data", {"brightness": -0.1}, "--brightness=-0.1: expected at least 0"),
        ("train", {"learning_rate": 0.0}, "--learning_rate=0.0: expected a positive number"),
        ("train", {"momentum": 1.0}, r"--momentum=1.0: expected a number in \[0, 1\)"),
        ("train", {"weight_decay": 0.1}, "--weight_decay=0.1 has no effect with --optimizer=nesterov"),
        ("train", {"num_virtual_devices": 3}, "--batch_size=2 .* does not divide among --num_virtual_devices=3"),
        ("train", {"num_steps": 0, "num_epochs": 0}, "give --num_steps or --num_epochs"),
    ],
)
def test_what_cannot_work_is_refused_by_its_flag(section, changes, message):
    config = ExperimentConfig()
    part = dataclasses.replace(config.model.graph if section == "graph" else getattr(config, section), **changes)
    if section == "graph":
        section, part = "model", dataclasses.replace(config.model, graph=part)
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **{section: part}).check()


def test_settings_and_data_tools_start_without_tensorflow():
    script = (
        "import sys, rstg_tf, rstg_tf.config, rstg_tf.flags, rstg_tf.common.safe_pickle, rstg_tf.layers.regions, "
        "datasets.records.manifest;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_package_names_what_it_offers():
    import rstg_tf

    assert rstg_tf.RecurrentSpaceTimeGraph.__name__ == "RecurrentSpaceTimeGraph"
    assert set(rstg_tf.__all__) <= set(dir(rstg_tf))
    with pytest.raises(AttributeError, match="'rstg_tf' has no attribute 'Graph'"):
        rstg_tf.Graph  # noqa: B018
