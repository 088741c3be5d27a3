"""The records: one `SequenceExample` per clip, in TFRecord shards; the manifest beside them is in `manifest`.

The schema is MediaSequence's (https://github.com/google-ai-edge/mediapipe/tree/master/mediapipe/util/sequence), which
TensorFlow Model Garden and DMVR read. It is written (`encode_clip`) and read (`parse_clip`, `decode_clip`) here alone:

    context        clip/label/index int64, clip/label/string bytes, clip/media_id bytes,
                   image/height int64, image/width int64 (pixels), image/format bytes (PNG or JPEG)
    feature lists  image/encoded bytes, one per frame; image/timestamp int64, microseconds, one per frame

A data set may add context features of its own (SyncMNIST: its trajectories); readers that don't know them skip them.

TensorFlow is imported by the functions that need it, not by this module: a command that is refused for a wrong flag or
a faulty manifest answers at once instead of after the seconds that the import takes.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.records.manifest import IMAGE_FORMATS, DatasetError, ShardInfo
from rstg_tf.common.files import hash_file, whole_path
from rstg_tf.video.limits import DEFAULT_LIMITS

_MOST_PIXELS = 2**29  # of the frames of a record, decoded
LABEL_INDEX = "clip/label/index"
LABEL_STRING = "clip/label/string"
MEDIA_ID = "clip/media_id"
HEIGHT = "image/height"
WIDTH = "image/width"
FORMAT = "image/format"
ENCODED = "image/encoded"
TIMESTAMP = "image/timestamp"
CONTEXT_KEYS = (LABEL_INDEX, LABEL_STRING, MEDIA_ID, HEIGHT, WIDTH, FORMAT)


def encode_clip(
    *,
    frames: np.ndarray | Sequence[bytes],
    label: int,
    label_name: str,
    media_id: str,
    image_format: str,
    timestamps: Sequence[int],
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Serializes one clip.

    Args:
      frames: uint8 [T, H, W, C] with C 1 or 3, to be compressed (PNG: lossless; JPEG: quality 95), or the T frames as
        they are already compressed in `image_format`, which are stored unchanged.
      label: index of the class; `label_name`: its name.
      media_id: names the clip; unique in its data set, since augmentation is drawn from it.
      image_format: PNG or JPEG.
      timestamps: T increasing times in microseconds.
      extra: further context features, key -> array of integers, array of floats, or bytes (stored flat).

    Raises:
      DatasetError: naming the clip, for frames of another type, shape or format, or other than T timestamps.
    """
    import tensorflow as tf

    if image_format not in IMAGE_FORMATS:
        raise DatasetError(f"clip {media_id}: image format {image_format!r}, expected {' or '.join(IMAGE_FORMATS)}.")
    if isinstance(frames, np.ndarray):
        encoded, size = _compress(frames, image_format, media_id), frames.shape[1:3]
    else:
        encoded, size = list(frames), _common_size(frames, image_format, media_id)
    if len(timestamps) != len(encoded):
        raise DatasetError(f"clip {media_id}: {len(timestamps)} timestamps for {len(encoded)} frames.")
    context = {
        LABEL_INDEX: np.asarray(label, np.int64),
        LABEL_STRING: label_name.encode(),
        MEDIA_ID: media_id.encode(),
        HEIGHT: np.asarray(size[0], np.int64),
        WIDTH: np.asarray(size[1], np.int64),
        FORMAT: image_format.encode(),
    }
    overwritten = sorted(set(context) & set(extra or {}))
    if overwritten:
        raise DatasetError(f"clip {media_id}: extra features {', '.join(overwritten)} belong to the schema.")
    example = tf.train.SequenceExample()
    for key, value in {**context, **(extra or {})}.items():
        _set_feature(example.context.feature[key], value, f"clip {media_id}: {key}")
    images, times = example.feature_lists.feature_list[ENCODED], example.feature_lists.feature_list[TIMESTAMP]
    for image, timestamp in zip(encoded, timestamps):
        images.feature.add().bytes_list.value.append(image)
        times.feature.add().int64_list.value.append(int(timestamp))
    return example.SerializeToString(deterministic=True)


