"""Something-Something's label files -> {video id: class} and the classes in their order.

Read are the official files of version 1 (CSV: one template per line in `…-labels.csv`, `id;template` in `…-train.csv`
and `…-validation.csv`; the test file has ids alone), those of version 2 (JSON: {template: index} in `labels.json`, a
list of {"id", "template", …} in `train.json` and `validation.json`; in `test.json` ids alone), and the pickle of the
authors' release, {id: {"label": text, "label_id": index}}. A file is known by its content, not by its name.

The order of the classes is that of the pickle if there is one (its indices are not alphabetical, and the authors'
checkpoints need them), else that of the official file of classes.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.safe_pickle import RefusedPickleError, load_pickle

NUM_CLASSES = 174
KNOWN_COUNTS = {("v1", "train"): 86_017, ("v1", "validation"): 11_522,
                ("v2", "train"): 168_913, ("v2", "validation"): 24_777}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LabelFile:
    """A label file as it was read.

    Attributes:
      kind: `csv`, `json` or `pickle`.
      classes: names in the order of their labels, or None if it is a list of videos alone.
      videos: video id -> template text, None where the file gives none; None if it is a list of classes alone.
    """

    path: str
    kind: str
    sha256: str
    classes: tuple[str, ...] | None
    videos: Mapping[str, str | None] | None


@dataclasses.dataclass(frozen=True)
class Labels:
    """`videos`: id -> label, None where the file gives none, in the order of the file."""

    classes: tuple[str, ...]
    videos: Mapping[str, int | None]
    sha256: tuple[str, ...]
    kinds: tuple[str, ...]


def read_labels(paths: Sequence[str | os.PathLike]) -> Labels:
    """Joins label files: one that lists the videos of the split, and one that gives the order of the classes.

    A pickle is both. Beside a list of videos it gives the order of the classes alone; beside a list of classes it goes
    before that, but the two must name the same classes.

    Raises:
      ConfigError: naming the file: unreadable, of another kind, too many or too few of a kind, an id twice, a template
        that no class has.
    """
    files = [read_label_file(path) for path in paths]
    told = ", ".join(f"{file.path} ({_described(file)})" for file in files)
    ordering = [file for file in files if file.kind == "pickle"] or [file for file in files if file.classes]
    listing = [file for file in files if file.videos and file.kind != "pickle"] or [
        file for file in files if file.videos]
    if len(listing) != 1:
        raise ConfigError(f"--labels: {len(listing)} files list videos, expected one, that of the split: {told}.")
    if len(ordering) != 1:
        raise ConfigError(f"--labels: {len(ordering)} files give the order of the classes, expected one; add the "
                          "official file of classes (something-something-v1-labels.csv, labels.json) or the release's "
                          f"pickle. Found: {told}.")  # fmt: skip
    if not any(listing[0].videos.values()):
        raise ConfigError(f"--labels: {listing[0].path} gives no video a label (a test file?).")
    for other in files:
        if other.classes and set(map(_key, other.classes)) != set(map(_key, ordering[0].classes)):
            odd = min(set(other.classes) ^ set(ordering[0].classes))
            raise ConfigError(f"--labels: {other.path} and {ordering[0].path} name different classes, such as {odd!r}.")
    labels = {_key(name): label for label, name in enumerate(ordering[0].classes)}
    videos = {}
    for media_id, template in listing[0].videos.items():
        if template and _key(template) not in labels:
            raise ConfigError(f"--labels: {listing[0].path}: video {media_id} has the template {template!r}, which is "
                              f"none of the {len(labels)} classes of {ordering[0].path}.")
        videos[media_id] = labels[_key(template)] if template else None
    return Labels(classes=ordering[0].classes, videos=videos, sha256=tuple(sorted(file.sha256 for file in files)),
                  kinds=tuple(file.kind for file in files))  # fmt: skip


def read_label_file(path: str | os.PathLike) -> LabelFile:
    """Reads one file; raises ConfigError saying what it holds instead of labels."""
    path = os.fspath(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"--labels={path}: cannot be read ({error.strerror}).") from None
    if not content.strip():
        raise ConfigError(f"--labels={path}: is empty.")
    if content[:1] in b"[{":
        kind, (classes, videos) = "json", _read_json(path, content)
    elif path.endswith((".pickle", ".pkl", ".p")) or content[:1] == b"\x80":
        kind, (classes, videos) = "pickle", _read_pickle(path)
    else:
        kind, (classes, videos) = "csv", _read_csv(path, content)
    return LabelFile(path=path, kind=kind, sha256=hashlib.sha256(content).hexdigest(), classes=classes, videos=videos)


def _described(file: LabelFile) -> str:
    if file.kind == "pickle":
        return f"{len(file.videos)} videos, {len(file.classes)} classes"
    return f"{len(file.videos)} videos" if file.videos else f"{len(file.classes)} classes"


def _key(name: str) -> str:
    """What two spellings of a template share: version 2's own lists differ in brackets and in white space alone."""
    return " ".join(name.replace("[", "").replace("]", "").split())


