"""Lists of videos as other projects have them -> the videos of a split, with their classes.

`list_rows` tells what a row may look like. Labels are numbers from 0, or names, which are numbered in their order; a
file of names beside the list names the numbers.
"""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from datasets.videos.list_rows import EXPECTED, Entry, read_list
from datasets.videos.sources import VideoSource
from rstg_tf.common.data_text import parse_json
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.text import is_clean_name, read_text_file, refuse_repeated, same_name_key, visible

FLAGS = {"train": "list", "validation": "val_list", "test": "test_list"}  # split -> the flag that names its list
_MOST_CLASSES = 100_000


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
    entries = {split: read_list(path, flag=FLAGS[split]) for split, path in files.items()}
    classes, labels = _classes(files, entries, classes_file)
    sources = {}
    for split, path in files.items():
        folder = Path(root) if root else Path(path).parent
        found = [_source(entry, folder, labels[split][number]) for number, entry in enumerate(entries[split])]
        _refuse_repeated(_named(split, path), entries[split], found)
        if not any(Path(source.path).exists() for source in found):
            raise ConfigError(
                f"{_named(split, path)}: not one of its {len(found)} videos is below {folder}: the first should "
                f"be {found[0].path}. Give the folder that its paths are below as --videos=DIR."
            )
        sources[split] = found
    return classes, sources


def _source(entry: Entry, root: Path, label: int) -> VideoSource:
    path = next(filter(None, (_found(root, path) for path in entry.paths)), None)
    name = entry.paths[0] if path is None or len(entry.paths) == 1 else os.path.relpath(path, root)
    name = os.path.normpath(name).replace(os.sep, "/")
    if entry.stretch is not None and entry.stretch.count is None:
        name = f"{name}#{entry.stretch.start:g}-{entry.stretch.end:g}"
    return VideoSource(name, os.fspath(path or root / entry.paths[0]), label, entry.stretch)


def _found(root: Path, name: str) -> Path | None:
    """The path as it is written on this disk: with slashes, in either normal form, or the one file of this stem."""
    for form in (name, name.replace("\\", "/")):
        for candidate in (form, unicodedata.normalize("NFC", form), unicodedata.normalize("NFD", form)):
            if (root / candidate).exists():
                return root / candidate
    path = root / name
    stems = [] if path.suffix else list(path.parent.glob(f"{glob.escape(path.name)}.*"))
    return stems[0] if len(stems) == 1 else None


def _named(split: str, path: str) -> str:
    return f"--{FLAGS[split]}={path}"


def _refuse_repeated(named: str, entries: Sequence[Entry], sources: Sequence[VideoSource]) -> None:
    rows: dict[str, int] = {}
    for entry, source in zip(entries, sources):
        first = rows.setdefault(source.media_id, entry.line)
        if first != entry.line:
            raise ConfigError(
                f"{named}: the video {visible(source.media_id)} comes twice, in the rows {first} and {entry.line}."
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
            f"{_named(split, files[split])}: row {entry.line} has the label {visible(entry.label)}, {kind} "
            "unlike others: expected numbers from 0, or names, on all rows (or --classes=FILE, which "
            "names them)."
        )
    elif not names:
        names = tuple(str(label) for label in range(_highest(files, rows) + 1))
    odd = next((name for name in names if not is_clean_name(name)), None)
    if odd is not None:
        named = f"--classes={classes_file}" if classes_file else _named(*next(iter(files.items())))
        raise ConfigError(f"{named}: the class {visible(odd)} is no name on one line.")
    return names, {
        split: [_label(_named(split, files[split]), entry, keys, names) for entry in found]
        for split, found in entries.items()
    }


def _highest(files: dict[str, str], rows: Sequence[tuple[str, Entry]]) -> int:
    split, entry = max(rows, key=lambda row: int(row[1].label) if len(row[1].label) < 12 else float("inf"))
    if len(entry.label) > 11 or int(entry.label) >= _MOST_CLASSES:
        raise ConfigError(
            f"{_named(split, files[split])}: row {entry.line} has the label {entry.label}; expected the number "
            f"of a class, from 0, as the last field ({EXPECTED})."
        )
    return int(entry.label)


def _label(named: str, entry: Entry, keys: dict[str, int], names: Sequence[str]) -> int:
    label = keys.get(same_name_key(entry.label))
    if label is None and entry.label.isascii() and entry.label.isdecimal() and len(entry.label) < 12:
        label = int(entry.label)
    if label is None or label >= len(names):
        raise ConfigError(
            f"{named}: row {entry.line} has the label {visible(entry.label)}, which is none of the "
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
