"""The gate for files: regular ones of a sensible size, and names that stay in their folder."""

from __future__ import annotations

import os

import pytest

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import is_plain_name, read_bytes, require_inside


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "f").write_bytes(b"content")
    (tmp_path / "link").symlink_to("f")
    assert read_bytes(tmp_path / "f", named="f") == read_bytes(tmp_path / "link", named="f", limit=7) == b"content"


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, kind in ((tmp_path / "fifo", "a FIFO"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(ConfigError, match=f"--list: is {kind}; expected a regular file"):
            read_bytes(path, named="--list")


@pytest.mark.parametrize("name", ["missing", "f/under", "nul\0", "x" * 300])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(ConfigError, match="^--list: cannot be read"):
        read_bytes(f"{tmp_path}/{name}", named="--list")


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="1099511627776 bytes or more; expected at most 67108864"):
        read_bytes(tmp_path / "huge", named="--list")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "..\\a", "a\0b", ".hidden", "x" * 256])
def test_names_that_could_leave_the_folder_are_not_plain(name):
    assert not is_plain_name(name)


def test_usual_names_are_plain():
    assert all(map(is_plain_name, ["1234", "train-00000-of-00008.tfrecord", "größe 7.webm", "a..b"]))


def test_links_out_of_a_folder_are_refused_and_links_within_it_are_not(tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "variables" / "index").write_text("")
    (tmp_path / "model" / "link").symlink_to("variables/index")
    require_inside(tmp_path / "model", named="m")
    (tmp_path / "outside").write_text("")
    (tmp_path / "model" / "variables" / "data").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="outside of the folder"):
        require_inside(tmp_path / "model", named="m")


def test_the_null_device_is_an_empty_file():
    assert read_bytes("/dev/null", named="--flagfile=/dev/null") == b""
