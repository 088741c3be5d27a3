"""Records and manifest: what is written is what is read, and nothing incomplete looks complete."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny_clips import CLASSES, clip_frames, tiny_record, write_shards, write_tiny_dataset

from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import DatasetError, Manifest, shard_file
from datasets.records.sequence_examples import ShardWriter, decode_clip, encode_clip, parse_clip
from datasets.records.shards import record_offsets

REPOSITORY = Path(__file__).parents[3]


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_clip_comes_back_value_by_value(channels):
    frames = np.random.default_rng(0).integers(0, 256, (4, 5, 7, channels), np.uint8)
    positions = np.arange(24).reshape(4, 3, 2)
    clip = decode_clip(
        encode_clip(
            frames=frames,
            label=2,
            label_name="größer",
            media_id="train-7",
            image_format="PNG",
            timestamps=[0, 10, 20, 2**40],
            extra={"sync_mnist/positions": positions, "speed": [0.5, -1.25], "by": b"x"},
        )
    )
    np.testing.assert_array_equal(clip["frames"], frames)
    np.testing.assert_array_equal(clip["timestamps"], [0, 10, 20, 2**40])
    assert [clip[key] for key in ("label", "label_name", "media_id", "image_format", "height", "width")] == [
        2,
        "größer",
        "train-7",
        "PNG",
        5,
        7,
    ]
    np.testing.assert_array_equal(clip["extra"]["sync_mnist/positions"], positions.ravel())
    np.testing.assert_array_equal(clip["extra"]["speed"], [0.5, -1.25])
    assert clip["extra"]["by"] == [b"x"]


def test_compressed_frames_are_stored_byte_by_byte():
    images = [jpeg(np.full((9, 8, 3), shade, np.uint8)) for shade in (0, 100, 250)]
    clip = decode_clip(tiny_record(0, frames=images, image_format="JPEG"))
    assert clip["encoded"] == images
    assert (clip["height"], clip["width"]) == (9, 8)


def test_the_graph_parses_the_same_values_as_the_tools():
    parsed = tf.function(parse_clip)(tf.constant(tiny_record(5)))
    clip = decode_clip(tiny_record(5))
    assert parsed["encoded"].numpy().tolist() == clip["encoded"]
    assert [int(parsed[key]) for key in ("label", "height", "width")] == [2, 4, 6]
    assert parsed["media_id"].numpy() == b"clip-5"


def test_other_readers_find_the_schema_of_mediasequence():
    example = tf.train.SequenceExample.FromString(tiny_record(5))
    assert set(example.context.feature) == {
        "clip/label/index",
        "clip/label/string",
        "clip/media_id",
        "image/height",
        "image/width",
        "image/format",
    }
    assert set(example.feature_lists.feature_list) == {"image/encoded", "image/timestamp"}
    times = example.feature_lists.feature_list["image/timestamp"].feature
    assert [step.int64_list.value[0] for step in times] == [0, 40_000, 80_000]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(frames=clip_frames(0).astype(np.float32)), "float32"),
        (dict(frames=clip_frames(0, channels=2)), r"\[3, 4, 6, 2\]"),
        (dict(frames=clip_frames(0)[0]), r"\[4, 6, 1\]"),
        (dict(frames=[b"no image"] * 3), "frame 0 is no PNG"),
        (dict(frames=[jpeg(np.zeros((4, 6), np.uint8))] * 3), "frame 0 is no PNG"),
        (dict(image_format="GIF"), "GIF"),
        (dict(timestamps=[0, 1]), "2 timestamps for 3 frames"),
        (dict(extra={"image/height": 3}), "image/height"),
        (dict(extra={"who": np.array(["a"])}), "who"),
    ],
)
def test_a_clip_that_readers_could_not_read_is_not_written(changes, message):
    with pytest.raises(DatasetError, match="clip-0.*" + message):
        tiny_record(0, **changes)


def test_frames_of_several_sizes_are_not_written():
    images = [jpeg(np.zeros((4, width), np.uint8)) for width in (6, 6, 7)]
    with pytest.raises(DatasetError, match="clip-0.*sizes"):
        tiny_record(0, frames=images, image_format="JPEG")


def test_the_shard_info_tells_the_file_as_it_is(tmp_path):
    path = tmp_path / shard_file("train", 1, 4)
    with ShardWriter(path) as shard:
        for number in range(5):
            shard.write(tiny_record(number))
    content = path.read_bytes()
    assert dataclasses.asdict(shard.info) == {
        "file": "train-00001-of-00004.tfrecord",
        "records": 5,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    assert records == [tiny_record(number) for number in range(5)]


def test_a_shard_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "train-00000-of-00001.tfrecord"
    with ShardWriter(path) as shard:
        shard.write(tiny_record(0))
        assert not path.exists()
    assert path.exists()


def test_an_exception_leaves_no_shard_and_an_older_one_as_it_was(tmp_path):
    path = tmp_path / "train-00000-of-00001.tfrecord"
    path.write_bytes(b"older")
    with pytest.raises(KeyError), ShardWriter(path) as shard:
        shard.write(tiny_record(0))
        raise KeyError
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"older"
    assert shard.info is None


def test_a_killed_writer_leaves_nothing_under_a_shards_name(tmp_path):
    program = (
        "import os, sys; sys.path.insert(0, 'tests/helpers')\n"
        "from datasets.records.sequence_examples import ShardWriter\n"
        "from tiny_clips import tiny_record\n"
        f"with ShardWriter({str(tmp_path / 'train.tfrecord')!r}) as shard:\n"
        "    for number in range(100): shard.write(tiny_record(number))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    assert killed.returncode == -9
    assert [file.name.startswith(".train.tfrecord.tmp-") for file in tmp_path.iterdir()] == [True]
    with ShardWriter(tmp_path / "train.tfrecord") as shard:
        shard.write(tiny_record(0))
    assert [file.name for file in tmp_path.iterdir()] == ["train.tfrecord"]


def test_a_shard_in_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OSError, match="nowhere/train.tfrecord"), ShardWriter(tmp_path / "nowhere/train.tfrecord"):
        pass


def test_the_manifest_comes_back_equal(tmp_path):
    manifest = write_tiny_dataset(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert manifest.num_clips == 23
    values = json.loads((tmp_path / "dataset.json").read_text())
    assert (values["format_version"], values["num_clips"], values["classes"]) == (1, 23, list(CLASSES))
    assert not list(tmp_path.glob(".*tmp-*"))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda values: values.pop("classes"), "classes"),
        (lambda values: values.update(surprise=1), "surprise"),
        (lambda values: values.update(format_version=2), "format_version 2, expected 1"),
        (lambda values: values.update(height="4"), "height"),
        (lambda values: values.update(num_frames=-1), "num_frames"),
        (lambda values: values.update(channels=4), "channels 4"),
        (lambda values: values.update(image_format="GIF"), "GIF"),
        (lambda values: values["shards"][0].update(records=6), "num_clips is 23, but its shards add up to 22"),
        (lambda values: values["shards"][0].update(file="../train"), "plain file name"),
        (lambda values: values["shards"][1].update(file=values["shards"][0]["file"]), "twice"),
        (lambda values: values["shards"][0].pop("sha256"), "sha256"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path, change, message):
    write_tiny_dataset(tmp_path)
    path = tmp_path / "dataset.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(DatasetError, match=message):
        Manifest.read(tmp_path)


def test_a_folder_without_a_manifest_or_with_a_torn_one_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="dataset.json does not exist"):
        Manifest.read(tmp_path)
    write_tiny_dataset(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(DatasetError, match="cannot be read"):
        Manifest.read(tmp_path)


def test_record_offsets_are_where_the_records_begin(tmp_path):
    records = [tiny_record(number) for number in range(4)]
    manifest = write_shards(tmp_path, [records])
    offsets, end = record_offsets(tmp_path / manifest.shards[0].file)
    assert offsets == [sum(16 + len(record) for record in records[:number]) for number in range(4)]
    assert end == manifest.shards[0].bytes


def test_untouched_shards_pass(tmp_path):
    RecordedDataset(tmp_path, write_tiny_dataset(tmp_path)).check()


@pytest.mark.parametrize(
    "records_kept, bytes_more",
    [
        pytest.param(0, 0, id="empty"),
        pytest.param(0, 5, id="in the first length"),
        pytest.param(2, 0, id="boundary"),
        pytest.param(2, 8, id="after a length"),
        pytest.param(2, 40, id="in a record"),
        pytest.param(7, -1, id="last byte"),
    ],
)
def test_a_shard_cut_anywhere_is_refused(tmp_path, records_kept, bytes_more):
    shard = write_tiny_dataset(tmp_path).shards[0]
    path = tmp_path / shard.file
    offsets, end = record_offsets(path)
    cut = (offsets + [end])[records_kept] + bytes_more
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DatasetError, match=f"{shard.file}: {cut} bytes, expected {shard.bytes} "):
        RecordedDataset.open(tmp_path).check()


def test_every_faulty_shard_is_named(tmp_path):
    manifest = write_tiny_dataset(tmp_path)
    (tmp_path / manifest.shards[1].file).unlink()
    (tmp_path / manifest.shards[3].file).write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        RecordedDataset(tmp_path, manifest).check()
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path}: 2 of 4 shards disagree")
    assert [line.split(":")[0] for line in lines[1:]] == [manifest.shards[1].file, manifest.shards[3].file]


def test_a_shard_of_the_right_size_with_another_number_of_records_is_refused(tmp_path):
    manifest = write_tiny_dataset(tmp_path)
    path = tmp_path / manifest.shards[0].file
    # The last record's bytes, all zero, are as many records of no length as fit, 16 bytes each.
    offsets, end = record_offsets(path)
    content = path.read_bytes()[: offsets[-1]]
    path.write_bytes(content + bytes(end - len(content)))
    with pytest.raises(DatasetError, match=f"{path.name}: "):
        RecordedDataset(tmp_path, manifest).check()
    wrong = [dataclasses.replace(manifest.shards[2], records=6), dataclasses.replace(manifest.shards[3], records=9)]
    with pytest.raises(DatasetError, match=f"{wrong[0].file}: 5 records, expected 6"):
        RecordedDataset(tmp_path, dataclasses.replace(manifest, shards=tuple(wrong))).check()


def test_a_data_set_without_a_clip_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no clip"):
        RecordedDataset(tmp_path, write_shards(tmp_path, [[]])).check()


def test_manifest_and_checks_do_without_tensorflow():
    program = "import sys, datasets.records.sequence_examples; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY).returncode == 0
