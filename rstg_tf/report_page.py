"""The page `report/index.html`, which shows the report's tables and pictures and links to its files. No computation."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from rstg_tf.pictures.graph_pictures import coarse_to_fine

ROWS_SHOWN = 20
Rows = Sequence[Sequence[Any]]
_STYLE = ("body{font:16px sans-serif;margin:2em;max-width:70em}td,th{padding:.2em .8em;text-align:left;"
          "border-bottom:1px solid #ccc}img{max-width:100%;display:block;margin:1em 0}")
_HOW_TO_READ = (
    "Left the clip; beside it, if the model has a graph, its regions scale by scale. Tint and number: the attention "
    "that a region receives from all, 1.0 being its share if all were alike. Arrows: the strongest messages, from "
    "sender to receiver, wider for larger weights.")
_KINDS = {"mistake": "Most confident mistakes", "unsure": "Right answers that it was least sure of"}


def page(*, result: Mapping[str, Any], examples: Sequence[Any], attention: Mapping[str, Mapping[str, Any]],
         per_class: tuple[Sequence[str], Rows], pairs: tuple[Sequence[str], Rows]) -> str:
    """The page as HTML. Every text is escaped, so class names may hold any character.

    Args:
      result: shown as it is. `examples`: with `kind` and `file`, see `report.Example`. `attention`: the
        places of `attention_summary`. `per_class`, `pairs`: columns and rows; the row's accuracy is its sixth cell.
    """
    columns, classes = per_class
    worst = sorted(classes, key=lambda row: (row[5] == "", row[5], row[0]))
    parts = [_heading("Evaluation", 1), _table((), [(key, _shown(value)) for key, value in result.items()]),
             _heading("Confusion matrix"), _image("confusion.png"), _link("confusion.csv"),
             _heading("Most confused classes"), _table(*pairs), _link("confused_pairs.csv"),
             _heading("Classes, worst first"), _table(columns, worst), _link("per_class.csv")]
    for kind, heading in _KINDS.items():
        files = [example.file for example in examples if example.kind == kind]
        if files:
            parts += [_heading(heading), _paragraph(_HOW_TO_READ), *map(_image, files)]
    parts.append(_link("clips.json"))
    if attention:
        parts += [_heading("Who listens to whom"), *map(_paragraph, map(coarse_to_fine, attention, attention.values())),
                  *map(_image, ["graph/scales.png"]), *map(_link, ["graph/scales.json", "graph/index.html"])]
    head = f'<head><meta charset="utf-8"><title>Evaluation</title><style>{_STYLE}</style></head>'
    return "\n".join(["<!DOCTYPE html>", f'<html lang="en">{head}<body>', *parts, "</body></html>", ""])


def _table(columns: Sequence[str], rows: Rows) -> str:
    if not rows:
        return _paragraph("None.")
    lines = [_line(columns, "th")] if columns else []
    lines += [_line(row, "td") for row in rows[:ROWS_SHOWN]]
    left_out = _paragraph(f"and {len(rows) - ROWS_SHOWN} more") if len(rows) > ROWS_SHOWN else ""
    return "\n".join(["<table>", *lines, "</table>", left_out])


def _line(cells: Sequence[Any], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return " – ".join(map(_shown, value)) if isinstance(value, list) else str(value)


def _heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{html.escape(text)}</h{level}>"


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _image(file: str) -> str:
    return f'<img src="{html.escape(file)}" alt="{html.escape(file)}">'


def _link(file: str) -> str:
    return f'<p><a href="{html.escape(file)}">{html.escape(file)}</a></p>'
