"""The page on what a machine has and lacks."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from importlib import metadata

import pytest

from rstg_tf import doctor
from rstg_tf.common import machine

ROOT = pathlib.Path(__file__).resolve().parents[1]
CPUINFO = "processor : 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 {}\n"


def only(rows: list[machine.Finding]) -> machine.Finding:
    assert len(rows) == 1
    return rows[0]


def test_the_stack_that_runs_the_tests_is_one_of_those_that_are_tested():
    assert only(machine.look_at_python()).state == machine.GOOD
    assert only(machine.look_at_stack()).state == machine.GOOD


@pytest.mark.parametrize("version", [(3, 8), (3, 14), (4, 10)])
def test_another_python_is_told_with_those_that_suit(version):
    row = only(machine.look_at_python(version))
    assert row.state == machine.MISSING and "3.9 to 3.11" in row.affects and "3.12 and 3.13" in row.affects


@pytest.mark.parametrize(
    ("python", "versions", "wrong"),
    [
        ((3, 11), {"tensorflow": "2.15.1", "keras": "2.15.0", "numpy": "1.23.5"}, []),
        ((3, 13), {"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.5.5"}, []),
        ((3, 11), {"tensorflow": "2.15.1", "keras": "3.15.1", "numpy": "1.26.4"}, ["keras 2.15", "numpy 1.23"]),
        ((3, 12), {"tensorflow": "2.15.1", "keras": "2.15.0"}, ["tensorflow 2.21", "keras 3.15", "numpy 2.5"]),
        ((3, 13), {"tensorflow": "2.210.0", "keras": "3.15.1", "numpy": "2.5.5"}, ["tensorflow 2.21"]),
    ],
)
def test_packages_that_were_not_tested_together_are_named(python, versions, wrong):
    def version_of(package: str) -> str:
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    row = only(machine.look_at_stack(version_of, python))
    assert (row.state == machine.GOOD) == (not wrong)
    assert f"tested are {', '.join(wrong)} with" in row.affects or not wrong


@pytest.mark.parametrize(
    ("flags", "message", "state"),
    [
        ("", "AVX2 yes, AVX-512 no, AVX-512 bfloat16 no, AMX bfloat16 no", machine.LIMITED),
        ("avx512f avx512_bf16", "AVX-512 yes, AVX-512 bfloat16 yes, AMX bfloat16 no", machine.GOOD),
        ("avx512f amx_tile amx_bf16", "AVX-512 yes, AVX-512 bfloat16 no, AMX bfloat16 yes", machine.GOOD),
    ],
)
def test_the_cpu_says_whether_bfloat16_is_worth_while(flags, message, state):
    row = only(machine.look_at_cpu(CPUINFO.format(flags)))
    assert row.found.startswith("Some CPU, ") and message in row.found and row.state == state
    assert ("mixed_bfloat16" in row.affects) == (state == machine.LIMITED)


def test_a_cpu_that_tells_nothing_is_told_so():
    assert only(machine.look_at_cpu("")).state == machine.LIMITED


def test_memory_is_what_is_there_and_what_is_free():
    row = only(machine.look_at_memory("MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n"))
    assert (row.found, row.state) == ("16.0 GiB, 8.0 free", machine.GOOD)
    row = only(machine.look_at_memory("MemTotal:       16777216 kB\nMemAvailable:    2097152 kB\n"))
    assert row.state == machine.LIMITED and "--batch_size" in row.affects


def test_folders_that_cannot_be_written_and_a_full_disk_are_told(monkeypatch, tmp_path):
    missing = str(tmp_path / "missing")
    monkeypatch.setenv("HOME", missing)
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: missing)
    monkeypatch.chdir(tmp_path)
    states = {row.subject: row.state for row in machine.look_at_folders()}
    assert states == {
        "working folder": machine.GOOD,
        "temporary folder": machine.MISSING,
        "home folder": machine.LIMITED,
    }
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: _Usage)
    assert only(machine.look_at_disk(str(tmp_path))).state == machine.LIMITED


class _Usage:
    free = 2**30


def test_without_a_decoder_video_files_are_what_is_lost(monkeypatch):
    def nothing(name):
        raise ImportError(name)

    monkeypatch.setattr(machine.importlib, "import_module", nothing)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    row = only(machine.look_at_decoders())
    assert row.state == machine.MISSING and "no video file can be read" in row.affects
    assert only(machine.look_at_gpus()).state == machine.LIMITED  # without TensorFlow


def test_a_look_that_fails_leaves_a_gap_and_no_traceback(monkeypatch):
    def look_at_disk():
        raise OSError("strange disk")

    monkeypatch.setattr(machine, "look_at_disk", look_at_disk)
    row = next(row for row in machine.examine() if row.subject == "disk")
    assert row.state == machine.LIMITED and "strange disk" in row.found


def test_the_page_is_narrow_and_its_last_line_sums_up():
    rows = [
        machine.Finding("one", "word " * 40),
        machine.Finding("two", "nothing", machine.MISSING, "much " * 40),
        machine.Finding("three", "little", machine.LIMITED, "some"),
    ]
    page = doctor.page(rows, "1.0.0")
    assert max(map(len, page.splitlines())) <= doctor.WIDTH
    assert page.splitlines()[-1] == "missing: two; limited: three"
    assert doctor.page(rows[:1], "1.0.0").splitlines()[-1] == "everything that is needed is there"


def test_the_command_prints_every_row_as_json_and_ends_with_0_here(capsys):
    assert doctor.main(["--json"]) == 0
    message = json.loads(capsys.readouterr().out)
    subjects = [row["subject"] for row in message["findings"]]
    assert subjects == [
        "Python",
        "stack",
        "CPU",
        "GPUs",
        "memory",
        "disk",
        "decoders",
        "working folder",
        "temporary folder",
        "home folder",
        "text",
    ]


def test_a_python_without_any_package_is_told_what_is_missing():
    """-S leaves all installed packages out."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "rstg_tf.doctor"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "tensorflow missing, keras missing, numpy missing" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("missing: stack")
    wrong = subprocess.run(
        [sys.executable, "-S", "-m", "rstg_tf.doctor", "--nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert wrong.returncode == 2 and "--nonsense" in wrong.stderr
