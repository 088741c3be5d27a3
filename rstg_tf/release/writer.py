"""Our weights as a TF1 checkpoint under the release's names: the inverse of `release.load_checkpoint`.

Beside the weights it holds what the release's own Saver looks for when it restores a model: `global_step`, the
constants (positional maps, area filters) and each LSTM once more as cuDNN's buffer. Optimiser slots are not written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from rstg_tf import release
from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.backbones.resnet50_stages import STAGES
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.files import remove_abandoned, sync_folder, temporary_path, write_text
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.config import ModelConfig
from rstg_tf.layers import regions
from rstg_tf.release.checkpoint_files import owning_run
from rstg_tf.release.names import model_entries

# Settings of the graph that change what it computes and have one value in the release.
_OURS_ALONE = {
    "neighbourhood": "soft",
    "share_stages": False,
    "stage_norm": False,
    "residual_stages": False,
    "node_reduction": "sum",
}


@dataclasses.dataclass(frozen=True)
class Written:
    """What a checkpoint was given. `values`: numbers in all weights."""

    prefix: str
    weights: int
    values: int
    constants: int
    cudnn_buffers: int


def write_checkpoint(model, prefix: str, *, step: int = 0) -> Written:
    """Writes PREFIX.index and PREFIX.data-…, which appear under these names only when they are whole, and names it in
    the folder's file `checkpoint` as the newest.

    float32, bit for bit what the model holds; `global_step` is int32. The filters are those of clips of the size that
    the model was built with. Raises ConfigError if the prefix is taken or lies among a run's own checkpoints, and for
    the LSTM baselines, which the release does not have.
    """
    folder, name = Path(prefix).absolute().parent, Path(prefix).name
    _check_target(prefix, folder, name)
    try:
        entries = model_entries(model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    weights = release.entry_tensors(entries)
    buffers, constants = release.opaque_kernels(entries, weights), dict(graph_constants(model))
    tensors = {**weights, **buffers, **constants, "global_step": np.int32(step)}
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder, name)
    building = temporary_path(folder / name)
    try:
        building.mkdir()
        _write_and_compare(str(building / name), tensors)
        sync_folder(building)
        # The index last: a checkpoint is there when its index is.
        for file in sorted(building.iterdir(), key=lambda file: file.suffix == ".index"):
            file.rename(folder / file.name)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _name_as_newest(folder, name)
    return Written(
        prefix,
        weights=len(weights),
        values=sum(value.size for value in weights.values()),
        constants=len(constants),
        cudnn_buffers=len(buffers),
    )


def _check_target(prefix: str, folder: Path, name: str) -> None:
    if not name or prefix.endswith(os.sep) or Path(prefix).is_dir():
        raise ConfigError(f"--out={prefix}: expected a prefix such as DIR/model.ckpt, not a folder.")
    if Path(f"{prefix}.index").exists():
        raise ConfigError(f"--out={prefix}: {prefix}.index exists; give another prefix, or remove that checkpoint.")
    if owning_run(prefix) is not None:
        raise ConfigError(f"--out={prefix} lies among a run's own checkpoints; give another folder.")


def _write_and_compare(prefix: str, tensors: Mapping[str, np.ndarray]) -> None:
    try:
        tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=[tf.constant(value) for value in tensors.values()],
        )
        reader = tf.train.load_checkpoint(prefix)
        wrong = [name for name, value in tensors.items() if reader.get_tensor(name).tobytes() != value.tobytes()]
    except tf.errors.OpError as error:
        raise OSError(f"{prefix} could not be written: {error.message.splitlines()[0]}") from error
    if wrong:
        raise OSError(
            f"{prefix}: {len(wrong)} variables are read back with other values, {wrong[0]} for one; nothing "
            "was written."
        )


def _name_as_newest(folder: Path, name: str) -> None:
    """By names without a folder, so that it may be moved."""
    state = tf.train.get_checkpoint_state(folder)
    others = [os.path.relpath(path, folder) for path in state.all_model_checkpoint_paths] if state else []
    present = [other for other in others if (folder / f"{other}.index").exists()]
    lines = [
        f"model_checkpoint_path: {_quoted(name)}",
        *(f"all_model_checkpoint_paths: {_quoted(path)}" for path in [*present, name]),
    ]
    write_text(folder / "checkpoint", "\n".join(lines) + "\n")


def _quoted(text: str) -> str:
    """As a string of a text protocol buffer, whose escapes are those of JSON here."""
    return json.dumps(text, ensure_ascii=False)


def graph_constants(model) -> Iterator[tuple[str, np.ndarray]]:
    """Positional maps and area filters, by the names of section 7 of the release."""
    placed = list(_graphs(model))
    sizes = {graph.positional_map_size for _, _, graph, _ in placed} - {0}
    for size in sizes:
        yield "tower/positional_emb", regions.positional_maps(placed[0][2].num_scales, size)
    for prefix, place, graph, (height, width) in placed:
        for grid in regions.grid_sizes(graph.num_scales):
            cells, pixels = (grid, grid), (height, width)
            yield f"{prefix}graph_input/resize/{_filter_name(pixels, cells)}", area_filter(pixels, cells)
            if graph.output_kind == "map":
                scope = f"{prefix}whole_graph_model_{place}/resize/"
                yield f"{scope}{_filter_name(cells, pixels)}", area_filter(cells, pixels)


def _filter_name(source: tuple[int, int], target: tuple[int, int]) -> str:
    return f"resize_filters__{source[0]}_{source[1]}_{target[0]}x{target[1]}"


def area_filter(source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """float32 [target height, target width, source height, source width]"""
    down, right = (regions.area_weights(*axis) for axis in zip(source, target))
    return np.einsum("ih,jw->ijhw", down, right).astype(np.float32)


def _graphs(model) -> Iterator[tuple[str, str, object, tuple[int, int]]]:
    """(scope, place, graph, size of the map that it sees) of each graph of the model."""
    shape = (1, *model.video_shape)
    if not isinstance(model.backbone, ResNet50):
        yield "tower/", "final", model.head, model.backbone.map_shape(shape)[2:4]
        return
    prefix = f"tower/resnet_{model.backbone.variant}/"
    maps = dict(zip((stage.name for stage in STAGES), model.backbone.stage_shapes(shape)))
    for place, placed in model.backbone.graphs.items():
        yield f"{prefix}backbone/", place, placed.graph, maps[place][2:4]
    if model.head.graph is not None:
        yield prefix, "final", model.head.graph, model.backbone.map_shape(shape)[2:4]


def unlike_the_release(config: ModelConfig) -> list[str]:
    """Fields of the model with which the release's graph, given the same weights, would compute something else."""
    graph: GraphConfig = config.graph
    found = [
        f"{field}={getattr(graph, field)}" for field, theirs in _OURS_ALONE.items() if getattr(graph, field) != theirs
    ]
    if graph.time_stages != "all" and not (graph.time_stages == "every" and graph.space_iterations <= 3):
        found.append(f"time_stages={graph.time_stages}")
    if config.backbone == "simple_c2d" and config.backbone_layers != 3:
        found.append(f"num_conv_layers={config.backbone_layers}")
    return found
