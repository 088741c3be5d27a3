"""Starts a model from other weights: those of a run of ours or of a TF1 checkpoint of the release.

Both are read as tensors under the release's names, so that any two models share what they name alike. Which of the
model's parts (see `parts.parts_of`) are to come from there is the scope:

    scope         to be loaded                  may be missing                      else in the checkpoint
    all           every weight                  nothing                             an error
    backbone      convolutions and non-local    a whole non-local block             left
                  blocks
    except_head   all but the classifier        a whole non-local block, graph or   left
                                                baseline's LSTM

What may be missing keeps its initial values. An error, whatever the scope: a weight of another shape, a part of which
only some weights are there, and a checkpoint with nothing to load. Nothing is changed before all of this is known.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from rstg_tf import release
from rstg_tf.common.errors import ConfigError
from rstg_tf.release.checkpoint_files import WeightFile, read_variables, weights_to_restore
from rstg_tf.release.name_parts import BESIDE, kind_of, parts_of
from rstg_tf.release.names import Entry, weight_entries

NAMES_SHOWN = 3  # of a part, in what is printed
SHAPES_SHOWN = 5  # of those that do not fit


class Scope(NamedTuple):
    """A row of the table above: patterns of the parts to load and of those that may be missing."""

    loads: str
    may_lack: str = "never"
    leaves_rest: bool = True


_GROWN = r"non-local .*|graph .*|mean_lstm|conv_lstm"
SCOPES = {
    "all": Scope(loads=r".*", leaves_rest=False),
    "backbone": Scope(loads=r"conv\d+|res\d|non-local .*", may_lack=r"non-local .*"),
    "except_head": Scope(loads=r"(?!classifier$).*", may_lack=_GROWN),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a scope does with a checkpoint. Values are the release's names; `faults` are sentences without a stop."""

    loaded: tuple[Entry, ...]
    not_found: tuple[str, ...]  # to be loaded, but not in the checkpoint
    kept: tuple[str, ...]  # of the model, outside the scope
    left: tuple[str, ...]  # weights of the checkpoint that are not used
    beside: Mapping[str, int]  # row of parts.BESIDE -> variables in the checkpoint
    faults: tuple[str, ...]


def restore_weights(model, path: str, *, scope: str = "all", say: Callable[[str], None] = print) -> int:
    """Sets the weights of `model` that `scope`, a row of SCOPES, takes from the run or TF1 checkpoint at `path`.

    Says what was loaded, what was left in the checkpoint and what was not found there. Averaged weights where a run
    keeps an average. Returns the step of the weights, -1 where the checkpoint has none. Raises ConfigError, before
    anything is changed, where there is no checkpoint or where it does not fit.
    """
    source = weights_to_restore(path)
    try:
        tensors, step = read_tensors(source)
    except ConfigError as error:
        raise ConfigError(f"--restore_dir={path}: {error}") from error
    entries = weight_entries(model)
    plan = make_plan(entries, tensors, scope)
    if plan.faults:
        raise ConfigError(
            f"--restore_dir={path} does not fit the model under --restore_scope={scope}: "
            f"{'; '.join(plan.faults)}.{_other_scopes(entries, tensors, scope)}"
        )
    found = release.with_unpacked_lstms(list(plan.loaded), tensors)
    release.assign_entries(list(plan.loaded), {entry.name: found[entry.name] for entry in plan.loaded})
    when = f"step {step}" if step >= 0 else "no step"
    say("\n".join([f"weights of {source.describe()} ({when}), --restore_scope={scope}:", *describe(plan)]))
    return step


def read_tensors(source: WeightFile) -> tuple[dict[str, np.ndarray], int]:
    """Everything in it, under the release's names (of a run: its weights), and the step. Raises ConfigError.

    A run's model is built anew from its settings, on the CPU.
    """
    if source.run is not None:
        with tf.device("CPU:0"):
            model, step = source.run.load_model()
            return release.entry_tensors(weight_entries(model)), step
    tensors = read_variables(source.prefix)
    return tensors, int(tensors.get("global_step", -1))


