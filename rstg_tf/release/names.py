"""Which variable of the authors' release holds which of our weights: the table that `release` goes by.

A row (`Entry`) is one variable of the release, with its name and shape there, and the part of one or more of our
weights that it fills. LSTM gates lie in the order i, c, f, o there and i, f, c, o in Keras; 1×1 convolutions keep
their spatial axes there; every attention head has variables of its own there, ours lie side by side.

Source: docs/release.md, 'Variable names in checkpoints'.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rstg_tf.backbones.bottleneck import Bottleneck
from rstg_tf.backbones.nonlocal_block import NonLocalBlock
from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.backbones.resnet50_stages import STAGES
from rstg_tf.layers.heads import FrameLSTMHead
from rstg_tf.layers.normalization import BatchNorm
from rstg_tf.release.name_parts import LSTM_CELL

EVERYTHING = (slice(None),)


class Target(NamedTuple):
    """`variable[index]` equals the release's array (without leading axes of 1) at `[rows]`, last axis in `order`."""

    variable: Any
    index: tuple = EVERYTHING
    rows: slice = slice(None)
    order: np.ndarray | None = None


class Entry(NamedTuple):
    """One variable of the release: full name, shape there, how many leading axes of 1 it has, what it fills."""

    name: str
    shape: tuple[int, ...]
    leading: int
    targets: tuple[Target, ...]


def _whole(name: str, variable, leading: int = 0) -> Entry:
    return Entry(name, (1,) * leading + tuple(variable.shape), leading, (Target(variable),))


def _dense(name: str, layer, leading: int = 0) -> Iterator[Entry]:
    yield _whole(f"{name}/kernel", layer.kernel, leading)
    yield _whole(f"{name}/bias", layer.bias)


def norm_entries(prefix: str, norm) -> Iterator[Entry]:
    """Rows of a norm, whose name in the release ends in _ln or _bn; none where there is no norm."""
    if norm is None:
        return
    batch_norm = isinstance(norm, BatchNorm)
    name = f"{prefix}_bn" if batch_norm else f"{prefix}_ln"
    parts = ["gamma", "beta", "moving_mean", "moving_variance"] if batch_norm else ["beta", "gamma"]
    for part in parts:
        yield _whole(f"{name}/{part}", getattr(norm, part))


def _lstm(prefix: str, stage) -> Iterator[Entry]:
    cell, units = stage.lstm.cell, stage.units
    inputs = cell.kernel.shape[0]
    gate = np.arange(4 * units).reshape(4, units)
    order = gate[[0, 2, 1, 3]].ravel()  # release columns i, c, f, o in Keras' order i, f, c, o
    yield Entry(
        f"{prefix}{LSTM_CELL}/kernel",
        (inputs + units, 4 * units),
        0,
        (
            Target(cell.kernel, rows=slice(0, inputs), order=order),
            Target(cell.recurrent_kernel, rows=slice(inputs, None), order=order),
        ),
    )
    yield Entry(f"{prefix}{LSTM_CELL}/bias", (4 * units,), 0, (Target(cell.bias, order=order),))


def _attention(prefix: str, attention) -> Iterator[Entry]:
    sides = (("att_conv1", attention.receiver), ("att_conv2", attention.sender))
    if not attention.projects_messages:
        scope = f"{prefix}{'my_attn' if attention.kind == 'simple' else 'dot_product_attn'}"
        for name, layer in sides:
            yield from _dense(f"{scope}/{name}", layer, leading=1)
        yield _whole(f"{scope}/att_bias/biases", attention.bias)
        yield from norm_entries(f"{scope}/att", attention.norm)
        return
    heads = attention.heads
    for head, kernel in enumerate(attention.head_kernels):
        scope = f"{prefix}attention_head{head}"
        yield _whole(f"{scope}/messages_proj/kernel", kernel, leading=2)
        yield _slice(f"{scope}/messages_proj/bias", attention.head_bias, head, heads)
        for name, layer in sides:
            yield _slice(f"{scope}/dot_product_attn/{name}/kernel", layer.kernel, head, heads, leading=1)
            yield _slice(f"{scope}/dot_product_attn/{name}/bias", layer.bias, head, heads)
        yield _slice(f"{scope}/dot_product_attn/att_bias/biases", attention.bias, head, heads)


def _slice(name: str, variable, head: int, heads: int, leading: int = 0) -> Entry:
    """The columns of one head."""
    *rest, columns = variable.shape
    width = columns // heads
    index = (Ellipsis, slice(head * width, (head + 1) * width))
    return Entry(name, (1,) * leading + (*rest, width), leading, (Target(variable, index),))


def _space(prefix: str, stage) -> Iterator[Entry]:
    messages, update = stage.messages, stage.update
    scope = f"{prefix}send_messages_mlp/"
    yield _whole(f"{scope}send_conv1/kernel", messages.first_kernel, leading=2)
    yield _whole(f"{scope}send_conv1/bias", messages.first_bias)
    yield from _dense(f"{scope}send_conv2", messages.second, leading=2)
    yield from norm_entries(f"{scope}message", messages.norm)
    yield from _attention(prefix, stage.attention)
    scalewise = update.scale_sizes is not None
    scope = f"{prefix}update_node_mlp{'_' if scalewise else ''}/update"
    for scale, branch in enumerate(update.branches, start=1):
        for number, layer in enumerate(branch, start=1):
            yield from _dense(f"{scope}_conv{number}{f'_type{scale}' if scalewise else ''}", layer, leading=1)
    yield from norm_entries(scope, update.norm)


