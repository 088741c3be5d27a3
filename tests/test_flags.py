"""The table of flags and what it makes of a command line."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from rstg_tf import flag_table, flags, release
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig

GOLDEN = pathlib.Path(__file__).parent / "golden"


def _config(*arguments: str) -> ExperimentConfig:
    return flags.config_from_flags(flags.parse(arguments))


def test_every_setting_has_exactly_one_flag():
    settings = {
        (section, field.name)
        for section, cls in flag_table.SECTIONS.items()
        for field in dataclasses.fields(cls)
        if not (section == "model" and field.name == "graph")
    }
    rows = [(row.section, row.field) for row in flag_table.FIELDS]
    assert len(rows) == len(set(rows))
    assert set(rows) == settings
    names = [row.flag for row in flag_table.FIELDS]
    assert len(names) == len(set(names))


def test_no_flag_gives_the_defaults_of_the_dataclasses():
    assert _config() == ExperimentConfig()
    assert flags.config_from_settings({}) == ExperimentConfig()


def test_a_value_of_each_kind_reaches_its_field():
    config = _config(
        "--batch_size=6",
        "--learning_rate=2.5e-3",
        "--scalewise_update",
        "--backbone_model=i3d",
        "--place_graph=res3-res4",
        "--place_nonlocal=none",
        "--num_chan=3",
        "--schedule=step",
        "--decay_at=0.25,0.5",
    )
    assert config.train.batch_size == 6
    assert config.train.learning_rate == 2.5e-3
    assert config.model.graph.scalewise_update is True
    assert config.model.graph_places == ("res3", "res4")
    assert config.model.nonlocal_places == ()
    assert config.train.decay_at == (0.25, 0.5)


def test_the_graph_sees_all_frames_of_the_small_convnet_and_half_of_a_resnets():
    assert _config("--video_num_frames=6").model.graph_frames == 6
    assert _config("--backbone_model=i3d", "--video_num_frames=32").model.graph_frames == 16


def test_the_releases_two_switches_act_as_in_the_release():
    graph = _config("--use_att=dot", "--multihead_att", "--use_positional_emb").model.graph
    assert (graph.attention_heads, graph.positional_map_size) == (8, 6)
    graph = _config(
        "--use_att=dot", "--multihead_att", "--attention_heads=4", "--use_positional_emb", "--dim_map=9"
    ).model.graph
    assert (graph.attention_heads, graph.positional_map_size) == (4, 9)
    graph = _config("--use_att=dot", "--nomultihead_att", "--nouse_positional_emb", "--dim_map=6").model.graph
    assert (graph.attention_heads, graph.positional_map_size) == (1, 0)


def test_flags_named_as_the_releases_keys_mean_what_its_yaml_means():
    keys = json.loads((GOLDEN / "syncmnist_small.json").read_text())["config"]
    known = {row.flag for row in flag_table.FIELDS} | set(flag_table.SWITCHES)
    ours = {key: value for key, value in keys.items() if key in known and key not in ("optimizer", "restore")}
    assert {"num_process_iter", "use_att", "node_feat_dim", "place_graph", "use_positional_emb", "dim_map"} <= set(ours)
    found = flags.config_from_settings({**ours, "input_batch_norm": True, "optimizer": "nesterov"})
    expected = release.config_from_release(keys)
    assert found.model == expected.model
    assert found.train == expected.train


def test_a_flag_file_may_include_another_and_later_values_win(tmp_path):
    base, top = tmp_path / "base.flags", tmp_path / "top.flags"
    base.write_text("# the base\n--batch_size=3\n--num_filters=7\n")
    top.write_text(f"--flagfile={base}\n--num_filters=9\n")
    config = _config(f"--flagfile={top}", "--batch_size=4")
    assert (config.train.batch_size, config.model.backbone_filters) == (4, 9)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bach_size=3"], ["bach_size", "batch_size"]),
        (["--batch_size=three"], ["batch_size", "three"]),
        (["--batch_size=0"], ["--batch_size=0", "at least 1"]),
        (["stray"], ["stray"]),
        (["--flagfile=/no/such/file"], ["/no/such/file"]),
        (["--num_steps=5", "--num_epochs=2"], ["--num_steps=5", "--num_epochs=2"]),
        (["--multihead_att", "--attention_heads=1", "--use_att=dot"], ["--multihead_att", "--attention_heads=1"]),
        (["--nomultihead_att", "--attention_heads=2", "--use_att=dot"], ["--nomultihead_att", "--attention_heads=2"]),
        (["--multihead_att"], ["--multihead_att", "--use_att=simple"]),
        (["--attention_heads=4"], ["--attention_heads=4", "--use_att"]),
        (["--dim_map=9"], ["--dim_map=9", "--use_positional_emb"]),
        (["--decay_at=0.3"], ["--decay_at=0.3", "--schedule=constant"]),
        (["--schedule=step", "--decay_at=0.5,x"], ["--decay_at=0.5,x"]),
        (["--schedule=step", "--decay_at=0.5,0.2"], ["--decay_at=0.5,0.2", "rising"]),
        (["--optimizer=adam", "--momentum=0.5"], ["--momentum=0.5", "--optimizer=adam"]),
        (["--weight_decay=0.1"], ["--weight_decay=0.1", "--optimizer=nesterov"]),
        (["--num_steps=10", "--warmup_steps=10"], ["--warmup_steps=10", "--num_steps=10"]),
        (["--precision=mixed_float16"], ["--precision=mixed_float16", "mixed_bfloat16"]),
        (["--video_num_frames=4", "--used_num_frames=2"], ["--used_num_frames=2", "--video_num_frames=4"]),
        (["--batch_size=3", "--num_virtual_devices=2"], ["--batch_size=3", "--num_virtual_devices=2"]),
    ],
)
def test_wrong_flags_are_refused_with_their_names(arguments, named):
    with pytest.raises(ConfigError) as refusal:
        _config(*arguments)
    for part in named:
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_setting_that_no_flag_has_is_refused():
    with pytest.raises(ConfigError, match="unknown setting colour"):
        flags.config_from_settings({"colour": "red"})
