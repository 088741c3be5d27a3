"""The command `python -m datasets.video_folder`: your own videos, a folder per class, -> train and validation shards.

    python -m datasets.video_folder --videos=DIR --out_dir=data/mine

DIR/<class>/ holds the class's videos: video files, or folders of numbered JPEG or PNG frames, in
folders of their own if you like. Names that begin with a dot are passed over; any other file that is no video is
listed in rejected.csv. Classes are numbered in the order of their names. If DIR holds train/ and validation/ and
nothing else, they are the split, each with its folders per class.

Otherwise the split is one of
  --split_by=file   A video goes to validation if a hash of the seed and its path below DIR falls below
                    --validation_share: another video added to the folder moves none of them.
  --split_by=time   Each video gives a stretch of its time, --validation_share of it, to validation and the rest to
                    training; needs --clip_frames. For a few long videos, such as one per class. No frame is on both
                    sides, but neighbours are alike, so the accuracy says little about other videos.
A split by single clips is not offered: clips of one video on both sides make any accuracy look good.

--clip_frames=16 cuts clips of 16 frames, every --clip_stride frames; their ids are PATH#FIRST_FRAME. --add_reversed
adds to every class C the class "C, backwards", the same clips played backwards: whoever only looks at single frames is
right half of the time, so what a model reaches shows whether it uses time.

out_dir/train and out_dir/validation become data sets of their own. An interrupted command continues when it is given
again; a mended video is taken in, but added or removed videos need a new folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from datasets.records.parallel_shards import KEPT
from datasets.videos.command_line import define_writing_flags, require_flags, run_command, summarize, writing_arguments
from datasets.videos.sources import BACKWARDS, SHORT_SIDE, Cutting, VideoSource, uniform_hash
from datasets.videos.writing import write_videos
from rstg_tf.common.command_line import run_program
from rstg_tf.common.errors import ConfigError
from rstg_tf.video.decoding import FRAME_FILE_SUFFIXES

NAME = "datasets.video_folder"
SPLITS = ("train", "validation")


def find_videos(folder: str | os.PathLike) -> tuple[tuple[str, ...], list[VideoSource]]:
    """The classes, sorted, and the videos, whose media ids are their paths below `folder`.

    Raises:
      ConfigError: no such folder, no class in it, a class without videos, or frames where videos should lie.
    """
    classes = tuple(sorted(entry.name for entry in _listed(folder) if entry.is_dir()))
    if not classes:
        raise ConfigError(f"--videos={folder}: holds no folder; expected one per class with its videos in it.")
    sources = []
    for label, name in enumerate(classes):
        paths = _videos_below(os.path.join(folder, name))
        if paths == [os.path.join(folder, name)]:
            raise ConfigError(f"--videos={folder}: the class {name!r} holds single frames; expected a folder for each "
                              f"video, such as {name}/1/00001.jpg.")
        if not paths:
            raise ConfigError(f"--videos={folder}: the class {name!r} holds no video.")
        sources += [VideoSource(Path(path).relative_to(folder).as_posix(), path, label) for path in paths]
    return classes, sources


def _videos_below(folder: str) -> list[str]:
    """The files below a folder, and the folders of frames, which stand for their frames."""
    entries = sorted(_listed(folder), key=lambda entry: entry.name)
    if any(entry.is_file() and entry.name.lower().endswith(FRAME_FILE_SUFFIXES) for entry in entries):
        return [folder]
    paths = []
    for entry in entries:
        paths += _videos_below(entry.path) if entry.is_dir() else [entry.path]
    return paths


def _listed(folder: str | os.PathLike) -> list[os.DirEntry]:
    try:
        return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise ConfigError(f"--videos={folder}: cannot be listed ({error.strerror}).") from None


def split_videos(
    folder: str | os.PathLike, *, split_by: str, validation_share: float, seed: int
) -> tuple[tuple[str, ...], dict[str, list[VideoSource]]]:
    """The classes, and the videos of `train` and `validation`; split by time, each video is in both.

    Raises:
      ConfigError: as `find_videos`, or if a class has no video to train on, or the validation none at all.
    """
    if {entry.name for entry in _listed(folder)} == set(SPLITS):
        found = {split: find_videos(os.path.join(folder, split)) for split in SPLITS}
        if found["train"][0] != found["validation"][0]:
            odd = min(set(found["train"][0]) ^ set(found["validation"][0]))
            raise ConfigError(f"--videos={folder}: the class {odd!r} is not in both of train and validation.")
        return found["train"][0], {split: sources for split, (_, sources) in found.items()}
    classes, sources = find_videos(folder)
    if split_by == "time":
        return classes, dict.fromkeys(SPLITS, sources)
    split: dict[str, list[VideoSource]] = {name: [] for name in SPLITS}
    for source in sources:
        is_held_out = uniform_hash(seed, source.media_id) < validation_share
        split["validation" if is_held_out else "train"].append(source)
    untrained = sorted({source.label for source in sources} - {source.label for source in split["train"]})
    if untrained or not split["validation"]:
        what = f"every video of the class {classes[untrained[0]]!r}" if untrained else "no video"
        raise ConfigError(f"--split_by=file puts {what} into validation: give another --seed or --validation_share, "
                          "or, for a few long videos, --split_by=time --clip_frames=16.")
    for label in sorted(set(range(len(classes))) - {source.label for source in split["validation"]}):
        print(f"{NAME}: no video of the class {classes[label]!r} is in validation.", file=sys.stderr)
    return classes, split


def write_folder(
    *,
    videos: str,
    out_dir: str,
    split_by: str = "file",
    validation_share: float = 0.2,
    clip_frames: int = 0,
    clip_stride: int = 0,
    add_reversed: bool = False,
    short_side: int = SHORT_SIDE,
    seed: int = 0,
    **writing: Any,
) -> dict[str, Any]:
    """Writes both splits; returns the command's summary. `writing` goes to `write_videos`; errors as documented there.

    Raises:
      ConfigError: settings that contradict each other, or a folder that is none of this kind.
    """
    _check(split_by, validation_share, clip_frames, clip_stride)
    classes, split = split_videos(videos, split_by=split_by, validation_share=validation_share, seed=seed)
    by_time = split_by == "time" and split["train"] is split["validation"]
    names = classes + tuple(name + BACKWARDS for name in classes) if add_reversed else classes
    if len(set(names)) < len(names):
        raise ConfigError(f"--add_reversed: the folder has a class whose name ends with {BACKWARDS!r} already.")
    summaries = {}
    for part in SPLITS:
        cutting = Cutting(clip_frames=clip_frames, clip_stride=clip_stride, num_classes=len(classes),
                          add_reversed=add_reversed, part=part if by_time else None,
                          validation_share=validation_share, split_seed=seed)  # fmt: skip
        directory = os.path.join(out_dir, part)
        written = write_videos(
            sources=split[part], classes=names, out_dir=directory, name="videos", split=part,
            made_by={"command": NAME, "split_by": split_by}, cutting=cutting, seed=seed, short_side=short_side,
            **writing)  # fmt: skip
        summaries[part] = summarize(written, directory, name=NAME)
    return _joined(out_dir, summaries)


def _check(split_by: str, validation_share: float, clip_frames: int, clip_stride: int) -> None:
    if not 0 < validation_share < 1:
        raise ConfigError(f"--validation_share={validation_share}: expected more than 0 and less than 1.")
    if clip_frames < 0 or clip_stride < 0:
        raise ConfigError(f"--clip_frames={clip_frames}, --clip_stride={clip_stride}: expected none below 0.")
    if clip_stride and not clip_frames:
        raise ConfigError(f"--clip_stride={clip_stride} needs --clip_frames.")
    if split_by == "time" and not clip_frames:
        raise ConfigError("--split_by=time needs --clip_frames: a whole video cannot be in both splits.")


def _joined(out_dir: str, summaries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One summary of both splits: clips per split, everything else added up."""
    parts = list(summaries.values())
    if not all(part["complete"] for part in parts):
        missing = sum(part.get("missing_shards", 0) for part in parts)
        return {"out_dir": out_dir, "complete": False, "missing_shards": missing,
                "rejected": sum(part["rejected"] for part in parts)}  # fmt: skip
    return {"out_dir": out_dir, "complete": True, "clips": {name: part["clips"] for name, part in summaries.items()},
            "rejected": sum(part["rejected"] for part in parts), "classes": parts[0]["classes"],
            "shards": sum(part["shards"] for part in parts)}  # fmt: skip


