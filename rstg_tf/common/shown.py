"""Names and texts of others as terminals, spreadsheets and programs show them: what they would obey is written out."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

# Marks that turn the direction of what follows: a file called 'gpj.exe' would be shown as one.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FORMULA = re.compile(r"[=+\-@\t\r\n]")


def _is_obeyed(character: str) -> bool:
    return character in _TURNING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def printable(text: str, *, keep: str = "") -> str:
    r"""Text on one line, as it is safe to print: '\x1b[2J' for what would clear the screen, '\n' for a line's end.

    Written out are control characters, separators of lines and paragraphs, half characters, and marks that turn the
    direction of writing, but for those in `keep`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        repr(character)[1:-1] if _is_obeyed(character) and character not in keep else character for character in text
    )


class PrintableStream:
    """A terminal's or a pipe's text stream; what `printable` writes out is written out, but for line ends and tabs."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Returns the length of `text`, as streams do."""
        self._stream.write(printable(text, keep="\n\r\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Each of them as by `write`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def json_text(values: Any, *, in_ascii: bool) -> str:
    """Values as a line of JSON that is safe to print: the same value, with what a terminal obeys as \\u escapes."""
    text = json.dumps(values, ensure_ascii=in_ascii)
    return "".join(json.dumps(character)[1:-1] if _is_obeyed(character) else character for character in text)


def csv_text(rows: Iterable[Sequence[Any]], *, line_end: str = "\n") -> str:
    """Rows as CSV. A cell of text that a spreadsheet would compute (it begins with =, +, -, @, a tab or a line's end)
    gets an apostrophe before it, as does one that begins with apostrophes followed by such a sign: to read them back,
    `csv_cell` takes one away."""
    lines = []
    for row in rows:
        file = io.StringIO()
        csv.writer(file).writerow([_quoted(cell) for cell in row])  # its own line end, or a bare \r would not be quoted
        lines.append(file.getvalue()[:-2] + line_end)
    return "".join(lines)


def csv_cell(text: str) -> str:
    """A cell of text as it was before `csv_text` wrote it."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text.lstrip("'")) else text


def _quoted(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell.lstrip("'")) else cell