def _compress(frames: np.ndarray, image_format: str, media_id: str) -> list[bytes]:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] not in (1, 3) or not frames.size:
        raise DatasetError(
            f"clip {media_id}: frames are {frames.dtype} {list(frames.shape)}, expected uint8 [T, H, W, C], C 1 or 3."
        )
    # Run lengths alone (compress_type 3) take half the time of full deflate and are as small on plain grounds.
    options = {"compress_level": 1, "compress_type": 3} if image_format == "PNG" else {"quality": 95}
    encoded = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame).save(buffer, image_format, **options)
        encoded.append(buffer.getvalue())
    return encoded


def _common_size(frames: Sequence[bytes], image_format: str, media_id: str) -> tuple[int, int]:
    """(height, width) in pixels of compressed frames, from their headers."""
    sizes = set()
    for number, frame in enumerate(frames):
        try:
            with Image.open(io.BytesIO(frame), formats=(image_format,)) as image:
                sizes.add((image.height, image.width))
        except (OSError, TypeError) as error:
            raise DatasetError(f"clip {media_id}: frame {number} is no {image_format} image ({error}).") from None
    if len(sizes) != 1:
        raise DatasetError(f"clip {media_id}: frames have the sizes {sorted(sizes)}, expected one size.")
    return sizes.pop()


def _set_feature(feature: Any, value: Any, name: str) -> None:
    if isinstance(value, bytes):
        feature.bytes_list.value.append(value)
        return
    array = np.asarray(value).ravel()
    if np.issubdtype(array.dtype, np.integer):
        feature.int64_list.value.extend(array.tolist())
    elif np.issubdtype(array.dtype, np.floating):
        feature.float_list.value.extend(array.tolist())
    else:
        raise DatasetError(f"{name}: {array.dtype} values, expected integers, floats or bytes.")


def parse_clip(serialized: Any) -> dict[str, Any]:
    """Parses one serialized clip inside a TensorFlow graph; decodes no frame.

    So the caller can choose frames first and decode those alone.

    Args:
      serialized: string scalar tensor.

    Returns:
      `encoded` string [T], `label` int64, `media_id` string, `height` and `width` int64 (pixels), all scalars but the
      first.
    """
    import tensorflow as tf

    context, lists = tf.io.parse_single_sequence_example(
        serialized,
        context_features={
            LABEL_INDEX: tf.io.FixedLenFeature([], tf.int64),
            MEDIA_ID: tf.io.FixedLenFeature([], tf.string),
            HEIGHT: tf.io.FixedLenFeature([], tf.int64),
            WIDTH: tf.io.FixedLenFeature([], tf.int64),
        },
        sequence_features={ENCODED: tf.io.FixedLenSequenceFeature([], tf.string)},
    )
    return {
        "encoded": lists[ENCODED],
        "label": context[LABEL_INDEX],
        "media_id": context[MEDIA_ID],
        "height": context[HEIGHT],
        "width": context[WIDTH],
    }


