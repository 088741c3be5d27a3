"""Shards of others: lengths that lie reach no reader that makes room for them, and files of zeros take no time."""

from __future__ import annotations

import hashlib
import os

import tensorflow as tf

from datasets.records import shards
from datasets.records.manifest import ShardInfo
from datasets.records.shards import SURPLUS_COUNTED, count_fault, read_records, record_offsets, size_fault


def write_shard(path, records):
    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            file.write(record)
    content = path.read_bytes()
    return ShardInfo(path.name, len(records), len(content), hashlib.sha256(content).hexdigest())


def claim(length):
    """The header of a record that claims this length, with the checksum that belongs to it."""
    field = length.to_bytes(8, "little")
    checksum = crc32c(field)
    return field + (((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def crc32c(data):
    """The Castagnoli checksum, bit by bit."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
    return checksum ^ 0xFFFFFFFF


def test_a_length_beyond_the_file_is_a_corrupt_record_and_never_handed_to_the_reader(tmp_path):
    path = tmp_path / "s.tfrecord"
    whole = write_shard(path, [b"one", b"two"])
    path.write_bytes(path.read_bytes() + claim(2**60) + b"end")
    shard = ShardInfo(path.name, 3, whole.bytes + 15, whole.sha256)
    assert "a length field is corrupt" in count_fault(tmp_path, shard)
    assert [content for _, _, content in read_records(path, 3)] == [b"one", b"two", None]


def test_a_shard_of_zeros_is_counted_no_further_than_the_manifest_says(tmp_path):
    path = tmp_path / "s.tfrecord"
    path.write_bytes(bytes(1 << 20))
    assert count_fault(tmp_path, ShardInfo(path.name, 5, 1 << 20, "")) == (
        f"s.tfrecord: {5 + SURPLUS_COUNTED} records or more, expected 5."
    )
    assert len(record_offsets(path, at_most=7)[0]) == 7
    assert [content for _, _, content in read_records(path, 5)] == [None]


def corrupt_empty_records(path, count, numbers):
    """A shard of `count` empty records of 16 bytes, those `numbers` with a checksum that does not fit."""
    write_shard(path, [b""] * count)
    content = bytearray(path.read_bytes())
    for number in numbers:
        content[16 * number + 12] ^= 1
    path.write_bytes(content)


def test_after_a_corrupt_record_the_rest_is_read_in_ever_larger_pieces(tmp_path, monkeypatch):
    path, read, pieces = tmp_path / "s.tfrecord", shards._records_between, []
    corrupt_empty_records(path, 1000, [1, 900])
    monkeypatch.setattr(shards, "_records_between", lambda *place: pieces.append(place) or read(*place))
    records = list(read_records(path, 1000))
    assert [number for number, _, record in records if record is None] == [1, 900]
    assert [offset for _, offset, _ in records] == list(range(0, 16000, 16))
    assert len(pieces) < 20


def test_a_shard_of_corrupt_records_is_given_up_after_some(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CORRUPT_COUNTED", 3)
    path = tmp_path / "s.tfrecord"
    corrupt_empty_records(path, 5000, range(1, 5000, 2))
    assert [record for _, _, record in read_records(path, 5000)] == [b"", None, b"", None, b"", None]


def test_a_shard_that_is_a_link_out_of_its_folder_or_a_pipe_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    shard = write_shard(tmp_path / "elsewhere.tfrecord", [b"one"])
    here = tmp_path / "set" / shard.file
    here.symlink_to(tmp_path / shard.file)
    assert f"is a link to {tmp_path / shard.file}, outside of the folder" in size_fault(tmp_path / "set", shard)
    here.unlink()
    os.mkfifo(here)
    assert "is no regular file" in size_fault(tmp_path / "set", shard)


def test_a_folder_that_is_a_link_itself_holds_shards_like_another(tmp_path):
    (tmp_path / "set").mkdir()
    shard = write_shard(tmp_path / "set" / "s.tfrecord", [b"one"])
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert size_fault(tmp_path / "link", shard) is None