def graph_entries(prefix: str, graph) -> Iterator[Entry]:
    """Rows of one `RecurrentSpaceTimeGraph`; `prefix` ends in 'whole_graph_model_PLACE/'.

    The norms of `stage_norm` are not in the release; their names follow its manner.
    """
    if graph.project is not None:
        yield from _dense(f"{prefix}project_i3d", graph.project)
    if graph.input_norm is not None:
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            yield _whole(f"{prefix}batch_normalization/{part}", getattr(graph.input_norm, part))
    yield from norm_entries(f"{prefix}before_graf", graph.before_norm)
    if graph.resize is not None:
        yield from _dense(f"{prefix}conv2d", graph.resize, leading=2)
        yield from norm_entries(f"{prefix}before_graf2", graph.resize_norm)
    for stage, role in (("space_stage", "space"), ("time_stage", "intern"), ("last_time_stage", "extern")):
        norm = getattr(graph.stage_norms, stage, None)
        if norm is not None:
            yield _whole(f"{prefix}{role}_stage_norm/gamma", norm.gamma)
            yield _whole(f"{prefix}{role}_stage_norm/beta", norm.beta)
    if graph.time_stage is not None:
        yield from _lstm(prefix, graph.time_stage)
    if graph.space_stage is not None:
        yield from _space(prefix, graph.space_stage)
    if graph.last_time_stage is not None:
        yield from _lstm(f"{prefix}time_update_extern/", graph.last_time_stage)
    if graph.project_back is not None:
        yield from _dense(f"{prefix}project_back_to_i3d", graph.project_back)


def _frozen_norm(conv: str, norm: str, layer) -> Iterator[Entry]:
    """A convolution and its norm, which are two layers in the release."""
    yield _whole(f"{conv}/kernel", layer.kernel)
    if layer.bias is not None:
        yield _whole(f"{conv}/bias", layer.bias)
    for part in ("gamma", "beta", "moving_mean", "moving_variance"):
        yield _whole(f"{norm}/{part}", getattr(layer, part))


def _after_graph(name: str, norm) -> Iterator[Entry]:
    """Rows of an `AfterGraphNorm`; `name` ends in 'after_graph'."""
    if norm.scale is not None:  # LN, over all steps or per step
        yield _whole(f"{name}_ln/beta", norm.norm.beta)
        yield _whole(f"{name}_ln_scale", norm.scale)
    else:
        yield from norm_entries(name, norm.norm)


def _resnet(prefix: str, backbone) -> Iterator[Entry]:
    """Rows of a `ResNet50` with all that sits inside its stages; `prefix` ends in 'backbone/'."""
    yield from _frozen_norm(f"{prefix}conv1", f"{prefix}res_conv1_bn", backbone.conv1)
    for part in (part for stage in STAGES for part in backbone.parts(stage)):
        if isinstance(part, Bottleneck):
            branches = {"2a": part.reduce, "2b": part.spatial, "2c": part.expand, "1": part.shortcut}
            for branch, layer in branches.items():
                name = f"{prefix}{part.name}_branch{branch}"
                if layer is not None:
                    yield from _frozen_norm(name, f"{name}_bn", layer)
        elif isinstance(part, NonLocalBlock):
            name = f"{prefix}{part.name.replace('_res', '_conv')}"
            for role in ("theta", "phi", "g"):
                yield from _dense(f"{name}_{role}", getattr(part, role))
            yield from _frozen_norm(f"{name}_out", f"{name}_bn", part.out)
    for place, placed in backbone.graphs.items():
        yield from graph_entries(f"{prefix}whole_graph_model_{place}/", placed.graph)
        # The release's C2D leaves the place out of the name, and cannot hold two graphs inside its stages therefore.
        short = backbone.variant == "c2d" and len(backbone.graphs) == 1
        yield from _after_graph(f"{prefix}{'' if short else f'{place}_'}after_graph", placed.norm)


def _resnet_model(model) -> Iterator[Entry]:
    prefix = f"tower/resnet_{model.backbone.variant}/"
    yield from _resnet(f"{prefix}backbone/", model.backbone)
    if model.head.graph is not None:
        yield from graph_entries(f"{prefix}whole_graph_model_final/", model.head.graph)
        place = "" if model.backbone.variant == "c2d" else "final_"
        yield from _after_graph(f"{prefix}{place}after_graph", model.head.norm)
    yield from _dense(f"{prefix}pred", model.classifier.dense, leading=3)


def _baseline(head: FrameLSTMHead) -> Iterator[Entry]:
    """Rows of a baseline, which the release does not have; the names follow its manner."""
    prefix = f"tower/{head.name}/"
    if head.convolution is not None:
        yield from _dense(f"{prefix}conv", head.convolution)
    yield from _lstm(prefix, head.lstm)


def weight_entries(model) -> list[Entry]:
    """Every row of a whole model, in the order of the clip's journey: all its weights but dropout's count of calls."""
    if isinstance(model.backbone, ResNet50):
        return list(_resnet_model(model))
    entries = []
    for index, convolution in enumerate(model.backbone.convolutions):
        entries += _dense(f"tower/conv{index}/conv2d", convolution)
    if isinstance(model.head, FrameLSTMHead):
        entries += _baseline(model.head)
    else:
        entries += graph_entries("tower/whole_graph_model_final/", model.head)
    entries += _dense("tower/pred", model.classifier.dense, leading=3)
    return entries


def model_entries(model) -> list[Entry]:
    """The same for a model that the release has. Raises ValueError for the LSTM baselines."""
    if isinstance(model.head, FrameLSTMHead):
        raise ValueError(f"{model.head.name}: the release has no such model, hence no checkpoints of it.")
    return weight_entries(model)
