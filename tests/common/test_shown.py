"""Names of others on terminals, in spreadsheets and in plots."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rstg_tf.common.shown import PrintableStream, csv_cell, csv_text, json_text, printable
from rstg_tf.viz.attention_plots import save_mean_matrices
from rstg_tf.viz.confusion_plot import save_confusion

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "wave": "wave",
    "größe, 手を振る, 🙋🏽‍♀️, می‌خواهم": "größe, 手を振る, 🙋🏽‍♀️, می‌خواهم",  # zero-width joiners belong to the writing
    "a\x1b[2Jb": r"a\x1b[2Jb",
    "a\nb\r\tc\0": r"a\nb\r\tc\x00",
    "a\x9b31mb\x85": r"a\x9b31mb\x85",
    "a\u2028b\u2029": r"a\u2028b\u2029",
    "clip\u202egpj.exe": r"clip\u202egpj.exe",
    "caf\udce9": r"caf\udce9",
    "no\u00a0break": "no\u00a0break",
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_terminal_obeys_is_written_out_and_all_other_letters_stay(name):
    assert printable(name) == NAMES[name]
    assert printable(printable(name)) == printable(name)


def test_a_stream_lets_line_ends_through_and_nothing_else():
    kept = io.StringIO()
    stream = PrintableStream(kept)
    assert stream.write("1\t2\r3\n\x1b[31m") == 11
    stream.writelines(["a\n", "\x07"])
    assert kept.getvalue() == "1\t2\r3\n\\x1b[31ma\n\\x07"
    assert stream.getvalue() == kept.getvalue()  # whatever else is asked of it, the stream itself answers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_ascii", [True, False])
def test_json_holds_the_very_name_and_nothing_that_a_terminal_obeys(name, in_ascii):
    line = json_text({name: [name]}, in_ascii=in_ascii)
    assert json.loads(line) == {name: [name]} and printable(line) == line


FORMULAS = [
    "=1+1",
    "+1",
    "-2",
    "@a",
    "\tx",
    "\rx",
    "\n=1",
    "'=1",
    "''-1",
    "plain",
    "'quoted",
    "a=1",
    "",
    "1",
    'a "b", c\nd',
]


def test_no_cell_of_a_table_begins_a_formula_and_all_are_read_back():
    rows = [FORMULAS, [-1, 2.5, None]]
    read = list(csv.reader(io.StringIO(csv_text(rows), newline="")))
    assert [csv_cell(cell) for cell in read[0]] == FORMULAS
    assert not [cell for cell in read[0] if cell[:1] in tuple("=+-@\t\r\n")]
    assert read[1] == ["-1", "2.5", ""]  # numbers stay numbers


def test_an_error_of_a_program_is_one_line_whatever_the_name_in_it(tmp_path):
    name = "a\x1b[2J\nb\x9b"
    done = subprocess.run(
        [sys.executable, "-m", "rstg_tf.predict", f"--video={tmp_path / name}", f"--model_dir={name}"],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"\x1b" not in done.stderr and rb"a\x1b[2J\nb\x9b" in done.stderr


def test_names_in_plots_are_taken_literally(tmp_path):
    """A name that is no formula of matplotlib would end the plot, and one that is would be drawn as another."""
    names = ["$\\frac{", "$x$", "a\nb"]
    for path, title in (("a.png", "$\\frac{"), ("b.png", "$x^2$")):
        save_confusion(tmp_path / path, np.eye(3, dtype=int), names, title=title)
        save_mean_matrices(tmp_path / f"mean_{path}", np.full((1, 2, 5, 5), 0.2), title=title)
        for written in (tmp_path / path, tmp_path / f"mean_{path}"):
            assert written.stat().st_size > 1000
