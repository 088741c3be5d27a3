"""The models and graphs that stream, with weights under which everything in them acts."""

from __future__ import annotations

import dataclasses

import numpy as np
import recipe
from graph_options import OPTIONS
from small_resnet import SMALL
from tiny_configs import TINY

from rstg_tf import build_model

PER_STEP = {"normalization": "LN_per_step"}
GRAPH_OPTIONS = [{**options, **PER_STEP} if options.get("normalization") == "LN" else options for options in OPTIONS]
GRAPH_OPTIONS += [{"share_stages": True, "time_stages": "none"}, {"node_reduction": "mean", **PER_STEP}]
# Places of graphs and what is special about them, on a small C2D.
RESNETS = [
    {"graph_places": ("res2", "res3", "final"), "final_norm": "LN_per_step", "combination": "plus"},
    {"graph_places": ("res4", "final"), "final_norm": "BN", "combination": "serial"},
    {"graph_places": ("final",), "final_norm": "LN", "combination": "plus"},
    {"graph_places": ("res5",), "final_norm": "none", "remat": True},
    {"graph_places": ()},
]


def assert_close(actual, expected, tolerance=1e-5):
    """Within 1e-5 of the largest value, at least of 1."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()))


def random_model(**changes):
    """A model with weights by the golden recipe's rule, under their own names where the release has none."""
    base = TINY if changes.get("backbone", "simple_c2d") == "simple_c2d" else SMALL
    model = build_model(dataclasses.replace(base, **changes))
    for index, weight in enumerate(model.weights):
        name = f"{index}/{weight.name.split(':')[0].rsplit('/', 1)[-1]}"
        name = name.replace("recurrent_kernel", "kernel").replace("first_kernel", "kernel").replace("scale", "ln_scale")
        weight.assign(recipe.weight(name, tuple(weight.shape)))
    return model


def c2d(**changes):
    return random_model(backbone="c2d", **changes)
