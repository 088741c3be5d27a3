"""The release's golden vectors, and models with the weights that they were made with."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import recipe

from rstg_tf import build_model, release

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def golden_model(name):
    """The case's model with the recipe's weights, its record and its vectors."""
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    model = build_model(release.config_from_release(case["config"]).model)
    release.assign_weights(model, recipe.weights(case["variables"]))
    return model, case, np.load(GOLDEN / f"{name}.npz")


def clips(case, seed):
    config = case["config"]
    return recipe.video(
        seed, (config["batch_size"], config["video_num_frames"], config["dim_h"], config["dim_w"], config["num_chan"])
    )


def assert_equals_golden(actual, golden, name):
    """The bound of an equal float32 computation: 2e-5 of the largest value, at least of 1."""
    np.testing.assert_allclose(actual, golden, rtol=0, atol=2e-5 * max(1.0, np.abs(golden).max()), err_msg=name)


def under_release_names(model, values):
    """Values shaped like the trainable variables, renamed and reshaped as the release's."""
    kept = [variable.numpy() for variable in model.trainable_variables]
    for variable, value in zip(model.trainable_variables, values):
        variable.assign(value)
    renamed = release.release_tensors(model)
    for variable, value in zip(model.trainable_variables, kept):
        variable.assign(value)
    return renamed
