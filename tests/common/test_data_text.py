"""The gate for JSON and YAML: what would take memory, time or the stack is refused before anything is built of it."""

from __future__ import annotations

import json

import pytest

from rstg_tf.common.data_text import parse_json, parse_yaml, read_json
from rstg_tf.common.errors import ConfigError


@pytest.mark.parametrize(
    "text, told",
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested too deeply"),
        ("[" + "[]," * 6_000_000 + "[]]", "expected at most 5000000"),
        ('{"label": 18446744073709551616}', "64 bits"),
        ("9" * 1_000_000, "64 bits"),
        ("[1e999]", "finite"),
        ("[NaN]", "finite"),
    ],
    ids=["brackets", "objects", "many", "2^64", "digits", "1e999", "NaN"],
)
def test_json_that_would_take_stack_memory_or_time_is_refused_in_a_sentence(text, told):
    with pytest.raises(ConfigError, match=told) as refusal:
        parse_json(text, named="f.json")
    assert str(refusal.value).startswith("f.json: ") and len(str(refusal.value)) < 300


def test_brackets_and_commas_within_strings_of_json_are_no_structure():
    value = {"name": '[{,\\"' * 200, "other": '"]}', "depth": [[1]]}
    assert parse_json(json.dumps(value), named="f", largest_values=10, largest_depth=4) == value


ALIASES = "a: &a [x, x]\n" + "\n".join(
    f"{one}: &{one} [*{before}, *{before}]" for before, one in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    "text, told",
    [
        (ALIASES, "line 2 has the alias *a"),
        ("[" * 1000, "nested too deeply"),
        ("- x\n" * 30_000, "more than 20000 values"),
        ("n: " + "9" * 5000, "5000 characters"),
        ("a" * 2_000_000, "characters of YAML"),
        ("\x01", "cannot be read as YAML"),
        ("? [a, {b: c}]\n: d", "cannot be read as YAML"),
        ("!!python/object:os.system x", "cannot be read as YAML"),
    ],
    ids=["aliases", "brackets", "many", "digits", "long", "binary", "key", "tag"],
)
def test_yaml_that_would_take_stack_memory_or_time_is_refused_in_a_sentence(text, told):
    with pytest.raises(ConfigError) as refusal:
        parse_yaml(text, named="f.yaml")
    assert str(refusal.value).startswith("f.yaml: ") and told in str(refusal.value)


def test_a_json_file_is_read_whole(tmp_path):
    (tmp_path / "f.json").write_text('{"a": [1, 2.5, "x"]}')
    assert read_json(tmp_path / "f.json", named="f") == {"a": [1, 2.5, "x"]}