def decode_clip(serialized: bytes) -> dict[str, Any]:
    """Reads one serialized clip completely, with Pillow, for tools and tests.

    Returns:
      `frames` uint8 [T, H, W, C] as stored, `encoded` (T bytes), `label` int, `label_name`, `media_id`, `image_format`,
      `height`, `width` (pixels), `timestamps` int64 [T] (microseconds), and `extra`: key -> int64 or float32 array or
      list of bytes.

    Raises:
      DatasetError: saying which part is missing or cannot be decoded.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        example = tf.train.SequenceExample.FromString(serialized)
    except DecodeError as error:
        raise DatasetError(f"no SequenceExample ({error})") from None
    context = {key: _feature_values(feature) for key, feature in example.context.feature.items()}
    lists = {
        key: [_feature_values(step) for step in steps.feature]
        for key, steps in example.feature_lists.feature_list.items()
    }
    missing = [key for key in CONTEXT_KEYS if len(context.get(key, ())) != 1]
    missing += [key for key in (ENCODED, TIMESTAMP) if any(len(step) != 1 for step in lists.get(key, [()]))]
    if missing:
        raise DatasetError(f"features missing, or not one value each: {', '.join(missing)}")
    try:
        clip = {
            "label": int(context[LABEL_INDEX][0]),
            "label_name": context[LABEL_STRING][0].decode(),
            "media_id": context[MEDIA_ID][0].decode(),
            "image_format": context[FORMAT][0].decode(),
            "height": int(context[HEIGHT][0]),
            "width": int(context[WIDTH][0]),
            "timestamps": np.array([step[0] for step in lists[TIMESTAMP]], np.int64),
            "encoded": [step[0] for step in lists[ENCODED]],
            "extra": {key: values for key, values in context.items() if key not in CONTEXT_KEYS},
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise DatasetError(f"a feature has the wrong type ({error})") from None
    return {**clip, "frames": _decompress(clip["encoded"], clip["image_format"])}


def _feature_values(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    if kind == "int64_list":
        return np.array(feature.int64_list.value, np.int64)
    if kind == "float_list":
        return np.array(feature.float_list.value, np.float32)
    return list(feature.bytes_list.value)


def _decompress(encoded: Sequence[bytes], image_format: str) -> np.ndarray:
    if image_format not in IMAGE_FORMATS:  # others could start programs
        raise DatasetError(f"image format: {image_format!r}, expected one of {sorted(IMAGE_FORMATS)}")
    frames, pixels_of_all = [], 0
    for number, image in enumerate(encoded):
        try:
            with Image.open(io.BytesIO(image), formats=(image_format,)) as opened:
                DEFAULT_LIMITS.require_size(opened.height, opened.width, named="it")
                pixels_of_all += opened.height * opened.width
                if pixels_of_all > _MOST_PIXELS:
                    raise DatasetError(f"frames are more than {_MOST_PIXELS} pixels in all")
                pixels = np.asarray(opened)
        except DatasetError:
            raise
        except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
            raise DatasetError(f"frame {number} cannot be decoded as {image_format} ({error})") from None
        frames.append(pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels)
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) != 1:
        raise DatasetError(f"frames have shapes {shapes}, expected one shape and at least a frame")
    return np.stack(frames)  # [T, H, W, C]


class ShardWriter:
    """Writes one shard under a temporary name; it gets its own name only when it is complete and on the disk.

    `with ShardWriter(path) as shard: shard.write(serialized)`, then `shard.info` is the shard's `ShardInfo`. When the
    block ends by an exception the shard is given up and no file is left; what a crash left, the next attempt removes. A
    file that had the shard's name before stays until the new one replaces it.

    Raises:
      OSError: naming the shard, when it cannot be written (no such folder, disk full).
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.info: ShardInfo | None = None
        self._stack = contextlib.ExitStack()
        self._records = 0
        self._writer: Any = None

    def __enter__(self) -> ShardWriter:
        import tensorflow as tf

        self._tensorflow_error = tf.errors.OpError
        self._building = self._stack.enter_context(whole_path(self.path))
        try:
            self._writer = tf.io.TFRecordWriter(os.fspath(self._building))
        except tf.errors.OpError as error:
            raise OSError(f"{self.path}: cannot be written ({error.message}).") from error
        return self

    def write(self, serialized: bytes) -> None:
        """Adds a record. Raises OSError naming the file if it cannot be written."""
        try:
            self._writer.write(serialized)
        except self._tensorflow_error as error:
            raise OSError(f"{self.path}: cannot be written ({error.message}).") from error
        self._records += 1

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> bool | None:
        if kind is not None:
            with contextlib.suppress(self._tensorflow_error):  # the block's own exception says more
                self._writer.close()
            return self._stack.__exit__(kind, value, traceback)
        with self._stack:
            try:
                self._writer.close()
            except self._tensorflow_error as error:
                raise OSError(f"{self.path}: cannot be written ({error.message}).") from error
            size, digest = hash_file(self._building)
        self.info = ShardInfo(file=self.path.name, records=self._records, bytes=size, sha256=digest)
        return None
