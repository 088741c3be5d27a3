"""How the clips of a data set are read so that they fit a model. No TensorFlow.

Drawn clips (SyncMNIST's) are taken as they are. Of real video T frames are sampled, resized to a short side and
cropped: to the model's size for training and for a single view, to the short side for dense evaluation.
"""

from __future__ import annotations

import dataclasses

from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import Manifest
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.text import classes_differ
from rstg_tf.config import ModelConfig
from rstg_tf.runs.run import Run, kept_class_names
from rstg_tf.video.clip_spec import ClipSpec

FACTS = {
    "num_classes": "classes",
    "num_chan": "channels",
    "video_num_frames": "frames per clip",
    "dim_h": "pixels of height",
    "dim_w": "pixels of width",
}


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """What evaluation reads of each clip: `spatial_views` crops of each of `temporal_views` samplings of its frames.

    `clip`: what a view is, and how frames become one.
    """

    clip: ClipSpec
    spatial_views: int = 1
    temporal_views: int = 1

    @property
    def num_views(self) -> int:
        return self.spatial_views * self.temporal_views


def check_fit(manifest: Manifest, model: ModelConfig) -> tuple[str, int, int] | None:
    """The first flag of the model that these records contradict, its value and theirs; None where they fit.

    Real video has any length and any size: those are sampled and cropped.
    """
    facts = [("num_classes", model.num_classes, len(manifest.classes)), ("num_chan", model.channels, manifest.channels)]
    if manifest.image_format == "PNG":
        facts += [
            ("video_num_frames", model.num_frames, manifest.num_frames),
            ("dim_h", model.height, manifest.height),
            ("dim_w", model.width, manifest.width),
        ]
    return next((fact for fact in facts if fact[2] is not None and fact[1] != fact[2]), None)


def clip_spec_of_records(manifest: Manifest, clip: ClipSpec) -> ClipSpec:
    """How the clips of these records are read for a model that takes `clip`: resized to its short side, or as stored.

    Raises ConfigError where frames resized to the short side would be smaller than the model's.
    """
    if _are_used_as_stored(manifest, clip):
        return dataclasses.replace(clip, short_side=None)
    if clip.short_side < min(clip.frame_size):
        raise ConfigError(
            f"--short_side={clip.short_side}: expected at least {min(clip.frame_size)}, since the "
            f"model's frames, {clip.height} x {clip.width} pixels, are cut out of the resized ones."
        )
    return clip


def _are_used_as_stored(manifest: Manifest, clip: ClipSpec) -> bool:
    return clip.uses_frames_as_stored(image_format=manifest.image_format, height=manifest.height, width=manifest.width)


def reading_options(
    manifest: Manifest, clip: ClipSpec, *, spatial_views: int = 1, temporal_views: int = 1, eval_crop_size: int = 0
) -> ReadingOptions:
    """What is read of these records for a model that takes `clip`.

    Args:
      eval_crop_size: side of the crops in pixels; 0: the model's sizes for one crop, the short side for several.

    Raises ConfigError where all crops of a clip would be the same, or larger than the frames.
    """
    read = clip_spec_of_records(manifest, clip)
    as_stored = _are_used_as_stored(manifest, clip)
    room = min(manifest.height, manifest.width) if as_stored else clip.short_side
    if eval_crop_size > room:
        raise ConfigError(
            f"--eval_crop_size={eval_crop_size}: expected at most {room}, the short side of the frames "
            f"of {manifest.name} in pixels."
        )
    whole = eval_crop_size == 0 or manifest.height == manifest.width == eval_crop_size
    if as_stored and whole and spatial_views > 1:
        raise ConfigError(
            f"--num_eval_spatial_clips={spatial_views}: the crops would be alike, as all frames of "
            f"{manifest.name} are {manifest.height} x {manifest.width}; give a smaller --eval_crop_size, "
            "or one spatial clip."
        )
    if manifest.num_frames is not None:
        _check_samplings(manifest, temporal_views, clip.num_frames)
    if eval_crop_size or (spatial_views > 1 and not as_stored):
        read = dataclasses.replace(read, height=eval_crop_size or room, width=eval_crop_size or room)
    return ReadingOptions(read, spatial_views=spatial_views, temporal_views=temporal_views)


def _check_samplings(manifest: Manifest, temporal_views: int, num_frames: int) -> None:
    """Sampling v of V begins at frame round(v/V · D/T); see `transforms.frame_indices`."""
    starts = {round(view / temporal_views * manifest.num_frames / num_frames) for view in range(temporal_views)}
    if len(starts) < temporal_views:
        raise ConfigError(
            f"--num_eval_temporal_clips={temporal_views}: some samplings would be alike, as the clips of "
            f"{manifest.name} have {manifest.num_frames} frames and the model takes {num_frames}; give "
            "fewer."
        )


def open_dataset(run: Run, directory: str, split: str) -> RecordedDataset:
    """The data set to evaluate on, checked. Raises ConfigError or DatasetError if it is missing or does not fit."""
    directory = directory or getattr(run.config.data, f"{split}_dataset")
    if not directory:
        raise ConfigError(f"the run {run.path} names no {split} data set: give --dataset=DIR.")
    dataset = RecordedDataset.open(directory)
    manifest = dataset.manifest
    misfit = check_fit(manifest, run.config.model)
    if misfit is not None:
        flag, expected, found = misfit
        raise ConfigError(f"{directory} has {found} {FACTS[flag]}, but the run {run.path} was trained with {expected}.")
    names = kept_class_names(run.path)
    fault = names and classes_differ(manifest.classes, names, here=directory, there=f"the run {run.path}")
    if fault:
        raise ConfigError(f"{fault[0].upper()}{fault[1:]}.")
    dataset.check()
    return dataset
