"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from rstg_tf.common import files


@pytest.fixture
def ended_process() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def names_in(folder: pathlib.Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_holds_the_new_text_and_nothing_else_is_left(tmp_path):
    files.write_text(tmp_path / "a.txt", "one\r\n")
    files.write_text(tmp_path / "a.txt", "zwölf\n")
    assert (tmp_path / "a.txt").read_bytes() == "zwölf\n".encode()
    assert names_in(tmp_path) == ["a.txt"]


def test_a_file_that_fails_while_it_is_written_stays_as_it_was(tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="disk full"), files.whole_file(tmp_path / "a.txt") as file:
        file.write("new")
        file.flush()
        raise OSError("disk full")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_library_that_goes_by_the_ending_finds_it(tmp_path):
    with files.whole_path(tmp_path / "film.mp4", suffix=".mp4") as building:
        assert building.suffix == ".mp4"
        building.write_bytes(b"film")
    assert (tmp_path / "film.mp4").read_bytes() == b"film"


def test_a_link_under_the_temporary_name_is_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    files.temporary_path(tmp_path / "a.txt").symlink_to(victim)
    files.write_text(tmp_path / "a.txt", "text")
    assert victim.read_text() == "precious"
    assert (tmp_path / "a.txt").read_text() == "text" and not (tmp_path / "a.txt").is_symlink()


def test_what_ended_processes_of_this_machine_left_is_removed_and_nothing_else(tmp_path, ended_process):
    host = socket.gethostname()
    ours = f".a.txt.tmp-{host}-{ended_process}"
    kept = [f".a.txt.tmp-other-{ended_process}", f".a.txt.tmp-{host}-{os.getppid()}", "a.txt.tmp", f".b.tmp-{host}-x"]
    for name in [ours, *kept]:
        (tmp_path / name).write_text("")
    (tmp_path / f".c.tmp-{host}-{ended_process}-old").mkdir()
    assert files.remove_abandoned(tmp_path, "a.txt") == [ours]
    assert files.remove_abandoned(tmp_path) == [f".c.tmp-{host}-{ended_process}-old"]
    assert names_in(tmp_path) == sorted(kept)


def test_an_abandoned_link_is_removed_and_what_it_points_to_is_not(tmp_path, ended_process):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "film").write_text("")
    (tmp_path / f".a.tmp-{socket.gethostname()}-{ended_process}").symlink_to(tmp_path / "other")
    files.remove_abandoned(tmp_path)
    assert names_in(tmp_path) == ["other"] and names_in(tmp_path / "other") == ["film"]


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    for number in ("1", "2"):
        with files.whole_folder(tmp_path / "results") as folder:
            (folder / number).write_text(number)
    assert names_in(tmp_path / "results") == ["2"] and names_in(tmp_path) == ["results"]
