"""What is in a checkpoint, and our weights as a checkpoint of the release.

    python -m rstg_tf.release PATH [--json]
    python -m rstg_tf.release export-tf1 --model_dir=RUN [--checkpoint=STEP|best] --out=PREFIX

The first lists the variables of a TF1 checkpoint (its prefix or folder), or a run's weights under the names that they
have there, and says which flag file of the present folder describes their model. Exit codes: 0 one fits, as it is or
with the flags named; 1 none fits; 2 no checkpoint there, or wrong use.

The second writes a run's weights (averaged ones where the run keeps an average) as a TF1 checkpoint that the release's
Saver and --restore_dir read. Exit codes: 0 done; 1 failed; 2 wrong use.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags as absl_flags

from rstg_tf.common.command_line import failed
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.shown import printable
from rstg_tf.release.checkpoint_files import WeightFile, find_weights, read_shapes, read_variables
from rstg_tf.runs.run import open_run
from rstg_tf.runs.run_flags import parse_run_flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_DIFFERENCES_SHOWN = 10


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    command = "release"
    try:
        if not arguments or {"--help", "-help", "-h"} & set(arguments):
            print(__doc__)
            return 0 if arguments else 2
        if arguments[0] == "export-tf1":
            command = "release export-tf1"
            return export_tf1(arguments[1:])
        return inspect(arguments)
    except (ConfigError, OSError) as error:
        return failed(command, error, code=2 if isinstance(error, ConfigError) else 1)


def inspect(arguments: Sequence[str]) -> int:
    """`python -m rstg_tf.release PATH`: lists the variables, says which flag file fits; returns the exit code."""
    paths = [argument for argument in arguments if argument != "--json"]
    if len(paths) != 1 or paths[0].startswith("-"):
        raise ConfigError(f"expected one PATH, and --json if wanted; got {' '.join(arguments)}.")
    found = examine(find_weights(paths[0]))
    if "--json" in arguments:
        print(json.dumps(found))
    else:
        _print(found)
    return 0 if any(not fit["differences"] for fit in found["fits"]) else 1


def examine(source: WeightFile) -> dict:
    """Everything that `inspect` says, as one JSON object."""
    from rstg_tf.release import config_matching
    from rstg_tf.release.name_parts import kind_of

    shapes, step = _shapes(source)
    variables = [
        {
            "name": name,
            "kind": kind_of(name),
            "shape": list(shape),
            "dtype": dtype.name,
            "values": math.prod(shape),
            "bytes": math.prod(shape) * dtype.itemsize,
        }
        for name, (shape, dtype) in shapes.items()
    ]
    plain = {name: shape for name, (shape, _) in shapes.items()}
    if source.run is not None:
        settings = config_matching.settings_from_config(source.run.config)
    else:
        settings = config_matching.settings_from_weights(plain)
    files, faulty = config_matching.read_flag_files() if settings else ({}, {})
    fits = config_matching.compare(settings, _weights_alone(plain), files) if settings else []
    return {
        "path": source.path,
        "what": source.describe(),
        "step": step,
        "variables": variables,
        "settings": {flag: list(values) for flag, values in settings.items()},
        "unknown": config_matching.unknown_settings(settings),
        "flag_files": list(files),
        "unreadable_flag_files": faulty,
        "fits": [
            {
                "file": fit.file,
                "changes": dict(fit.changes),
                "flags": fit.changes_as_flags(),
                "differences": list(fit.differences),
            }
            for fit in fits
        ],
    }


def _shapes(source: WeightFile) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype]], int]:
    if source.run is not None:
        from rstg_tf.release.warm_start import read_tensors

        tensors, step = read_tensors(source)
        return {name: (value.shape, value.dtype) for name, value in tensors.items()}, step
    shapes = read_shapes(source.prefix)
    counters = read_variables(source.prefix, lambda name: name == "global_step")
    return shapes, int(counters.get("global_step", -1))


def _weights_alone(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Without slots, constants and counters; an LSTM of which only cuDNN's buffer is there counts as its pair."""
    from rstg_tf.release.name_parts import LSTM_CELL, kind_of

    weights = {name: shape for name, shape in shapes.items() if kind_of(name) == "weights"}
    for name, shape in shapes.items():
        pair = name.replace("cudnn_lstm/opaque_kernel", LSTM_CELL)
        if kind_of(name) == "cuDNN buffers" and f"{pair}/kernel" not in weights:
            units = round(math.sqrt(shape[0] / 8 + 0.25) - 0.5)  # nodes are as wide as the LSTM: 8·units² + 8·units
            weights |= {f"{pair}/kernel": (2 * units, 4 * units), f"{pair}/bias": (4 * units,)}
    return weights


