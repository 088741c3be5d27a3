"""The clips that a trained run takes from users and servers."""

from __future__ import annotations

import dataclasses

from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig
from rstg_tf.runs.run import Run, kept_manifest
from rstg_tf.video.clip_spec import ClipSpec


def clip_spec_of_run(run: Run, **sizes: int) -> ClipSpec:
    """Frames become clips as those of the run's own data set did. `sizes`: see `served_clip_spec`."""
    return served_clip_spec(run.config, as_stored=_used_frames_as_stored(run), **sizes)


def served_clip_spec(
    config: ExperimentConfig, *, as_stored: bool | None = None, num_frames: int = 0, height: int = 0, width: int = 0
) -> ClipSpec:
    """The clips of an experiment; sizes that are given replace the training's. ConfigError for impossible ones.

    `as_stored`: whether the clips it learnt from were taken as they are, none resized (None: grey clips were). Colour
    frames of another size are then resized to just cover the model's size; grey ones, drawn for it, are refused.
    """
    clip = config.clip_spec
    clip = dataclasses.replace(
        clip, num_frames=num_frames or clip.num_frames, height=height or clip.height, width=width or clip.width
    )
    _check_sizes(config, clip)
    if clip.channels == 1 if as_stored is None else as_stored:
        clip = dataclasses.replace(clip, short_side=None if clip.channels == 1 else min(clip.frame_size))
    return clip


def _check_sizes(config: ExperimentConfig, clip: ClipSpec) -> None:
    model = config.model
    served = dataclasses.replace(
        model,
        num_frames=clip.num_frames,
        height=clip.height,
        width=clip.width,
        graph_frames=model.graph_frames * clip.num_frames // model.num_frames,
    )
    if served == model:
        return
    try:
        served.check()
    except ConfigError as error:
        raise ConfigError(
            f"clips of {clip.num_frames} frames of {clip.height}×{clip.width} pixels: as the model's own "
            f"sizes these would be refused: {error}"
        ) from error


def _used_frames_as_stored(run: Run) -> bool | None:
    """Whether the run's clips were taken as they were stored, none resized; None if it kept no manifest."""
    path = run.path / "train_dataset.json"
    if not path.exists():
        return None
    manifest = kept_manifest(path)
    return run.config.clip_spec.uses_frames_as_stored(
        image_format=manifest.get("image_format", ""), height=manifest.get("height"), width=manifest.get("width")
    )
