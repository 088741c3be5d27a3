"""The gates for bytes of others (docs/untrusted_input.md) as targets for fuzzers: what they take, what they may raise.

A target is a function of bytes that returns, or raises the gate's own error. Anything else that it raises is a find, as
is a crash, a hang or a gigabyte.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.records.manifest import MANIFEST_FILE, DatasetError, Manifest
from rstg_tf.common.errors import ConfigError, VideoError


class Target(NamedTuple):
    """`take`: what is fuzzed; `refusals`: what it may raise; `seeds`: right inputs to begin from, made when called."""

    take: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]


@functools.lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory:
    """Of the files that hold an input; gone with the process."""
    return tempfile.TemporaryDirectory(prefix="rstg-fuzz-")


def _file(content: bytes, name: str) -> Path:
    path = Path(_folder().name, name)
    path.write_bytes(content)
    return path


def _take_pickle(content: bytes) -> object:
    from rstg_tf.common.safe_pickle import load_pickle_stream

    return load_pickle_stream(io.BytesIO(content), encoding="latin1")


def _pickles() -> list[bytes]:
    values = [
        {"conv1_w": np.arange(6, dtype=np.float32).reshape(2, 3), "blobs": {b"lr": 0.1}},
        [("11", "Holding something"), 2**70, None, {1, 2}, b"bytes", np.float64(3)],
    ]
    return [pickle.dumps(value, protocol) for value in values for protocol in (2, 4)]


def _take_checkpoint(content: bytes) -> object:
    from rstg_tf.release.checkpoint_files import read_variables

    _file(_checkpoint()[1], "ckpt.data-00000-of-00001")
    return read_variables(str(_file(content, "ckpt.index")).removesuffix(".index"))


@functools.lru_cache(maxsize=1)
def _checkpoint() -> tuple[bytes, bytes]:
    """A small one: its index, which is fuzzed, and its data."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/ckpt"
        values = [tf.constant([1.0, 2.0]), tf.constant(3, tf.int64)]
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["a/kernel", "step"], shape_and_slices=["", ""], tensors=values)
        return Path(f"{prefix}.index").read_bytes(), Path(f"{prefix}.data-00000-of-00001").read_bytes()


def _take_shard(content: bytes) -> object:
    from datasets.records.sequence_examples import decode_clip
    from datasets.records.shards import read_records

    records = [record for _, _, record in read_records(_file(content, "s.tfrecord"), expected_records=2)]
    return [decode_clip(record) for record in records if record is not None]


def _clips() -> list[bytes]:
    from datasets.records.sequence_examples import encode_clip

    frames = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
    facts = {"label": 1, "label_name": "up", "media_id": "a", "timestamps": [0, 1]}
    return [encode_clip(frames=frames, image_format=name, **facts) for name in ("PNG", "JPEG")]


def _shards() -> list[bytes]:
    import tensorflow as tf

    path = _file(b"", "seed.tfrecord")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for clip in _clips():
            writer.write(clip)
    return [path.read_bytes()]


def _take_clip(content: bytes) -> object:
    from datasets.records.sequence_examples import decode_clip

    return decode_clip(content)


def _take_manifest(content: bytes) -> object:
    return Manifest.read(_file(content, MANIFEST_FILE).parent)


def _manifests() -> list[bytes]:
    shard = {"file": "toy-00000-of-00001.tfrecord", "records": 2, "bytes": 400, "sha256": "0" * 64}
    values = {
        "format_version": 1,
        "name": "toy",
        "split": "train",
        "num_clips": 2,
        "shards": [shard],
        "classes": ["up", "down"],
        "image_format": "PNG",
        "channels": 1,
        "num_frames": 4,
        "height": 12,
        "width": 12,
        "made_by": {"command": "x"},
    }
    return [json.dumps(values, indent=1).encode()]


def _take_labels(content: bytes) -> None:
    from datasets.something_something.labels import read_label_file
    from datasets.videos.list_rows import read_list

    for read, name in ((read_label_file, "labels.csv"), (read_list, "list.csv")):
        with contextlib.suppress(ConfigError):
            read(str(_file(content, name)))


def _labels() -> list[bytes]:
    return [
        b"11;Holding something\n12;Dropping something\n",
        b'[{"id": 11, "template": "Holding [something]"}]',
        b'{"Holding something": "0", "Dropping something": "1"}',
        b"\xef\xbb\xbfpath,label\r\na/b.mp4,0\r\n",
        b"a.mp4 1\nb.mp4 0\n",
        b"label,youtube_id,time_start,time_end,split\nrun,abcdefghijk,1,11,train\n",
        "a.mp4\t3\n".encode("utf-16"),
    ]


def _take_picture(content: bytes) -> object:
    from rstg_tf.video.limits import MediaLimits
    from rstg_tf.video.pictures import pixels_of

    return pixels_of(content, named="the picture", limits=MediaLimits(frame_pixels=1 << 20))


def _pictures() -> list[bytes]:
    picture = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    found = []
    for name in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF"):
        buffer = io.BytesIO()
        picture.save(buffer, name)
        found.append(buffer.getvalue())
    return found


def _take_header(content: bytes) -> object:
    """What an exported model looks at before it decodes."""
    import tensorflow as tf

    try:
        return _header_graph()(tf.constant([content], tf.string))
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise VideoError(str(error)) from None


@functools.lru_cache(maxsize=1)
def _header_graph():
    import tensorflow as tf

    from rstg_tf.video import picture_header

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([1], tf.string)])
    def look(encoded):
        return picture_header.unpacks_to_more_than_pixels(encoded, picture_header.stored_sizes(encoded))

    return look


def _take_answer(content: bytes) -> None:
    servers = _servers()

    class Body(io.BytesIO):
        status = 200

    class Answers(servers.RestServer):
        @contextlib.contextmanager
        def _answer(self, method, path, body):
            yield Body(content)

    server = Answers(servers.Address("localhost:1", 5.0, 1 << 20), model="rstg", version=None)
    for ask in (lambda: server.predict("serving_default", {}), lambda: server.input_shape("serving_default", "video")):
        with contextlib.suppress(servers.ServerError):
            ask()


def _servers():
    examples = str(Path(__file__).resolve().parents[2] / "examples")
    if examples not in sys.path:
        sys.path.append(examples)
    import model_servers

    return model_servers


def _answers() -> list[bytes]:
    video = {"video": {"tensor_shape": {"dim": [{"size": "-1"}, {"size": "4"}]}}}
    metadata = {"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": video}}}}}
    return [json.dumps(value).encode() for value in ({"outputs": {"probabilities": [[0.25, 0.75]]}}, metadata)]


def gates() -> dict[str, Target]:
    """Name -> target."""
    from rstg_tf.common.safe_pickle import RefusedPickleError

    return {
        "pickle": Target(_take_pickle, (RefusedPickleError,), _pickles),
        "checkpoint": Target(_take_checkpoint, (ConfigError,), lambda: [_checkpoint()[0]]),
        "shard": Target(_take_shard, (DatasetError,), _shards),
        "clip": Target(_take_clip, (DatasetError,), _clips),
        "manifest": Target(_take_manifest, (DatasetError,), _manifests),
        "labels": Target(_take_labels, (ConfigError,), _labels),
        "picture": Target(_take_picture, (VideoError,), _pictures),
        "header": Target(_take_header, (VideoError,), _pictures),
        "answer": Target(_take_answer, (), _answers),
    }
