"""A shard as a file of records: its size, its length fields, its checksums; what lies in a record is `faults`'."""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets.records.manifest import ShardInfo
from rstg_tf.common.files import hash_file

# A TFRecord is: length (8 bytes, little endian), its checksum (4), the record, its checksum (4).
RECORD_HEADER_BYTES = 12
RECORD_FRAME_BYTES = 16
SURPLUS_COUNTED = 1000  # records beyond the manifest's that are still counted
CORRUPT_COUNTED = 100  # records of a shard that may be corrupt until the rest of it counts as unreadable
_LARGEST_EXCERPT = 64 << 20  # bytes of several records that are read together


def size_fault(directory: Path, shard: ShardInfo) -> str | None:
    """What is wrong with the existence or size of the shard's file, or None."""
    path = directory / shard.file
    try:
        status = path.stat()
        target = path.resolve()
        if target.parent != directory.resolve():
            return f"{shard.file}: is a link to {target}, outside of the folder; expected a file in it."
        if not stat.S_ISREG(status.st_mode):
            return f"{shard.file}: is no regular file; expected {shard.bytes} bytes."
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return f"{shard.file}: cannot be opened ({error.strerror}); expected {shard.bytes} bytes."
    if size != shard.bytes:
        return f"{shard.file}: {size} bytes, expected {shard.bytes} ({shard.records} records)."
    return None


def count_fault(directory: Path, shard: ShardInfo) -> str | None:
    """What is wrong with the number of records as their length fields tell it, or None."""
    offsets, end = record_offsets(directory / shard.file, at_most=shard.records + SURPLUS_COUNTED)
    if len(offsets) == shard.records + SURPLUS_COUNTED:
        return f"{shard.file}: {len(offsets)} records or more, expected {shard.records}."
    if end != shard.bytes:
        return (
            f"{shard.file}: record {len(offsets) - 1} at byte {offsets[-1]} does not end with the file "
            f"({shard.bytes} bytes): a length field is corrupt."
        )
    if len(offsets) != shard.records:
        return f"{shard.file}: {len(offsets)} records, expected {shard.records}."
    return None


def hash_fault(directory: Path, shard: ShardInfo) -> str | None:
    """Whether the content has changed since the manifest was written, as a sentence; or None."""
    _, digest = hash_file(directory / shard.file)
    if digest != shard.sha256:
        return f"{shard.file}: SHA-256 {digest[:12]}…, expected {shard.sha256[:12]}…: its content has changed."
    return None


def record_offsets(path: str | os.PathLike, *, at_most: float = math.inf) -> tuple[list[int], int]:
    """The byte offset of every record, by the length fields, and where the last one ends (elsewhere than the file, if
    a length is corrupt).

    Not more than `at_most` are looked for: a file of zeros would be read as millions of empty records.
    """
    offsets, position = [], 0
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while position < size and len(offsets) < at_most:
            offsets.append(position)
            header = os.pread(file.fileno(), RECORD_HEADER_BYTES, position)
            length = int.from_bytes(header[:8], "little") if len(header) == RECORD_HEADER_BYTES else size
            position += RECORD_FRAME_BYTES + length
    return offsets, position


def read_records(path: Path, expected_records: int) -> Iterator[tuple[int, int, bytes | None]]:
    """(number, byte offset, record, or None where corrupt) as far as the records can be told apart.

    TensorFlow's reader compares the checksums, but ends at the first that is wrong, be it of a record's length or of
    its content. When the content alone is corrupt, the length still tells where the next record begins: that is so if
    all lengths together lead to the end of the file and to the expected number, or if a record is found there.

    Ends after CORRUPT_COUNTED corrupt records: beginning anew after one takes as long as a thousand small ones.
    """
    offsets, end = record_offsets(path, at_most=expected_records + SURPLUS_COUNTED)
    lengths_hold = end == path.stat().st_size and len(offsets) == expected_records
    offsets.append(end)
    # TensorFlow makes room for what a length claims before it looks at the file, so it must not see those that lie.
    within = sum(offset <= path.stat().st_size for offset in offsets[1:])
    number = 0
    for serialized in _sound_records(path, within):
        yield number, offsets[number], serialized
        number += 1
    corrupt, ahead = 0, 1  # records that are read together: more and more as long as they are sound
    while number < len(offsets) - 1:
        last = min(number + ahead, within)
        if last <= number or offsets[last] - offsets[number] > _LARGEST_EXCERPT:
            last = number + 1
        for serialized in _records_between(path, offsets[number], offsets[last]):
            yield number, offsets[number], serialized
            number += 1
        ahead *= 2
        if number == last:
            continue
        yield number, offsets[number], None
        number, corrupt, ahead = number + 1, corrupt + 1, 1
        if corrupt == CORRUPT_COUNTED:
            return
        if not lengths_hold and not any(True for _ in _records_between(path, *offsets[number : number + 2])):
            return


def _sound_records(path: str | os.PathLike, count: int = -1) -> Iterator[bytes]:
    """The first `count` records of a TFRecord file, or all, up to the first that is corrupt."""
    import tensorflow as tf

    return tf.data.TFRecordDataset(os.fspath(path)).take(count).ignore_errors().prefetch(16).as_numpy_iterator()


def _records_between(path: Path, begin: int, end: int | None = None) -> Iterator[bytes]:
    """The records in these bytes of a shard up to the first that is corrupt; none without an `end`."""
    if end is None or end > path.stat().st_size:
        return  # a corrupt length may claim any size
    # The reader starts at the beginning of a file, so the records get one of their own.
    with open(path, "rb") as shard, tempfile.NamedTemporaryFile() as excerpt:
        shard.seek(begin)
        excerpt.write(shard.read(end - begin))
        excerpt.flush()
        yield from _sound_records(excerpt.name)