def _print(found: dict) -> None:
    step = f"step {found['step']}" if found["step"] >= 0 else "no step"
    print(f"{found['what']}, {step}")
    kinds: dict[str, list[dict]] = {}
    for variable in found["variables"]:
        kinds.setdefault(variable["kind"], []).append(variable)
    for kind in sorted(kinds, key=lambda kind: kind != "weights"):
        members = kinds[kind]
        print(
            f"{kind}: {len(members)}, {sum(row['values'] for row in members):,} values, "
            f"{sum(row['bytes'] for row in members) / 2**20:.2f} MiB"
        )
        if kind == "optimiser slots":
            continue  # a weight's name and /Momentum each
        width = max(len(row["name"]) for row in members)
        for row in members:
            print(f"  {printable(row['name']):{width}}  {row['values']:>12,}  {row['shape']}")
    for line in _verdict(found):
        print(printable(line))


def _verdict(found: dict) -> list[str]:
    from rstg_tf.release.config_matching import as_flag

    if not found["settings"]:
        return ["configuration: none of the release's backbones is in it"]
    shown = {
        flag: tuple(values[0]) if isinstance(values[0], list) else values[0]
        for flag, values in found["settings"].items()
    }
    lines = [
        "configuration: "
        + " ".join(
            "|".join([as_flag(flag, value), *map(str, found["settings"][flag][1:])]) for flag, value in shown.items()
        )
    ]
    if found["unknown"]:
        lines.append(f"not told by weights: {', '.join(found['unknown'])}")
    lines += [f"not compared: {fault}" for fault in found["unreadable_flag_files"].values()]
    if not found["flag_files"]:
        return [*lines, "fits: no *.flags or configs/*.flags in this folder to compare with"]
    exact = [fit["file"] for fit in found["fits"] if not fit["differences"] and not fit["changes"]]
    if exact:
        return [*lines, f"fits: {', '.join(exact)}"]
    nearest = found["fits"][0]
    lines.append(f"fits: none of the {len(found['flag_files'])} flag files here as it is; nearest: {nearest['file']}")
    if nearest["changes"]:
        lines.append(f"  with {nearest['flags']}")
    differences = nearest["differences"]
    if not differences:
        return [*lines, "  the model has then just these weights"]
    shown = [f"  differs: {difference}" for difference in differences[:_DIFFERENCES_SHOWN]]
    hidden = len(differences) - len(shown)
    return [*lines, *shown, *([f"  and {hidden} more"] if hidden else [])]


def export_tf1(arguments: Sequence[str]) -> int:
    """`… export-tf1`: a run's weights as a checkpoint of the release; returns the exit code."""
    flags = parse_run_flags(arguments, _define_flags, description=__doc__)
    if flags is None:
        return 0
    if flags["precision"].present:
        raise ConfigError("--precision has no effect here: weights are float32 whatever the run was trained in.")
    if not flags.out:
        raise ConfigError("--out is missing: give the prefix to write, such as checkpoints/ours/model.ckpt.")
    run = open_run(flags.model_dir, flags.checkpoint)
    from rstg_tf.release.writer import unlike_the_release, write_checkpoint

    model, step = run.load_model()
    written = write_checkpoint(model, flags.out, step=step)
    print(
        f"{written.prefix}: {written.weights} weights ({written.values:,} values), global_step {step}, "
        f"{written.constants} constants, {written.cudnn_buffers} cuDNN buffers; no optimiser slots"
    )
    ours = unlike_the_release(run.config.model)
    if ours:
        print(f"the release computes something else with these weights: it has no {', '.join(ours)}")
    print(
        json.dumps(
            {
                "checkpoint": written.prefix,
                "model_dir": str(run.path),
                "step": step,
                "weights": written.weights,
                "values": written.values,
                "constants": written.constants,
                "cudnn_buffers": written.cudnn_buffers,
                "unlike_the_release": ours,
            }
        )
    )
    return 0


def _define_flags(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("out", "", "prefix of the checkpoint to write, such as DIR/model.ckpt", flag_values=flags)
