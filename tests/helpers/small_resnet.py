"""A ResNet-50 on clips small enough for many tests, with weights under which everything in it acts."""

from __future__ import annotations

import dataclasses

import numpy as np
import recipe

from rstg_tf import build_model, release
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.config import ModelConfig

SMALL_GRAPH = {"num_scales": 2, "space_iterations": 1, "node_width": 8, "message_width": 8}
SMALL = ModelConfig(
    backbone="i3d",
    height=32,
    width=32,
    channels=3,
    num_frames=4,
    graph_frames=2,
    num_classes=5,
    pixel_scaling="centred",
    combination="plus",
    graph_places=("res3", "final"),
    graph=GraphConfig(**SMALL_GRAPH),
)
VIDEO = recipe.video(7, (2, 4, 32, 32, 3))


def random_inputs(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def randomise(layer):
    """Gives every weight a random value; variances stay positive."""
    generator = np.random.default_rng(1)
    for weight in layer.weights:
        values = generator.standard_normal(weight.shape) * 0.3
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else values)


def build_with_recipe_weights(**changes):
    """SMALL with these changes and the golden recipe's weights, whose graphs do add something."""
    model = build_model(dataclasses.replace(SMALL, **changes))
    tensors = release.release_tensors(model)
    release.assign_weights(model, {name: recipe.weight(name, value.shape) for name, value in tensors.items()})
    return model
