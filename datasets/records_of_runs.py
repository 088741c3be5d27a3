"""Which records a trained run can be evaluated on, and how they are read for it."""

from __future__ import annotations

from datasets.manifest import Manifest, check_shards
from datasets.views import check_fit
from rstg_tf.config import ConfigError
from rstg_tf.runs import Run

FACTS = {"num_classes": "classes", "num_chan": "channels", "video_num_frames": "frames per clip",
         "dim_h": "pixels of height", "dim_w": "pixels of width"}

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
    """What `datasets.views` needs to know of a run."""
    model = run.config.model
    return {"num_frames": model.num_frames, "height": model.height, "width": model.width,
            "short_side": run.config.data.short_side}
