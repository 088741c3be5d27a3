"""The gate for checkpoints of others: TensorFlow's reader ends the process where a header claims absurd shapes.

So the header, PREFIX.index, is read here first. It is a table in LevelDB's format, uncompressed: blocks of entries, a
block that says where those lie, and a footer that says where that lies. Its values are protocol buffers: for the empty
key what the checkpoint is, for each variable its type, shape, and place in PREFIX.data-SHARD-of-SHARDS.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import read_bytes

LARGEST_INDEX = 64 << 20  # bytes
LARGEST_RANK = 16
LARGEST_SHARDS = 1024
LARGEST_TEXTS = 1_000_000  # in all variables of texts; a checkpoint of ours has one
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48  # bytes: two places, filled up with zeros, and the magic number
_TRAILER = 5  # bytes after each block: how it is compressed, and a checksum
_LARGEST_SIZE = 2**63 - 1


class CheckpointFault(ConfigError):
    """A checkpoint that must not be handed to TensorFlow: what is wrong with its header, and in which entry."""


def check_checkpoint(prefix: str | os.PathLike) -> None:
    """Reads the header of the checkpoint PREFIX.index, PREFIX.data-….

    Raises CheckpointFault, naming the file, unless every variable has a type, shape and place that make sense.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import tensor_bundle_pb2

    index = f"{os.fspath(prefix)}.index"
    table = read_bytes(index, named=index, limit=LARGEST_INDEX)
    try:
        entries = list(_entries(table))
        if not entries or entries[0][0] != b"":
            raise ValueError("has no header entry")
        if any(one >= two for (one, _), (two, _) in zip(entries, entries[1:])):
            raise ValueError("its names are not in order")
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(entries[0][1])
        if header.endianness or not 1 <= header.num_shards <= LARGEST_SHARDS:
            raise ValueError(f"claims {header.num_shards} data files; expected 1 to {LARGEST_SHARDS}, little-endian")
        files, texts = _data_files(os.fspath(prefix), header.num_shards), 0
        sizes = [file.stat().st_size for file in files]
        for name, value in entries[1:]:
            entry = tensor_bundle_pb2.BundleEntryProto.FromString(value)
            fault = _entry_fault(entry, sizes)
            if not fault and entry.dtype == types_pb2.DT_STRING:
                texts += math.prod(dimension.size for dimension in entry.shape.dim)
                fault = _texts_fault(entry, files[entry.shard_id], texts)
            if fault:
                raise ValueError(f"variable {name[:80].decode('utf-8', 'backslashreplace')!r} {fault}")
    except (ValueError, IndexError, DecodeError, OSError) as error:
        raise CheckpointFault(f"{index}: {str(error) or type(error).__name__}; expected a checkpoint.") from None


def _data_files(prefix: str, num_shards: int) -> list[Path]:
    paths = [Path(f"{prefix}.data-{shard:05d}-of-{num_shards:05d}") for shard in range(num_shards)]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing:
        raise ValueError(f"{missing.name} beside it is missing, or no regular file")
    return paths


def _entry_fault(entry, sizes: list[int]) -> str | None:
    from tensorflow.python.framework import dtypes

    shape = [dimension.size for dimension in entry.shape.dim]
    if entry.shape.unknown_rank or len(shape) > LARGEST_RANK:
        return f"has {len(shape)} dimensions; expected at most {LARGEST_RANK}"
    count = math.prod(shape)
    if any(side < 0 for side in shape) or math.prod(max(side, 1) for side in shape) > _LARGEST_SIZE:
        return f"has the shape {shape}"
    if entry.slices:
        return "is cut in slices; expected it in one piece"
    if not 0 <= entry.shard_id < len(sizes):
        return f"lies in data file {entry.shard_id} of {len(sizes)}"
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > sizes[entry.shard_id]:
        return (
            f"takes the bytes from {entry.offset} to {entry.offset + entry.size} of a data file of "
            f"{sizes[entry.shard_id]} bytes"
        )
    try:
        kind = dtypes.as_dtype(entry.dtype)
    except TypeError:
        return f"has the unknown type {entry.dtype}"
    if kind == dtypes.string:
        return f"has {count} texts in {entry.size} bytes" if count > entry.size else None
    # References are types of graphs; making a tensor of one ends the process.
    if kind in (dtypes.variant, dtypes.resource) or kind != kind.base_dtype or not kind.size:
        return f"is of the type {kind.name}"
    if entry.size != count * kind.size:
        return f"has {entry.size} bytes; expected {count * kind.size} for {kind.name} {shape}"
    return None


def _texts_fault(entry, file: Path, texts: int) -> str | None:
    """The data begin with the length of each text; TensorFlow makes room for one before it looks for its bytes."""
    if texts > LARGEST_TEXTS:
        return f"is beyond the {LARGEST_TEXTS} texts that are read at most"
    count = math.prod(dimension.size for dimension in entry.shape.dim)
    with open(file, "rb") as data:
        data.seek(entry.offset)
        content = data.read(min(entry.size, 10 * count))
    place, total = 0, 0
    try:
        for _ in range(count):
            length, place = _number(content, place)
            total += length
    except IndexError:
        return f"has {count} texts, whose lengths end beyond its {entry.size} bytes"
    return f"has texts of {total} bytes in {entry.size} bytes" if place + total > entry.size else None


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, value) of all entries, in the order of the file."""
    footer = table[-_FOOTER:]
    if len(footer) < _FOOTER or not footer.endswith(_MAGIC):
        raise ValueError("does not end as a table of TensorFlow")
    _, _, place = _place(footer, 0)
    blocks, size, _ = _place(footer, place)
    end = 0
    for _, handle in _block(table, blocks, size):
        offset, size, _ = _place(handle, 0)
        if offset < end:
            raise ValueError("has blocks that overlap")  # else a few bytes could stand for any number of entries
        end = offset + size
        yield from _block(table, offset, size)


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + _TRAILER > len(table) or size < 4:
        raise ValueError("has a block beyond its end")
    if table[offset + size]:
        raise ValueError("has a compressed block")
    restarts = int.from_bytes(table[offset + size - 4 : offset + size], "little")
    place, end = offset, offset + size - 4 - 4 * restarts
    if end < offset:
        raise ValueError("has a block beyond its end")
    name, whole = b"", {0}  # where entries with a whole name begin
    while place < end:
        begin = place - offset
        shared, place = _number(table, place)
        if not shared:
            whole.add(begin)
        fresh, place = _number(table, place)
        length, place = _number(table, place)
        if shared > len(name) or place + fresh + length > end or shared + fresh > _LARGEST_NAME:
            raise ValueError("has an entry beyond the end of its block")
        name = name[:shared] + table[place : place + fresh]
        place += fresh
        yield name, table[place : place + length]
        place += length
    # TensorFlow begins to read at these places, trusting that lengths are there.
    places = [int.from_bytes(table[start : start + 4], "little") for start in range(end, offset + size - 4, 4)]
    if not whole.issuperset(places) or places != sorted(set(places)):
        raise ValueError("has a block that is to be read from within an entry")


_LARGEST_NAME = 4096  # bytes


def _place(data: bytes, start: int) -> tuple[int, int, int]:
    """(offset, size, where it ends) of a block, from two numbers."""
    offset, start = _number(data, start)
    size, start = _number(data, start)
    return offset, size, start


def _number(data: bytes, place: int) -> tuple[int, int]:
    """A number in seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("has a number of more than 64 bits")
