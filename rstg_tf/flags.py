"""The command line: the flags of `flag_table`, and the one function flags -> ExperimentConfig.

Nothing is defined at import: `define_flags` does it, on the FlagValues that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from rstg_tf import flag_table
from rstg_tf.common.command_line import parse_flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.flag_files import FlagValues
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.config import DataConfig, ExperimentConfig, ModelConfig, TrainConfig


def define_flags(flag_values: absl_flags.FlagValues) -> None:
    """Defines every flag of FIELDS and SWITCHES, and --model_dir, on `flag_values`; None there means 'not given'."""
    for field in flag_table.FIELDS:
        default = flag_table.POSITIONAL_MAP_SIZE if field.flag == "dim_map" else field.default
        separator = "," if field.field == "decay_at" else "-"
        shown = separator.join(map(str, default)) or "none" if isinstance(default, tuple) else default
        text = f"{field.help} [{shown}]"
        define = {bool: absl_flags.DEFINE_boolean, int: absl_flags.DEFINE_integer, float: absl_flags.DEFINE_float}.get(
            type(default), absl_flags.DEFINE_string
        )
        define(field.flag, None, text, flag_values=flag_values)
    for flag, text in flag_table.SWITCHES.items():
        absl_flags.DEFINE_boolean(flag, None, f"{text} [False]", flag_values=flag_values)
    absl_flags.DEFINE_string("model_dir", None, "folder of the run [runs/NAME]", flag_values=flag_values)


def parse(arguments: Sequence[str]) -> absl_flags.FlagValues:
    """Flags from a command line without the program's name; `--flagfile=FILE` is read where it stands, last one wins.

    Raises ConfigError naming the flag for unknown flags, values of another type and arguments that are no flag.
    """
    flag_values = FlagValues()
    define_flags(flag_values)
    parse_flags(flag_values, arguments)
    return flag_values


def config_from_flags(flag_values: absl_flags.FlagValues) -> ExperimentConfig:
    """The experiment that the flags describe, checked. Raises ConfigError for flags that contradict each other."""
    given = {
        flag: flag_values[flag].value for flag in [*(field.flag for field in flag_table.FIELDS), *flag_table.SWITCHES]
    }
    return config_from_settings({flag: value for flag, value in given.items() if value is not None})


def config_from_settings(settings: Mapping[str, Any]) -> ExperimentConfig:
    """The same from flag names and values; what is missing keeps its default. Raises ConfigError."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in flag_table.SECTIONS}
    fields = {field.flag: field for field in flag_table.FIELDS}
    unknown = sorted(set(settings) - set(fields) - set(flag_table.SWITCHES))
    if unknown:
        raise ConfigError(
            f"unknown setting {', '.join(unknown)}; expected some of {', '.join([*fields, *flag_table.SWITCHES])}."
        )
    for flag, value in settings.items():
        if flag in fields:
            sections[fields[flag].section][fields[flag].field] = fields[flag].parse(value)
    _apply_switches(settings, sections["graph"])
    _derive_graph_frames(sections["model"])
    if sections["model"].get("backbone") == "non-local" and not sections["model"].get("graph_places"):
        sections["model"].setdefault("nonlocal_places", flag_table.NONLOCAL_PLACES)
    config = ExperimentConfig(
        model=ModelConfig(**sections["model"], graph=GraphConfig(**sections["graph"])),
        data=DataConfig(**sections["data"]),
        train=TrainConfig(**sections["train"]),
    )
    config.check()
    _refuse_contradictions(settings, config)
    return config


def _apply_switches(settings: Mapping[str, Any], graph: dict[str, Any]) -> None:
    if settings.get("multihead_att"):
        if graph.get("attention_heads", flag_table.MULTI_HEADS) == 1:
            raise ConfigError("--multihead_att and --attention_heads=1 contradict each other: give one of them.")
        if settings.get("use_att", GraphConfig.attention) != "dot":
            raise ConfigError(
                f"--multihead_att has no effect with --use_att={settings.get('use_att', 'simple')}: use --use_att=dot."
            )
        graph.setdefault("attention_heads", flag_table.MULTI_HEADS)
    elif settings.get("multihead_att") is False and graph.get("attention_heads", 1) > 1:
        raise ConfigError(
            f"--nomultihead_att and --attention_heads={graph['attention_heads']} contradict each other: "
            "give one of them."
        )
    size = graph.pop("positional_map_size", flag_table.POSITIONAL_MAP_SIZE)
    if settings.get("use_positional_emb"):
        if size < 1:
            raise ConfigError(f"--dim_map={size}: expected at least 1 with --use_positional_emb.")
        graph["positional_map_size"] = size
    elif size != flag_table.POSITIONAL_MAP_SIZE:
        raise ConfigError(f"--dim_map={size} has no effect without --use_positional_emb.")


def _derive_graph_frames(model: dict[str, Any]) -> None:
    frames = model.get("num_frames", ModelConfig.num_frames)
    keeps_frames = model.get("backbone", ModelConfig.backbone) == "simple_c2d"
    model.setdefault("graph_frames", frames if keeps_frames else max(1, frames // 2))


def _refuse_contradictions(settings: Mapping[str, Any], config: ExperimentConfig) -> None:
    if settings.get("num_steps") and settings.get("num_epochs"):
        raise ConfigError(
            f"--num_steps={settings['num_steps']} and --num_epochs={settings['num_epochs']} both set the "
            "length of the run: give one of them, and 0 for the other."
        )
    fields = {field.flag: field for field in flag_table.FIELDS}
    sections = {"model": config.model, "graph": config.model.graph, "data": config.data, "train": config.train}
    for flag, (other, values) in flag_table.NEEDS.items():
        found = getattr(sections[fields[other].section], fields[other].field)
        changed = flag in settings and fields[flag].parse(settings[flag]) != fields[flag].default
        if changed and found not in values:
            raise ConfigError(
                f"--{flag}={settings[flag]} has no effect with --{other}={found}: it belongs to "
                f"--{other}={' or '.join(values)}."
            )
    if config.train.num_steps and config.train.warmup_steps >= config.train.num_steps:
        raise ConfigError(
            f"--warmup_steps={config.train.warmup_steps}: expected fewer than --num_steps={config.train.num_steps}."
        )
