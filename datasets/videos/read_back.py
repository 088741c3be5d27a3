"""After a shard is written: a sample of its frames is read back and compared with the videos that they are from."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.records.sequence_examples import ENCODED
from datasets.records.shards import RECORD_FRAME_BYTES, RECORD_HEADER_BYTES, record_offsets
from datasets.videos.sources import ClipRange, VideoSource
from rstg_tf.common.errors import VideoError
from rstg_tf.video.decoding import iter_frames
from rstg_tf.video.frame_folders import list_frame_files
from rstg_tf.video.pictures import picture_bytes, pixels_of
from rstg_tf.video.skvideo_io import structural_similarity

LOW = 0.9  # structural similarity below which stored frames show something else, or badly
_SMALLEST = 11  # pixels: the side of the measure's window


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Structural similarity of frame `frame` (from 0) of the clip `media_id`, as it is stored, to its source."""

    value: float
    media_id: str
    frame: int


def compare_with_sources(
    shard: Path, written: Sequence[tuple[VideoSource, ClipRange]], *, short_side: int
) -> list[Similarity]:
    """The middle frames of the first, the middle and the last clip of a shard beside those of their videos.

    Args:
      shard: the finished file; `written`: the video and the clip of each of its records.
      short_side: to which larger video files were made smaller.

    Left out are frames smaller than the measure's window, stretches by seconds, and videos that have gone meanwhile.
    """
    records = sorted({0, len(written) // 2, len(written) - 1}) if written else []
    offsets, end = record_offsets(shard)
    found = []
    for record in records:
        source, clip = written[record]
        frame = (clip.stop - clip.start) // 2
        stored = _stored_frame(shard, (*offsets, end)[record : record + 2], frame)
        try:
            original = _source_frame(
                source, clip.stop - 1 - frame if clip.backwards else clip.start + frame, short_side
            )
        except (VideoError, OSError):
            continue
        if original is not None and min(original.shape[:2]) >= _SMALLEST:
            is_same_size = original.shape[:2] == stored.shape[:2]
            value = structural_similarity(original, stored) if is_same_size else 0.0
            found.append(Similarity(round(value, 4), clip.media_id, frame))
    return found


def _stored_frame(shard: Path, place: Sequence[int], frame: int) -> np.ndarray:
    import tensorflow as tf

    begin, end = place
    with open(shard, "rb") as file:
        file.seek(begin + RECORD_HEADER_BYTES)
        content = file.read(end - begin - RECORD_FRAME_BYTES)
    example = tf.train.SequenceExample.FromString(content)
    encoded = example.feature_lists.feature_list[ENCODED].feature[frame].bytes_list.value[0]
    return pixels_of(encoded, named=f"{shard}: frame {frame}")


def _source_frame(source: VideoSource, number: int, short_side: int) -> np.ndarray | None:
    if source.stretch is not None and source.stretch.count is None:
        return None
    if Path(source.path).is_dir():
        return pixels_of(picture_bytes(list_frame_files(source.path)[number], named=source.path), named=source.path)
    frames = iter_frames(source.path, short_side=short_side, enlarge=False)
    return next(itertools.islice(frames, number, None), None)