def _define_flags(values: absl_flags.FlagValues) -> None:
    text = {"flag_values": values}
    absl_flags.DEFINE_string("videos", None, "folder with a folder of videos per class", **text)
    absl_flags.DEFINE_enum("split_by", "file", ["file", "time"], "what is held out: whole videos, or a stretch of the "
                           "time of each", **text)
    absl_flags.DEFINE_float("validation_share", 0.2, "share that is held out", **text)
    absl_flags.DEFINE_integer("clip_frames", 0, "cut videos into clips of so many frames; 0: whole videos", **text)
    absl_flags.DEFINE_integer("clip_stride", 0, "frames from the start of a clip to that of the next; 0: clip_frames, "
                              "so that clips do not overlap", **text)
    absl_flags.DEFINE_boolean("add_reversed", False, "every class a second time, played backwards", **text)
    absl_flags.DEFINE_integer("short_side", SHORT_SIDE, "pixels to which larger video files are made smaller; folders "
                              "of frames are stored as they are", **text)
    define_writing_flags(values)


def _run(values: absl_flags.FlagValues) -> dict[str, Any]:
    require_flags(values, "videos", "out_dir")
    own = ("videos", "out_dir", "split_by", "validation_share", "clip_frames", "clip_stride", "add_reversed",
           "short_side")  # fmt: skip
    return write_folder(**{name: values[name].value for name in own}, **writing_arguments(values))


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command(arguments, name=NAME, description=__doc__, define_flags=_define_flags, run=_run)


if __name__ == "__main__":
    run_program(main, name=NAME, interrupted=f"{KEPT}.")
