"""Validation finds every fault, names it by shard and record, and says so to other programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_clips import clip_frames, flip_bit, tiny_record, write_shards, write_tiny_dataset

from datasets.records.dataset import RecordedDataset
from datasets.records.faults import first_fault
from datasets.records.shards import record_offsets
from datasets.validate import main, num_checks, validate
from rstg_tf.common.files import hash_file

REPOSITORY = Path(__file__).parents[3]


def run(directory, capsys):
    """(exit code, faults told, the last line's JSON) of the command."""
    code = main([str(directory)])
    lines = capsys.readouterr().out.splitlines()
    return code, lines[:-1], json.loads(lines[-1])


def without_hashes(message):
    return [line for line in message if "SHA-256" not in line]


def test_a_sound_data_set_has_no_fault(tmp_path, capsys):
    manifest = write_tiny_dataset(tmp_path)
    assert run(tmp_path, capsys) == (0, [], {"directory": str(tmp_path), "clips": 23, "faults": 0})
    assert first_fault(tmp_path, manifest) is None
    assert num_checks(manifest) == 4 + 23


def test_the_command_itself_ends_with_code_1_and_json(tmp_path):
    manifest = write_tiny_dataset(tmp_path)
    flip_bit(tmp_path / manifest.shards[1].file, 100)
    ended = subprocess.run(
        [sys.executable, "-m", "datasets.validate", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert f"{manifest.shards[1].file}: record 0 (byte 0): corrupt." in ended.stdout.splitlines()
    assert json.loads(ended.stdout.splitlines()[-1]) == {"directory": str(tmp_path), "clips": 22, "faults": 2}


def test_wrong_use_ends_with_code_2_and_a_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    message = capsys.readouterr()
    assert message.out == "" and "dataset.json does not exist" in message.err
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_a_flipped_bit_anywhere_is_found_with_shard_and_record(tmp_path):
    manifest = write_tiny_dataset(tmp_path, records_per_shard=(3, 1))
    random = np.random.default_rng(0)
    for _ in range(100):
        shard = manifest.shards[random.integers(len(manifest.shards))]
        path = tmp_path / shard.file
        position, bit = int(random.integers(shard.bytes)), int(random.integers(8))
        offsets, _ = record_offsets(path)
        number = int(np.searchsorted(offsets, position, side="right")) - 1
        flip_bit(path, position, bit)
        faults = [outcome for outcome in validate(RecordedDataset(tmp_path, manifest)) if outcome]
        assert f"{shard.file}: record {number} (byte {offsets[number]}): corrupt." in faults
        assert faults[0].startswith(f"{shard.file}: SHA-256")
        flip_bit(path, position, bit)
    assert first_fault(tmp_path, manifest) is None


def test_after_corrupt_contents_the_check_goes_on_with_the_next_record(tmp_path, capsys):
    shard = write_tiny_dataset(tmp_path).shards[3]
    path = tmp_path / shard.file
    offsets, _ = record_offsets(path)
    for number in (2, 3, 9):
        flip_bit(path, offsets[number] + 30)
    _, message, result = run(tmp_path, capsys)
    assert without_hashes(message) == [
        f"{shard.file}: record {number} (byte {offsets[number]}): corrupt." for number in (2, 3, 9)
    ]
    assert (result["clips"], result["faults"]) == (20, 4)


def test_a_corrupt_length_ends_its_shard_and_says_how_many_records_are_unread(tmp_path, capsys):
    manifest = write_tiny_dataset(tmp_path)
    path = tmp_path / manifest.shards[0].file
    begin = record_offsets(path)[0][4]
    flip_bit(path, begin, bit=3)
    _, message, result = run(tmp_path, capsys)
    assert without_hashes(message) == [
        f"{path.name}: record 4 (byte {begin}): corrupt.",
        f"{path.name}: records 5 to 6 are missing or cannot be reached.",
    ]
    assert (result["clips"], result["faults"]) == (20, 3)


@pytest.mark.parametrize(
    "records_kept, more, message",
    [
        (0, 0, ["records 0 to 9 are missing or cannot be reached."]),
        (6, 0, ["records 6 to 9 are missing or cannot be reached."]),
        (6, 3, ["record 6 (byte {}): corrupt.", "records 7 to 9 are missing or cannot be reached."]),
        (9, 50, ["record 9 (byte {}): corrupt."]),
    ],
)
def test_a_cut_shard_is_described(tmp_path, capsys, records_kept, more, message):
    shard = write_tiny_dataset(tmp_path).shards[3]
    path = tmp_path / shard.file
    begin = record_offsets(path)[0][records_kept]
    path.write_bytes(path.read_bytes()[: begin + more])
    code, found, result = run(tmp_path, capsys)
    assert code == 1
    assert found[0] == f"{shard.file}: {begin + more} bytes, expected {shard.bytes} (10 records)."
    assert without_hashes(found[1:]) == [f"{shard.file}: {line.format(begin)}" for line in message]
    assert result["clips"] == 13 + records_kept


def test_a_missing_shard_is_one_fault(tmp_path, capsys):
    shard = write_tiny_dataset(tmp_path).shards[0]
    (tmp_path / shard.file).unlink()
    code, message, result = run(tmp_path, capsys)
    assert (code, result["clips"], result["faults"]) == (1, 16, 1)
    assert message[0].startswith(f"{shard.file}: cannot be opened")


def test_sizes_come_first_then_hashes_then_records(tmp_path, capsys):
    manifest = write_tiny_dataset(tmp_path)
    first, last = (tmp_path / manifest.shards[number].file for number in (0, 3))
    flip_bit(first, 20)
    last.write_bytes(b"")
    _, message, _ = run(tmp_path, capsys)
    assert [line.split(":")[0] for line in message] == [last.name, first.name, last.name, first.name, last.name]
    assert (
        "bytes, expected" in message[0]
        and "SHA-256" in message[1]
        and "SHA-256" in message[2]
        and "corrupt" in message[3]
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(frames=clip_frames(4, num_frames=2), timestamps=[0, 1]), ["frames: 2, expected 3"]),
        (dict(frames=clip_frames(4, height=5)), ["pixels of height: 5, expected 4"]),
        (dict(frames=clip_frames(4, width=5)), ["pixels of width: 5, expected 6"]),
        (dict(frames=clip_frames(4, channels=3)), ["channels: 3, expected 1"]),
        (dict(image_format="JPEG"), ["image format: JPEG, expected PNG"]),
        (dict(label=3), ["label 3, expected 0 to 2"]),
        (dict(label=-1), ["label -1, expected 0 to 2"]),
        (dict(label_name="up"), ["label 1 named 'up', expected 'right'"]),
        (dict(timestamps=[0, 5, 5]), ["timestamps do not increase"]),
        (dict(extra={"speed": [1.0, float("nan")]}), ["speed holds a number that is not finite"]),
        (dict(extra={"speed": [float("-inf")]}), ["speed holds a number that is not finite"]),
        (
            dict(media_id="clip-1"),
            ["media id 'clip-1' is that of train-00000-of-00002.tfrecord: record 1 (byte {}) too"],
        ),
        (dict(label=3, timestamps=[2, 1, 0]), ["label 3, expected 0 to 2", "timestamps do not increase"]),
    ],
)
def test_a_clip_that_contradicts_the_manifest_is_named_with_the_reason(tmp_path, capsys, changes, message):
    records = [tiny_record(number, **(changes if number == 4 else {})) for number in range(6)]
    manifest = write_shards(tmp_path, [records[:3], records[3:]])
    offsets = [record_offsets(tmp_path / shard.file)[0][1] for shard in manifest.shards]
    code, found, result = run(tmp_path, capsys)
    where = f"{manifest.shards[1].file}: record 1 (byte {offsets[1]})"
    assert found == [f"{where}: {line.format(offsets[0])}." for line in message]
    assert (code, result["clips"], result["faults"]) == (1, 5, len(message))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda record: record[:70], "no SequenceExample"),
        (lambda record: b"", "features missing"),
        (lambda record: record.replace(b"clip/media_id", b"clip/media_no"), "features missing.*clip/media_id"),
        (lambda record: record.replace(b"IDAT", b"JDAT", 1), "frame 0 cannot be decoded as PNG"),
    ],
)
def test_a_record_that_was_written_wrong_is_named(tmp_path, capsys, damage, message):
    records = [tiny_record(number) for number in range(3)]
    write_shards(tmp_path, [[records[0], damage(records[1]), records[2]]])
    code, found, result = run(tmp_path, capsys)
    assert (code, result["clips"], result["faults"]) == (1, 2, 1)
    (line,) = found
    assert ": record 1 (byte" in line
    assert re.search(message, line)


def test_a_shard_with_more_records_than_promised_is_a_fault(tmp_path, capsys):
    manifest = write_tiny_dataset(tmp_path)
    extra = (tmp_path / manifest.shards[1].file).read_bytes()
    values = json.loads((tmp_path / "dataset.json").read_text())
    path = tmp_path / manifest.shards[0].file
    path.write_bytes(path.read_bytes() + extra)
    values["shards"][0]["bytes"], values["shards"][0]["sha256"] = hash_file(path)
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    _, message, _ = run(tmp_path, capsys)
    assert f"{path.name}: 8 records, expected 7." in message
