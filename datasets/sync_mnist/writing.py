"""Writes SyncMNIST's shards and manifest: in parallel, resumable, the same bytes whatever the number of workers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import joblib
import numpy as np

from datasets.records.manifest import MANIFEST_FILE, Manifest, ShardInfo, shard_file
from datasets.records.parallel_shards import changed_settings, in_processes, is_intact
from datasets.records.sequence_examples import ShardWriter, encode_clip
from datasets.sync_mnist.digits import digits_sha256, load_digit_images
from datasets.sync_mnist.drawing import draw_clips, encode_png
from datasets.sync_mnist.plans import (
    CLIPS_PER_BLOCK,
    ClipPlans,
    RandomPlans,
    SyncMnistSettings,
    best_guess_from_digits,
    class_names,
)
from datasets.sync_mnist.released_paths import ReleasedPlans
from rstg_tf.common.data_text import read_json
from rstg_tf.common.errors import ConfigError, is_full_disk
from rstg_tf.common.files import remove_abandoned, write_json
from rstg_tf.common.progress_bar import Bar

NAME = "sync_mnist"
UNFINISHED_FILE = "unfinished.json"
GENERATOR_VERSION = 1  # to be raised whenever the same settings would give other clips
MICROSECONDS_PER_FRAME = 100_000  # the clips have no time of their own: ten frames per second
CLIPS_PER_SHARD = 2500

Plans = Union[RandomPlans, ReleasedPlans]
DrawnPieces = Iterator[tuple[ClipPlans, list[list[bytes]]]]


def write_dataset(
    *,
    out_dir: str | os.PathLike,
    split: str,
    digits: str,
    num_clips: int | None,
    settings: SyncMnistSettings,
    paths: str | os.PathLike | None = None,
    seed: int = 0,
    num_shards: int = 0,
    num_workers: int = 0,
    show_progress: bool = True,
) -> Manifest:
    """Writes the clips 0 ≤ k < num_clips and, when all shards are there, their manifest, which it returns.

    Shards of an earlier, interrupted call with the same arguments are kept if their SHA-256 is right.

    Args:
      out_dir: a folder for this data set alone; made if it does not exist.
      split: `train` or `test`; the two are made of different digit images.
      num_clips: how many; None means all of `paths`.
      digits: source of the digit images, see `digits.load_digit_images`.
      paths: the release's file of predefined paths, in place of random ones.
      seed: of the random clips, at least 0.
      num_shards: 0 means one per 2,500 clips.
      num_workers: processes that draw; 0 means one per usable core. Changes nothing but the time it takes.
      show_progress: a progress bar, if stderr is a terminal.

    Raises:
      ConfigError: for settings that cannot work, or an `out_dir` that holds other data.
    """
    settings.check()
    images, image_labels = load_digit_images(digits, split)
    if paths is not None:
        plans: Plans = ReleasedPlans(paths, settings=settings, image_labels=image_labels)
        num_clips = plans.num_clips if num_clips is None else num_clips
        if num_clips > plans.num_clips:
            raise ConfigError(f"--num_clips={num_clips}: --paths={paths} holds {plans.num_clips} clips.")
    elif num_clips is None:
        raise ConfigError("--num_clips is missing: only --paths says by itself how many clips there are.")
    else:
        plans = RandomPlans(settings=settings, image_labels=image_labels, split=split, seed=seed)
    num_shards = num_shards or -(-num_clips // CLIPS_PER_SHARD)
    _check_counts(num_clips, num_shards, num_workers, seed, settings)
    made_by = {
        "generator": "datasets.sync_mnist",
        "generator_version": GENERATOR_VERSION,
        "split": split,
        "digits": digits.partition(":")[0],
        "digits_sha256": digits_sha256(images, image_labels),
        "paths_sha256": None if paths is None else hashlib.sha256(Path(paths).read_bytes()).hexdigest(),
        "seed": seed,
        "num_clips": num_clips,
        "num_shards": num_shards,
        **dataclasses.asdict(settings),
    }
    kept = _open_directory(Path(out_dir), made_by)
    draw = functools.partial(_draw_pieces, plans=plans, images=images, settings=settings, num_workers=num_workers)
    shards = _write_shards(Path(out_dir), made_by, kept, draw, show_progress)
    manifest = Manifest(
        name=NAME,
        split=split,
        shards=tuple(shards),
        num_frames=settings.num_frames,
        height=settings.frame_size,
        width=settings.frame_size,
        channels=1,
        image_format="PNG",
        classes=settings.class_names,
        made_by={**made_by, "best_guess_from_digits": _best_guess(plans, num_clips)},
    )
    manifest.write(out_dir)
    (Path(out_dir) / UNFINISHED_FILE).unlink(missing_ok=True)
    return manifest


def draw_and_encode(
    plans: ClipPlans, digit_images: np.ndarray, noise_images: np.ndarray, settings: SyncMnistSettings
) -> tuple[ClipPlans, list[list[bytes]]]:
    """What a worker does with a piece of the data set: returns `plans` and for each clip its frames as PNG."""
    frames = draw_clips(
        digit_images=digit_images,
        positions=plans.positions,
        canvas=settings.canvas,
        frame_size=settings.frame_size,
        noise_images=noise_images,
        noise_positions=plans.noise_positions,
        noise_size=settings.noise_parts_size,
        digits_in_front=plans.digits_in_front,
    )
    return plans, [[encode_png(frame) for frame in clip] for clip in frames]


def _check_counts(num_clips: int, num_shards: int, num_workers: int, seed: int, settings: SyncMnistSettings) -> None:
    for flag, value, lowest in (
        ("num_clips", num_clips, 1),
        ("num_workers", num_workers, 0),
        ("seed", seed, 0),
        ("num_shards", num_shards, 1),
    ):
        if value < lowest:
            raise ConfigError(f"--{flag}={value}: expected at least {lowest}.")
    if num_shards > num_clips:
        raise ConfigError(f"--num_shards={num_shards}: expected at most one per clip, and there are {num_clips} clips.")
    if settings.twin_clips and num_clips % 2:
        raise ConfigError(f"--num_clips={num_clips}: expected an even number, since --twin_clips come in couples.")


def _open_directory(directory: Path, made_by: Mapping[str, Any]) -> dict[str, ShardInfo]:
    """Makes the folder, refuses one that holds other data, and returns the finished shards in it by file name."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_full_disk(error):
            raise
        raise ConfigError(f"--out_dir={directory}: cannot be made ({error.strerror}).") from None
    remove_abandoned(directory)
    if (directory / MANIFEST_FILE).exists():
        manifest = Manifest.read(directory)
        before, shards = manifest.made_by, manifest.shards
    elif (directory / UNFINISHED_FILE).exists():
        unfinished = read_json(directory / UNFINISHED_FILE, named=str(directory / UNFINISHED_FILE))
        try:
            before, shards = dict(unfinished["made_by"]), [ShardInfo(**shard) for shard in unfinished["shards"]]
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{directory / UNFINISHED_FILE}: lists no finished shards ({error}). Delete this folder."
            ) from None
    elif any(directory.glob("*.tfrecord")):
        raise ConfigError(f"--out_dir={directory} holds shards of unknown origin: name a new folder.")
    else:
        return {}
    changed = changed_settings(before, made_by)
    if changed:
        raise ConfigError(
            f"--out_dir={directory} holds a data set of other settings: {changed}. Name another folder, "
            "or delete this one."
        )
    return {shard.file: shard for shard in shards if is_intact(directory, shard)}


