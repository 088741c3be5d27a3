"""How the clips of a data set are read so that they fit a model: arguments for `datasets.pipeline`. No TensorFlow.

Where all clips have one size, they are taken as they are. Where they differ, frames are resized to a short side and
cropped: to the model's size for training and for a single view, to the short side for dense evaluation.
"""

from __future__ import annotations

from typing import Any

from datasets.manifest import Manifest
from rstg_tf.config import ConfigError


def has_one_size(manifest: Manifest) -> bool:
    return None not in (manifest.height, manifest.width)


def training_reading(
    manifest: Manifest, *, num_frames: int, height: int, width: int, short_side: int
) -> dict[str, Any]:
    """The arguments of `training_clips`, and of `evaluation_clips` with a single view, for a model of these sizes.

    Raises ConfigError where frames resized to `short_side` would be smaller than the model's.
    """
    if has_one_size(manifest):
        return {"num_frames": num_frames}
    if short_side < min(height, width):
        raise ConfigError(f"--short_side={short_side}: expected at least {min(height, width)}, since the model's "
                          f"frames, {height} x {width} pixels, are cut out of the resized ones.")
    return {"num_frames": num_frames, "crop_size": (height, width), "short_side": short_side}


def evaluation_reading(
    manifest: Manifest, *, spatial_views: int, temporal_views: int, eval_crop_size: int = 0, **sizes: int
) -> dict[str, Any]:
    """The arguments of `evaluation_clips` for some views of each clip.

    Args:
      eval_crop_size: side of the crops in pixels; 0: the model's sizes for one crop, the short side for several.
      sizes: num_frames, height, width, short_side: those of `training_reading`.

    Raises ConfigError where all crops of a clip would be the same, or larger than the frames.
    """
    reading = training_reading(manifest, **sizes)
    one_size = has_one_size(manifest)
    room = min(manifest.height, manifest.width) if one_size else sizes["short_side"]
    if eval_crop_size > room:
        raise ConfigError(f"--eval_crop_size={eval_crop_size}: expected at most {room}, the short side of the frames "
                          f"of {manifest.name} in pixels.")
    whole = eval_crop_size == 0 or manifest.height == manifest.width == eval_crop_size
    if one_size and whole and spatial_views > 1:
        raise ConfigError(f"--num_eval_spatial_clips={spatial_views}: the crops would be alike, as all frames of "
                          f"{manifest.name} are {manifest.height} x {manifest.width}; give a smaller --eval_crop_size, "
                          "or one spatial clip.")
    if eval_crop_size or (spatial_views > 1 and not one_size):
        side = eval_crop_size or room
        reading["crop_size"] = (side, side)
    return {**reading, "spatial_views": spatial_views, "temporal_views": temporal_views}
