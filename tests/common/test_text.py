"""The gate for text: encodings, line ends, JSON, tables, and names that look alike."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rstg_tf import flags, release
from rstg_tf.common.data_text import parse_json, parse_yaml
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.text import (
    decode_text,
    first_difference,
    parse_rows,
    readable_name,
    refuse_repeated,
    same_name_key,
    visible,
)

ROOT = Path(__file__).parents[2]
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")  # as editors save: the last two with a byte order mark
# Any text that a file can hold; what str.splitlines takes for a line end beside \n, \r and \r\n is a letter here.
lines = some.text(some.characters(exclude_characters="\0\r\n\ufeff", exclude_categories=["Cs"]))


@given(some.lists(lines), some.sampled_from(ENCODINGS), some.sampled_from(["\n", "\r\n", "\r"]))
def test_every_usual_encoding_and_line_end_gives_the_same_text(rows, encoding, line_end):
    assert decode_text(line_end.join(rows).encode(encoding), named="f") == "\n".join(rows)


@given(some.binary(max_size=60))
def test_any_bytes_are_text_or_one_sentence_that_names_the_file_and_a_line(content):
    try:
        assert "\0" not in decode_text(content, named="--list=f.csv")
    except ConfigError as error:
        assert str(error).startswith("--list=f.csv: line ") and "\n" not in str(error) and "UTF-8" in str(error)


def test_a_wrong_byte_is_found_in_its_line():
    with pytest.raises(ConfigError, match="f: line 3 holds the byte 0xe9, which is no UTF-8; expected text in UTF-8"):
        decode_text(b"a\r\nb\r\ncaf\xe9\r\n", named="f")
    with pytest.raises(ConfigError, match="line 1 holds a zero byte.*UTF-16 without a byte order mark"):
        decode_text("--seed=1".encode("utf-16-le"), named="f")


@given(
    some.recursive(
        some.none() | some.booleans() | some.integers(-(2**63), 2**63 - 1) | lines,
        lambda inner: some.lists(inner) | some.dictionaries(lines, inner),
        max_leaves=8,
    ),
    some.sampled_from(["", "\n", " \t\r\n\n"]),
)
def test_json_with_blanks_around_it_is_read(value, blanks):
    assert parse_json(blanks + json.dumps(value) + blanks, named="f") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "f: the key 'a' comes twice"),
        ("[1", "line 1 column 3"),
        ("[" * 100_000, "nested too deeply"),
        ('["\\ud83d"]', "half a character"),
        ("9" * 5000, "no readable JSON"),
    ],
)
def test_json_that_is_none_is_refused_in_one_sentence(text, message):
    with pytest.raises(ConfigError) as refused:
        parse_json(text, named="f", unique_keys=True)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert parse_json('["\\ud83d\\ude00"]', named="f") == ["😀"]


@given(some.text(max_size=30))
def test_any_yaml_is_a_value_or_one_sentence(text):
    try:
        parse_yaml(text, named="f")
    except ConfigError as error:
        assert str(error).startswith("f: cannot be read as YAML") and "\n" not in str(error)


@given(
    some.lists(
        some.lists(
            some.text(some.sampled_from('ab ",;\té'), min_size=1).map(str.strip).filter(bool), min_size=2, max_size=3
        )
    ),
    some.sampled_from(",;\t"),
)
def test_tables_as_spreadsheets_write_them_are_read_back(rows, delimiter):
    written = "\n\n".join(delimiter.join('"' + field.replace('"', '""') + '"' for field in row) for row in rows)
    found = parse_rows(written, delimiter=delimiter, named="f")
    assert [list(fields) for _, fields in found] == rows
    assert [line for line, _ in found] == [1 + 2 * index for index in range(len(rows))]


def test_a_quote_that_never_closes_is_found():
    with pytest.raises(ConfigError, match="f: row 2 is no CSV"):
        parse_rows('a,b\n"c,d\ne,f\n', delimiter=",", named="f")


@given(lines)
def test_names_in_any_normal_form_are_the_same_and_shown_apart(name):
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")}
    assert len({same_name_key(form) for form in forms}) == 1
    assert len({visible(form) for form in forms}) == len(forms)


def test_invisible_differences_are_made_visible():
    assert first_difference(["a", "caf\u00e9"], ["a", "cafe\u0301"]) == (
        1,
        "'café' (character 4 is U+00E9)",
        "'cafe\\u0301' (character 4 is U+0065)",
    )
    assert first_difference(["run\u00a0fast"], ["run fast"])[1].startswith("'run\\xa0fast'")
    assert first_difference(["run "], ["run"]) == (0, "'run '", "'run'")
    assert first_difference(["\u0430"], ["a"])[1:] == (  # a Cyrillic letter
        "'\u0430' (character 1 is U+0430)",
        "'a' (character 1 is U+0061)",
    )
    assert first_difference(["a"], ["a", "b"]) == (1, "none", "'b'")
    assert first_difference(["a"], ["a"]) is None


def test_names_that_come_twice_are_refused():
    refuse_repeated(["a", "b"], what="class", named="f")
    with pytest.raises(ConfigError, match="f: the class 'a' comes twice"):
        refuse_repeated(["a", "b", "a"], what="class", named="f")
    with pytest.raises(ConfigError, match=r"the class 'é' comes again as 'e\\u0301'"):
        refuse_repeated(["é", "e\u0301"], what="class", named="f", key=same_name_key)


def test_a_file_s_name_that_is_no_utf_8_is_written_out():
    assert readable_name(b"caf\xe9.mp4".decode("utf-8", "surrogateescape")) == "caf\\xe9.mp4"
    assert readable_name("café.mp4") == "café.mp4"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_flag_files_of_any_editor_are_read(tmp_path, encoding, line_end):
    text = "# Größe\n\n  // a remark\n--batch_size=8\n--flagfile={inner}\n--train_dataset=data/Größe\n"
    (tmp_path / "inner.flags").write_bytes("--seed=7\n".encode(encoding))
    text = text.format(inner=tmp_path / "inner.flags").replace("\n", line_end)
    (tmp_path / "f.flags").write_bytes(text.encode(encoding))
    values = flags.parse([f"--flagfile={tmp_path}/f.flags"])
    assert (values.batch_size, values.seed, values.train_dataset) == (8, 7, "data/Größe")
    assert flags.parse(["--flagfile", f"{tmp_path}/f.flags", "--seed=9"]).seed == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--seed=1\nbatch_size=8\n", "line 2 is 'batch_size=8'; expected --name=value"),
        (b"\n\n--batchsize=8\n", "f.flags, line 3: Unknown command line flag 'batchsize'"),
        (b"--seed=1\n--batch_size=many\n", "f.flags, line 2: flag --batch_size=many: invalid literal"),
        (b"--seed=\xff\n", "line 1 holds the byte 0xff"),
        ("--seed=1".encode("utf-16-be"), "zero byte"),
    ],
)
def test_a_faulty_line_of_a_flag_file_is_named(tmp_path, content, message):
    (tmp_path / "f.flags").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        flags.parse([f"--flagfile={tmp_path}/f.flags"])
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_flag_files_that_cannot_be_had_are_refused(tmp_path):
    (tmp_path / "f.flags").write_text(f"--flagfile={tmp_path}/f.flags\n")
    for arguments, message in (
        ([f"--flagfile={tmp_path}/f.flags"], "includes itself"),
        ([f"--flagfile={tmp_path}"], "is a folder"),
        (["--flagfile"], "name of the file"),
        ([f"--flagfile={tmp_path}/none"], "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=message):
            flags.parse(arguments)


@given(
    some.dictionaries(
        some.sampled_from(
            [
                "place_graph",
                "dim_map",
                "batch_size",
                "use_norm",
                "use_att",
                "dataset",
                "learning_rate",
                "multihead_att",
                "train_dataset",
                "other",
            ]
        ),
        some.none()
        | some.booleans()
        | some.integers()
        | some.floats()
        | some.text(max_size=5)
        | some.lists(some.integers(), max_size=2),
    ),
    some.booleans(),
)
def test_any_values_in_a_configuration_of_the_release_are_taken_or_refused(values, with_positions):
    try:
        release.config_from_release({**values, **({"use_positional_emb": True} if with_positions else {})})
    except ConfigError as error:
        assert "\n" not in str(error)


def test_a_terminal_that_lacks_letters_gets_escapes():
    program = (
        "import sys; from rstg_tf.common.command_line import json_line, run_program\n"
        "run_program(lambda arguments: print('32×32', '\\udcff', json_line({'größe': '×'})) or 0, name='n', "
        "interrupted='i')"
    )
    for encoding, expected in (
        ("ascii", b'32\\xd732 \\udcff {"gr\\u00f6\\u00dfe": "\\u00d7"}\n'),
        ("latin-1", b'32\xd732 \\udcff {"gr\\u00f6\\u00dfe": "\\u00d7"}\n'),
        ("utf-8", '32×32 \\udcff {"größe": "×"}\n'.encode()),
    ):
        finished = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            cwd=ROOT,
            env={"PYTHONIOENCODING": encoding, "PATH": ""},
        )
        assert (finished.stdout, finished.stderr, finished.returncode) == (expected, b"", 0)
