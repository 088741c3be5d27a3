"""Small models, exported, and requests for them: shared by the tests of export, signatures and client."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import recipe
import tensorflow as tf
from PIL import Image
from small_resnet import SMALL, build_with_recipe_weights

from rstg_tf import release
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.config import ExperimentConfig, ModelConfig
from rstg_tf.model import build_model
from rstg_tf.serving import saved_model

GREY = ExperimentConfig(
    model=ModelConfig(
        backbone_filters=8,
        backbone_layers=2,
        num_frames=4,
        graph_frames=4,
        height=20,
        width=16,
        num_classes=7,
        pixel_scaling="centred",
        graph=GraphConfig(num_scales=2, space_iterations=2, node_width=8, message_width=8, input_batch_norm=True),
    )
)
COLOUR = ExperimentConfig(model=SMALL)


class Served(NamedTuple):
    """A model, where it was exported to, and the signatures loaded from there."""

    model: object
    path: str
    signatures: dict


def build_grey(config=GREY):
    """Weights by the golden vectors' recipe: the same under Keras 2 and 3, and large enough for answers to differ."""
    model = build_model(config.model)
    names = release.release_tensors(model)
    release.assign_weights(model, {name: recipe.weight(name, value.shape) for name, value in names.items()})
    return model


def build_colour():
    """I3D with graphs inside res3 and at the end."""
    return build_with_recipe_weights()


def class_names(config):
    """A name per class, some of them not in ASCII."""
    return tuple(f"größe {number}" for number in range(config.model.num_classes))


def serve(model, config, base) -> Served:
    path = saved_model.export_model(model, base=str(base), config=config, class_names=class_names(config), step=7)
    return Served(model, path, tf.saved_model.load(path).signatures)


def clips(config, count, seed=0):
    """uint8 [count, T, H, W, C]: smooth pictures with noise, other ones in every frame."""
    model, generator = config.model, np.random.default_rng(seed)
    coarse = generator.integers(0, 200, (count, model.num_frames, 3, 3, model.channels))
    large = np.repeat(np.repeat(coarse, -(-model.height // 3), axis=2), -(-model.width // 3), axis=3)
    fine = generator.integers(0, 56, (count, model.num_frames, model.height, model.width, model.channels))
    return (large[:, :, : model.height, : model.width] + fine).astype(np.uint8)


def encode(frames, image_format="PNG"):
    """uint8 [T, H, W, C] -> T files."""
    files = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(file, image_format)
        files.append(file.getvalue())
    return files
