"""The command `python -m datasets.sync_mnist`: writes clips of moving digits, two of which move in step.

    python -m datasets.sync_mnist --split=test --digits=sklearn --out_dir=data/sync_mnist_test

The label names the two digits, or says that none are in step. Without further flags the clips are as in the authors'
release: 5 of 10 digits on a canvas of 100 pixels shrunk to 64, 10 frames, 46 classes. Which clips are written depends
on the settings, the digits, the seed and the split, not on the number of shards or workers. An interrupted command
continues when it is given again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from datasets.records.manifest import DatasetError
from datasets.records.parallel_shards import KEPT
from datasets.sync_mnist.digits import SPLITS
from datasets.sync_mnist.plans import SyncMnistSettings
from datasets.sync_mnist.presets import PRESETS
from datasets.sync_mnist.writing import CLIPS_PER_SHARD, write_dataset
from rstg_tf.common.command_line import failed, parse_flags, run_program
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.flag_files import FlagValues

NAME = "datasets.sync_mnist"


_SETTING_HELP = {
    "num_digits": "digits per clip",
    "digit_classes": "4: only the digits 0 to 3",
    "canvas": "side of the square that the digits move on, pixels",
    "frame_size": "side of the frames, to which the canvas is shrunk, pixels",
    "num_frames": "frames per clip",
    "max_move": "largest move per frame and axis, pixels of the canvas",
    "out_of_step_share": "share of clips in which no pair moves in step",
    "twin_clips": "clips 2m and 2m+1 show the same digits under different labels, so that recognising digits "
    "alone is right at most every second time; any two digits may be the pair, not only the first two",
    "no_noise_parts": "number of moving parts of digits that disturb",
    "noise_parts_size": "side of such a part, pixels of the canvas",
}


def _define_flags(values: absl_flags.FlagValues) -> None:
    text = {"flag_values": values}
    preset_help = "gives the flags that are not set their values; those shown here are release's"
    absl_flags.DEFINE_enum("preset", "release", list(PRESETS), preset_help, **text)
    absl_flags.DEFINE_enum("split", None, SPLITS, "train or test: made of different digit images", **text)
    absl_flags.DEFINE_string("out_dir", None, "folder for this split's shards and manifest", **text)
    absl_flags.DEFINE_string("digits", None, "sklearn, mnist, or idx:DIR with MNIST's IDX files [mnist]", **text)
    absl_flags.DEFINE_string("paths", None, "the release's pickle of predefined paths, in place of random ones", **text)
    absl_flags.DEFINE_integer("num_clips", None, "clips [all of --paths; else 600000 train, 10000 test]", **text)
    absl_flags.DEFINE_integer("seed", 0, "of the random clips", **text)
    absl_flags.DEFINE_integer("num_shards", 0, f"files to write; 0: one per {CLIPS_PER_SHARD} clips", **text)
    absl_flags.DEFINE_integer("num_workers", 0, "processes that draw; 0: one per usable core", **text)
    define = {bool: absl_flags.DEFINE_boolean, int: absl_flags.DEFINE_integer, float: absl_flags.DEFINE_float}
    for field in dataclasses.fields(SyncMnistSettings):
        shown = "1/92" if field.name == "out_of_step_share" else field.default
        define[type(field.default)](field.name, None, f"{_SETTING_HELP[field.name]} [{shown}]", **text)
    absl_flags.DEFINE_boolean("help", False, "show the flags", short_name="h", **text)


def _arguments_from_flags(values: absl_flags.FlagValues) -> dict[str, Any]:
    """The arguments of `write_dataset`: the preset's, with what was given on the command line on top."""
    for flag in ("split", "out_dir"):
        if not values[flag].value:
            raise ConfigError(f"--{flag} is missing: {values[flag].help}.")
    preset = PRESETS[values.preset].arguments(values.split)
    given = {field.name: values[field.name].value for field in dataclasses.fields(SyncMnistSettings)}
    given = {name: value for name, value in given.items() if value is not None}
    names = ("out_dir", "paths", "seed", "num_shards", "num_workers")
    arguments = {**preset, **{name: values[name].value for name in names}}
    arguments["settings"] = dataclasses.replace(preset["settings"], **given)
    if values.paths:
        arguments["num_clips"] = None
    for name in ("digits", "num_clips"):
        if values[name].value is not None:
            arguments[name] = values[name].value
    return arguments


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs harmless lines as errors when there is no GPU
    values = FlagValues()
    _define_flags(values)
    try:
        parse_flags(values, arguments)
        if values.help:
            print(__doc__ + values.get_help())
            return 0
        chosen = _arguments_from_flags(values)
        manifest = write_dataset(**chosen)
    except (ConfigError, DatasetError) as error:
        return failed(NAME, error, code=2)
    except OSError as error:
        return failed(NAME, error, code=1, mending=f"{KEPT.capitalize()}.")
    print(
        json.dumps(
            {
                "out_dir": os.fspath(chosen["out_dir"]),
                "split": manifest.split,
                "clips": manifest.num_clips,
                "classes": len(manifest.classes),
                "shards": len(manifest.shards),
                "best_guess_from_digits": round(manifest.made_by["best_guess_from_digits"], 4),
            }
        )
    )
    return 0


if __name__ == "__main__":
    run_program(main, name=NAME, interrupted=f"{KEPT}.")
