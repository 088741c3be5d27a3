"""How the clips of a data set are read so that they fit a model: arguments for `datasets.pipeline`. No TensorFlow.

Drawn clips (SyncMNIST's) are taken as they are. Of real video T frames are sampled, resized to a short side and
cropped: to the model's size for training and for a single view, to the short side for dense evaluation.
"""

from __future__ import annotations

from typing import Any

from datasets.manifest import Manifest
from rstg_tf.clips import taken_whole
from rstg_tf.config import ConfigError, ModelConfig


def check_fit(manifest: Manifest, model: ModelConfig) -> tuple[str, int, int] | None:
    """The first flag of the model that these records contradict, its value and theirs; None where they fit.

    Real video has any length and any size: those are sampled and cropped.
    """
    facts = [("num_classes", model.num_classes, len(manifest.classes)),
             ("num_chan", model.channels, manifest.channels)]
    if manifest.image_format == "PNG":
        facts += [("video_num_frames", model.num_frames, manifest.num_frames), ("dim_h", model.height, manifest.height),
                  ("dim_w", model.width, manifest.width)]
    return next((fact for fact in facts if fact[2] is not None and fact[1] != fact[2]), None)


def _is_whole(manifest: Manifest, height: int, width: int) -> bool:
    return taken_whole(image_format=manifest.image_format, stored_size=(manifest.height, manifest.width),
                       model_size=(height, width))


def training_reading(
    manifest: Manifest, *, num_frames: int, height: int, width: int, short_side: int
) -> dict[str, Any]:
    """The arguments of `training_clips`, and of `evaluation_clips` with a single view, for a model of these sizes.

    Raises ConfigError where frames resized to `short_side` would be smaller than the model's.
    """
    if _is_whole(manifest, height, width):
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
    is_whole = _is_whole(manifest, sizes["height"], sizes["width"])
    room = min(manifest.height, manifest.width) if is_whole else sizes["short_side"]
    if eval_crop_size > room:
        raise ConfigError(f"--eval_crop_size={eval_crop_size}: expected at most {room}, the short side of the frames "
                          f"of {manifest.name} in pixels.")
    whole = eval_crop_size == 0 or manifest.height == manifest.width == eval_crop_size
    if is_whole and whole and spatial_views > 1:
        raise ConfigError(f"--num_eval_spatial_clips={spatial_views}: the crops would be alike, as all frames of "
                          f"{manifest.name} are {manifest.height} x {manifest.width}; give a smaller --eval_crop_size, "
                          "or one spatial clip.")
    if manifest.num_frames is not None:
        _check_samplings(manifest, temporal_views, sizes["num_frames"])
    if eval_crop_size or (spatial_views > 1 and not is_whole):
        side = eval_crop_size or room
        reading["crop_size"] = (side, side)
    return {**reading, "spatial_views": spatial_views, "temporal_views": temporal_views}


def _check_samplings(manifest: Manifest, temporal_views: int, num_frames: int) -> None:
    """Sampling v of V begins at frame round(v/V · D/T); see `frames.frame_indices`."""
    starts = {round(view / temporal_views * manifest.num_frames / num_frames) for view in range(temporal_views)}
    if len(starts) < temporal_views:
        raise ConfigError(f"--num_eval_temporal_clips={temporal_views}: some samplings would be alike, as the clips of "
                          f"{manifest.name} have {manifest.num_frames} frames and the model takes {num_frames}; give "
                          "fewer.")