def make_plan(entries: Iterable[Entry], tensors: Mapping[str, np.ndarray], scope: str) -> Plan:
    """Decides by names and shapes alone; `tensors` may hold anything that has a shape."""
    rules = SCOPES[scope]
    entries = list(entries)
    parts = parts_of(entry.name for entry in entries)
    wanted = [entry for entry in entries if re.fullmatch(rules.loads, parts[entry.name])]
    shapes, faults = _shapes_found(wanted, tensors)
    absent = [entry.name for entry in wanted if entry.name not in shapes]
    present_parts = {parts[entry.name] for entry in wanted if entry.name in shapes}
    not_found = [
        name for name in absent if parts[name] not in present_parts and re.fullmatch(rules.may_lack, parts[name])
    ]
    faults += _missing([name for name in absent if name not in not_found], wanted, present_parts, tensors)
    wrong = [entry for entry in wanted if entry.name in shapes and shapes[entry.name] != tuple(entry.shape)]
    faults += [
        f"{entry.name} has shape {list(shapes[entry.name])}, expected {list(entry.shape)}"
        for entry in wrong[:SHAPES_SHOWN]
    ]
    if len(wrong) > SHAPES_SHOWN:
        faults.append(f"{len(wrong) - SHAPES_SHOWN} more of another shape")
    used = {entry.name for entry in wanted}
    left = [name for name in sorted(tensors) if kind_of(name) == "weights" and name not in used]
    if left and not rules.leaves_rest:
        faults.append(f"not used of it: {grouped(left)}")
    kinds = Counter(kind_of(name) for name in tensors)
    return Plan(
        loaded=tuple(entry for entry in wanted if entry.name in shapes),
        not_found=tuple(not_found),
        kept=tuple(entry.name for entry in entries if entry.name not in used),
        left=tuple(left),
        beside={kind: kinds[kind] for kind in BESIDE if kinds[kind]},
        faults=tuple(faults),
    )


def _shapes_found(entries: list[Entry], tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, tuple], list[str]]:
    """Name -> shape of what is there, where an LSTM may be there as cuDNN's buffer; and what is wrong with those."""
    try:
        found = release.with_unpacked_lstms(entries, tensors)
    except ValueError as error:
        return {name: tuple(value.shape) for name, value in tensors.items()}, [str(error).rstrip(".")]
    return {name: tuple(value.shape) for name, value in found.items()}, []


def _missing(names: list[str], wanted: list[Entry], present_parts: set[str], tensors) -> list[str]:
    if not names:
        return []
    if not present_parts:
        prefixes = [_prefix(found) for found in ((entry.name for entry in wanted), _weights(tensors))]
        return [
            f"none of the {len(wanted)} weights to be loaded is in it (it holds {prefixes[1]}, the model has "
            f"{prefixes[0]})"
        ]
    return [f"missing in it: {grouped(names)}"]


def _weights(tensors) -> list[str]:
    return [name for name in tensors if kind_of(name) == "weights"]


def _prefix(names: Iterable[str]) -> str:
    """'tower/resnet_i3d/…', the beginning that most names share; 'no weights' where there are none."""
    beginnings = Counter("/".join(name.split("/")[:2]) for name in names)
    return f"{beginnings.most_common(1)[0][0]}/…" if beginnings else "no weights"


def _other_scopes(entries: list[Entry], tensors, refused: str) -> str:
    plans = {scope: make_plan(entries, tensors, scope) for scope in SCOPES if scope != refused}
    hints = [
        f" --restore_scope={scope} would load {len(plan.loaded)} of the model's {len(entries)} weights."
        for scope, plan in plans.items()
        if not plan.faults
    ]
    return "".join(hints)


def describe(plan: Plan) -> list[str]:
    """A line each: loaded, left in the checkpoint, not found in it, kept because of the scope, beside the weights."""
    values = sum(math.prod(entry.shape) for entry in plan.loaded)
    loaded = counted(entry.name for entry in plan.loaded)
    beside = ", ".join(f"{kind} {count}" for kind, count in plan.beside.items())
    lines = [
        f"  loaded     {len(plan.loaded)} weights, {values:,} values: {loaded}",
        f"  left       {len(plan.left)} weights of the checkpoint{_listed(plan.left)}",
        f"  not found  {len(plan.not_found)} weights of the model"
        f"{_listed(plan.not_found)}{', which keep their initial values' if plan.not_found else ''}",
    ]
    if plan.kept:
        lines.append(
            f"  kept       {len(plan.kept)} weights of the model outside the scope, with their initial values"
            f"{_listed(plan.kept)}"
        )
    return lines + ([f"  beside     {beside}"] if beside else [])


def _listed(names: Iterable[str]) -> str:
    return f": {grouped(names)}" if names else ""


def counted(names: Iterable[str]) -> str:
    """'conv1 5, res2 50, graph final 27'"""
    return ", ".join(f"{part} {count}" for part, count in Counter(parts_of(names).values()).items())


def grouped(names: Iterable[str]) -> str:
    """The parts with their counts and a few names: 'classifier 2 (kernel, bias), graph res3 40 (a/b, c, d, …)'."""
    found: dict[str, list[str]] = {}
    for name, part in parts_of(names).items():
        found.setdefault(part, []).append(name)
    return ", ".join(f"{part} {len(members)} ({_few(members)})" for part, members in found.items())


def _few(names: list[str]) -> str:
    shown = ["/".join(name.split("/")[-2:]) for name in names[:NAMES_SHOWN]]
    return ", ".join([*shown, "…"] if len(names) > NAMES_SHOWN else shown)
