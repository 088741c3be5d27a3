"""Videos -> shards, manifest and rejected.csv: in parallel, on several machines, and resumable.

The order of the videos is a hash of seed and media id, so that no shard is of one class; shard k of S takes the videos
from n·k/S to n·(k+1)/S of that order, and the clips cut from a video stay together. So the bytes of every shard follow
from the videos and the settings alone, not from processes, machines or interruptions.

Machine w of W writes the shards k with k mod W = w. Beside each shard it leaves a note, `shard_notes/SHARD.json`, with
the shard's SHA-256 and the videos rejected from it. Whoever finds all notes there writes `rejected.csv` and, unless too
many videos are rejected, `dataset.json`; two who do so at once write the same. The machines share the folder, or the
folders are copied into one afterwards and the command is given there once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib

from datasets.records.manifest import Manifest, ShardInfo
from datasets.records.parallel_shards import in_processes
from datasets.records.sequence_examples import ShardWriter, encode_clip
from datasets.records.shard_notes import REJECTED_FILE, NotedFolder, TooManyRejectedError, stamp
from datasets.records.shards import size_fault
from datasets.videos.read_back import Similarity, compare_with_sources
from datasets.videos.sources import (
    DEFAULT_SOURCE_LIMITS,
    JPEG_QUALITY,
    SHORT_SIDE,
    WHOLE_VIDEOS,
    ClipRange,
    Cutting,
    EncodedVideo,
    Rejection,
    SourceLimits,
    VideoSource,
    encode_source,
    uniform_hash,
)
from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.common.progress_bar import Bar

WRITER_VERSION = 1  # to be raised whenever the same videos and settings would give other bytes
VIDEOS_PER_SHARD = 256
_VIDEOS_AT_A_TIME = 16  # per process: read, but not written yet


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write_videos` did: the manifest, or None while `missing_shards` are yet to be written elsewhere.

    `lowest`: the stored frame of a sample that is least like its source; None if nothing could be compared.
    """

    manifest: Manifest | None
    num_rejected: int
    missing_shards: int = 0
    lowest: Similarity | None = None


