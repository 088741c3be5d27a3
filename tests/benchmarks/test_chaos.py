"""Small cases of what `make chaos` does at length, and that it tells what does not hold."""

from __future__ import annotations

import random

import pytest

from benchmarks.faults import damage, full_disk, surroundings
from benchmarks.faults.programs import Ended, Fault, Row, environment, records_command, run, write_records
from datasets.records.manifest import Manifest


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, num_train=8, num_test=8)
    return folder


def _held(row: Row) -> Row:
    assert row.failures == [] and row.held == row.tries
    return row


def test_flipped_bytes_of_shards_are_found_named_and_not_trained_on(records):
    assert _held(damage.flip_shards(records, random.Random(1), tries=3, programs=0)).tries == 3


def test_cut_shards_are_refused_by_train(records):
    assert _held(damage.cut_shards(records, random.Random(1), tries=2)).tries == 2


@pytest.mark.slow
def test_flipped_and_cut_checkpoints_are_named_and_the_one_before_taken(records, tmp_path):
    _held(damage.flip_checkpoints(records, tmp_path, random.Random(1), tries=10, programs=0))
    _held(damage.cut_checkpoints(records, tmp_path, random.Random(1), tries=5, programs=0))


def test_damage_that_goes_unnoticed_is_counted_as_such(records, monkeypatch):
    monkeypatch.setattr(damage, "validate", lambda dataset: [])
    row = damage.flip_shards(records, random.Random(1), tries=2, programs=0)
    assert (row.tries, row.held) == (2, 0)
    assert "not named: nothing said" in row.failures[0]


def test_records_that_meet_a_full_disk_are_written_to_their_end_when_there_is_space(tmp_path):
    case = full_disk.Case(
        "drawn records",
        lambda disk: records_command(disk / "records", count=8, shards=2),
        check=lambda disk, undisturbed: _same_shards(disk, undisturbed),
    )
    row = full_disk.fill(case, tmp_path, random.Random(1), tries=1)
    if row.tries == 0:
        pytest.skip(row.figures)
    _held(row)


def _same_shards(disk, undisturbed):
    ours, theirs = (Manifest.read(folder / "records") for folder in (disk, undisturbed))
    assert ours == theirs


@pytest.mark.parametrize("command", [["eval.py", "--noreport"], ["-m", "rstg_tf.export", "--out=served"]])
def test_standard_output_on_a_full_disk_ends_with_1_and_one_sentence(small_run, tmp_path, command):
    with open("/dev/full", "wb") as full:
        ended = run(
            *[part.replace("served", str(tmp_path / "served")) for part in command],
            f"--model_dir={small_run.path}",
            stdout=full,
        )
    ended.require(1, "No space left on device")


def test_a_home_that_cannot_be_written_is_no_matter(small_run):
    ended = run("eval.py", f"--model_dir={small_run.path}", env=environment(HOME="/dev/null/home"))
    ended.require(0)
    assert not any("Traceback" in line for line in ended.said)
    assert (small_run.path / "report" / "index.html").exists()


@pytest.mark.slow
def test_a_suspended_run_ends_with_the_same_bits(records, tmp_path):
    _held(surroundings.suspend(records, tmp_path, random.Random(1), tries=1, seconds=1.0))


def test_more_than_a_sentence_is_a_fault():
    Ended(1, "", ("train.py: full",)).require(1, "full")
    for ended in (
        Ended(0, "", ()),
        Ended(1, "", ()),
        Ended(1, "", ("Traceback (most recent call last):", "OSError: full")),
        Ended(1, "", ("one", "two", "three")),
        Ended(1, "", ("train.py: empty",)),
    ):
        with pytest.raises(Fault):
            ended.require(1, "full")
