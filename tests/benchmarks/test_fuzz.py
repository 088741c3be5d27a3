"""The gates for bytes of others take right inputs, and of changed ones raise nothing but their own errors."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.faults.gates import gates
from datasets.records import manifest

CHANGES, SLOW_CHANGES = 200, {"shard": 10, "video": 50}  # of one gate


def changed(content: bytes, draw: random.Random) -> bytes:
    """A few bytes exchanged, a stretch cut out, doubled or put elsewhere."""
    content = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice((1, 1, 2, 4, 16, 200)))
        change = draw.choice(("exchange", "cut", "double", "end"))
        if change == "exchange":
            content[start:end] = draw.choice((draw.randbytes(end - start), b"\xff" * (end - start), bytes(end - start)))
        elif change == "cut":
            del content[start:end]
        elif change == "double":
            content[start:start] = content[start:end]
        else:
            del content[start:]
    return bytes(content)


@pytest.mark.parametrize("name", sorted(gates()))
def test_a_gate_takes_right_inputs_and_of_changed_ones_raises_its_own_error_alone(name):
    target, draw = gates()[name], random.Random(0)
    seeds = target.seeds()
    for seed in seeds:
        target.take(seed)
    for number in range(SLOW_CHANGES.get(name, CHANGES)):
        fuzz.take(target, changed(seeds[number % len(seeds)], draw))


def test_make_fuzz_names_every_gate():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text().replace("\\\n", "")
    assert re.search("^FUZZED = (.*)$", makefile, re.MULTILINE)[1].split() == sorted(gates())


def test_methods_are_watched_too():
    watched = {function.__qualname__ for function in fuzz.functions_of(manifest)}
    assert watched >= {"Manifest.read", "Manifest.num_clips", "Manifest.clip_spec", "shard_file"}
    assert "read_json" not in watched  # another module's


def test_half_of_the_inputs_begin_from_a_seed():
    begun = [
        fuzz.changed(b"found", 4, [b"seed and more"], number, lambda content, size: content) for number in range(100)
    ]
    assert set(begun) == {b"found", b"seed"} and 35 < begun.count(b"seed") < 65


def test_an_error_of_another_kind_is_a_find():
    target = gates()["manifest"]._replace(take=lambda content: content[100])
    with pytest.raises(IndexError):
        fuzz.take(target, b"")


def test_an_unknown_target_ends_with_code_2(capsys):
    assert fuzz.main(["--target=nothing"]) == 2
    assert "--target" in capsys.readouterr().err