def write_videos(
    *,
    sources: Sequence[VideoSource],
    classes: Sequence[str],
    out_dir: str | os.PathLike,
    name: str,
    split: str,
    made_by: Mapping[str, Any],
    cutting: Cutting = WHOLE_VIDEOS,
    seed: int = 0,
    videos_per_shard: int = VIDEOS_PER_SHARD,
    short_side: int = SHORT_SIDE,
    num_processes: int = 0,
    worker_index: int = 0,
    num_workers: int = 1,
    max_bad_fraction: float = 0.001,
    limits: SourceLimits = DEFAULT_SOURCE_LIMITS,
    show_progress: bool = True,
) -> Written:
    """Writes this machine's shards and, once all machines' are there, the manifest.

    Shards of an earlier call with the same arguments are kept if their SHA-256 is right and no video that was rejected
    from them has changed since.

    Args:
      sources: the videos; media ids must differ.
      classes: names of the labels, those of clips played backwards included.
      out_dir: a folder for this data set alone; made if it does not exist.
      name, split, made_by: for the manifest; a folder that was made by something else is refused.
      cutting: which clips the videos give.
      seed: of the order of the videos.
      videos_per_shard: videos, not clips, of a shard.
      short_side: pixels to which the shorter side of larger video files is brought.
      num_processes: that read videos; 0 means one per usable core, 1 this one. Others have their memory limited.
      worker_index, num_workers: w and W of the machines.
      max_bad_fraction: share of the videos that may be rejected.
      limits: what is rejected by its size.
      show_progress: a progress bar with rate and time left, if stderr is a terminal.

    Raises:
      ConfigError: for settings that cannot work, or an `out_dir` that holds other data or is being written.
      TooManyRejectedError: after the shard in which that became certain.
    """
    _check(
        sources,
        {
            "videos_per_shard": (videos_per_shard, 1),
            "num_processes": (num_processes, 0),
            "num_workers": (num_workers, 1),
            "worker_index": (worker_index, 0),
            "seed": (seed, 0),
            "short_side": (short_side, 16),
        },
    )
    if worker_index >= num_workers:
        raise ConfigError(f"--worker_index={worker_index}: expected 0 to {num_workers - 1}, as --num_workers says.")
    if not 0 <= max_bad_fraction <= 1:
        raise ConfigError(f"--max_bad_fraction={max_bad_fraction}: expected 0 to 1.")
    ordered = sorted(sources, key=lambda source: (uniform_hash(seed, source.media_id), source.media_id))
    num_shards = -(-len(ordered) // videos_per_shard)
    bounds = [len(ordered) * shard // num_shards for shard in range(num_shards + 1)]
    settings = {
        "writer_version": WRITER_VERSION,
        **made_by,
        "name": name,
        "split": split,
        "seed": seed,
        "num_videos": len(ordered),
        "num_shards": num_shards,
        "short_side": short_side,
        "jpeg_quality": JPEG_QUALITY,
        "videos_sha256": _sha256([(source.media_id, source.label) for source in ordered]),
        "classes_sha256": _sha256(list(classes)),
        **dataclasses.asdict(cutting),
    }
    folder = NotedFolder(Path(out_dir), settings, num_shards)
    shards = {folder.shard_files[shard]: ordered[bounds[shard] : bounds[shard + 1]] for shard in range(num_shards)}
    own = {file: shards[file] for file in folder.shard_files[worker_index::num_workers]}
    allowed = max_bad_fraction * len(ordered)
    with folder.opened(worker_index, num_workers):
        kept = {file: note for file, note in folder.notes(own).items() if folder.is_current(note)}
        folder.forget(file for file in own if file not in kept)
        _write_shards(
            folder, own, kept, cutting, classes, num_processes, allowed, f"{name} {split}", limits, show_progress
        )
        return _finish(folder, name, split, classes, allowed)


def _check(sources: Sequence[VideoSource], numbers: Mapping[str, tuple[int, int]]) -> None:
    """`numbers`: flag -> (value, lowest value that makes sense)."""
    for flag, (value, lowest) in numbers.items():
        if value < lowest:
            raise ConfigError(f"--{flag}={value}: expected at least {lowest}.")
    if not sources:
        raise ConfigError("there is no video to be written.")
    if len({source.media_id for source in sources}) < len(sources):
        raise ConfigError("two videos have the same media id.")


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _write_shards(
    folder: NotedFolder,
    shards: Mapping[str, Sequence[VideoSource]],
    kept: Mapping[str, Any],
    cutting: Cutting,
    classes: Sequence[str],
    num_processes: int,
    allowed: float,
    described: str,
    limits: SourceLimits,
    show_progress: bool,
) -> None:
    """Writes the shards that are not in `kept`, and their notes."""
    left = {file: sources for file, sources in shards.items() if file not in kept}
    num_left = sum(map(len, left.values()))
    num_processes = min(num_processes, max(num_left, 1)) or max(2, min(joblib.cpu_count(), num_left))
    # One stream over all shards: the processes don't wait while one shard is closed and the next opened.
    outcomes = in_processes(
        encode_source,
        ((source, folder.settings["short_side"], limits) for sources in left.values() for source in sources),
        num_processes=num_processes,
        tasks_at_a_time=_VIDEOS_AT_A_TIME * num_processes,
        memory=limits.process_memory,
    )
    num_videos = sum(map(len, shards.values()))
    num_rejected = sum(len(note["rejected"]) for note in kept.values())
    bar = Bar(
        total=num_videos,
        initial=num_videos - num_left,
        unit="video",
        desc=described,
        disable=None if show_progress else True,
    )
    with contextlib.closing(outcomes), bar:
        for file, sources in left.items():
            note = {"rejected": [], "frames": [], "heights": [], "widths": []}
            written: list[tuple[VideoSource, ClipRange]] = []
            with ShardWriter(folder.path / file) as writer:
                for source in sources:
                    clips = _write_video(writer, note, source, next(outcomes), cutting, classes)
                    written += [(source, clip) for clip in clips]
                    bar.update()
            note["shard"] = dataclasses.asdict(writer.info)
            note["similarities"] = [
                dataclasses.asdict(found)
                for found in compare_with_sources(folder.path / file, written, short_side=folder.settings["short_side"])
            ]
            folder.write_note(file, note)
            num_rejected += len(note["rejected"])
            if num_rejected > allowed:
                folder.report_rejected(allowed)


def _write_video(
    writer: ShardWriter,
    note: dict[str, Any],
    source: VideoSource,
    outcome: EncodedVideo | Rejection,
    cutting: Cutting,
    classes: Sequence[str],
) -> list[ClipRange]:
    """The clips that were written; none of a video that is rejected."""
    try:
        clips = [] if isinstance(outcome, Rejection) else cutting.clips(source, len(outcome.frames))
        if clips:
            outcome.require_records(clips)
    except VideoError as error:
        outcome = Rejection(str(error))
    if isinstance(outcome, Rejection):
        note["rejected"].append(
            {"media_id": source.media_id, "path": source.path, "reason": outcome.reason, "stamp": stamp(source.path)}
        )
        return []
    for clip in clips:
        frames, timestamps = outcome.frames[clip.start : clip.stop], outcome.timestamps[clip.start : clip.stop]
        timestamps = timestamps - timestamps[0]
        if clip.backwards:
            frames, timestamps = frames[::-1], timestamps[-1] - timestamps[::-1]
        writer.write(
            encode_clip(
                frames=frames,
                label=clip.label,
                label_name=classes[clip.label],
                media_id=clip.media_id,
                image_format="JPEG",
                timestamps=timestamps,
            )
        )
        for key, value in (("frames", len(frames)), ("heights", outcome.height), ("widths", outcome.width)):
            # Two values are enough to know that clips differ.
            note[key] = sorted({*note[key], value})[:2]
    return clips


def _finish(folder: NotedFolder, name: str, split: str, classes: Sequence[str], allowed: float) -> Written:
    """Writes rejected.csv and the manifest if all shards are there."""
    notes = folder.notes(folder.shard_files)
    num_rejected = sum(len(note["rejected"]) for note in notes.values())
    folder.report_rejected(allowed)
    if len(notes) < len(folder.shard_files):
        return Written(None, num_rejected, len(folder.shard_files) - len(notes))
    shards = tuple(ShardInfo(**notes[file]["shard"]) for file in folder.shard_files)
    changed = [shard.file for shard in shards if size_fault(folder.path, shard)]
    if changed:
        raise ConfigError(
            f"{folder.path}: {changed[0]} is not as it was written ({len(changed)} such shards): copy "
            "it again, or give the command of the machine that wrote it again."
        )
    if not any(shard.records for shard in shards):
        raise TooManyRejectedError(f"{folder.path}: not one clip is left; see {folder.path / REJECTED_FILE}.")
    common = {key: {value for note in notes.values() for value in note[key]} for key in ("frames", "heights", "widths")}
    num_frames, height, width = (values.pop() if len(values) == 1 else None for values in common.values())
    # Notes of earlier versions hold no comparison.
    compared = [Similarity(**found) for note in notes.values() for found in note.get("similarities", ())]
    lowest = min(compared, key=lambda found: (found.value, found.media_id), default=None)
    told = {} if lowest is None else {"lowest_ssim": lowest.value, "lowest_ssim_clip": lowest.media_id}
    manifest = Manifest(
        name=name,
        split=split,
        shards=shards,
        num_frames=num_frames,
        height=height,
        width=width,
        channels=3,
        image_format="JPEG",
        classes=tuple(classes),
        made_by={**folder.settings, "num_rejected": num_rejected, **told},
    )
    manifest.write(folder.path)
    return Written(manifest, num_rejected, lowest=lowest)
