"""Reads what the authors' 2019 release wrote: its YAML configurations and its TF1 checkpoints.

    config = release.config_from_release("config_smt_i3d.yaml")
    model = build_model(config.model)
    release.load_checkpoint(model, "checkpoints/")

Needs no TensorFlow until it meets a model or a checkpoint. As a command, `python -m rstg_tf.release`: see release_tool.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from rstg_tf import flags
from rstg_tf.config import STAGES, ConfigError, DataConfig, ExperimentConfig, GraphConfig, ModelConfig, TrainConfig
from rstg_tf.release_parts import LSTM_CELL, kind_of
from rstg_tf.weight_files import checkpoint_prefix, read_variables

if TYPE_CHECKING:
    from rstg_tf.release_names import Entry

# Keys that change nothing here: no code of the release reads them, or they are about its bookkeeping.
_IGNORED = frozenset("""
    adj_matrix backbone_dims combine_time compress_time conv_reduce_mean dropout_place dropout_rate edge_feat_dim
    final_norm_init freeze_conv gate_agregate gateing graph_scale graphs_no gt_test_file gt_train_file i3d_norm
    ind_space ind_time interleaved_time_proc iter_type just_backbone len_eval_test len_eval_train lstm_hid_units
    message_type mode model_dir model_type multiple_events no_graph num_eval_clips online_eval optimizer
    process_context_node project_i3d project_i3d_back rand_no restore temp_stride time_rnn_type
    type_positional_agreg use_batch_norm use_layer_norm use_non_local use_space_residual weight_decay""".split())


def config_from_release(source: Mapping[str, Any] | str | os.PathLike) -> ExperimentConfig:
    """The experiment that a YAML of the release describes, given as its keys or as the file's path.

    Keys left out keep our defaults, which are the release's SyncMNIST setting. Rules that the release keeps in its
    code: `dataset: mnist` feeds raw pixels and adds the entrance's batch norm; c2d reads `use_norm` where i3d reads
    `final_norm`; `multihead_att` means 8 heads, of dot attention only; a non-local backbone without a graph has its
    blocks at res3 and res4 whatever `place_nonlocal` says; c2d reads no `place_nonlocal`.

    Raises ConfigError for an unreadable file, a key that the release does not know and values that cannot work.
    """
    values = dict(source) if isinstance(source, Mapping) else _read_yaml(os.fspath(source))
    unknown = sorted(set(values) - _PLAIN_KEYS - _SPECIAL_KEYS - _IGNORED)
    if unknown:
        raise ConfigError(f"unknown key {', '.join(unknown)} in a configuration of the release; its code reads "
                          f"{', '.join(sorted(_PLAIN_KEYS | _SPECIAL_KEYS))}.")
    plain = _plain_settings(values)
    graph = GraphConfig(**plain["graph"], **_special_graph_settings(values))
    model = ModelConfig(**plain["model"], **_special_model_settings(values), graph=graph)
    train = TrainConfig(**plain["train"], loss_reduction="sum", optimizer="nesterov")
    data = DataConfig(**plain["data"], brightness=0.1)
    return ExperimentConfig(model=model, data=data, train=train).check()


# Keys that mean what the flag of that name means.
_PLAIN_KEYS = frozenset("""
    backbone_model num_filters video_num_frames used_num_frames dim_h dim_w num_chan num_classes comb_type
    classification_dropout num_scales num_process_iter node_feat_dim message_dims use_att use_norm update_layers
    scalewise_update train_dataset test_dataset num_eval_spatial_clips num_eval_temporal_clips batch_size learning_rate
    num_epochs print_every save_every eval_every restore_dir""".split())
_SPECIAL_KEYS = {"dataset", "multihead_att", "use_positional_emb", "dim_map", "place_graph", "place_nonlocal",
                 "final_norm"}


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys with values, found {type(values).__name__}.")
    return values


def _plain_settings(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Section -> our name -> value. Numbers may be written as text (YAML reads 1e-4 as text), none as None."""
    settings: dict[str, dict[str, Any]] = {section: {} for section in flags.SECTIONS}
    for field in flags.FIELDS:
        if field.flag not in _PLAIN_KEYS or field.flag not in values:
            continue
        value, kind = values[field.flag], type(field.default)
        if kind is bool:
            value = _truth(field.flag, value)
        else:
            try:
                value = kind("none" if value == "None" else value)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{field.flag}: {value!r} is no {kind.__name__}.") from error
        settings[field.section][field.field] = value
    return settings