def _write_shards(
    directory: Path,
    made_by: Mapping[str, Any],
    kept: Mapping[str, ShardInfo],
    draw: Callable[[Sequence[tuple[int, int]]], DrawnPieces],
    show_progress: bool,
) -> list[ShardInfo]:
    """Writes the shards that are not in `kept`; returns all of them in order."""
    num_clips, num_shards, split = made_by["num_clips"], made_by["num_shards"], made_by["split"]
    files = [shard_file(NAME, shard, num_shards) for shard in range(num_shards)]
    bounds = [num_clips * shard // num_shards for shard in range(num_shards + 1)]
    pieces = {file: _pieces(*bounds[shard : shard + 2]) for shard, file in enumerate(files) if file not in kept}
    classes = class_names(made_by["digit_classes"])
    finished = dict(kept)
    _note_finished(directory, made_by, finished)
    # One stream over all shards: the workers don't wait while one shard is closed and the next opened.
    drawn = draw([piece for file in pieces for piece in pieces[file]])
    bar = Bar(
        total=num_clips,
        initial=sum(shard.records for shard in kept.values()),
        unit="clip",
        desc=f"{NAME} {split}",
        disable=None if show_progress else True,
    )
    with contextlib.closing(drawn), bar:
        for file in pieces:
            with ShardWriter(directory / file) as writer:
                for start, stop in pieces[file]:
                    for record in _records(start, *next(drawn), split, classes):
                        writer.write(record)
                    bar.update(stop - start)
            finished[file] = writer.info
            _note_finished(directory, made_by, finished)
    return [finished[file] for file in files]


def _note_finished(directory: Path, made_by: Mapping[str, Any], finished: Mapping[str, ShardInfo]) -> None:
    """Writes down which shards are finished and what they are made by, for the next call if this one is interrupted."""
    shards = [dataclasses.asdict(shard) for shard in finished.values()]
    write_json(directory / UNFINISHED_FILE, {"made_by": made_by, "shards": shards})


def _pieces(start: int, stop: int) -> list[tuple[int, int]]:
    """Cuts start ≤ k < stop where blocks end, since a block costs as much to plan in part as whole."""
    inner = range(-(-(start + 1) // CLIPS_PER_BLOCK) * CLIPS_PER_BLOCK, stop, CLIPS_PER_BLOCK)
    return list(zip([start, *inner], [*inner, stop]))


def _draw_pieces(
    pieces: Sequence[tuple[int, int]],
    *,
    plans: Plans,
    images: np.ndarray,
    settings: SyncMnistSettings,
    num_workers: int,
) -> DrawnPieces:
    """`draw_and_encode` of every piece, in order; in other processes if there are several workers."""
    planned = (plans.clips(start, stop) for start, stop in pieces)
    tasks = ((plan, images[plan.digit_indices], images[plan.noise_indices], settings) for plan in planned)
    num_workers = min(num_workers or joblib.cpu_count(), len(pieces))
    return in_processes(draw_and_encode, tasks, num_processes=num_workers)


def _records(
    start: int, plans: ClipPlans, frames: list[list[bytes]], split: str, classes: Sequence[str]
) -> Iterator[bytes]:
    """The serialized clips start, start + 1, …"""
    for index, encoded in enumerate(frames):
        label = int(plans.labels[index])
        yield encode_clip(
            frames=encoded,
            label=label,
            label_name=classes[label],
            media_id=f"{split}-{start + index:07d}",
            image_format="PNG",
            timestamps=range(0, len(encoded) * MICROSECONDS_PER_FRAME, MICROSECONDS_PER_FRAME),
            extra={
                "sync_mnist/positions": plans.positions[index],
                "sync_mnist/digit_labels": plans.digit_labels[index],
                "sync_mnist/digit_indices": plans.digit_indices[index],
            },
        )


def _best_guess(plans: Plans, num_clips: int) -> float:
    parts = [plans.clips(start, stop) for start, stop in _pieces(0, num_clips)]
    digit_labels = np.concatenate([part.digit_labels for part in parts])
    return best_guess_from_digits(digit_labels, np.concatenate([part.labels for part in parts]))
