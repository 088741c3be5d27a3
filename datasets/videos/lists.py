"""Lists of videos as other projects have them -> the videos of a split, with their classes.

A row names a video and its class; blanks, a comma or a tab stand between them, and a field may stand in double quotes:

    path label                        PySlowFast, mmaction2, and most others
    folder total_frames label         mmaction2's folders of frames; the folder must hold so many
    path start end label              a stretch: seconds of a file; of a folder of frames the first and last number
    label,youtube_id,time_start,time_end,split      Kinetics, known by its header: FILE is ID_START_END.mp4

A header row tells otherwise which column is which (path, video, …; label, class, …; total_frames; start; end). Labels
are numbers from 0, or names, which are numbered in their order; a file of names beside the list names the numbers.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import unicodedata
from collections.abc import Sequence

from datasets.videos.sources import Stretch, VideoSource
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.text import (
    Row,
    is_clean_name,
    parse_json,
    parse_rows,
    read_text_file,
    refuse_repeated,
    same_name_key,
    shown_row,
    visible,
)

_COLUMNS = {
    **dict.fromkeys(
        (
            "path",
            "video",
            "videos",
            "video_path",
            "file",
            "filename",
            "file_name",
            "name",
            "clip",
            "id",
            "video_id",
            "frame_dir",
            "frames",
            "folder",
            "image_folder",
        ),
        "path",
    ),
    **dict.fromkeys(
        (
            "label",
            "labels",
            "class",
            "classes",
            "category",
            "action",
            "target",
            "label_id",
            "class_id",
            "class_index",
            "class_name",
        ),
        "label",
    ),
    **dict.fromkeys(("total_frames", "num_frames", "n_frames", "frame_count"), "count"),
    **dict.fromkeys(("start", "start_time", "start_frame", "begin"), "start"),
    **dict.fromkeys(("end", "end_time", "end_frame", "stop"), "end"),
    "youtube_id": "youtube_id",
    "time_start": "time_start",
    "time_end": "time_end",
    "split": "split",
}
_BY_COUNT = {2: ("path", "label"), 3: ("path", "count", "label"), 4: ("path", "start", "end", "label")}
_EXPECTED = "expected 'path label', 'folder total_frames label' or 'path start end label'"
_MOST_CLASSES = 100_000


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a list: its line, the path (or paths, of which one should be there) and label as written, the rest."""

    line: int
    paths: tuple[str, ...]
    label: str
    stretch: Stretch | None = None


def read_lists(
    files: dict[str, str], *, root: str, classes_file: str = ""
) -> tuple[tuple[str, ...], dict[str, list[VideoSource]]]:
    """The classes, and the videos of each split, there or not.

    Args:
      files: split -> list.
      root: folder that paths are below; '' takes the folder of each list.
      classes_file: names of the classes, one on each line (or 'number name'), or JSON {name: number} or [name, …].

    Raises:
      ConfigError: naming list and row: no list, another number of fields, a label that is no class, a video that comes
        twice; or not one of the listed videos is there.
    """
    entries = {split: read_list(path) for split, path in files.items()}
    classes, labels = _classes(files, entries, classes_file)
    sources = {}
    for split, path in files.items():
        folder = root or os.path.dirname(path) or os.curdir
        found = [_source(entry, folder, labels[split][number]) for number, entry in enumerate(entries[split])]
        _refuse_repeated(path, entries[split], found)
        if not any(os.path.exists(source.path) for source in found):
            raise ConfigError(
                f"--list={path}: not one of its {len(found)} videos is below {folder}: the first should "
                f"be {found[0].path}. Give the folder that its paths are below as --videos=DIR."
            )
        sources[split] = found
    return classes, sources


def read_list(path: str) -> list[Entry]:
    """The rows of one list. Raises ConfigError as `read_lists`."""
    named = f"--list={path}"
    text = read_text_file(path, named=named)
    delimiter = _delimiter(text)
    rows = parse_rows(text, delimiter=delimiter, named=named)
    if not rows:
        raise ConfigError(f"{named}: is empty; {_EXPECTED} on each row.")
    columns = _header(rows[0])
    if columns:
        rows = rows[1:]
        if not rows:
            raise ConfigError(f"{named}: holds a header and no video.")
    return [_entry(row, columns, delimiter, named) for row in rows]


def _delimiter(text: str) -> str:
    """What stands between the fields: by the first rows, a tab before a comma before blanks."""
    rows = [line for line in text.split("\n") if line.strip()][:20]
    if rows and all("\t" in row.strip() for row in rows):
        return "\t"
    for delimiter in (",", ";"):
        if rows and all(delimiter in re.sub(r'"[^"]*"', "", row) for row in rows):
            return delimiter
    return " "


