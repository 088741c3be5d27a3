"""The rows of a list of videos, as other projects write them.

A row names a video and its class; blanks, a comma or a tab stand between them, and a field may stand in double quotes:

    path label                        PySlowFast, mmaction2, and most others
    folder total_frames label         mmaction2's folders of frames; the folder must hold so many
    path start end label              a segment: seconds of a file; of a folder of frames the first and last number
    label,youtube_id,time_start,time_end,split      Kinetics, known by its header: FILE is ID_START_END.mp4

A header row tells otherwise which column is which (path, video, …; label, class, …; total_frames; start; end).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import PurePath

from datasets.videos.sources import Stretch
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.text import Row, parse_rows, read_text_file, shown_row

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
EXPECTED = "expected 'path label', 'folder total_frames label' or 'path start end label'"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a list: its line, the path (or paths, of which one should be there) and label as written, the rest."""

    line: int
    paths: tuple[str, ...]
    label: str
    stretch: Stretch | None = None


def read_list(path: str, *, flag: str = "list") -> list[Entry]:
    """The rows of one list. Raises ConfigError: no list, a field too many or too few, no number where one should be."""
    named = f"--{flag}={path}"
    text = read_text_file(path, named=named)
    delimiter = _delimiter(text)
    rows = parse_rows(text, delimiter=delimiter, named=named)
    if not rows:
        raise ConfigError(f"{named}: is empty; {EXPECTED} on each row.")
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
                f"field(s); {EXPECTED}."
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
        raise ConfigError(f"{named}: row {row.line} is {shown_row(fields, delimiter)}, without a label; {EXPECTED}.")
    if "path" not in values:
        try:
            return _kinetics_entry(row.line, values)
        except (ValueError, OverflowError):
            raise ConfigError(
                f"{named}: row {row.line} is {shown_row(fields, delimiter)}; expected times in seconds."
            ) from None
    if not values["path"]:
        raise ConfigError(f"{named}: row {row.line} is {shown_row(fields, delimiter)}, without a path; {EXPECTED}.")
    try:
        stretch = _stretch(values)
    except ValueError:
        raise ConfigError(
            f"{named}: row {row.line} is {shown_row(fields, delimiter)}; expected a number of frames, or "
            f"a start and an end after it, between path and label ({EXPECTED})."
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
    folders = [PurePath(), *map(PurePath, (label, label.replace(" ", "_"), split)), PurePath(split, label)]
    return Entry(line, tuple(os.fspath(folder / name) for folder in folders for name in names), label)
