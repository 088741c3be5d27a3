"""The command `python -m datasets.something_something`: Something-Something, version 1 or 2, -> shards of one split.

    python -m datasets.something_something --version=v2 --videos=20bn-something-something-v2 \\
        --labels=train.json,labels.json --split=train --out_dir=data/something_v2/train

Version 1 is folders of JPEG frames (DIR/<id>/00001.jpg, …), whose bytes are stored as they are; version 2 is
DIR/<id>.webm, whose frames are stored as JPEG of quality 95 at a short side of at most 256 pixels. All frames are kept:
which of them make a clip, and which part of them, is decided when they are read.

--labels names the official list of the split's videos and the official list of the classes (version 1:
something-something-v1-train.csv,something-something-v1-labels.csv). The authors' checkpoints number the classes
otherwise: for them give the release's pickle in place of the list of classes, or alone, if it lists this split only.

Labelled videos that are missing, unreadable, truncated or empty, and those without a label, are listed in rejected.csv.
An interrupted command continues when it is given again, and takes a mended video in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from datasets.records.parallel_shards import KEPT
from datasets.something_something.labels import KNOWN_COUNTS, NUM_CLASSES, read_labels
from datasets.videos.command_line import define_writing_flags, require_flags, run_command, summarize, writing_arguments
from datasets.videos.sources import VideoSource
from datasets.videos.writing import write_videos
from rstg_tf.common.command_line import run_program
from rstg_tf.common.errors import ConfigError

NAME = "datasets.something_something"
SPLITS = ("train", "validation")
# How a version's videos lie in their folder, and the kind of its official label files.
_ENDINGS = {"v1": "", "v2": ".webm"}
_LABEL_KINDS = {"v1": "csv", "v2": "json"}


def find_videos(videos: str | os.PathLike, *, version: str, labels: Mapping[str, int | None]) -> list[VideoSource]:
    """A source for every labelled video, there or not; videos without a label are no concern of this split.

    Raises:
      ConfigError: no folder, the other version's videos, or not one of the labelled videos.
    """
    try:
        names = {entry.name for entry in os.scandir(videos) if not entry.name.startswith(".")}
    except OSError as error:
        raise ConfigError(f"--videos={videos}: cannot be listed ({error.strerror}).") from None
    ending, example = _ENDINGS[version], next(iter(labels))
    sources = [
        VideoSource(media_id, os.fspath(Path(videos, media_id + ending)), label) for media_id, label in labels.items()
    ]
    if any(media_id + ending in names for media_id in labels):
        return sources
    other = "v2" if version == "v1" else "v1"
    if any(media_id + _ENDINGS[other] in names for media_id in labels):
        raise ConfigError(
            f"--version={version}: --videos={videos} holds the videos of {other} "
            f"({example}{_ENDINGS[other]}); expected {example}{ending}."
        )
    raise ConfigError(
        f"--videos={videos}: holds none of the {len(labels)} labelled videos; it holds {len(names)} "
        f"entries such as {min(names, default='none')!r}, expected such as {example + ending!r}."
    )


def write_split(
    *, version: str, videos: str, label_files: Sequence[str], split: str, out_dir: str, **writing: Any
) -> dict[str, Any]:
    """Writes one split; returns the command's summary. `writing` goes to `write_videos`; errors as documented there.

    Raises:
      ConfigError: flags, labels or videos that do not belong together.
    """
    labels = read_labels(label_files)
    other_kind = "json" if version == "v1" else "csv"
    if other_kind in labels.kinds:
        raise ConfigError(
            f"--version={version} has {_LABEL_KINDS[version].upper()} files of labels, but --labels "
            f"names {label_files[labels.kinds.index(other_kind)]}, a {other_kind.upper()} file as the "
            "other version has."
        )
    sources = find_videos(videos, version=version, labels=labels.videos)
    differences = _count_differences(version, split, len(sources), len(labels.classes))
    for difference in differences:
        print(f"{NAME}: {difference}", file=sys.stderr)
    made_by = {"command": NAME, "version": version, "labels_sha256": list(labels.sha256)}
    written = write_videos(
        sources=sources,
        classes=labels.classes,
        out_dir=out_dir,
        name=f"something_{version}",
        split=split,
        made_by=made_by,
        **writing,
    )
    return {**summarize(written, out_dir, name=NAME), "count_differences": differences}


def _count_differences(version: str, split: str, num_videos: int, num_classes: int) -> list[str]:
    """What differs from the counts of the whole data set: right for a part of it, else a sign of wrong files."""
    known = KNOWN_COUNTS[version, split]
    differences = []
    if num_videos != known:
        differences.append(f"{num_videos} labelled videos; Something-Something-{version} has {known} for {split}.")
    if num_classes != NUM_CLASSES:
        differences.append(f"{num_classes} classes; Something-Something has {NUM_CLASSES}.")
    return differences


def _define_flags(values: absl_flags.FlagValues) -> None:
    text = {"flag_values": values}
    absl_flags.DEFINE_enum("version", None, list(_ENDINGS), "v1: folders of JPEG frames; v2: webm", **text)
    absl_flags.DEFINE_string("videos", None, "folder with all videos", **text)
    absl_flags.DEFINE_list(
        "labels", None, "label files, separated by commas: the split's and that of the classes", **text
    )
    absl_flags.DEFINE_enum("split", None, SPLITS, "which split the labels are of", **text)
    define_writing_flags(values)


def _run(values: absl_flags.FlagValues) -> dict[str, Any]:
    require_flags(values, "version", "videos", "labels", "split", "out_dir")
    return write_split(
        version=values.version,
        videos=values.videos,
        label_files=values.labels,
        split=values.split,
        out_dir=values.out_dir,
        **writing_arguments(values),
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command(arguments, name=NAME, description=__doc__, define_flags=_define_flags, run=_run)


if __name__ == "__main__":
    run_program(main, name=NAME, interrupted=f"{KEPT}.")
