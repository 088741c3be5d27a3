"""Pictures of the graph at work: its regions, who listens to whom, and how that changes over stages and frames.

    python -m rstg_tf.visualize                        the newest run under runs/, three clips of its test data
    python -m rstg_tf.visualize --model_dir=RUN --checkpoint=best --clips=0,17
    python -m rstg_tf.visualize --dataset=DIR --num_clips=5 --out=FOLDER
    python -m rstg_tf.visualize --video=FILE --video=FILE

FILE is any video, a folder of JPEG or PNG frames, or a .npy file (uint8 [T, H, W] or [T, H, W, C]).
Everything goes into --out (unless given, MODEL_DIR/visualize/): index.html, pictures, and their numbers as JSON. How
much the scales listen to each other is the mean over --num_mean_clips of the data set, or over the given videos.
Records are read by the repository's datasets/, so those need a checkout; videos don't.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags as absl_flags

from rstg_tf.common.command_line import failed, run_program
from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.common.files import folder_name, whole_folder
from rstg_tf.common.interrupts import check_interrupts
from rstg_tf.common.spacing import evenly_spaced_indices
from rstg_tf.runs.clip_spec_of_run import clip_spec_of_run
from rstg_tf.runs.run import Run, open_run
from rstg_tf.runs.run_flags import parse_run_flags
from rstg_tf.video.clip_spec import clip_from_frames
from rstg_tf.video.isolated import DEFAULT_MEMORY, define_memory_flag, isolated_source
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits, define_limit_flags, limits_from_flags
from rstg_tf.video.sources import load_clip

# TensorFlow is imported where it is needed: a wrong folder or flag is answered at once.


class Clips(NamedTuple):
    """What to show. `videos`: name -> uint8 [T, H, W, C], as the model takes them.

    `drawn`: which to draw one by one. `averaged`: which the means are over. `labels`: name -> class, where known.
    """

    videos: Mapping[str, np.ndarray]
    drawn: Sequence[str]
    averaged: Sequence[str]
    labels: Mapping[str, int]


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Adds the flags of this command, beside those of every command on a run."""
    absl_flags.DEFINE_multi_string(
        "video",
        [],
        "a video file, a folder of frames or a .npy file in the place of records; may be given several times",
        flag_values=flags,
    )
    absl_flags.DEFINE_enum("split", "test", ["test", "train"], "which of the run's data sets", flag_values=flags)
    absl_flags.DEFINE_string("dataset", "", "another data set's folder, with the same classes", flag_values=flags)
    absl_flags.DEFINE_string(
        "clips",
        "",
        "numbers of the clips to draw, from 0, such as 0,17; unless given, --num_clips at even distances",
        flag_values=flags,
    )
    absl_flags.DEFINE_integer("num_clips", 3, "how many clips to draw", lower_bound=1, flag_values=flags)
    absl_flags.DEFINE_integer(
        "num_mean_clips", 64, "how many clips, at even distances, the means are over", lower_bound=1, flag_values=flags
    )
    absl_flags.DEFINE_string("out", "", "folder to write; unless given, MODEL_DIR/visualize", flag_values=flags)
    define_limit_flags(flags)
    define_memory_flag(flags)


def check_flags(flags: absl_flags.FlagValues, run: Run) -> Path:
    """The folder to write. Raises ConfigError for flags that contradict each other and for models without attention."""
    if flags.video:
        for name in ("dataset", "split", "clips", "num_clips", "num_mean_clips"):
            if flags[name].present:
                raise ConfigError(f"--{name} chooses among a data set's clips, and --video gives its own: give one.")
    if flags.clips and flags["num_clips"].present:
        raise ConfigError("--clips and --num_clips both say which clips to draw: give one of them.")
    if flags.clips and not all(part.strip().isdecimal() for part in flags.clips.split(",")):
        raise ConfigError(f"--clips={flags.clips}: expected numbers from 0 with commas between, such as 0,17.")
    model = run.config.model
    if model.head != "graph" or not model.graph_places or not model.graph.space_iterations:
        raise ConfigError(
            f"the run {run.path} has no attention to show: its model has no graph with a space stage "
            "(--head=graph, --place_graph, --num_process_iter of at least 1)."
        )
    out = Path(flags.out or run.path / "visualize")
    if out.is_dir() and any(out.iterdir()) and not (out / "scales.json").exists():
        raise ConfigError(f"--out={out} holds other files, and would be replaced: give a new folder or an empty one.")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out={out} is a file: give a folder.")
    return out


