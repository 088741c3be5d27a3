"""A video in, names and probabilities out; with --out also a video that shows where the model looks.

    python -m rstg_tf.predict --video=FILE                      the newest run under runs/, its newest checkpoint
    python -m rstg_tf.predict --model_dir=RUN --checkpoint=best --video=FILE --top=3 --json
    python -m rstg_tf.predict --export_dir=BASE --video=FILE --out=annotated.mp4
    CAMERA | python -m rstg_tf.predict --video=- --raw_size=320x240       bare frames, rgb24, as they come

FILE is any video, a folder of numbered pictures, or a .npy file (uint8 [T, H, W] or [T, H, W, C]);
'-' is standard input: a whole video file, or with --raw_size its bare frames. BASE is an exported model, or the folder
with its versions. A video longer than a window is cut into windows that overlap; each is sampled, resized and cropped
as evaluation does, and the answer for the whole is the mean of their logits. With --json standard output holds one JSON
object and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from rstg_tf.common.command_line import failed, json_line, run_program
from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.common.shown import printable
from rstg_tf.evaluation.metrics import ranking
from rstg_tf.inference.classifier import Predictor, RunPredictor, SavedModelPredictor
from rstg_tf.inference.sliding_windows import Prediction, Windows, predict_windows
from rstg_tf.runs.run import open_run
from rstg_tf.runs.run_flags import parse_run_flags
from rstg_tf.video.isolated import define_memory_flag, isolated_source
from rstg_tf.video.limits import define_limit_flags, limits_from_flags
from rstg_tf.video.sources import RAW_CHANNELS, FrameSource
from rstg_tf.video.standard_input import standard_input_source
from rstg_tf.viz.answer_table import Table, say

# TensorFlow is imported where it is needed: a wrong file or flag is answered at once.

DEFAULT_RATE = 12.0  # frames a second where the source doesn't tell: that of Something-Something's frame folders


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Adds the flags of this command, beside those of every command on a run."""
    absl_flags.DEFINE_string(
        "video", "", "a video file, a folder of frames, a .npy file, or - for standard input", flag_values=flags
    )
    absl_flags.DEFINE_string(
        "export_dir", "", "a SavedModel in the place of a run: its folder, or that of its versions", flag_values=flags
    )
    absl_flags.DEFINE_boolean("trust", False, "load --export_dir although it holds odd ops", flag_values=flags)
    absl_flags.DEFINE_integer("top", 5, "how many classes to name", lower_bound=1, flag_values=flags)
    absl_flags.DEFINE_boolean("json", False, "one JSON object on standard output, and nothing else", flag_values=flags)
    absl_flags.DEFINE_string(
        "out",
        "",
        "write the video with the regions, their attention and the prediction to this .mp4",
        flag_values=flags,
    )
    absl_flags.DEFINE_string(
        "place", "", "which graph --out shows (res3, …, final); unless given, the last", flag_values=flags
    )
    absl_flags.DEFINE_float(
        "window_seconds", 6.0, "a longer video is cut into windows of this length", lower_bound=0.0, flag_values=flags
    )
    absl_flags.DEFINE_integer(
        "window_frames", 0, "the same in frames; 0: --window_seconds decides", lower_bound=0, flag_values=flags
    )
    absl_flags.DEFINE_float(
        "overlap",
        0.5,
        "share of a window that the next one sees again",
        lower_bound=0.0,
        upper_bound=0.95,
        flag_values=flags,
    )
    absl_flags.DEFINE_float(
        "frames_per_second",
        None,
        f"of folders, .npy files and raw frames, which don't tell [{DEFAULT_RATE:g}]",
        lower_bound=0.01,
        flag_values=flags,
    )
    absl_flags.DEFINE_string(
        "raw_size",
        "",
        "WIDTHxHEIGHT: standard input holds bare frames of this size, one after another, row by row",
        flag_values=flags,
    )
    absl_flags.DEFINE_enum("raw_pixels", "rgb24", sorted(RAW_CHANNELS), "bytes of a pixel in them", flag_values=flags)
    define_limit_flags(flags)
    define_memory_flag(flags)


def check_flags(flags: absl_flags.FlagValues) -> None:
    """Raises ConfigError for flags that contradict each other or need another one."""

    def refuse(condition: bool, message: str) -> None:
        if condition:
            raise ConfigError(message)

    refuse(not flags.video, "--video is missing: give a video file, a folder of frames, a .npy file, or -.")
    if flags.export_dir:
        for name in ("model_dir", "checkpoint", "precision"):
            refuse(
                flags[name].value != flags[name].default,
                f"--{name} belongs to a run, and --export_dir names a SavedModel: give one of them.",
            )
    refuse(flags.trust and not flags.export_dir, "--trust is about a SavedModel: it needs --export_dir=FOLDER.")
    refuse(flags.video == "-" and sys.stdin.isatty(), "--video=-: standard input is the terminal; send it a video.")
    refuse(bool(flags.raw_size) and flags.video != "-", "--raw_size describes standard input: it needs --video=-.")
    refuse(flags["raw_pixels"].present > 0 and not flags.raw_size, "--raw_pixels needs --raw_size=WIDTHxHEIGHT.")
    refuse(
        bool(flags.raw_size) and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", flags.raw_size),
        f"--raw_size={flags.raw_size}: expected WIDTHxHEIGHT in pixels, such as 320x240.",
    )
    refuse(
        flags.window_frames > 0 and flags["window_seconds"].present > 0,
        "--window_frames and --window_seconds both set the length of a window: give one of them.",
    )
    refuse(
        flags.window_frames == 0 and flags.window_seconds == 0,
        "--window_seconds=0: expected a positive length; longer than the video means one window.",
    )
    refuse(bool(flags.place) and not flags.out, "--place says what --out draws: give --out=FILE.mp4 too.")
    if flags.out:
        folder = Path(flags.out).parent
        refuse(not flags.out.endswith(".mp4"), f"--out={flags.out}: expected a name that ends in .mp4.")
        refuse(
            not folder.is_dir() or not os.access(folder, os.W_OK),
            f"--out={flags.out}: {folder} is no folder that can be written to.",
        )
        refuse(
            Path(flags.video).exists() and Path(flags.out).resolve() == Path(flags.video).resolve(),
            f"--out={flags.out} is the video itself: give another name.",
        )


