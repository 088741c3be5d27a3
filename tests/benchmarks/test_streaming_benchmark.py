"""The command that measures what a step costs."""

from __future__ import annotations

import json

import pytest

from benchmarks import streaming as benchmark


def test_the_benchmark_measures_both_and_writes_what_it_measured(tmp_path, capsys):
    flags = ["--num_filters=4", "--node_feat_dim=4", "--message_dims=4", "--dim_h=30", "--dim_w=30"]
    written = tmp_path / "streaming.json"
    assert benchmark.main([f"--json={written}", "--runs=2", "--frames=1,3", *flags]) == 0
    result = json.loads(written.read_text())
    assert [row["frames"] for row in result["rows"]] == [1, 3]
    for row in result["rows"]:
        assert 0 < row["step_ms"]["lowest"] <= row["step_ms"]["median"] <= row["step_ms"]["highest"]
        assert row["ratio"] == round(row["whole_ms"]["median"] / row["step_ms"]["median"], 2)
    assert result["largest_difference"] < 1e-5
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["state_floats"] == result["state_floats"]


def test_the_benchmark_refuses_a_model_that_looks_ahead(tmp_path, capsys):
    assert benchmark.main(["--runs=1", "--frames=1", "--num_filters=4", "--use_norm=LN"]) == 2
    assert "graph_final: before_norm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--frames=1,x"], "--frames=1,x: expected numbers of frames"),
        (["--frames=0"], "--frames=0: expected numbers"),
        (["--frames=2,3", "--backbone_model=c2d", "--video_num_frames=4", "--num_chan=3"], "c2d pools frames in pairs"),
    ],
)
def test_the_benchmark_refuses_lengths_that_no_clip_has(flags, message, capsys):
    assert benchmark.main(flags) == 2
    assert message in capsys.readouterr().err