def _header(row: Row) -> tuple[str | None, ...]:
    """What each column is, if the row is a header; else ()."""
    names = [field.casefold().strip("#").strip().replace(" ", "_") for field in row.fields]
    columns = tuple(_COLUMNS.get(name) for name in names)
    is_header = "label" in columns and ("path" in columns or "youtube_id" in columns)
    return columns if is_header and (None not in columns or len(columns) > 2) else ()


def _entry(row: Row, columns: tuple[str | None, ...], delimiter: str, named: str) -> Entry:
    fields = row.fields
    if not columns:
        fields = _joined_path(fields) if delimiter == " " else fields
        if len(fields) not in _BY_COUNT:
            raise ConfigError(
                f"{named}: row {row.line} is {shown_row(row.fields, delimiter)}, {len(row.fields)} "
                f"field(s); {_EXPECTED}."
            )
        values = dict(zip(_BY_COUNT[len(fields)], fields))
    else:
        if len(fields) != len(columns):
            raise ConfigError(
                f"{named}: row {row.line} is {shown_row(fields, delimiter)}, {len(fields)} field(s); "
                f"expected {len(columns)} as in the header."
            )
        values = {column: field for column, field in zip(columns, fields) if column}
    if not values["label"]:
        raise ConfigError(f"{named}: row {row.line} is {shown_row(fields, delimiter)}, without a label; {_EXPECTED}.")
    if "path" not in values:
        return _kinetics_entry(row.line, values)
    if not values["path"]:
        raise ConfigError(f"{named}: row {row.line} is {shown_row(fields, delimiter)}, without a path; {_EXPECTED}.")
    try:
        stretch = _stretch(values)
    except ValueError:
        raise ConfigError(
            f"{named}: row {row.line} is {shown_row(fields, delimiter)}; expected a number of frames, or "
            f"a start and an end after it, between path and label ({_EXPECTED})."
        ) from None
    return Entry(row.line, (values["path"],), values["label"], stretch)


def _joined_path(fields: Sequence[str]) -> tuple[str, ...]:
    """Fields between blanks, where the path itself may hold blanks: 'a b.mp4 3' -> ('a b.mp4', '3')."""
    numbers = 0
    while numbers < 3 and numbers + 1 < len(fields) and _is_number(fields[-1 - numbers]):
        numbers += 1
    numbers = max(numbers, min(1, len(fields) - 1))
    return (" ".join(fields[:-numbers]), *fields[-numbers:]) if numbers else tuple(fields)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None


def _stretch(values: dict[str, str]) -> Stretch | None:
    if "count" in values:
        return Stretch(count=int(values["count"])) if values["count"] else None
    if "start" not in values or not (values["start"] or values.get("end")):
        return None
    start, end = float(values["start"]), float(values.get("end") or "inf")
    if not 0 <= start < end:
        raise ValueError
    return Stretch(start=start, end=end)


def _kinetics_entry(line: int, values: dict[str, str]) -> Entry:
    """A file is named after the stretch of the original that it holds, and often lies in a folder of its class."""
    stem = values["youtube_id"]
    if values.get("time_start") and values.get("time_end"):
        times = [int(float(values[key])) for key in ("time_start", "time_end")]
        stem = f"{stem}_{times[0]:06d}_{times[1]:06d}"
    names = [f"{stem}.mp4", f"{values['youtube_id']}.mp4"]
    label, split = values["label"], values.get("split", "")
    folders = ["", label, label.replace(" ", "_"), split, os.path.join(split, label)]
    return Entry(line, tuple(os.path.join(folder, name) for folder in folders for name in names), label)


def _source(entry: Entry, root: str, label: int) -> VideoSource:
    path = next((found for path in entry.paths for found in [_found(os.path.join(root, path))] if found), None)
    name = (
        os.path.normpath(entry.paths[0]).replace(os.sep, "/")
        if path is None or entry.paths[1:] == ()
        else os.path.relpath(path, root).replace(os.sep, "/")
    )
    path = path or os.path.join(root, entry.paths[0])
    if entry.stretch is not None and entry.stretch.count is None:
        name = f"{name}#{entry.stretch.start:g}-{entry.stretch.end:g}"
    return VideoSource(name, path, label, entry.stretch)


def _found(path: str) -> str | None:
    """The path as it is written on this disk: with slashes, in either normal form, or the one file of this stem."""
    for form in (path, path.replace("\\", "/")):
        for candidate in (form, unicodedata.normalize("NFC", form), unicodedata.normalize("NFD", form)):
            if os.path.exists(candidate):
                return candidate
    stems = [] if os.path.splitext(path)[1] else glob.glob(glob.escape(path) + ".*")
    return stems[0] if len(stems) == 1 else None


