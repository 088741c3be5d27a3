"""The page `report/index.html`, which shows the report's tables and pictures and links to its files. No computation."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

_GRAPH_STYLE = "body{font:16px sans-serif;margin:2em}img{max-width:100%;display:block;margin:.5em 0 1.5em}"


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


def coarse_to_fine(place: str, found: Mapping[str, Any]) -> str:
    """A sentence on one graph of `attention_summary`: does the node of the whole frame listen to the finest ones?"""
    return (f"{place}: in the last space stage the {found['scales'][-1]} node gives {found['share'][-1][-1][0]:.2f} of "
            f"its attention to the {found['scales'][0]} nodes ({found['share_if_all_alike'][0]:.2f} if to all nodes "
            "alike).")


def _page(sections: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """A page of headings, captions, pictures and links to what is no picture; every text is escaped."""
    lines = ["<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8"><title>The graph at work</title>'
             f"<style>{_GRAPH_STYLE}</style></head><body>", "<h1>The graph at work</h1>"]
    for heading, files in sections:
        lines.append(f"<h2>{html.escape(heading)}</h2>")
        for file, caption in files.items():
            name = html.escape(file)
            shown = f'<a href="{name}">{name}</a>' if file.endswith(".json") else f'<img src="{name}" alt="{name}">'
            lines.append(f"<p>{html.escape(caption)}</p>{shown}")
    return "\n".join([*lines, "</body></html>", ""])
