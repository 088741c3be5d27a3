"""What `datasets.something_something` and `datasets.video_folder` share as commands: flags, exit codes, last line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from datasets.records.manifest import DatasetError
from datasets.records.parallel_shards import KEPT
from datasets.records.shard_notes import REJECTED_FILE, TooManyRejectedError
from datasets.videos.read_back import LOW
from datasets.videos.sources import SourceLimits
from datasets.videos.writing import VIDEOS_PER_SHARD, Written
from rstg_tf.common.command_line import failed, parse_flags
from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.common.flag_files import FlagValues
from rstg_tf.video.limits import define_limit_flags, limits_from_flags

_WRITING_FLAGS = ("videos_per_shard", "num_processes", "worker_index", "num_workers", "max_bad_fraction", "seed")


def define_writing_flags(values: absl_flags.FlagValues) -> None:
    """The flags that become arguments of `write_videos`."""
    text = {"flag_values": values}
    absl_flags.DEFINE_string("out_dir", None, "folder for shards and manifest", **text)
    absl_flags.DEFINE_integer("seed", 0, "of the order of the videos in the shards, and of random splits", **text)
    absl_flags.DEFINE_integer("videos_per_shard", VIDEOS_PER_SHARD, "videos whose clips lie in one file", **text)
    absl_flags.DEFINE_integer("num_processes", 0, "that read videos; 0: one per usable core, 1: none but this", **text)
    absl_flags.DEFINE_integer(
        "num_workers",
        1,
        "machines that share the work, all with the same other flags and the "
        "same --out_dir (or copy their folders into one, and give the command there)",
        **text,
    )
    absl_flags.DEFINE_integer(
        "worker_index", 0, "which of them this is, from 0; the last to be ready completes the data set", **text
    )
    absl_flags.DEFINE_float(
        "max_bad_fraction",
        0.001,
        "share of the videos that may be unreadable, truncated, empty "
        "or without a label before the command fails; they are listed in rejected.csv",
        **text,
    )
    define_limit_flags(values)
    limits = SourceLimits()
    absl_flags.DEFINE_integer(
        "max_video_bytes",
        limits.video_bytes,
        "at most so many bytes of JPEG of one video, which are held at once; a longer one that is cut into clips needs "
        "more, and memory",
        lower_bound=1,
        **text,
    )
    absl_flags.DEFINE_integer(
        "max_memory",
        limits.memory,
        "at most so many bytes of memory for each process that reads videos; no fewer than 1 GiB and three times "
        "--max_video_bytes",
        lower_bound=1,
        **text,
    )
    absl_flags.DEFINE_boolean("help", False, "show the flags", short_name="h", **text)


def writing_arguments(values: absl_flags.FlagValues) -> dict[str, Any]:
    """The arguments of `write_videos` that `define_writing_flags` defined, `out_dir` excluded."""
    limits = SourceLimits(media=limits_from_flags(values), video_bytes=values.max_video_bytes, memory=values.max_memory)
    return {"limits": limits, **{name: values[name].value for name in _WRITING_FLAGS}}


def require_flags(values: absl_flags.FlagValues, *names: str) -> None:
    """Raises ConfigError naming the first of these flags that has no value."""
    for name in names:
        if not values[name].value:
            raise ConfigError(f"--{name} is missing: {values[name].help}.")


def run_command(
    arguments: Sequence[str],
    *,
    name: str,
    description: str,
    define_flags: Callable[[absl_flags.FlagValues], None],
    run: Callable[[absl_flags.FlagValues], dict[str, Any]],
) -> int:
    """Parses the flags, calls `run`, prints what it returns as a line of JSON; returns the exit code.

    0: done; 1: the data or the machine is at fault; 2: wrong use.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs harmless lines as errors when there is no GPU
    values = FlagValues()
    define_flags(values)
    try:
        parse_flags(values, arguments)
        if values.help:
            print(description + values.get_help())
            return 0
        summary = run(values)
    except (ConfigError, DatasetError, VideoError) as error:
        return failed(name, error, code=2)
    except TooManyRejectedError as error:
        return failed(name, error, code=1)
    except OSError as error:
        return failed(name, error, code=1, mending=f"{KEPT.capitalize()}.")
    print(json.dumps(summary))
    return 0


def summarize(written: Written, out_dir: str, *, name: str) -> dict[str, Any]:
    """The command's last line; says on stderr if other machines have yet to finish."""
    if written.manifest is None:
        print(
            f"{name}: this worker's shards are written; {written.missing_shards} of the others' are missing in "
            f"{out_dir}. The last worker to be ready completes the data set; so does this command when it is given "
            "again then.",
            file=sys.stderr,
        )
        return {
            "out_dir": out_dir,
            "complete": False,
            "missing_shards": written.missing_shards,
            "rejected": written.num_rejected,
        }
    manifest = written.manifest
    if written.num_rejected:
        print(
            f"{name}: {written.num_rejected} videos cannot be used; {Path(out_dir, REJECTED_FILE)} says why.",
            file=sys.stderr,
        )
    lowest = written.lowest
    if lowest is not None and lowest.value < LOW:
        print(
            f"{name}: warning: of a sample of the stored frames, frame {lowest.frame} of {lowest.media_id} is like "
            f"its source by {lowest.value:.3f} only (structural similarity; expected at least {LOW}): look at it.",
            file=sys.stderr,
        )
    return {
        "out_dir": out_dir,
        "complete": True,
        "split": manifest.split,
        "clips": manifest.num_clips,
        "rejected": written.num_rejected,
        "classes": len(manifest.classes),
        "shards": len(manifest.shards),
        "lowest_ssim": lowest and lowest.value,
    }
