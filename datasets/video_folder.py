"""The command `python -m datasets.video_folder`: your own videos -> train, validation and test shards.

    python -m datasets.video_folder --videos=DIR --out_dir=data/mine                      a folder per class
    python -m datasets.video_folder --list=train.csv --val_list=val.csv --videos=ROOT --out_dir=data/mine

DIR/CLASS/ holds the class's videos: any files that are video by their content, or folders of numbered pictures in any
format that Pillow reads, in folders of their own if you like. Classes are numbered in the order of their names. What
operating systems leave (.DS_Store, Thumbs.db, …) is passed over; any other file that is no video, and every empty
folder, is listed in rejected.csv. If DIR holds train/ and val/ (or valid, validation, dev, test; in any case) with a
folder per class each, those are the splits; a mixture that could be either is refused, and --layout decides.

Lists have a path and a label on each row, as Kinetics, PySlowFast and mmaction2 write them
(datasets/videos/list_rows.py tells all kinds).

Frames that are JPEGs keep their bytes, unless they are CMYK or turned by their EXIF; everything else is stored as JPEG
of quality 95, which is not lossless: the lowest structural similarity in a sample of it is in the manifest.

Where no split is given, it is one of
  --split_by=file   A video goes to validation if a hash of the seed and its path below DIR falls below
                    --validation_share: another video added to the folder moves none of them.
  --split_by=time   Each video gives a stretch of its time, --validation_share of it, to validation and the rest to
                    training; needs --clip_frames. For a few long videos, such as one per class. No frame is on both
                    sides, but neighbours are alike, so the accuracy says little about other videos.
A split by single clips is not offered: clips of one video on both sides make any accuracy look good.

--clip_frames=16 cuts clips of 16 frames, every --clip_stride frames; their ids are PATH#FIRST_FRAME. --add_reversed
adds to every class C the class "C, backwards", the same clips played backwards: single frames alone tell the right
class half of the time, so what a model reaches shows whether it uses time.

out_dir/train, out_dir/validation and out_dir/test become data sets of their own. An interrupted command continues when
it is given again; a mended video is taken in, but added or removed videos need a new folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from datasets.records.parallel_shards import KEPT
from datasets.videos.command_line import define_writing_flags, require_flags, run_command, summarize, writing_arguments
from datasets.videos.folders import LAYOUTS, find_splits, find_videos
from datasets.videos.lists import FLAGS, read_lists
from datasets.videos.sources import BACKWARDS, SHORT_SIDE, Cutting, VideoSource, uniform_hash
from datasets.videos.writing import write_videos
from rstg_tf.common.command_line import run_program
from rstg_tf.common.errors import ConfigError

NAME = "datasets.video_folder"
HELD_OUT = ("train", "validation")  # the splits that are made where none is given


def split_videos(
    folder: str | os.PathLike, *, split_by: str, validation_share: float, seed: int, layout: str = "auto"
) -> tuple[tuple[str, ...], dict[str, list[VideoSource]]]:
    """The classes, and the videos of each split: those that the folder has, else `train` and `validation`; split by
    time, each video is in both.

    Raises:
      ConfigError: as `find_videos`, or if a class has no video to train on, or the validation none at all.
    """
    given = find_splits(folder, layout=layout)
    if given is not None and set(given[1]) != {"train"}:
        return given
    if given is None:
        classes, sources = find_videos(folder)
    else:
        classes, sources = given[0], given[1]["train"]
        print(f"{NAME}: {folder} holds no split but train: a share of its videos is held out.", file=sys.stderr)
    return classes, _held_out(classes, sources, split_by, validation_share, seed)


def split_lists(
    lists: Mapping[str, str], *, root: str, classes_file: str, split_by: str, validation_share: float, seed: int
) -> tuple[tuple[str, ...], dict[str, list[VideoSource]]]:
    """The same of lists of videos, split -> file; of a list of training videos alone a share is held out.

    Raises:
      ConfigError: as `datasets.videos.lists.read_lists`.
    """
    classes, split = read_lists(dict(lists), root=root, classes_file=classes_file)
    if set(split) == {"train"}:
        print(
            f"{NAME}: --list alone: a share of its videos is held out; --val_list or --test_list would name others.",
            file=sys.stderr,
        )
        split = _held_out(classes, split["train"], split_by, validation_share, seed)
    paths = [{(source.path, source.stretch) for source in sources} for sources in split.values()]
    shared = sum(map(len, paths)) - len(set().union(*paths)) if split_by != "time" else 0
    if shared:
        print(
            f"{NAME}: {shared} videos are in two of the lists, so any accuracy on them says too much.", file=sys.stderr
        )
    return classes, split


def _held_out(
    classes: Sequence[str], sources: list[VideoSource], split_by: str, validation_share: float, seed: int
) -> dict[str, list[VideoSource]]:
    if split_by == "time":
        return dict.fromkeys(HELD_OUT, sources)
    split: dict[str, list[VideoSource]] = {name: [] for name in HELD_OUT}
    for source in sources:
        is_held_out = uniform_hash(seed, source.media_id) < validation_share
        split["validation" if is_held_out else "train"].append(source)
    untrained = sorted({source.label for source in sources} - {source.label for source in split["train"]})
    if untrained or not split["validation"]:
        what = f"every video of the class {classes[untrained[0]]!r}" if untrained else "no video"
        raise ConfigError(
            f"--split_by=file puts {what} into validation: give another --seed or --validation_share, "
            "or, for a few long videos, --split_by=time --clip_frames=16."
        )
    for label in sorted(set(range(len(classes))) - {source.label for source in split["validation"]}):
        print(f"{NAME}: no video of the class {classes[label]!r} is in validation.", file=sys.stderr)
    return split


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
    layout: str = "auto",
    lists: Mapping[str, str] | None = None,
    classes_file: str = "",
    **writing: Any,
) -> dict[str, Any]:
    """Writes both splits; returns the command's summary. `writing` goes to `write_videos`; errors as documented there.

    Raises:
      ConfigError: settings that contradict each other, or a folder that is none of this kind.
    """
    _check(split_by, validation_share, clip_frames, clip_stride)
    how = {"split_by": split_by, "validation_share": validation_share, "seed": seed}
    if lists:
        classes, split = split_lists(lists, root=videos, classes_file=classes_file, **how)
    else:
        classes, split = split_videos(videos, layout=layout, **how)
    by_time = split_by == "time" and split.get("train") is split.get("validation")
    names = classes + tuple(name + BACKWARDS for name in classes) if add_reversed else classes
    if len(set(names)) < len(names):
        raise ConfigError(f"--add_reversed: the folder has a class whose name ends with {BACKWARDS!r} already.")
    summaries = {}
    for part in split:
        cutting = Cutting(
            clip_frames=clip_frames,
            clip_stride=clip_stride,
            num_classes=len(classes),
            add_reversed=add_reversed,
            part=part if by_time else None,
            validation_share=validation_share,
            split_seed=seed,
        )
        directory = str(Path(out_dir, part))
        written = write_videos(
            sources=split[part],
            classes=names,
            out_dir=directory,
            name="videos",
            split=part,
            made_by={"command": NAME, "split_by": split_by},
            cutting=cutting,
            seed=seed,
            short_side=short_side,
            **writing,
        )
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
        return {
            "out_dir": out_dir,
            "complete": False,
            "missing_shards": missing,
            "rejected": sum(part["rejected"] for part in parts),
        }
    return {
        "out_dir": out_dir,
        "complete": True,
        "clips": {name: part["clips"] for name, part in summaries.items()},
        "rejected": sum(part["rejected"] for part in parts),
        "classes": parts[0]["classes"],
        "shards": sum(part["shards"] for part in parts),
        "lowest_ssim": min((part["lowest_ssim"] for part in parts if part["lowest_ssim"] is not None), default=None),
    }


def _define_flags(values: absl_flags.FlagValues) -> None:
    text = {"flag_values": values}
    absl_flags.DEFINE_string(
        "videos",
        None,
        "folder with a folder of videos per class; with --list the folder that its paths are below",
        **text,
    )
    for split, name in FLAGS.items():
        absl_flags.DEFINE_string(name, None, f"list of the {split} videos, a path and a label on each row", **text)
    absl_flags.DEFINE_string("classes", None, "with --list: file of the names of the classes, in their order", **text)
    absl_flags.DEFINE_enum(
        "layout",
        "auto",
        LAYOUTS,
        "what the folders in --videos are: classes, or splits (train, "
        "val, test) with a folder per class each; auto tells by their names",
        **text,
    )
    absl_flags.DEFINE_enum(
        "split_by", "file", ["file", "time"], "what is held out: whole videos, or a stretch of the time of each", **text
    )
    absl_flags.DEFINE_float("validation_share", 0.2, "share that is held out", **text)
    absl_flags.DEFINE_integer("clip_frames", 0, "cut videos into clips of so many frames; 0: whole videos", **text)
    absl_flags.DEFINE_integer(
        "clip_stride",
        0,
        "frames from the start of a clip to that of the next; 0: clip_frames, so that clips do not overlap",
        **text,
    )
    absl_flags.DEFINE_boolean("add_reversed", False, "every class a second time, played backwards", **text)
    absl_flags.DEFINE_integer(
        "short_side",
        SHORT_SIDE,
        "pixels to which larger video files are made smaller; folders of frames are stored as they are",
        **text,
    )
    define_writing_flags(values)


def _run(values: absl_flags.FlagValues) -> dict[str, Any]:
    lists = {split: values[flag].value for split, flag in FLAGS.items() if values[flag].value}
    require_flags(values, *([] if lists else ["videos"]), "out_dir")
    if values.classes and not lists:
        raise ConfigError(f"--classes={values.classes} names the classes of a list: give --list=FILE too.")
    if lists and values["layout"].present:
        raise ConfigError(f"--layout={values.layout} is about folders, and --list names the videos: give one of them.")
    own = (
        "out_dir",
        "layout",
        "split_by",
        "validation_share",
        "clip_frames",
        "clip_stride",
        "add_reversed",
        "short_side",
    )
    return write_folder(
        videos=values.videos or "",
        lists=lists,
        classes_file=values.classes or "",
        **{name: values[name].value for name in own},
        **writing_arguments(values),
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command(arguments, name=NAME, description=__doc__, define_flags=_define_flags, run=_run)


if __name__ == "__main__":
    run_program(main, name=NAME, interrupted=f"{KEPT}.")