def _truth(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(f"{key}: {value!r} is neither true nor false.")


def _special_graph_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"input_batch_norm": values.get("dataset", "mnist") == "mnist"}
    if _truth("multihead_att", values.get("multihead_att", False)) and values.get("use_att") == "dot":
        settings["attention_heads"] = flags.MULTI_HEADS
    positions = values.get("use_positional_emb", False)
    if positions != "none" and _truth("use_positional_emb", positions):
        settings["positional_map_size"] = int(values.get("dim_map", flags.POSITIONAL_MAP_SIZE))
    return settings


def _special_model_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    backbone = values.get("backbone_model", "simple_c2d")
    graph_places = _places(values.get("place_graph", "final"))
    nonlocal_places = _places(values.get("place_nonlocal", "none"))
    if backbone == "non-local" and not graph_places:
        nonlocal_places = tuple(place for place in STAGES if place in ("res3", "res4", *nonlocal_places))
    elif backbone == "c2d":
        nonlocal_places = ()
    norm = values.get("use_norm" if backbone == "c2d" else "final_norm", "LN")
    settings = {"graph_places": graph_places, "nonlocal_places": nonlocal_places,
                "pixel_scaling": "none" if values.get("dataset", "mnist") == "mnist" else "centred",
                "final_norm": "none" if norm in ("None", "none") else norm}
    return settings


def _places(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split("-"))


def assign_weights(model, tensors: Mapping[str, np.ndarray]) -> None:
    """Sets every weight of `model` from arrays under the release's names (a trailing ':0' is allowed).

    Raises ValueError, before anything is changed, that lists every needed name that is missing or has another shape and
    every given name that fits nothing. Optimiser slots, cuDNN's opaque_kernel and constants may be there and are not
    used, except that an opaque_kernel stands in for the pair of LSTM variables where those are missing.
    """
    from rstg_tf.release_names import model_entries

    assign_entries(model_entries(model), tensors)


def assign_entries(entries: list[Entry], tensors: Mapping[str, np.ndarray]) -> None:
    """`assign_weights` for the rows of any part, such as `release_names.graph_entries(prefix, graph)` of a layer."""
    given = {name[:-2] if name.endswith(":0") else name: np.asarray(value) for name, value in tensors.items()}
    given = with_unpacked_lstms(entries, given)
    faults = [_fault(entry, given) for entry in entries]
    needed = {entry.name for entry in entries}
    faults += [f"{name} fits no weight of this model" for name in sorted(given)
               if name not in needed and kind_of(name) == "weights"]
    faults = [fault for fault in faults if fault]
    if faults:
        shown = "\n  ".join(faults[:20])
        raise ValueError(f"these tensors do not fit the model ({len(faults)} faults):\n  {shown}")
    buffers = {}
    for entry in entries:
        for target in entry.targets:
            variable, buffer = buffers.setdefault(
                id(target.variable), (target.variable, np.zeros(target.variable.shape, np.float32)))
            part = given[entry.name].reshape(entry.shape[entry.leading:])[target.rows]
            buffer[target.index] = part if target.order is None else part[..., target.order]
    for variable, buffer in buffers.values():
        variable.assign(buffer)


def _fault(entry: Entry, given: Mapping[str, np.ndarray]) -> str | None:
    if entry.name not in given:
        return f"{entry.name} {list(entry.shape)} is missing"
    if tuple(given[entry.name].shape) != tuple(entry.shape):
        return f"{entry.name} has shape {list(given[entry.name].shape)}, expected {list(entry.shape)}"
    return None


def release_tensors(model) -> dict[str, np.ndarray]:
    """The inverse of `assign_weights`: the model's weights under the release's names and in its shapes, float32."""
    from rstg_tf.release_names import model_entries

    return entry_tensors(model_entries(model))


def entry_tensors(entries: list[Entry]) -> dict[str, np.ndarray]:
    """`release_tensors` for the rows of any part."""
    tensors = {}
    for entry in entries:
        array = np.zeros(entry.shape[entry.leading:], np.float32)
        for target in entry.targets:
            part = np.asarray(target.variable)[target.index]
            if target.order is None:
                array[target.rows] = part
            else:
                array[target.rows][..., target.order] = part
        tensors[entry.name] = array.reshape(entry.shape)
    return tensors