def _refuse_repeated(path: str, entries: Sequence[Entry], sources: Sequence[VideoSource]) -> None:
    rows: dict[str, int] = {}
    for entry, source in zip(entries, sources):
        first = rows.setdefault(source.media_id, entry.line)
        if first != entry.line:
            raise ConfigError(
                f"--list={path}: the video {visible(source.media_id)} comes twice, in the rows {first} "
                f"and {entry.line}."
            )


def _classes(
    files: dict[str, str], entries: dict[str, list[Entry]], classes_file: str
) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """The classes, and the label of each row by split."""
    names = _read_classes(classes_file) if classes_file else ()
    rows = [(split, entry) for split, found in entries.items() for entry in found]
    numbers = [entry.label.isascii() and entry.label.isdecimal() for _, entry in rows]
    keys = {same_name_key(name): label for label, name in enumerate(names)}
    if not names and not any(numbers):
        first = next(iter(files))
        spelt: dict[str, str] = {}
        for entry in entries[first]:
            spelt.setdefault(same_name_key(entry.label), entry.label)
        names = tuple(sorted(spelt.values()))
        keys = {same_name_key(name): label for label, name in enumerate(names)}
    elif not names and not all(numbers):
        split, entry = rows[numbers.index(sum(numbers) * 2 < len(numbers))]
        kind = "a number" if sum(numbers) * 2 < len(numbers) else "no number"
        raise ConfigError(
            f"--list={files[split]}: row {entry.line} has the label {visible(entry.label)}, {kind} "
            "unlike others: expected numbers from 0, or names, on all rows (or --classes=FILE, which "
            "names them)."
        )
    elif not names:
        names = tuple(str(label) for label in range(_highest(files, rows) + 1))
    odd = next((name for name in names if not is_clean_name(name)), None)
    if odd is not None:
        raise ConfigError(f"--list: the class {visible(odd)} is no name on one line.")
    return names, {
        split: [_label(files[split], entry, keys, names) for entry in found] for split, found in entries.items()
    }


def _highest(files: dict[str, str], rows: Sequence[tuple[str, Entry]]) -> int:
    split, entry = max(rows, key=lambda row: int(row[1].label) if len(row[1].label) < 12 else float("inf"))
    if len(entry.label) > 11 or int(entry.label) >= _MOST_CLASSES:
        raise ConfigError(
            f"--list={files[split]}: row {entry.line} has the label {entry.label}; expected the number "
            f"of a class, from 0, as the last field ({_EXPECTED})."
        )
    return int(entry.label)


def _label(path: str, entry: Entry, keys: dict[str, int], names: Sequence[str]) -> int:
    label = keys.get(same_name_key(entry.label))
    if label is None and entry.label.isascii() and entry.label.isdecimal() and len(entry.label) < 12:
        label = int(entry.label)
    if label is None or label >= len(names):
        raise ConfigError(
            f"--list={path}: row {entry.line} has the label {visible(entry.label)}, which is none of the "
            f"{len(names)} classes ({visible(names[0])}, …)."
        )
    return label


def _read_classes(path: str) -> tuple[str, ...]:
    named = f"--classes={path}"
    text = read_text_file(path, named=named)
    if re.match(r"\s*[{\[]", text):
        names = _classes_from_json(parse_json(text, named=named, unique_keys=True), named)
    else:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        numbered = [re.fullmatch(r"([0-9]{1,6})[\s,;]+(.+)", line) for line in lines]
        if lines and all(numbered) and sorted(int(row[1]) for row in numbered) == list(range(len(lines))):
            lines = [row[2] for row in sorted(numbered, key=lambda row: int(row[1]))]
        names = [line[1:-1].replace('""', '"') if re.fullmatch(r'"([^"]|"")*"', line) else line for line in lines]
    if not names:
        raise ConfigError(f"{named}: names no class.")
    refuse_repeated(names, what="class", named=named, key=same_name_key)
    return tuple(names)


def _classes_from_json(value: object, named: str) -> list[str]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return list(value)
    if isinstance(value, dict):
        pairs = sorted(
            (int(number), name) for name, number in value.items() if str(number).isascii() and str(number).isdecimal()
        )
        if [number for number, _ in pairs] == list(range(len(value))):
            return [name for _, name in pairs]
    raise ConfigError(f"{named}: expected [name, …], or {{name: number}} with each of 0, 1, 2, … once.")
