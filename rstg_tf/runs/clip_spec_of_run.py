"""The clips that a trained run takes."""

from __future__ import annotations

import dataclasses
import json

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.files import read_text
from rstg_tf.config import ExperimentConfig
from rstg_tf.runs.run import Run


def run_clip(run: Run, **sizes: int):
    """The ClipSpec of a run: frames become clips as those of its own data set did. `sizes`: see `served_clip`."""
    return served_clip(run.config, whole_frames=_takes_whole_frames(run), **sizes)


def served_clip(config: ExperimentConfig, *, whole_frames: bool | None = None, num_frames: int = 0, height: int = 0,
                width: int = 0):
    """The ClipSpec of a run; sizes that are given replace the training's. Raises ConfigError for impossible ones.

    `whole_frames`: whether the clips it learnt from were taken as they are, none resized (None: grey clips were).
    Colour frames of another size are then resized to just cover the model's size; grey ones, drawn for it, are refused.
    """
    from rstg_tf.video.clip_spec import ClipSpec

    model = config.model
    num_frames = num_frames or model.num_frames
    served = dataclasses.replace(model, num_frames=num_frames, height=height or model.height,
                                 width=width or model.width,
                                 graph_frames=model.graph_frames * num_frames // model.num_frames)
    if served != model:
        try:
            served.check()
        except ConfigError as error:
            raise ConfigError(f"--num_frames={num_frames} --height={served.height} --width={served.width}: as the "
                              f"model's own sizes these would be refused: {error}") from error
    short_side: int | None = config.data.short_side
    if model.channels == 1 if whole_frames is None else whole_frames:
        short_side = None if model.channels == 1 else min(served.height, served.width)
    return ClipSpec(num_frames=num_frames, height=served.height, width=served.width, channels=served.channels,
                      short_side=short_side)


def _takes_whole_frames(run: Run) -> bool | None:
    """Whether the run's clips were taken as they were stored, none resized; None if it kept no manifest."""
    from rstg_tf.video.clip_spec import frames_used_as_stored

    path = run.path / "train_dataset.json"
    if not path.exists():
        return None
    manifest = json.loads(read_text(path))
    return frames_used_as_stored(image_format=manifest.get("image_format", ""),
                       stored_size=(manifest.get("height"), manifest.get("width")),
                       model_size=(run.config.model.height, run.config.model.width))
