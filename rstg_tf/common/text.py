"""The gate for text that people hand over: flag files, lists, label files, and names of files and classes.

Every such file is decoded here alone, by its content: UTF-8 with or without byte order mark, and UTF-16 or UTF-32 with
one, as Windows editors save; lines may end as on any system. What cannot be read ends in a ConfigError that names the
file, the line and what was expected. Names are compared by `same_name_key`, and shown by `visible` where they differ.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import LARGEST_FILE, read_bytes

# UTF-32's little-endian mark begins with UTF-16's, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_EXPECTED = "expected text in UTF-8, or in UTF-16 with a byte order mark"
_LINE_END = re.compile(r"\r\n|\r|\n")
_SHOWN = 80  # characters of a row in a message


class Row(NamedTuple):
    """A row of a table: the number of its (first) line in the file, from 1, and its fields, stripped of blanks."""

    line: int
    fields: tuple[str, ...]


def decode_text(content: bytes, *, named: str) -> str:
    """The text of a file, its lines ended by a line feed each; no byte order mark is left.

    Raises ConfigError, beginning with `named`, for bytes that are no text in the encodings above.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        before = content[len(mark) : len(mark) + error.start].decode(encoding, "replace")
        line = len(_LINE_END.findall(before)) + 1
        wrong = content[len(mark) + error.start : len(mark) + error.start + 1].hex()
        raise ConfigError(
            f"{named}: line {line} holds the byte 0x{wrong}, which is no {encoding.upper()}; {_EXPECTED}."
        ) from None
    if "\0" in text:
        line = len(_LINE_END.findall(text[: text.index("\0")])) + 1
        raise ConfigError(
            f"{named}: line {line} holds a zero byte, so this is no text in UTF-8 (UTF-16 without a "
            f"byte order mark?); {_EXPECTED}."
        )
    return _LINE_END.sub("\n", text)


def read_text_file(path: str | os.PathLike, *, named: str, limit: int = LARGEST_FILE) -> str:
    """`decode_text` of a file that somebody has named, of at most `limit` bytes.

    Raises ConfigError, beginning with `named`.
    """
    return decode_text(read_bytes(path, named=named, limit=limit), named=named)


def parse_rows(text: str, *, delimiter: str, named: str) -> list[Row]:
    """The rows of a table as spreadsheets write them: fields in double quotes may hold the delimiter; blank rows are
    left out. The delimiter ' ' stands for any number of blanks and tabs.

    Raises ConfigError, beginning with `named`, for a quote that is never closed.
    """
    if delimiter == " ":
        rows = [Row(number, tuple(line.split())) for number, line in enumerate(text.split("\n"), start=1)]
        return [row for row in rows if row.fields]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, first = [], 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append(Row(first, tuple(field.strip() for field in fields)))
            first = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(
            f"{named}: row {first} is no CSV ({error}); expected a double quote to open and to close a "
            "field, and to be written twice within one."
        ) from None
    return rows


def shown_row(fields: Sequence[str], delimiter: str = ",") -> str:
    """A row in a message, shortened."""
    text = delimiter.join(fields)
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def refuse_repeated(names: Sequence[str], *, what: str, named: str, key: Callable[[str], str] = str) -> None:
    """Raises ConfigError if a name comes twice, or two differ in nothing that their `key` keeps."""
    seen: dict[str, str] = {}
    for name in names:
        if key(name) in seen:
            first = seen[key(name)]
            told = f"{name!r} comes twice" if first == name else f"{visible(first)} comes again as {visible(name)}"
            raise ConfigError(f"{named}: the {what} {told}.")
        seen[key(name)] = name


def same_name_key(name: str) -> str:
    """What two spellings of a name share that look alike: the composed normal form, single blanks between words."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def readable_name(name: str) -> str:
    r"""The name of a file as text: bytes in it that are no UTF-8 are written out, b'caf\xe9' as 'caf\\xe9'."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_clean_name(name: str) -> bool:
    """Whether a name fits on a line of any file: no half characters, no line breaks or other control characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def visible(name: str) -> str:
    r"""A name in quotes with what eyes miss written out: 'e\u0301' for an e with an accent of its own, '\xa0', …"""
    return (
        "'"
        + "".join(
            character
            if character == " " or unicodedata.category(character)[0] not in "CMZ"
            else character.encode("ascii", "backslashreplace").decode()
            if ord(character) > 126
            else repr(character)[1:-1]
            for character in name
        )
        + "'"
    )


def classes_differ(found: Sequence[str], expected: Sequence[str], *, here: str, there: str) -> str | None:
    """The first difference between two lists of classes as a sentence; None where name and order agree.

    `here`, `there`: where each list is from.
    """
    difference = first_difference(found, expected)
    if difference is None:
        return None
    place, one, other = difference
    return f"class {place} is {one} in {here} and {other} in {there}; expected the same classes in the same order"


def first_difference(found: Sequence[str], expected: Sequence[str]) -> tuple[int, str, str] | None:
    """The first place at which two lists of names differ, and both names as `visible` shows them, 'none' past an end.

    Names that look alike although they differ (letters of another script) are followed by the code of the letter.
    """
    for place in range(max(len(found), len(expected))):
        names = [names[place] if place < len(names) else None for names in (found, expected)]
        if names[0] == names[1]:
            continue
        shown = ["none" if name is None else visible(name) for name in names]
        if None not in names:
            at = next((index for index, pair in enumerate(zip(*names)) if pair[0] != pair[1]), None)
            if at is not None and any(ord(name[at]) > 126 for name in names):
                shown = [f"{text} (character {at + 1} is U+{ord(name[at]):04X})" for text, name in zip(shown, names)]
        return place, shown[0], shown[1]
    return None