def load_checkpoint(model, prefix_or_dir: str | os.PathLike) -> int:
    """Sets every weight of `model` from a TF1 checkpoint, given as prefix or as the folder whose newest is taken.

    Returns the global step, or -1 where the checkpoint holds none. Raises ConfigError, a ValueError, when there is no
    checkpoint or when it cannot be read, and ValueError as `assign_weights` does.
    """
    tensors = read_variables(checkpoint_prefix(os.fspath(prefix_or_dir)))
    assign_weights(model, tensors)
    return int(tensors.get("global_step", -1))


def opaque_name(entry: Entry) -> str | None:
    """Name of the cuDNN buffer that holds this row's values too; None for a row that is no LSTM's kernel."""
    if not entry.name.endswith(f"{LSTM_CELL}/kernel"):
        return None
    return f"{entry.name[:-len(LSTM_CELL) - len('/kernel')]}cudnn_lstm/opaque_kernel"


def with_unpacked_lstms(entries: list[Entry], given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`given`, and the kernel and bias of every LSTM of which it holds cuDNN's buffer alone (release, section 7)."""
    found = dict(given)
    for entry in entries:
        opaque = opaque_name(entry)
        if opaque in given and entry.name not in given:
            rows, columns = entry.shape
            units = columns // 4
            kernel, bias = lstm_from_opaque_kernel(given[opaque], inputs=rows - units, units=units, name=opaque)
            found[entry.name] = kernel
            found[f"{entry.name[:-len('kernel')]}bias"] = bias
    return found


def opaque_kernels(entries: list[Entry], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> cuDNN's buffer of every LSTM among the rows, made from the kernel and bias in `tensors`."""
    kernels = {opaque_name(entry): entry.name for entry in entries}
    return {opaque: opaque_kernel_from_lstm(tensors[kernel], tensors[f"{kernel[:-len('kernel')]}bias"])
            for opaque, kernel in kernels.items() if opaque is not None}


def lstm_from_opaque_kernel(buffer: np.ndarray, *, inputs: int, units: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """cuDNN's flat buffer -> kernel [inputs + units, 4·units] and bias [4·units], gates i, c, f, o.

    The buffer: W_i W_f W_c W_o, each [units, inputs] row-major, R_i R_f R_c R_o, each [units, units], then the four
    biases of W and the four of R, which add up. Raises ValueError if its length differs.
    """
    expected = 4 * units * (inputs + units) + 8 * units
    flat = np.asarray(buffer, np.float32).ravel()
    if flat.size != expected:
        raise ValueError(f"{name}: {flat.size} values, expected {expected} for {inputs} inputs and {units} units.")
    inner, recurrent, biases = np.split(flat, [4 * units * inputs, 4 * units * (inputs + units)])
    order = [0, 2, 1, 3]  # from i, f, c, o to i, c, f, o
    stacked = np.concatenate([inner.reshape(4, units, inputs), recurrent.reshape(4, units, units)], axis=2)[order]
    kernel = stacked.transpose(2, 0, 1).reshape(inputs + units, 4 * units)
    return kernel, biases.reshape(2, 4, units).sum(axis=0)[order].ravel()


def opaque_kernel_from_lstm(kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The inverse of `lstm_from_opaque_kernel`: float32 [4·units·(inputs + units) + 8·units].

    Half of each bias goes to W and half to R, as cuDNN's training leaves them when both start at 0.
    """
    units = bias.shape[0] // 4
    order = [0, 2, 1, 3]  # from i, c, f, o to i, f, c, o
    gates = kernel.reshape(-1, 4, units).transpose(1, 2, 0)[order]  # [4, units, inputs + units]
    inputs = kernel.shape[0] - units
    total = bias.reshape(4, units)[order]
    half = (0.5 * total).astype(np.float32)
    return np.concatenate([part.ravel() for part in (gates[..., :inputs], gates[..., inputs:], half, total - half)])


if __name__ == "__main__":  # the command lives elsewhere: what runs here is a second copy of this module
    import sys

    from rstg_tf.release_tool import main

    sys.exit(main(sys.argv[1:]))
