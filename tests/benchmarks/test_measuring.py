"""How the benchmarks time side by side, how their tables look, and how those get into the page."""

from __future__ import annotations

import json
import pathlib

import pytest
import tensorflow as tf

from benchmarks import convolution_floor, measuring, page
from rstg_tf.common.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
TINY = ["--num_filters=4", "--num_conv_layers=1", "--dim_h=8", "--dim_w=8"]


def test_works_are_timed_in_turns_and_short_ones_repeated(monkeypatch):
    now, order = [0.0], []

    def work(name, seconds):
        def call():
            order.append(name)
            now[0] += next(seconds)

        return call

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    # Two unmeasured runs each; then a run of `slow` is one call, of `quick` three: 3 · 0.4 s are the first above 1 s.
    slow, quick = iter([9, 9, 2.0, 4.0, 3.0]), iter([9, 9, *[0.4] * 9])
    found = measuring.time_side_by_side(
        {"slow": work("slow", slow), "quick": work("quick", quick)}, runs=3, least_seconds=1.0
    )
    assert order[4:] == ["slow", *["quick"] * 3, *["quick"] * 3, "slow", "slow", *["quick"] * 3]
    assert found["slow"] == {"median": 3.0, "lowest": 2.0, "highest": 4.0}
    assert found["quick"]["median"] == pytest.approx(0.4)
    assert measuring.rates(found["slow"], 6) == {"median": 2.0, "lowest": 1.5, "highest": 3.0}
    assert measuring.milliseconds(found["slow"]) == "3000.0 ±33 %"  # (4 - 2) / 3, half of it


def test_tables_are_straight_and_markdown():
    assert measuring.markdown(("name", "ms"), [("a", 1.5), ("longer", 10)]).splitlines() == [
        "| name   |  ms |",
        "| ------ | --: |",
        "| a      | 1.5 |",
        "| longer |  10 |",
    ]


def test_the_page_takes_the_tables_and_keeps_its_words(tmp_path, capsys):
    result = tmp_path / "convolution_floor.json"
    assert convolution_floor.main([*TINY, "--runs=1", "--precisions=float32", f"--json={result}"]) == 0
    printed = capsys.readouterr().out
    written = tmp_path / "page.md"
    written.write_text("# Title\n<!-- convolution_floor -->\nold\n<!-- end of convolution_floor -->\nWords.\n")
    for _ in range(2):  # the second time it replaces what it wrote
        assert page.main([f"--page={written}", str(result)]) == 0
        lines = written.read_text().splitlines()
        assert lines[:2] == ["# Title", "<!-- convolution_floor -->"]
        assert f"TensorFlow {tf.__version__}" in lines[2] and "medians of 1 runs" in lines[2]
        assert lines[4:6] == printed.splitlines()[:2]
        assert lines[-2:] == ["<!-- end of convolution_floor -->", "Words."]
        assert "old" not in lines


def test_the_page_is_left_alone_when_a_table_has_no_place(tmp_path, capsys):
    written, result = tmp_path / "page.md", tmp_path / "scaling.json"
    written.write_text("# Title\n")
    complete = {"axes": {}, "machine": {**measuring.machine(), "load": None}}
    for content, message in (
        ("{}", "expected what benchmarks.NAME"),
        ("[", "expected what benchmarks.NAME"),
        (json.dumps(complete), "the page has no place for it"),
    ):
        result.write_text(content)
        assert page.main([f"--page={written}", str(result)]) == 2
        assert message in capsys.readouterr().err
    assert written.read_text() == "# Title\n"
    with pytest.raises(ConfigError, match="no place for it"):
        page.refreshed("<!-- graph -->\n", "graph", "table")  # without its end


def test_the_performance_page_has_a_place_for_every_benchmark():
    text = (ROOT / page.PAGE).read_text()
    for name in (
        "graph",
        "training",
        "inference",
        "pipeline",
        "streaming",
        "scaling",
        "convolution_floor",
        "sync_mnist",
    ):
        assert page.refreshed(text, name, "new\n").count("new\n") >= 1
        assert f"python -m benchmarks.{name}" in text
