"""A run -> a SavedModel that TF Serving, or any TensorFlow runtime, loads without this project's code.

    python -m rstg_tf.export --model_dir=RUN --out=BASE [--version=N] [--checkpoint=STEP|best] [--precision=run]
                             [--num_frames=T] [--height=H] [--width=W] [--warmup_clips=recorded]

BASE/<version>/ holds the graph with its signatures (see `rstg_tf.serving.signatures`), its weights (averaged ones where
the run keeps an average), and

    assets/class_names.txt   a name per line, in the order of the logits
    assets/experiment.json   the run's config.json, without the paths in it
    assets/export.json       step, number format, the clips it takes and how frames become one, the largest requests,
                             every signature's inputs and outputs, and which signatures this model cannot have, with the
                             reason
    assets.extra/tf_serving_warmup_requests   what a server runs before it takes requests

A request of encoded frames that is larger than --max_clips, --max_frames, --max_frame_pixels, --max_png_bytes or
--max_request_bytes is refused before anything is decoded. The warm-up requests hold a drawn clip;
--warmup_clips=recorded takes the first of the run's data set instead, which then travels with the model.

The numbers are computed in float32 whatever the run was trained in, because not every runtime has bfloat16 kernels;
`--precision=run` keeps the run's. Before the model gets its name it is loaded again, and the answers of every signature
are compared. The last line of the output is JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from rstg_tf.common.command_line import failed, run_program
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.interrupts import ignored_interrupts
from rstg_tf.runs.clip_spec_of_run import clip_spec_of_run
from rstg_tf.runs.run import Run, open_run
from rstg_tf.runs.run_flags import parse_run_flags
from rstg_tf.serving.model_versions import VersionError, check_target
from rstg_tf.serving.request_limits import RequestLimits
from rstg_tf.serving.saved_model import ExportError, export_run
from rstg_tf.video.clip_spec import ClipSpec

# TensorFlow is imported where it is needed: a wrong folder or flag is answered at once.
SIZES = {"num_frames": "frames", "height": "pixels", "width": "pixels"}
LIMITS = {
    "clips": "clips of a request of encoded frames",
    "frames": "frames of a clip",
    "frame_pixels": "height times width of a frame; no side may be longer than twice the square root of it",
    "png_bytes": "bytes of a frame that is a PNG",
    "request_bytes": "bytes of all frames of a request",
}
WARMUP_CLIPS = ("drawn", "recorded")


def _define_flags(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string(
        "out", "", "folder that a server watches; the model becomes OUT/<version>/", flag_values=flags
    )
    absl_flags.DEFINE_integer("version", None, "its version; unless given, the next integer", flag_values=flags)
    for name, what in SIZES.items():
        absl_flags.DEFINE_integer(
            name,
            0,
            f"{what} of the clips that are served, if the model takes other clips than those of the training; 0: those",
            lower_bound=0,
            flag_values=flags,
        )
    for name, what in LIMITS.items():
        absl_flags.DEFINE_integer(
            f"max_{name}",
            getattr(RequestLimits, name),
            f"at most so many {what}",
            lower_bound=1,
            upper_bound=2**31 - 1,
            flag_values=flags,
        )
    absl_flags.DEFINE_enum(
        "warmup_clips",
        "drawn",
        WARMUP_CLIPS,
        "what a server is warmed up with: a drawn clip, or the first recorded one of the run's data set",
        flag_values=flags,
    )


def clip_from_flags(run: Run, flags: absl_flags.FlagValues) -> ClipSpec:
    """The clips that are served: the run's but for the sizes that are given, which a ConfigError names."""
    sizes = {name: flags[name].value for name in SIZES if flags[name].value}
    try:
        return clip_spec_of_run(run, **sizes)
    except ConfigError as error:
        given = " ".join(f"--{name}={value}" for name, value in sizes.items())
        raise ConfigError(f"{given}: {error}") from error


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        flags = parse_run_flags(arguments, _define_flags, description=__doc__)
        if flags is None:
            return 0
        if not flags.out:
            raise ConfigError("--out is missing: give the folder that the server watches.")
        run = open_run(flags.model_dir, flags.checkpoint)
        check_target(flags.out, flags.version)
        clip = clip_from_flags(run, flags)
        limits = RequestLimits(**{name: flags[f"max_{name}"].value for name in LIMITS})
        print("building the SavedModel, a function for each signature: half a minute or more", flush=True)
        path = export_run(
            run,
            base=flags.out,
            version=flags.version,
            precision=flags.precision,
            clip=clip,
            limits=limits,
            warmup_clips=flags.warmup_clips,
        )
    except VersionError as error:
        return failed("export", ConfigError(f"--version={flags.version}: {error}"), code=2)
    except (ConfigError, ExportError, OSError) as error:
        return failed("export", error, code=2 if isinstance(error, ConfigError) else 1)
    with ignored_interrupts():
        published = _published(path)
        if warning := run.left_to_train(published["step"]):
            print(warning)
        print(json.dumps({"export": path, "model_dir": str(run.path), **published}))
    return 0


def _published(path: str) -> dict:
    facts = json.loads(Path(path, "assets", "export.json").read_text(encoding="utf-8"))
    return {
        "step": facts["step"],
        "signatures": list(facts["signatures"]),
        "left_out": facts["left_out"],
        "warmup": facts["warmup"],
    }


def program() -> None:
    """The command `rstg-export`."""
    run_program(main, name="export", interrupted="nothing was published.")


if __name__ == "__main__":
    program()
