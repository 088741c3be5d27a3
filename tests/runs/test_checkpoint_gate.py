"""The gate for checkpoints: what TensorFlow writes passes, and no header reaches it that would end the process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from tensorflow.core.protobuf import tensor_bundle_pb2

from rstg_tf.common.errors import ConfigError
from rstg_tf.release.checkpoint_files import checkpoint_prefix, read_shapes, read_variables
from rstg_tf.runs import checkpoint_gate
from rstg_tf.runs.checkpoint_gate import CheckpointFault, check_checkpoint


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The prefix of a checkpoint by TensorFlow with enough variables for several blocks."""
    prefix = str(tmp_path_factory.mktemp("checkpoint") / "model.ckpt")
    values = {f"layer_{number:04d}/kernel": np.full([2, 3], number, np.float32) for number in range(500)}
    values |= {
        "empty": np.zeros([0, 4], np.int64),
        "half": tf.ones([3], tf.bfloat16),
        "words": tf.constant(["a", "bc"]),
    }
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=[*values], shape_and_slices=[""] * len(values), tensors=[*values.values()]
    )
    return prefix


def varint(number):
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes([*content, number])


def write_index(prefix, entry, *, shards=1, data=b"\0" * 24, restarts=(0,)):
    """A checkpoint of one variable whose entry in the header is `entry`; readers may begin at `restarts`."""
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=shards)
    block = b""
    for name, value in ((b"", header.SerializeToString()), (b"v", entry.SerializeToString())):
        block += varint(0) + varint(len(name)) + varint(len(value)) + name + value
    block += b"".join(place.to_bytes(4, "little") for place in (*restarts, len(restarts)))
    place = varint(0) + varint(len(block))
    index = varint(0) + varint(1) + varint(len(place)) + b"w" + place + bytes(4) + (1).to_bytes(4, "little")
    start = len(block) + 5
    footer = (varint(0) + varint(0) + varint(start) + varint(len(index))).ljust(40, b"\0")
    content = block + bytes(5) + index + bytes(5) + footer + (0xDB4775248B80FB57).to_bytes(8, "little")
    with open(f"{prefix}.index", "wb") as file:
        file.write(content)
    with open(f"{prefix}.data-00000-of-00001", "wb") as file:
        file.write(data)


def entry_of(shape, *, size=24, kind=1, **values):
    entry = tensor_bundle_pb2.BundleEntryProto(dtype=kind, size=size, **values)
    for side in shape:
        entry.shape.dim.add().size = side
    return entry


def test_what_tensorflow_writes_passes(written):
    check_checkpoint(written)
    assert len(read_variables(written)) == 503


def test_a_header_made_by_hand_passes_where_its_entry_makes_sense(tmp_path):
    write_index(tmp_path / "c", entry_of([2, 3]))
    check_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    "entry, told",
    [
        (entry_of([-2, -3]), "has the shape"),
        (entry_of([2**62, 2**62]), "has the shape"),
        (entry_of([0, 2**62, 2**62], size=0), "has the shape"),
        (entry_of([2**40]), "has 24 bytes; expected 4398046511104"),
        (entry_of([1] * 300), "has 300 dimensions"),
        (entry_of([2, 3], kind=999), "unknown type"),
        (entry_of([2, 3], kind=21), "of the type variant"),
        (entry_of([2, 3], kind=101), "of the type float32_ref"),
        (entry_of([2**50], kind=7), "texts in 24 bytes"),
        (entry_of([2, 3], shard_id=7), "data file 7 of 1"),
        (entry_of([2, 3], offset=-8), "takes the bytes"),
        (entry_of([2, 3], offset=2**62), "takes the bytes"),
    ],
    ids="negative overflowing empty huge rank type variant reference texts shard before after".split(),
)
def test_a_header_that_would_end_the_process_is_refused_with_file_and_variable(tmp_path, entry, told):
    write_index(tmp_path / "c", entry)
    with pytest.raises(ConfigError) as refusal:
        read_shapes(str(tmp_path / "c"))
    assert told in str(refusal.value) and "c.index: variable 'v'" in str(refusal.value)


@pytest.mark.parametrize("length", [25, 2**33, 2**63])
def test_a_text_that_claims_more_bytes_than_its_variable_has_is_refused(tmp_path, length):
    write_index(tmp_path / "c", entry_of([], kind=7), data=varint(length).ljust(24, b"\0"))
    with pytest.raises(CheckpointFault, match=f"variable 'v' has texts of {length} bytes in 24 bytes"):
        check_checkpoint(tmp_path / "c")


def test_lengths_of_texts_that_never_end_and_too_many_texts_are_refused(tmp_path, monkeypatch):
    write_index(tmp_path / "c", entry_of([3], kind=7, size=3), data=b"\xff" * 24)
    with pytest.raises(CheckpointFault, match="has 3 texts, whose lengths end beyond its 3 bytes"):
        check_checkpoint(tmp_path / "c")
    monkeypatch.setattr(checkpoint_gate, "LARGEST_TEXTS", 2)
    with pytest.raises(CheckpointFault, match="is beyond the 2 texts"):
        check_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("restarts", [(0, 12), (0, 2**31 - 1), (5, 0), (0, 0)])
def test_a_block_that_is_to_be_read_from_within_an_entry_is_refused(tmp_path, restarts):
    # An entry within a value could claim a name of 4 GiB, which TensorFlow would read.
    write_index(tmp_path / "c", entry_of([2, 3]), restarts=restarts)
    with pytest.raises(CheckpointFault, match="is to be read from within an entry"):
        check_checkpoint(tmp_path / "c")


def test_absurd_numbers_of_data_files_and_missing_ones_are_refused(tmp_path):
    for shards, told in ((2**31 - 1, "claims 2147483647 data files"), (-1, "claims -1"), (2, "is missing")):
        write_index(tmp_path / "c", entry_of([2, 3]), shards=shards)
        with pytest.raises(CheckpointFault, match=told):
            check_checkpoint(tmp_path / "c")


def test_an_index_that_is_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "c.index")
    with pytest.raises(ConfigError, match="is a FIFO"):
        check_checkpoint(tmp_path / "c")


@given(place=some.integers(0, 10**6), byte=some.integers(0, 255), cut=some.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_or_cut_header_is_taken_or_refused_in_a_sentence(written, tmp_path, place, byte, cut):
    content = bytearray(Path(f"{written}.index").read_bytes())
    place %= len(content)
    content[place] = byte
    copy = tmp_path / "c"
    (tmp_path / "c.index").write_bytes(content[:place] if cut else content)
    (tmp_path / "c.data-00000-of-00001").write_bytes(Path(f"{written}.data-00000-of-00001").read_bytes())
    try:
        check_checkpoint(copy)
    except CheckpointFault as error:
        assert str(error).startswith(f"{copy}.index: ") and "\n" not in str(error)


def test_a_state_file_does_not_lead_out_of_its_folder(written, tmp_path):
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{written}"\n')
    with pytest.raises(ConfigError, match="which is not there"):
        checkpoint_prefix(str(tmp_path))
