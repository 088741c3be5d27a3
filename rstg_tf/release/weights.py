"""The release's weights -> ours, and back: from arrays under its names, or from its TF1 checkpoints.

Needs no TensorFlow until it meets a model or a checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rstg_tf.release.checkpoint_files import checkpoint_prefix, read_variables
from rstg_tf.release.name_parts import LSTM_CELL, kind_of

if TYPE_CHECKING:
    from rstg_tf.release.names import Entry


def assign_weights(model, tensors: Mapping[str, np.ndarray]) -> None:
    """Sets every weight of `model` from arrays under the release's names (a trailing ':0' is allowed).

    Raises ValueError, before anything is changed, that lists every needed name that is missing or has another shape and
    every given name that fits nothing. Optimiser slots, cuDNN's opaque_kernel and constants may be there and are not
    used, except that an opaque_kernel stands in for the pair of LSTM variables where those are missing.
    """
    from rstg_tf.release.names import model_entries

    assign_entries(model_entries(model), tensors)


def assign_entries(entries: list[Entry], tensors: Mapping[str, np.ndarray]) -> None:
    """`assign_weights` for the rows of any part, such as `names.graph_entries(prefix, graph)` of a layer."""
    given = {name[:-2] if name.endswith(":0") else name: np.asarray(value) for name, value in tensors.items()}
    given = with_unpacked_lstms(entries, given)
    faults = [_fault(entry, given) for entry in entries]
    needed = {entry.name for entry in entries}
    faults += [
        f"{name} fits no weight of this model"
        for name in sorted(given)
        if name not in needed and kind_of(name) == "weights"
    ]
    faults = [fault for fault in faults if fault]
    if faults:
        shown = "\n  ".join(faults[:20])
        raise ValueError(f"these tensors do not fit the model ({len(faults)} faults):\n  {shown}")
    buffers = {}
    for entry in entries:
        for target in entry.targets:
            variable, buffer = buffers.setdefault(
                id(target.variable), (target.variable, np.zeros(target.variable.shape, np.float32))
            )
            part = given[entry.name].reshape(entry.shape[entry.leading :])[target.rows]
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
    from rstg_tf.release.names import model_entries

    return entry_tensors(model_entries(model))


def entry_tensors(entries: list[Entry]) -> dict[str, np.ndarray]:
    """`release_tensors` for the rows of any part."""
    tensors = {}
    for entry in entries:
        array = np.zeros(entry.shape[entry.leading :], np.float32)
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
    return f"{entry.name[: -len(LSTM_CELL) - len('/kernel')]}cudnn_lstm/opaque_kernel"


def with_unpacked_lstms(entries: list[Entry], given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`given`, and the kernel and bias of every LSTM of which it holds cuDNN's buffer alone.

    Source: docs/release.md, 'Variable names in checkpoints'.
    """
    found = dict(given)
    for entry in entries:
        opaque = opaque_name(entry)
        if opaque in given and entry.name not in given:
            rows, columns = entry.shape
            units = columns // 4
            kernel, bias = lstm_from_opaque_kernel(given[opaque], inputs=rows - units, units=units, name=opaque)
            found[entry.name] = kernel
            found[f"{entry.name[: -len('kernel')]}bias"] = bias
    return found


def opaque_kernels(entries: list[Entry], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> cuDNN's buffer of every LSTM among the rows, made from the kernel and bias in `tensors`."""
    kernels = {opaque_name(entry): entry.name for entry in entries}
    return {
        opaque: opaque_kernel_from_lstm(tensors[kernel], tensors[f"{kernel[: -len('kernel')]}bias"])
        for opaque, kernel in kernels.items()
        if opaque is not None
    }


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
