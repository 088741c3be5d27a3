"""Folders of videos as people lay them out: a folder per class, or one per split with a folder per class in each.

    DIR/jump/a.mp4                 DIR/train/jump/a.mp4       DIR/Val/jump/a.mp4 …
    DIR/jump/b/00001.jpg …         (also valid, validation, dev, test, in any case; any of them may be missing)

What operating systems leave is passed over (`rstg_tf.common.files.is_left_by_system`); everything else is a video or
is rejected by whoever reads it: a picture alone, a text, an empty folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from datasets.videos.sources import VideoSource
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.files import is_left_by_system
from rstg_tf.common.text import first_difference, is_clean_name, readable_name, refuse_repeated, same_name_key, visible
from rstg_tf.video.frame_folders import frame_number, looks_like_video, picture_groups

SPLITS = ("train", "validation", "test")
LAYOUTS = ("auto", "classes", "splits")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_DEEPEST_LOOK = 2000  # files looked at in a folder beside those of the splits, to see whether it holds videos


def find_videos(folder: str | os.PathLike) -> tuple[tuple[str, ...], list[VideoSource]]:
    """The classes, sorted, and the videos, whose media ids are their paths below `folder`.

    Raises:
      ConfigError: no such folder, no class in it, a class without videos, frames where videos should lie, or class
        names that look alike or fit on no line.
    """
    folders = {readable_name(entry.name): entry.path for entry in _listed(folder) if entry.is_dir()}
    if not folders:
        raise ConfigError(f"--videos={folder}: holds no folder; expected one per class with its videos in it.")
    classes = tuple(sorted(folders))
    refuse_repeated(classes, what="class", named=f"--videos={folder}", key=same_name_key)
    odd = next((name for name in classes if not is_clean_name(name) or not _is_utf_8(folders[name])), None)
    if odd is not None:
        raise ConfigError(f"--videos={folder}: the class {visible(odd)} is no name in UTF-8 on one line: rename it.")
    sources = []
    for label, name in enumerate(classes):
        paths = _videos_of_class(folder, name, folders[name])
        sources += [VideoSource(_media_id(path, folder), path, label) for path in paths]
    return classes, sources


def find_splits(
    folder: str | os.PathLike, *, layout: str = "auto"
) -> tuple[tuple[str, ...], dict[str, list[VideoSource]]] | None:
    """The classes and the videos of each split (`train`, `validation`, `test`) that is laid out; None if none is.

    Raises:
      ConfigError: as `find_videos`; for folders that could be splits as well as classes; and where the splits have
        different classes.
    """
    if layout == "classes":
        return None
    named = _named_splits(folder, layout)
    if not named:
        return None
    found = {split: find_videos(named[split]) for split in SPLITS if split in named}
    first = next(iter(found))
    classes = found[first][0]
    labels = {same_name_key(name): label for label, name in enumerate(classes)}
    splits = {first: found[first][1]}
    for split, (names, sources) in list(found.items())[1:]:
        if {same_name_key(name) for name in names} != set(labels):
            _, there, here = first_difference(sorted(names, key=same_name_key), sorted(classes, key=same_name_key))
            odd = here if there == "none" or here != "none" and here < there else there
            raise ConfigError(f"--videos={folder}: the class {odd} is not in both of {first} and {split}.")
        own = [labels[same_name_key(name)] for name in names]
        splits[split] = [VideoSource(source.media_id, source.path, own[source.label]) for source in sources]
    return classes, splits


def _named_splits(folder: str | os.PathLike, layout: str) -> dict[str, str]:
    """Split -> its folder, where the folders in `folder` are those of splits; empty where they are classes."""
    folders = {entry.name: entry.path for entry in _listed(folder) if entry.is_dir()}
    named = sorted(name for name in folders if name.lower() in _SPLIT_NAMES)
    if not named:
        if layout == "splits":
            raise ConfigError(f"--layout=splits: --videos={folder} holds none of the folders train, val, test.")
        return {}
    others = sorted(name for name in folders if name not in named and (layout == "auto" and _has_video(folders[name])))
    how = (
        f"Give --layout=splits or --layout=classes, or move the others away: as classes they would be "
        f"{_and(sorted(map(readable_name, [*named, *others])))}."
    )
    if others:
        raise ConfigError(
            f"--videos={folder}: {_and(named)} may be {_one(named, 'a split', 'splits')}, but "
            f"{_and(others)} beside {_one(named, 'it', 'them')} may be "
            f"{_one(others, 'a class', 'classes')}. {how}"
        )
    splits: dict[str, str] = {}
    for name in named:
        split = _SPLIT_NAMES[name.lower()]
        if split in splits:
            raise ConfigError(
                f"--videos={folder}: {Path(splits[split]).name} and {name} would both be the "
                f"split {split}; rename one, or give --layout=classes."
            )
        if layout == "auto" and not _holds_classes(folders[name]):
            raise ConfigError(f"--videos={folder}: {name} may be a split, but holds no folder per class. {how}")
        splits[split] = folders[name]
    return splits


def _holds_classes(folder: str) -> bool:
    """Whether a folder holds folders of videos and no video itself."""
    entries = _listed(folder)
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders or any(looks_like_video(entry.path) for entry in entries if entry.is_file()):
        return False
    return not all(_is_frame_folder(entry.path) for entry in folders)


def _has_video(folder: str) -> bool:
    """Whether somewhere in a folder there is a picture or a video, as far as a quick look tells."""
    looked_at = 0
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_left_by_system(name))
        files = [Path(path, name) for name in sorted(names) if not is_left_by_system(name)]
        if picture_groups(files) or any(looks_like_video(file) for file in files):
            return True
        looked_at += len(files)
        if looked_at > _DEEPEST_LOOK:
            return True
    return False


def _videos_of_class(root: str | os.PathLike, name: str, folder: str) -> list[str]:
    if _is_frame_folder(folder):
        raise ConfigError(
            f"--videos={root}: the class {name!r} holds single frames; expected a folder for each video, "
            f"such as {name}/1/00001.jpg."
        )
    paths = _videos_below(folder)
    if not paths or paths == [folder]:
        raise ConfigError(f"--videos={root}: the class {name!r} holds no video.")
    return paths


def _videos_below(folder: str) -> list[str]:
    """The files below a folder, and the folders of frames, which stand for their frames, as do empty ones for none."""
    if _is_frame_folder(folder):
        return [folder]
    entries = sorted(_listed(folder), key=lambda entry: entry.name)
    paths = []
    for entry in entries:
        paths += _videos_below(entry.path) if entry.is_dir() else [entry.path]
    return paths or [folder]


def _is_frame_folder(folder: str) -> bool:
    """Whether a folder is a video as numbered pictures: not a few pictures beside videos or folders of videos."""
    entries = _listed(folder)
    files = [Path(entry.path) for entry in entries if entry.is_file()]
    groups = picture_groups(files)
    if not groups:
        return False
    pictures = {picture for group in groups.values() for picture in group}
    is_alone = len(pictures) == len(files) and not any(entry.is_dir() for entry in entries)
    is_numbered = all(frame_number(picture) is not None for picture in pictures)
    if is_alone:
        return True
    return is_numbered and len(pictures) > 1 and not any(looks_like_video(file) for file in set(files) - pictures)


def _listed(folder: str | os.PathLike) -> list[os.DirEntry]:
    try:
        return [entry for entry in os.scandir(folder) if not is_left_by_system(entry.name)]
    except OSError as error:
        raise ConfigError(f"--videos={folder}: cannot be listed ({error.strerror}).") from None


def _media_id(path: str, folder: str | os.PathLike) -> str:
    return readable_name(Path(path).relative_to(folder).as_posix())


def _is_utf_8(path: str) -> bool:
    name = Path(path).name
    return readable_name(name) == name


def _one(names: list[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several


def _and(names: list[str]) -> str:
    """'a', 'b' and 'c'; of many, the first."""
    shown = [readable_name(name) for name in names]
    shown = shown if len(shown) <= 6 else [*shown[:5], f"{len(shown) - 5} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