def opened_source(flags: absl_flags.FlagValues) -> contextlib.AbstractContextManager[FrameSource]:
    """The source that the flags name, while the context lasts."""
    limits = limits_from_flags(flags)
    opens = functools.partial(isolated_source, memory=flags.max_memory, limits=limits)
    if flags.video != "-":
        return contextlib.nullcontext(opens(flags.video))
    size = tuple(map(int, flags.raw_size.split("x"))) if flags.raw_size else None
    return standard_input_source(
        raw_size=size, raw_pixels=flags.raw_pixels, read_twice=bool(flags.out), limits=limits, opens=opens
    )


def frame_rate(flags: absl_flags.FlagValues, source: FrameSource) -> float:
    """Frames a second: the source's own, else --frames_per_second. Raises ConfigError where both are given."""
    if source.frames_per_second and flags.frames_per_second:
        raise ConfigError(
            f"--frames_per_second={flags.frames_per_second:g}: {source.name} tells its own rate, "
            f"{source.frames_per_second:g}."
        )
    return source.frames_per_second or flags.frames_per_second or DEFAULT_RATE


def windows_from_flags(flags: absl_flags.FlagValues, frames_per_second: float) -> Windows:
    """Length and stride in frames, of --window_frames or --window_seconds, and --overlap."""
    length = flags.window_frames or max(1, round(flags.window_seconds * frames_per_second))
    return Windows(length=length, stride=max(1, round(length * (1 - flags.overlap))))


def as_json(prediction: Prediction, predictor: Predictor, *, source: str, top: int) -> dict:
    """What --json prints: the ranking of the whole video and of each window, and the facts that it rests on."""
    names, rate = predictor.class_names, prediction.frames_per_second
    return {
        "video": source,
        "model": predictor.name,
        "frames": prediction.num_frames,
        "height": prediction.frame_size[0],
        "width": prediction.frame_size[1],
        "frames_per_second": rate,
        "top": ranking(prediction.logits, names, top),
        "windows": [
            {
                "first_frame": answer.start,
                "last_frame": answer.end - 1,
                "start_seconds": answer.start_seconds,
                "end_seconds": answer.end_seconds,
                "top": ranking(answer.logits, names, top),
            }
            for answer in prediction.answers
        ],
    }


def predictor_from_flags(flags: absl_flags.FlagValues) -> Predictor:
    """The predictor of --model_dir or of --export_dir. Raises ConfigError where there is neither."""
    if not flags.export_dir:
        return RunPredictor(open_run(flags.model_dir, flags.checkpoint), precision=flags.precision)
    try:
        return SavedModelPredictor(flags.export_dir, trust=flags.trust)
    except ConfigError as error:
        raise ConfigError(f"--export_dir={error}") from error


def _load(predictor: Predictor, flags: absl_flags.FlagValues) -> None:
    try:
        predictor.load(with_attention=bool(flags.out))
    except ConfigError as error:
        raise ConfigError(f"--export_dir={error}" if flags.export_dir else str(error)) from error


def run(flags: absl_flags.FlagValues, predictor: Predictor) -> None:
    """Predicts, prints and writes what the flags ask for."""
    with opened_source(flags) as source:
        rate = frame_rate(flags, source)
        windows = windows_from_flags(flags, rate)
        _load(predictor, flags)
        table = None if flags.json else Table(predictor, source=source, frames_per_second=rate)
        prediction = predict_windows(
            predictor,
            source,
            windows=windows,
            frames_per_second=rate,
            by_time=not flags.window_frames,
            report=table.window if table else None,
        )
        if table:
            table.whole(prediction, flags.top)
        found = as_json(prediction, predictor, source=source.name, top=flags.top)
        if flags.out:
            from rstg_tf.viz.annotated_video import write_annotated

            silence = write_annotated(
                flags.out, source, prediction, class_names=predictor.class_names, top=flags.top, place=flags.place
            )
            found["out"] = flags.out
            if silence:
                print(printable(f"predict: {flags.out} has no whole sound: {silence}."), file=sys.stderr)
            if table:
                say(printable(f"annotated video: {flags.out}"))
    if flags.json:
        say(json_line(found))


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        flags = parse_run_flags(arguments, define_flags, description=__doc__)
        if flags is None:
            return 0
        check_flags(flags)
        run(flags, predictor_from_flags(flags))
    except ConfigError as error:
        return failed("predict", error, code=2)
    except (VideoError, OSError) as error:
        return failed("predict", error, code=1)
    return 0


def program() -> None:
    """The command `rstg-predict`."""
    run_program(main, name="predict", interrupted="no more is said.")


if __name__ == "__main__":
    program()
