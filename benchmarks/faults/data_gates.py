"""The gates for data of others as targets for fuzzers: pickles, shards, manifests, labels, digits, pictures, videos."""

from __future__ import annotations

import gzip
import io
import json
import pickle
from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.faults.targets import Target, file_of
from datasets.records.manifest import MANIFEST_FILE, DatasetError, Manifest
from rstg_tf.common.errors import ConfigError, VideoError


def _take_pickle(content: bytes) -> object:
    from rstg_tf.common.safe_pickle import load_pickle_stream

    return load_pickle_stream(io.BytesIO(content), encoding="latin1")


def _pickles() -> list[bytes]:
    values = [
        {"conv1_w": np.arange(6, dtype=np.float32).reshape(2, 3), "blobs": {b"lr": 0.1}},
        [("11", "Holding something"), 2**70, None, {1, 2}, b"bytes", np.float64(3)],
    ]
    return [pickle.dumps(value, protocol) for value in values for protocol in (2, 4)]


def _take_shard(content: bytes) -> object:
    from datasets.records.sequence_examples import decode_clip
    from datasets.records.shards import read_records

    records = [record for _, _, record in read_records(file_of(content, "s.tfrecord"), expected_records=2)]
    return [decode_clip(record) for record in records if record is not None]


def _clips() -> list[bytes]:
    from datasets.records.sequence_examples import encode_clip

    frames = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
    facts = {"label": 1, "label_name": "up", "media_id": "a", "timestamps": [0, 1]}
    return [encode_clip(frames=frames, image_format=name, **facts) for name in ("PNG", "JPEG")]


def _shards() -> list[bytes]:
    import tensorflow as tf

    path = file_of(b"", "seed.tfrecord")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for clip in _clips():
            writer.write(clip)
    return [path.read_bytes()]


def _take_clip(content: bytes) -> object:
    from datasets.records.sequence_examples import decode_clip

    return decode_clip(content)


def _take_manifest(content: bytes) -> object:
    return Manifest.read(file_of(content, MANIFEST_FILE).parent)


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


_SHARD = {"file": "toy-00000-of-00001.tfrecord", "records": 2, "bytes": 400, "sha256": "0" * 64}


def _take_note(content: bytes) -> None:
    from datasets.records.shard_notes import NotedFolder

    file = file_of(content, f"noted/shard_notes/{_SHARD['file']}.json")
    folder = NotedFolder(file.parents[1], {"name": "toy", "num_videos": 3}, 1)
    for note in folder.notes([_SHARD["file"]]).values():
        folder.is_current(note)
    folder.report_rejected(allowed=3)


def _notes() -> list[bytes]:
    rejected = {"media_id": "c", "path": "/videos/c.mp4", "reason": "is empty.", "stamp": [0, 1]}
    return [json.dumps({"shard": _SHARD, "rejected": [rejected, {**rejected, "stamp": None}]}).encode()]


def _take_labels(content: bytes) -> object:
    from datasets.something_something.labels import read_label_file

    return read_label_file(str(file_of(content, "labels.csv")))


def _labels() -> list[bytes]:
    return [
        b"11;Holding something\n12;Dropping something\n",
        b'[{"id": 11, "template": "Holding [something]"}]',
        b'{"Holding something": "0", "Dropping something": "1"}',
    ]


def _take_list(content: bytes) -> object:
    from datasets.videos.list_rows import read_list

    return read_list(str(file_of(content, "list.csv")))


def _lists() -> list[bytes]:
    return [
        b"\xef\xbb\xbfpath,label\r\na/b.mp4,0\r\n",
        b"a.mp4 1\nb.mp4 0\n",
        b"label,youtube_id,time_start,time_end,split\nrun,abcdefghijk,1,11,train\n",
        "a.mp4\t3\n".encode("utf-16"),
    ]


def _take_digits(content: bytes) -> object:
    from datasets.sync_mnist.digits import read_idx

    return read_idx(file_of(content, "digits"), dimensions=3, limit=1 << 20)


def _digits() -> list[bytes]:
    digits = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4)) + bytes(range(24))
    return [digits, gzip.compress(digits)]


def _take_picture(content: bytes) -> object:
    from rstg_tf.video.limits import MediaLimits
    from rstg_tf.video.pictures import pixels_of

    return pixels_of(content, named="the picture", limits=MediaLimits(frame_pixels=1 << 20))


def pictures() -> list[bytes]:
    """A picture of 16×16 pixels in each format that is read."""
    picture = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    found = []
    for name in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF"):
        buffer = io.BytesIO()
        picture.save(buffer, name)
        found.append(buffer.getvalue())
    return found


def _take_frames(content: bytes, name: str) -> int:
    from rstg_tf.video.limits import MediaLimits
    from rstg_tf.video.sources import open_source

    limits = MediaLimits(frame_pixels=1 << 18, video_frames=100, video_pixels=1 << 22, stall_seconds=3.0)
    return sum(1 for _ in open_source(file_of(content, name), limits=limits).read(8))


def _arrays() -> list[bytes]:
    found = []
    for shape in ((4, 8, 8), (4, 8, 8, 3)):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(shape, np.uint8))
        found.append(buffer.getvalue())
    return found


def _videos() -> Iterator[bytes]:
    """Four frames each, in containers that are read by several parts of FFmpeg."""
    import av

    kinds = [("mp4", "mpeg4"), ("matroska", "mpeg4"), ("mpeg", "mpeg1video"), ("gif", "gif"), ("nut", "ffv1")]
    kinds += [("flv", "flv1"), ("ivf", "libvpx")]
    for container, codec in kinds:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width = stream.height = 32
            stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
            for shade in range(4):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 60 * shade, np.uint8), format="rgb24")
                file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            file.mux(stream.encode())
        yield buffer.getvalue()


def data_gates() -> dict[str, Target]:
    """Name -> target."""
    from rstg_tf.common.safe_pickle import RefusedPickleError

    return {
        "array": Target(lambda content: _take_frames(content, "a.npy"), (VideoError,), _arrays),
        "clip": Target(_take_clip, (DatasetError,), _clips),
        "digits": Target(_take_digits, (ConfigError,), _digits),
        "labels": Target(_take_labels, (ConfigError,), _labels),
        "list": Target(_take_list, (ConfigError,), _lists),
        "manifest": Target(_take_manifest, (DatasetError,), _manifests),
        "note": Target(_take_note, (ConfigError,), _notes),
        "pickle": Target(_take_pickle, (RefusedPickleError,), _pickles),
        "picture": Target(_take_picture, (VideoError,), pictures),
        "shard": Target(_take_shard, (DatasetError,), _shards),
        "video": Target(lambda content: _take_frames(content, "video"), (VideoError,), lambda: list(_videos())),
    }
