"""Something-Something's label files -> {video id: class} and the classes in their order.

Read are the official files of version 1 (CSV: one template per line in `…-labels.csv`, `id;template` in `…-train.csv`
and `…-validation.csv`; the test file has ids alone; a header row, quotes, and commas or tabs for semicolons, as
spreadsheets write them, are understood), those of version 2 (JSON: {template: index} in `labels.json`, a
list of {"id", "template", …} in `train.json` and `validation.json`; in `test.json` ids alone), and the pickle of the
authors' release, {id: {"label": text, "label_id": index}}. A file is known by its content, not by its name.

The order of the classes is that of the pickle if there is one (its indices are not alphabetical, and the authors'
checkpoints need them), else that of the official file of classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rstg_tf.common.data_text import parse_json
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import is_plain_name, read_bytes
from rstg_tf.common.safe_pickle import RefusedPickleError, load_pickle
from rstg_tf.common.text import (
    decode_text,
    is_clean_name,
    parse_rows,
    refuse_repeated,
    same_name_key,
    shown_row,
    visible,
)

NUM_CLASSES = 174
KNOWN_COUNTS = {
    ("v1", "train"): 86_017,
    ("v1", "validation"): 11_522,
    ("v2", "train"): 168_913,
    ("v2", "validation"): 24_777,
}

_BEGINS_JSON = re.compile(r'\s*(\{|\[\s*([\[\]{"\d-]|(true|false|null)\b))')  # but not '[Something] falling …', a class
_VIDEO_ROW = re.compile(r'^[ \t]*"?[0-9]+"?[ ]*(?:([;,\t])|$)', re.MULTILINE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_ID_HEADERS = ("id", "ids", "video", "videos", "video_id", "video id", "media_id", "name", "file", "filename")
_LABEL_HEADERS = ("template", "templates", "class", "classes", "class_name", "label", "labels", "name", "names")


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
        file for file in files if file.videos
    ]
    if len(listing) != 1:
        raise ConfigError(f"--labels: {len(listing)} files list videos, expected one, that of the split: {told}.")
    if len(ordering) != 1:
        raise ConfigError(
            f"--labels: {len(ordering)} files give the order of the classes, expected one; add the "
            "official file of classes (something-something-v1-labels.csv, labels.json) or the release's "
            f"pickle. Found: {told}."
        )
    if not any(listing[0].videos.values()):
        raise ConfigError(f"--labels: {listing[0].path} gives no video a label (a test file?).")
    for other in files:
        names = [{_key(name): name for name in file.classes or ()} for file in (other, ordering[0])]
        odd = sorted(set(names[0]) ^ set(names[1])) if names[0] else []
        if odd:
            raise ConfigError(
                f"--labels: {other.path} and {ordering[0].path} name different classes, such as "
                f"{visible({**names[0], **names[1]}[odd[0]])}."
            )
    refuse_repeated(ordering[0].classes, what="class", named=f"--labels={ordering[0].path}", key=_key)
    labels = {_key(name): label for label, name in enumerate(ordering[0].classes)}
    videos = {}
    for media_id, template in listing[0].videos.items():
        if template and _key(template) not in labels:
            raise ConfigError(
                f"--labels: {listing[0].path}: video {media_id} has the template {template!r}, which is "
                f"none of the {len(labels)} classes of {ordering[0].path}."
            )
        videos[media_id] = labels[_key(template)] if template else None
    return Labels(
        classes=ordering[0].classes,
        videos=videos,
        sha256=tuple(sorted(file.sha256 for file in files)),
        kinds=tuple(file.kind for file in files),
    )


def read_label_file(path: str | os.PathLike) -> LabelFile:
    """Reads one file; raises ConfigError saying what it holds instead of labels."""
    path = os.fspath(path)
    named = f"--labels={path}"
    content = read_bytes(path, named=named)
    if path.endswith((".pickle", ".pkl", ".p")) or content[:1] == b"\x80":
        kind, (classes, videos) = "pickle", _read_pickle(path)
    else:
        text = decode_text(content, named=named)
        if not text.strip():
            raise ConfigError(f"{named}: is empty.")
        kind, read = ("json", _read_json) if _BEGINS_JSON.match(text) else ("csv", _read_csv)
        classes, videos = read(named, text)
    outside = next((media_id for media_id in videos or () if not is_plain_name(media_id)), None)
    if outside is not None:
        raise ConfigError(
            f"{named}: the video id {visible(outside[:80])} is no plain name; expected one without separators, as ids "
            "name files in the folder --videos."
        )
    if classes is not None:
        odd = next((name for name in classes if not is_clean_name(name)), None)
        if odd is not None:
            raise ConfigError(
                f"{named}: the class {visible(odd)} holds a line break or another control character; "
                "expected a name on one line."
            )
    return LabelFile(path=path, kind=kind, sha256=hashlib.sha256(content).hexdigest(), classes=classes, videos=videos)


def _described(file: LabelFile) -> str:
    if file.kind == "pickle":
        return f"{len(file.videos)} videos, {len(file.classes)} classes"
    return f"{len(file.videos)} videos" if file.videos else f"{len(file.classes)} classes"


def _key(name: str) -> str:
    """What two spellings of a template share: version 2's own lists differ in brackets and in white space alone, and
    systems write accents in different normal forms."""
    return same_name_key(name.replace("[", "").replace("]", ""))


def _read_csv(named: str, text: str) -> tuple[tuple[str, ...] | None, dict[str, str | None] | None]:
    entry = _VIDEO_ROW.search(text)
    if entry is None:
        return _class_lines(named, text), None
    delimiter = entry[1] or ";"
    rows = parse_rows(text, delimiter=delimiter, named=named)
    if _is_header(rows[0].fields):
        rows = rows[1:]
    for line, fields in rows:
        if len(fields) > 2 or not _is_id(fields[0]):
            raise ConfigError(
                f"{named}: row {line} is {shown_row(fields, delimiter)}; expected 'id{delimiter}template'"
                " as in something-something-v1-train.csv (a template that holds the delimiter in double "
                "quotes), or a class in each line."
            )
    refuse_repeated([fields[0] for _, fields in rows], what="video id", named=named)
    return None, {fields[0]: fields[1] or None if len(fields) == 2 else None for _, fields in rows}


def _class_lines(named: str, text: str) -> tuple[str, ...]:
    """A class on each line, as spreadsheets write it: in double quotes where the name holds a comma."""
    names = [line.strip() for line in text.split("\n") if line.strip()]
    names = [name[1:-1].replace('""', '"').strip() if _QUOTED.fullmatch(name) else name for name in names]
    if names[0].casefold() in _LABEL_HEADERS:
        names = names[1:]
    if not names:
        raise ConfigError(f"{named}: holds a header and no class.")
    refuse_repeated(names, what="class", named=named)
    return tuple(names)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _is_header(fields: Sequence[str]) -> bool:
    names = [field.casefold() for field in fields]
    return not _is_id(fields[0]) and (names[0] in _ID_HEADERS or len(names) == 2 and names[1] in _LABEL_HEADERS)


def _read_json(named: str, text: str) -> tuple[tuple[str, ...] | None, dict[str, str | None] | None]:
    values = parse_json(text, named=named, unique_keys=True)
    if isinstance(values, dict):
        return _ordered_classes(named, values), None
    for number, entry in enumerate(values, start=1):
        if not isinstance(entry, dict) or "id" not in entry:
            raise ConfigError(
                f'{named}: expected a list of {{"id", "template", …}} as in train.json, or '
                f"{{template: index}} as in labels.json; entry {number} is {str(entry)[:80]!r}."
            )
        identity, template = entry["id"], entry.get("template")
        if not isinstance(identity, (str, int)) or isinstance(identity, bool):
            raise ConfigError(
                f"{named}: entry {number} has the id {str(identity)[:80]!r}; expected a name or a whole number."
            )
        if not (template is None or isinstance(template, str)):
            raise ConfigError(
                f"{named}: entry {number}, video {identity}, has the template {str(template)[:80]}; "
                'expected one text, such as "Holding [something]".'
            )
    refuse_repeated([str(entry["id"]) for entry in values], what="video id", named=named)
    return None, {str(entry["id"]): entry.get("template") or None for entry in values}


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
        if (
            not isinstance(entry, dict)
            or not {"label", "label_id"} <= set(entry)
            or not isinstance(entry["label"], str)
        ):
            raise ConfigError(f"--labels={path}: video {media_id!r} has {str(entry)[:80]!r}; {expected}.")
        if indices.setdefault(entry["label"], entry["label_id"]) != entry["label_id"]:
            raise ConfigError(
                f"--labels={path}: {entry['label']!r} has the indices {indices[entry['label']]} and "
                f"{entry['label_id']}; expected one."
            )
    videos = {str(media_id): entry["label"] for media_id, entry in values.items()}
    return _ordered_classes(f"--labels={path}", indices), videos


def _ordered_classes(named: str, indices: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names by their indices, which must be 0, 1, 2, …"""
    by_index = {}
    for name, index in indices.items():
        try:
            number = None if isinstance(index, bool) or isinstance(index, float) and index % 1 else int(index)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None:
            raise ConfigError(
                f"{named}: expected {{template: index}} as in labels.json, found {str({name: index})[:80]}."
            )
        by_index[number] = name
    if sorted(by_index) != list(range(len(indices))):
        told = f"have the indices {min(by_index)} to {max(by_index)}" if by_index else "are listed"
        raise ConfigError(
            f"{named}: {len(indices)} classes {told}, some missing or given twice; expected each of 0, 1, 2, … once."
        )
    if not by_index:
        raise ConfigError(f"{named}: names no class.")
    return tuple(by_index[index] for index in range(len(by_index)))
