"""The release's YAML configurations -> ExperimentConfig."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rstg_tf import flag_table
from rstg_tf.common.choices import RESNET_STAGES
from rstg_tf.common.data_text import parse_yaml
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.common.text import read_text_file
from rstg_tf.config import DataConfig, ExperimentConfig, ModelConfig, TrainConfig

# Keys that change nothing here: no code of the release reads them, or they are about its bookkeeping.
_IGNORED = frozenset(
    """
    adj_matrix backbone_dims combine_time compress_time conv_reduce_mean dropout_place dropout_rate edge_feat_dim
    final_norm_init freeze_conv gate_agregate gateing graph_scale graphs_no gt_test_file gt_train_file i3d_norm
    ind_space ind_time interleaved_time_proc iter_type just_backbone len_eval_test len_eval_train lstm_hid_units
    message_type mode model_dir model_type multiple_events no_graph num_eval_clips online_eval optimizer
    process_context_node project_i3d project_i3d_back rand_no restore temp_stride time_rnn_type
    type_positional_agreg use_batch_norm use_layer_norm use_non_local use_space_residual weight_decay""".split()
)


def config_from_release(source: Mapping[str, Any] | str | os.PathLike) -> ExperimentConfig:
    """The experiment that a YAML of the release describes, given as its keys or as the file's path.

    Keys left out keep our defaults, which are the release's SyncMNIST setting. Rules that the release keeps in its
    code: `dataset: mnist` feeds raw pixels and adds the entrance's batch norm; c2d reads `use_norm` where i3d reads
    `final_norm`; `multihead_att` means 8 heads, of dot attention only; a non-local backbone without a graph has its
    blocks at res3 and res4 whatever `place_nonlocal` says; c2d reads no `place_nonlocal`.

    Raises ConfigError for an unreadable file, a key that the release does not know and values that cannot work.
    """
    values = dict(source) if isinstance(source, Mapping) else _read_yaml(os.fspath(source))
    unknown = sorted(map(str, set(values) - _PLAIN_KEYS - _SPECIAL_KEYS - _IGNORED))
    if unknown:
        raise ConfigError(
            f"unknown key {', '.join(unknown)} in a configuration of the release; its code reads "
            f"{', '.join(sorted(_PLAIN_KEYS | _SPECIAL_KEYS))}."
        )
    plain = _plain_settings(values)
    graph = GraphConfig(**plain["graph"], **_special_graph_settings(values))
    model = ModelConfig(**plain["model"], **_special_model_settings(values), graph=graph)
    train = TrainConfig(**plain["train"], loss_reduction="sum", optimizer="nesterov")
    data = DataConfig(**plain["data"], brightness=0.1)
    return ExperimentConfig(model=model, data=data, train=train).check()


# Keys that mean what the flag of that name means.
_PLAIN_KEYS = frozenset(
    """
    backbone_model num_filters video_num_frames used_num_frames dim_h dim_w num_chan num_classes comb_type
    classification_dropout num_scales num_process_iter node_feat_dim message_dims use_att use_norm update_layers
    scalewise_update train_dataset test_dataset num_eval_spatial_clips num_eval_temporal_clips batch_size learning_rate
    num_epochs print_every save_every eval_every restore_dir""".split()
)
_SPECIAL_KEYS = {
    "dataset",
    "multihead_att",
    "use_positional_emb",
    "dim_map",
    "place_graph",
    "place_nonlocal",
    "final_norm",
}


def _read_yaml(path: str) -> dict[str, Any]:
    values = parse_yaml(read_text_file(path, named=path), named=path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys with values, found {type(values).__name__}.")
    return values


def _plain_settings(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Section -> our name -> value. Numbers may be written as text (YAML reads 1e-4 as text), none as None."""
    settings: dict[str, dict[str, Any]] = {section: {} for section in flag_table.SECTIONS}
    for field in flag_table.FIELDS:
        if field.flag not in _PLAIN_KEYS or field.flag not in values:
            continue
        value, kind = values[field.flag], type(field.default)
        if kind is bool:
            value = _truth(field.flag, value)
        else:
            try:
                value = _as(kind, "none" if value == "None" else value)
            except (TypeError, ValueError, OverflowError) as error:
                raise ConfigError(f"{field.flag}: {value!r} is no {kind.__name__}.") from error
        settings[field.section][field.field] = value
    return settings


def _as(kind: type, value: Any) -> Any:
    """A value, be it written as text, as this kind; raises TypeError or ValueError where something would be lost."""
    if not isinstance(value, (str, int, float)) or (kind is int and isinstance(value, float) and value % 1):
        raise ValueError(value)
    return kind(value)


def _truth(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(f"{key}: {value!r} is neither true nor false.")


def _special_graph_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"input_batch_norm": values.get("dataset", "mnist") == "mnist"}
    if _truth("multihead_att", values.get("multihead_att", False)) and values.get("use_att") == "dot":
        settings["attention_heads"] = flag_table.MULTI_HEADS
    positions = values.get("use_positional_emb", False)
    if positions != "none" and _truth("use_positional_emb", positions):
        size = values.get("dim_map", flag_table.POSITIONAL_MAP_SIZE)
        try:
            settings["positional_map_size"] = _as(int, size)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"dim_map: {size!r} is no int.") from error
    return settings


def _special_model_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    backbone = values.get("backbone_model", "simple_c2d")
    graph_places, nonlocal_places = (
        _places(key, values.get(key, default))
        for key, default in (("place_graph", "final"), ("place_nonlocal", "none"))
    )
    if backbone == "non-local" and not graph_places:
        nonlocal_places = tuple(place for place in RESNET_STAGES if place in ("res3", "res4", *nonlocal_places))
    elif backbone == "c2d":
        nonlocal_places = ()
    norm = values.get("use_norm" if backbone == "c2d" else "final_norm", "LN")
    settings = {
        "graph_places": graph_places,
        "nonlocal_places": nonlocal_places,
        "pixel_scaling": "none" if values.get("dataset", "mnist") == "mnist" else "centred",
        "final_norm": "none" if norm in ("None", "none") else norm,
    }
    return settings


def _places(key: str, text: Any) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise ConfigError(f"{key}: {text!r} names no places; expected such as res3-res4, final, none.")
    return () if text == "none" else tuple(text.split("-"))