def clips_of_videos(
    run: Run, paths: Sequence[str], limits: MediaLimits = DEFAULT_LIMITS, memory: int = DEFAULT_MEMORY
) -> Clips:
    """The clips that the model sees of these sources, as evaluation makes them; see `isolated.isolated_source`."""
    clip, videos = clip_spec_of_run(run), {}
    for path in paths:
        name = folder_name(Path(path).name)
        if name in videos:
            raise ConfigError(f"--video={path}: another one is named {name} too, and so is its folder; rename one.")
        source = isolated_source(path, memory=memory, limits=limits)
        videos[name] = clip_from_frames(load_clip(source, channels=clip.channels).frames, clip)
    return Clips(videos=videos, drawn=list(videos), averaged=list(videos), labels={})


def clips_of_records(run: Run, flags: absl_flags.FlagValues) -> Clips:
    """Clips of a data set, those to draw and those for the means. Raises ConfigError if it is missing or unfit."""
    try:
        from datasets.input_pipeline.reading_options import open_dataset, reading_options
        from datasets.records.manifest import DatasetError
    except ImportError as error:
        raise ConfigError(
            "records are read by datasets/ of the repository, which is not there: start "
            "python -m rstg_tf.visualize in its folder, or give --video=FILE."
        ) from error
    try:
        dataset = open_dataset(run, flags.dataset, flags.split)
        options = reading_options(dataset.manifest, run.config.clip_spec)
        drawn = _some_of(dataset.num_clips, flags.num_clips)
        if flags.clips:
            drawn = sorted({int(part) for part in flags.clips.split(",")})
        if drawn[-1] >= dataset.num_clips:
            raise ConfigError(f"--clips={flags.clips}: {dataset.folder} has the clips 0 to {dataset.num_clips - 1}.")
        averaged = _some_of(dataset.num_clips, flags.num_mean_clips)
        from datasets.input_pipeline.clips_by_index import clips_by_index  # TensorFlow, once nothing is wrong

        found = clips_by_index(dataset, options, {*drawn, *averaged})
    except DatasetError as error:
        raise ConfigError(str(error)) from error
    return Clips(
        videos={f"clip-{index}": clip.video for index, clip in found.items()},
        drawn=[f"clip-{index}" for index in drawn],
        averaged=[f"clip-{index}" for index in averaged],
        labels={f"clip-{index}": clip.label for index, clip in found.items()},
    )


def _some_of(available: int, wanted: int) -> list[int]:
    return evenly_spaced_indices(available, min(wanted, available))


def visualize(run: Run, clips: Clips, *, out: Path, precision: str) -> dict:
    """Writes the folder `out` and returns the facts that the command prints."""
    from rstg_tf.common import devices
    from rstg_tf.viz.graph_report import write_graph_pictures

    devices.set_precision(run.precision(precision))
    model, step = run.load_model()
    with whole_folder(out) as folder:
        summary = write_graph_pictures(
            folder,
            model=model,
            clips=clips.videos,
            drawn=clips.drawn,
            labels=clips.labels,
            averaged=clips.averaged,
            class_names=run.class_names(),
        )
        check_interrupts()
    return {
        "out": str(out),
        "model_dir": str(run.path),
        "step": step,
        "drawn": list(clips.drawn),
        "mean_over": summary["clips"],
        "places": list(summary["places"]),
    }


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        flags = parse_run_flags(arguments, define_flags, description=__doc__)
        if flags is None:
            return 0
        run = open_run(flags.model_dir, flags.checkpoint)
        out = check_flags(flags, run)
        clips = (
            clips_of_videos(run, flags.video, limits_from_flags(flags), flags.max_memory)
            if flags.video
            else clips_of_records(run, flags)
        )
        facts = visualize(run, clips, out=out, precision=flags.precision)
    except (ConfigError, VideoError, OSError) as error:
        return failed("visualize", error, code=1 if isinstance(error, OSError) else 2)
    print(f"open {out / 'index.html'}")
    print(json.dumps(facts))
    return 0


def program() -> None:
    """The command `rstg-visualize`."""
    run_program(main, name="visualize", interrupted="nothing was written.")


if __name__ == "__main__":
    program()
