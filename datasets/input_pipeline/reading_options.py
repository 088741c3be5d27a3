"""How the clips of a data set are read so that they fit a model: arguments for `datasets.pipeline`. No TensorFlow.

Drawn clips (SyncMNIST's) are taken as they are. Of real video T frames are sampled, resized to a short side and
cropped: to the model's size for training and for a single view, to the short side for dense evaluation.
"""

from __future__ import annotations

from typing import Any

from datasets.records.manifest import Manifest, check_shards
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ModelConfig
from rstg_tf.runs.run import Run
from rstg_tf.video.clip_spec import frames_used_as_stored

FACTS = {"num_classes": "classes", "num_chan": "channels", "video_num_frames": "frames per clip",
         "dim_h": "pixels of height", "dim_w": "pixels of width"}


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
    return frames_used_as_stored(image_format=manifest.image_format, stored_size=(manifest.height, manifest.width),
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


def open_dataset(run: Run, directory: str, split: str) -> tuple[str, Manifest]:
    """The folder and manifest to evaluate on. Raises ConfigError or DatasetError if it is missing or does not fit."""
    directory = directory or getattr(run.config.data, f"{split}_dataset")
    if not directory:
        raise ConfigError(f"the run {run.path} names no {split} data set: give --dataset=DIR.")
    manifest = Manifest.read(directory)
    misfit = check_fit(manifest, run.config.model)
    if misfit is not None:
        flag, expected, found = misfit
        raise ConfigError(f"{directory} has {found} {FACTS[flag]}, but the run {run.path} was trained with {expected}.")
    for label, (found, expected) in enumerate(zip(manifest.classes, run.class_names())):
        if found != expected:
            raise ConfigError(f"{directory}: class {label} is {found!r}, but the run {run.path} was trained with "
                              f"{expected!r} there.")
    check_shards(directory, manifest)
    return directory, manifest


def model_sizes(run: Run) -> dict[str, int]:
    """What `this module` needs to know of a run."""
    model = run.config.model
    return {"num_frames": model.num_frames, "height": model.height, "width": model.width,
            "short_side": run.config.data.short_side}
