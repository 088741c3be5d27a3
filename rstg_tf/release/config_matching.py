"""Which configuration do weights belong to? Read off their names and shapes, then compared with flag files.

Two configurations that differ only in what no weight shows (the number of space stages, the size of the frames, …) hold
the same weights, and both fit.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rstg_tf import flag_table, flags
from rstg_tf.common.choices import RESNET_STAGES
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig, ModelConfig
from rstg_tf.release.name_parts import LSTM_CELL, kind_of

Shapes = Mapping[str, tuple[int, ...]]
_MODEL_FLAGS = tuple(field for field in flag_table.FIELDS if field.section in ("model", "graph"))
_CONVNET_ONLY = ("num_filters", "num_conv_layers", "head", "used_num_frames")
_RESNET_ONLY = ("place_nonlocal", "final_norm", "remat", "used_num_frames")


@dataclasses.dataclass(frozen=True)
class Fit:
    """How one flag file's model compares: flags to change, and (name, what differs) after these changes."""

    file: str
    changes: Mapping[str, Any]
    differences: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether the model, with the changes, has just these weights."""
        return not self.differences

    def changes_as_flags(self) -> str:
        """'--num_filters=32 --nouse_positional_emb'."""
        return " ".join(as_flag(flag, value) for flag, value in self.changes.items())


_FEWEST_DIMENSIONS = {"kernel": 2, "bias": 1}  # others of these names are no weights of the release


def as_flag(flag: str, value: Any) -> str:
    """The setting as it is written on a command line."""
    if flag == "dim_map":
        return f"--use_positional_emb --dim_map={value}" if value else "--nouse_positional_emb"
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no{flag}"
    return f"--{flag}={'-'.join(map(str, value)) or 'none' if isinstance(value, tuple) else value}"


def settings_from_weights(shapes: Shapes) -> dict[str, tuple]:
    """Flag -> the values under which a model has such names and shapes, the likeliest first; {} for other weights.

    `shapes`: everything in the checkpoint, by the release's names; constants tell the number of scales where nothing
    else does. A flag that is absent may have any value.
    """
    weights = {
        name: shape
        for name, shape in shapes.items()
        if kind_of(name) != "optimiser slots" and len(shape) >= _FEWEST_DIMENSIONS.get(name.rpartition("/")[2], 0)
    }
    backbone = next(
        (
            kind
            for kind, name in (
                ("simple_c2d", "tower/conv0/conv2d/kernel"),
                ("c2d", "tower/resnet_c2d/backbone/conv1/kernel"),
                ("i3d", "tower/resnet_i3d/backbone/conv1/kernel"),
            )
            if name in weights
        ),
        "",
    )
    if not backbone:
        return {}
    pred = next((shape for name, shape in weights.items() if name.endswith("/pred/kernel")), None)
    settings = {"num_classes": (pred[-1],)} if pred else {}
    settings |= _small_convnet(weights) if backbone == "simple_c2d" else _resnet(weights, backbone)
    scopes = sorted(
        {match.group(0) for match in (re.match(r".*whole_graph_model_\w+?/", name) for name in weights) if match}
    )
    if scopes:
        settings |= _graph(
            {name[len(scopes[0]) :]: shape for name, shape in weights.items() if name.startswith(scopes[0])}
        )
        settings |= _num_scales(weights)
    return settings


def _small_convnet(weights: Shapes) -> dict[str, tuple]:
    layers = [name for name in weights if re.fullmatch(r"tower/conv\d+/conv2d/kernel", name)]
    first = weights["tower/conv0/conv2d/kernel"]
    settings = {
        "backbone_model": ("simple_c2d",),
        "num_conv_layers": (len(layers),),
        "num_filters": (first[-1],),
        "num_chan": (first[-2],),
        "comb_type": ("serial",),
    }
    for head in ("mean_lstm", "conv_lstm"):
        bias = weights.get(f"tower/{head}/{LSTM_CELL}/bias")
        if bias:
            return {**settings, "head": (head,), "node_feat_dim": (bias[0] // 4,)}
    return {**settings, "head": ("graph",), "place_graph": (("final",),)}


def _resnet(weights: Shapes, variant: str) -> dict[str, tuple]:
    text = "\n".join(weights)
    graphs = tuple(place for place in (*RESNET_STAGES, "final") if f"/whole_graph_model_{place}/" in text)
    blocks = tuple(stage for stage in RESNET_STAGES if f"/nonlocal_conv{stage[-1]}_" in text)
    backbone = ("non-local", "i3d") if variant == "i3d" and blocks else (variant,)
    settings = {
        "backbone_model": backbone,
        "num_chan": (weights[f"tower/resnet_{variant}/backbone/conv1/kernel"][-2],),
        "place_graph": (graphs,),
        "place_nonlocal": (blocks,),
    }
    if graphs:
        norms = [norm for norm, name in (("LN", "after_graph_ln"), ("BN", "after_graph_bn")) if name in text]
        settings["final_norm"] = (norms[0] if norms else "none",)
    return settings


def _graph(weights: Shapes) -> dict[str, tuple]:
    """Of one graph, by names below its scope; the graphs of a model have the same settings."""
    buffers = {name.replace("opaque_kernel", LSTM_CELL.partition("/")[2]) for name in weights if "opaque" in name}
    has = {name.rsplit("/", 1)[0] for name in weights} | buffers
    messages = weights.get("send_messages_mlp/send_conv1/kernel")
    node_width = _node_width(weights)
    settings: dict[str, tuple] = {
        "time_stages": _time_stages(has, has_space=messages is not None),
        "input_batch_norm": ("batch_normalization" in has,),
        "use_norm": (next((norm for norm in ("LN", "BN") if f"before_graf_{norm.lower()}" in has), "none"),),
        "stage_norm": (any(scope.endswith("_stage_norm") for scope in has),),
    }
    if node_width:
        settings["node_feat_dim"] = (node_width,)
    if messages is None:
        return {**settings, "num_process_iter": (0,)}
    settings["message_dims"] = (messages[-1],)
    if node_width:
        settings["dim_map"] = (math.isqrt(max(0, messages[-2] // 2 - node_width)),)
    heads = {scope.split("/")[0] for scope in has if scope.startswith("attention_head")}
    settings["use_att"] = ("simple" if "my_attn/att_conv1" in has else "dot",)
    if settings["use_att"] == ("dot",):
        settings["attention_heads"] = (max(1, len(heads)),)
    layers = [re.fullmatch(r"update_node_mlp(_?)/update_conv(\d+)(_type\d+)?", scope) for scope in has]
    settings["update_layers"] = (max((int(layer.group(2)) for layer in layers if layer), default=1),)
    settings["scalewise_update"] = (any(layer and layer.group(3) for layer in layers),)
    return settings


def _time_stages(scopes: set[str], *, has_space: bool) -> tuple[str, ...]:
    before, last = (f"{scope}{LSTM_CELL}" in scopes for scope in ("", "time_update_extern/"))
    if not last:
        return ("none",)
    return ("all", "every") if before else ("final",) if has_space else ("all", "every", "final")


def _node_width(weights: Shapes) -> int | None:
    """Outputs of the update, or of the LSTM where there is no space stage and its buffer is unpacked."""
    for name, shape in weights.items():
        if re.fullmatch(r"update_node_mlp_?/update_conv\d+(_type\d+)?/bias", name):
            return shape[0]
    return next((shape[0] // 4 for name, shape in weights.items() if name.endswith(f"{LSTM_CELL}/bias")), None)


def _num_scales(weights: Shapes) -> dict[str, tuple]:
    text = "\n".join(weights)
    found = re.findall(r"update_conv\d+_type(\d+)/", text) or re.findall(
        r"resize_filters__\d+_\d+_(\d+)x\1$", text, re.MULTILINE
    )
    return {"num_scales": (max(map(int, found)),)} if found else {}


def settings_from_config(config: ExperimentConfig) -> dict[str, tuple]:
    """The same for weights whose settings are known: every flag of the model has one value."""
    return {field.flag: (_value(config, field),) for field in _MODEL_FLAGS}


def _value(config: ExperimentConfig, field: flag_table.Field) -> Any:
    return getattr(config.model.graph if field.section == "graph" else config.model, field.field)


def unknown_settings(settings: Mapping[str, tuple]) -> list[str]:
    """Flags of the model that may have any value, of those that its backbone and its graph, if it has one, use."""
    has_graph = settings.get("head", ("graph",)) == ("graph",) and settings.get("place_graph") != ((),)
    unused = _RESNET_ONLY if settings.get("backbone_model") == ("simple_c2d",) else _CONVNET_ONLY
    return [
        field.flag
        for field in _MODEL_FLAGS
        if field.flag not in (*settings, *unused) and (has_graph or field.section == "model")
    ]


def read_flag_files() -> tuple[dict[str, ExperimentConfig], dict[str, str]]:
    """*.flags and configs/*.flags of the present folder, from which they name those that they include.

    Returns path -> experiment, and path -> what is wrong with it.
    """
    found, faulty = {}, {}
    for path in map(str, (*sorted(Path().glob("*.flags")), *sorted(Path("configs").glob("*.flags")))):
        try:
            found[path] = flags.config_from_flags(flags.parse([f"--flagfile={path}"]))
        except ConfigError as error:
            faulty[path] = str(error)
    return found, faulty


def compare(settings: Mapping[str, tuple], shapes: Shapes, files: Mapping[str, ExperimentConfig]) -> list[Fit]:
    """The flag files whose model has just these weights; where there is none, the nearest, with the flags to change.

    `shapes`: the weights alone. Every answer is checked on the built model, name by name and shape by shape.
    """
    changes = {file: _changes(settings, config) for file, config in files.items()}
    built: dict[ModelConfig, dict] = {}
    fits = [Fit(file, {}, _differences(files[file].model, shapes, built)) for file in files if not changes[file]]
    exact = [fit for fit in fits if fit.exact]
    if exact or not files:
        return exact
    nearest = min(files, key=lambda file: len(changes[file]))
    try:
        model = _changed(files[nearest], changes[nearest])
    except ConfigError as error:
        return [Fit(nearest, changes[nearest], (str(error),))]
    return [Fit(nearest, changes[nearest], _differences(model, shapes, built))]


def _changes(settings: Mapping[str, tuple], config: ExperimentConfig) -> dict[str, Any]:
    fields = {field.flag: field for field in _MODEL_FLAGS}
    return {flag: values[0] for flag, values in settings.items() if _value(config, fields[flag]) not in values}


def _changed(config: ExperimentConfig, changes: Mapping[str, Any]) -> ModelConfig:
    parts: dict[str, dict] = collections.defaultdict(dict)
    for field in _MODEL_FLAGS:
        if field.flag in changes:
            parts[field.section][field.field] = changes[field.flag]
    graph = dataclasses.replace(config.model.graph, **parts["graph"])
    model = dataclasses.replace(config.model, **parts["model"], graph=graph)
    if model.backbone == "simple_c2d":
        model = dataclasses.replace(model, graph_frames=model.num_frames)
    model.check()
    return model


def model_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of the model, under the release's names. Builds it: a second for a ResNet."""
    from rstg_tf.model import build_model
    from rstg_tf.release.names import weight_entries

    return {entry.name: tuple(entry.shape) for entry in weight_entries(build_model(config))}


def _differences(config: ModelConfig, shapes: Shapes, built: dict[ModelConfig, dict]) -> tuple[str, ...]:
    if config not in built:
        built[config] = model_shapes(config)
    ours = built[config]
    found = [f"{name} {list(ours[name])} is missing" for name in ours if name not in shapes]
    found += [f"{name} {list(shape)} fits no weight of the model" for name, shape in shapes.items() if name not in ours]
    found += [
        f"{name} has shape {list(shapes[name])}, the model {list(shape)}"
        for name, shape in ours.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    return tuple(found)
