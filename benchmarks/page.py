"""Puts the tables of measured benchmarks into the page that explains them.

    python -m benchmarks.page build/benchmarks/*.json

Each file is what `python -m benchmarks.NAME --json=NAME.json` wrote. In the page (--page) everything between the lines
`<!-- NAME -->` and `<!-- end of NAME -->` is replaced by the table that the command prints, under a line with the
machine; the words around it stay. `make benchmarks` runs all of them and then this.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from benchmarks.measuring import run_command
from rstg_tf.common.errors import ConfigError

PAGE = "docs/performance.md"


def refreshed(text: str, name: str, table: str) -> str:
    """`text` with `table` in the place of NAME. Raises ConfigError if the page has no such place, or several."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(end) < text.index(start):
        raise ConfigError(
            f"{name}: the page has no place for it; expected one line {start.strip()} and after it one "
            f"line {end.strip()}."
        )
    before, rest = text.split(start)
    return f"{before}{start}{table}{end}{rest.split(end)[1]}"


def table(name: str, result: Mapping[str, Any]) -> str:
    """What `python -m benchmarks.NAME` prints for `result`, under a line that says where it was measured."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        importlib.import_module(f"benchmarks.{name}").show(result)
    shown = printed.getvalue().strip()
    if not shown.startswith("|"):
        shown = f"```text\n{shown}\n```"
    return f"{_where(result)}\n\n{shown}\n"


def _where(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    facts = [
        f"{machine['cpu']}, {machine['threads']} thread(s)",
        f"TensorFlow {machine['tensorflow']}",
        f"Keras {machine['keras']}",
        f"NumPy {machine['numpy']}",
        f"Python {machine['python']}",
    ]
    if "runs" in result:
        facts.append(f"medians of {result['runs']} runs")
    if machine["load"] is not None:
        facts.append(f"load before it {machine['load']:.1f}")
    return f"{', '.join(facts)}."


def refresh(page: str, files: Sequence[str]) -> list[str]:
    """Writes the page with the tables of `files`; returns the names. Nothing is written unless all have a place."""
    from rstg_tf.common.files import write_text

    if not files:
        raise ConfigError("give the JSON files that the benchmarks wrote.")
    text = _read(page)
    for file in files:
        try:
            result, name = json.loads(_read(file)), Path(file).stem
            text = refreshed(text, name, table(name, result))
        except (ImportError, KeyError, json.JSONDecodeError) as error:
            raise ConfigError(
                f"{file}: expected what benchmarks.NAME --json=NAME.json writes, found {type(error).__name__}: {error}."
            ) from error
    write_text(page, text)
    return [Path(file).stem for file in files]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}.") from error


def _define_flags(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("page", PAGE, "Markdown file with the places for the tables", flag_values=values)


def _measure(values: absl_flags.FlagValues, files: Sequence[str]) -> dict[str, Any]:
    return {"page": values.page, "names": refresh(values.page, files)}


def show(result: Mapping[str, Any]) -> None:
    print(f"{result['page']}: {', '.join(result['names'])}")


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command(
        "page", __doc__, arguments, define_flags=_define_flags, measure=_measure, show=show, runs=None, takes_files=True
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
