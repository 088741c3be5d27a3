"""A page of HTML out of its parts: headings, paragraphs, tables, pictures and links. Every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

ROWS_SHOWN = 20
STYLE = (
    "body{font:16px sans-serif;margin:2em}p,table{max-width:70em}td,th{padding:.2em .8em;text-align:left;"
    "border-bottom:1px solid #ccc}img{max-width:100%;display:block;margin:.5em 0 1.5em}"
)


def page(title: str, parts: Iterable[str]) -> str:
    """The whole page; `parts` are what the functions below return."""
    head = f'<head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style></head>'
    return "\n".join(
        ["<!DOCTYPE html>", f'<html lang="en">{head}<body>', heading(title, 1), *parts, "</body></html>", ""]
    )


def heading(text: str, level: int = 2) -> str:
    """A heading; the text is escaped, as in all of these."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph of text."""
    return f"<p>{html.escape(text)}</p>"


def image(file: str) -> str:
    """The picture in a file beside the page."""
    return f'<img src="{html.escape(file)}" alt="{html.escape(file)}">'


def link(file: str) -> str:
    """A link to a file beside the page, in a paragraph of its own."""
    return f'<p><a href="{html.escape(file)}">{html.escape(file)}</a></p>'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The first ROWS_SHOWN rows, and how many are left out; without columns no heading."""
    if not rows:
        return paragraph("None.")
    lines = [_row(columns, "th")] if columns else []
    lines += [_row(row, "td") for row in rows[:ROWS_SHOWN]]
    left_out = paragraph(f"and {len(rows) - ROWS_SHOWN} more") if len(rows) > ROWS_SHOWN else ""
    return "\n".join(["<table>", *lines, "</table>", left_out])


def _row(cells: Sequence[Any], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