def _read_csv(path: str, content: bytes) -> tuple[tuple[str, ...] | None, dict[str, str | None] | None]:
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig")), delimiter=";", quoting=csv.QUOTE_NONE)
        rows = [row for row in lines if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--labels={path}: neither CSV, JSON nor a pickle ({error}).") from None
    if all(len(row) == 1 and not row[0].strip().isdigit() for row in rows):
        names = tuple(row[0].strip() for row in rows)
        _refuse_repeated(path, names, "class")
        return names, None
    for number, row in enumerate(rows, start=1):
        if len(row) > 2 or not row[0].strip().isdigit():
            raise ConfigError(f"--labels={path}: row {number} is {';'.join(row)[:80]!r}; expected 'id;template' as in "
                              "something-something-v1-train.csv, or a class in each line.")
    _refuse_repeated(path, [row[0].strip() for row in rows], "video id")
    return None, {row[0].strip(): row[1].strip() or None if len(row) == 2 else None for row in rows}


def _read_json(path: str, content: bytes) -> tuple[tuple[str, ...] | None, dict[str, str | None] | None]:
    try:
        values = json.loads(content, object_pairs_hook=lambda pairs: _unique_pairs(path, pairs))
    except ValueError as error:
        raise ConfigError(f"--labels={path}: no readable JSON ({error}).") from None
    if isinstance(values, dict):
        return _ordered_classes(path, values), None
    if not all(isinstance(entry, dict) and "id" in entry for entry in values):
        raise ConfigError(f'--labels={path}: expected a list of {{"id", "template", …}} as in train.json, or '
                          '{template: index} as in labels.json.')
    _refuse_repeated(path, [str(entry["id"]) for entry in values], "video id")
    return None, {str(entry["id"]): entry.get("template") or None for entry in values}


def _unique_pairs(path: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated(path, [key for key, _ in pairs], "key")
    return dict(pairs)


def _read_pickle(path: str) -> tuple[tuple[str, ...], dict[str, str | None]]:
    try:
        values = load_pickle(path)
    except RefusedPickleError as error:
        raise ConfigError(f"--labels: {error}") from None
    expected = 'expected {video id: {"label": text, "label_id": index}} as in the release'
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"--labels={path}: holds a {type(values).__name__}; {expected}.")
    indices: dict[str, Any] = {}
    for media_id, entry in values.items():
        if not isinstance(entry, dict) or not {"label", "label_id"} <= set(entry):
            raise ConfigError(f"--labels={path}: video {media_id!r} has {str(entry)[:80]!r}; {expected}.")
        if indices.setdefault(entry["label"], entry["label_id"]) != entry["label_id"]:
            raise ConfigError(f"--labels={path}: {entry['label']!r} has the indices {indices[entry['label']]} and "
                              f"{entry['label_id']}; expected one.")
    return _ordered_classes(path, indices), {str(media_id): entry["label"] for media_id, entry in values.items()}


def _ordered_classes(path: str, indices: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names by their indices, which must be 0, 1, 2, …"""
    try:
        by_index = {int(index): name for name, index in indices.items()}
    except (TypeError, ValueError):
        raise ConfigError(f"--labels={path}: expected {{template: index}} as in labels.json, found "
                          f"{str(dict(list(indices.items())[:1]))[:80]}.") from None
    if sorted(by_index) != list(range(len(indices))):
        raise ConfigError(f"--labels={path}: {len(indices)} classes have the indices {min(by_index)} to "
                          f"{max(by_index)}, some missing or given twice; expected each of 0, 1, 2, … once.")
    return tuple(by_index[index] for index in range(len(by_index)))


def _refuse_repeated(path: str, names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"--labels={path}: the {what} {name!r} comes twice.")
        seen.add(name)
