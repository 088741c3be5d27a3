"""The release's names of weights: every weight has one, and every name belongs to a part."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from rstg_tf import build_model, flags
from rstg_tf.release.name_parts import kind_of, parts_of
from rstg_tf.release.names import weight_entries

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": "mean_lstm"},
        {"head": "conv_lstm"},
        {"stage_norm": True},
        {"use_att": "dot", "attention_heads": 2, "use_norm": "BN"},
    ],
    ids=str,
)
def test_the_table_holds_every_weight_but_the_dropout_s_count(changes, toy_settings):
    model = build_model(flags.config_from_settings({**toy_settings, **changes}).model)
    entries = weight_entries(model)
    listed = {id(target.variable) for entry in entries for target in entry.targets}
    rest = [weight for weight in model.weights if id(weight) not in listed]
    assert len(rest) == 1 and rest[0].shape == ()
    assert sum(np.prod(entry.shape) for entry in entries) == sum(np.prod(weight.shape) for weight in model.weights) - 1


@pytest.mark.parametrize("file", sorted(path.name for path in GOLDEN.glob("s*.json") if "checksums" not in path.name))
def test_every_name_of_the_release_belongs_to_a_part(file):
    names = [name for name, _, _ in json.loads((GOLDEN / file).read_text())["variables"] if kind_of(name) == "weights"]
    parts = set(parts_of(names).values())
    assert "unknown" not in parts and "classifier" in parts
    places = json.loads((GOLDEN / file).read_text())["config"]["place_graph"]
    assert {part for part in parts if part.startswith("graph")} == {
        f"graph {place}" for place in places.split("-") if place != "none"
    }


def test_a_name_behind_a_graph_inside_c2d_belongs_to_that_graph():
    names = [
        "tower/resnet_c2d/backbone/whole_graph_model_res4/project_i3d/kernel",
        "tower/resnet_c2d/backbone/after_graph_ln_scale",
        "tower/resnet_c2d/after_graph_ln/beta",
    ]
    assert list(parts_of(names).values()) == ["graph res4", "graph res4", "graph final"]
