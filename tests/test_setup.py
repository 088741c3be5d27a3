"""Which Python `make setup` takes, with pythons that only say their version, and what requirements.txt pins for it."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOOLS = ("sh", "find", "head", "ls", "touch", "mkdir", "cp")
# Answers as Python does where setup.sh asks; a new environment gets a copy of it.
PYTHON = """#!/bin/sh
case "$1" in
    --version) echo "Python {0}.1" ;;
    -c) echo {0} ;;
    -m) echo "{0} $*" >> "$COMMANDS"
        if [ "$2" = venv ]; then
            for last in "$@"; do :; done
            mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; touch "$last/pyvenv.cfg"
        fi ;;
esac
"""


class Machine:
    """A machine with pythons, of which `setup` takes one."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.path, self.home = folder, folder / "path", folder / "home"
        for made in (self.path, self.home, folder / "checkout"):
            made.mkdir()
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))
        for name in ("setup.sh", "requirements.txt"):
            shutil.copy(ROOT / name, folder / "checkout" / name)

    def add(self, place: str, version: str, text: str = PYTHON) -> pathlib.Path:
        """A Python in this place below the folder."""
        python = self.folder / place
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(text.format(version))
        python.chmod(0o755)
        return python

    def setup(self, code: int = 0, **variables: str) -> str:
        """What it says, standard error last."""
        done = subprocess.run(
            ["sh", "setup.sh"],
            cwd=self.folder / "checkout",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={
                "PATH": str(self.path),
                "HOME": str(self.home),
                "COMMANDS": str(self.folder / "commands"),
                **variables,
            },
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def taken(self) -> str:
        """The version of the Python that the environment was last made with."""
        return (self.folder / "checkout" / ".venv" / "bin" / "python").read_text().split("echo ")[2].split()[0]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_the_newest_that_runs_is_taken_whatever_its_name(machine):
    machine.add("path/python3.10", "3.10")
    machine.add("path/python3", "3.12")
    machine.add("path/python3.13", "", "#!/bin/sh\nexit 127\n")  # a shim of pyenv's that points nowhere
    machine.add("path/python3.14", "3.14")
    assert "Python 3.12.1 (python3)" in machine.setup()
    assert machine.taken() == "3.12"


@pytest.mark.parametrize(
    "place",
    ["home/.pyenv/versions/3.13.0/bin/python3.13", "home/.local/share/uv/python/cpython-3.13.0-linux/bin/python3.13"],
)
def test_those_of_pyenv_and_uv_are_found_beside_the_path(machine, place):
    machine.add("path/python3", "3.11")
    machine.add(place, "3.13")
    machine.setup()
    assert machine.taken() == "3.13"
    assert "Python 3.11.1" in machine.setup(PYTHON="python3")


def test_another_is_taken_where_it_is_asked_for_by_name_or_path(machine):
    machine.add("path/python3.13", "3.13")
    machine.add("home/.pyenv/versions/3.9.18/bin/python3.9", "3.9")
    spaced = machine.add("some where/python", "3.11")
    machine.setup()
    assert machine.taken() == "3.13"
    machine.setup(PYTHON="python3.9")
    assert machine.taken() == "3.9"
    machine.setup(PYTHON=str(spaced))
    assert machine.taken() == "3.11"


def test_it_is_made_once_and_again_when_the_requirements_change(machine):
    machine.add("path/python3", "3.11")
    assert machine.setup().startswith("Setting up .venv with Python 3.11.1")
    commands = (machine.folder / "commands").read_text()
    assert "-m pip install --quiet --requirement requirements.txt" in commands
    assert machine.setup() == "" and machine.setup(PYTHON="python3") == ""
    assert (machine.folder / "commands").read_text() == commands
    (machine.folder / "checkout" / ".venv" / ".complete").unlink()  # killed before it was whole
    assert machine.setup().startswith("Setting up")
    assert "3.11 -m venv --clear .venv" in (machine.folder / "commands").read_text()


def test_an_environment_keeps_its_python_when_the_requirements_change_unless_another_is_named(machine):
    machine.add("path/python3", "3.11")
    machine.setup()
    machine.add("path/python3.13", "3.13")
    (machine.folder / "commands").unlink()
    complete = machine.folder / "checkout" / ".venv" / ".complete"
    os.utime(complete, (0, 0))  # older than requirements.txt
    assert machine.setup().startswith("Setting up .venv with Python 3.11.1 (.venv/bin/python)")
    assert (machine.folder / "commands").read_text() == "3.11 -m pip install --quiet --requirement requirements.txt\n"
    machine.setup(PYTHON="python3.13")
    assert machine.taken() == "3.13"


def test_the_pinned_stack_takes_the_oldest_that_suits_it(machine):
    machine.add("path/python3.13", "3.13")
    machine.add("path/python3.11", "3.11")
    machine.add("path/python3.10", "3.10")
    machine.setup(STACK="pinned")
    assert machine.taken() == "3.10"
    assert "Python 3.9, 3.10 or 3.11 is needed" in machine.setup(code=2, STACK="pinned", PYTHON="python3.13")


@pytest.mark.parametrize("version", ["3.8", "3.14"])
def test_too_old_and_too_new_get_a_sentence_and_exit_code_2(machine, version):
    machine.add("path/python3", version)
    message = machine.setup(code=2)
    assert (
        message.startswith(
            "Python 3.9 to 3.13 is needed, because TensorFlow 2.15 and 2.21 run on no other; "
            f"python3 is Python {version}.1."
        )
        and "make setup PYTHON=" in message
    )
    assert len(message.splitlines()) == 1 and not (machine.folder / "checkout" / ".venv").exists()


def test_a_machine_without_any_python_is_told_so(machine):
    assert "python3 is missing or does not run" in machine.setup(code=2)


def pins_of(file, minor):
    """Name -> version of what pip takes from `file` with Python 3.`minor` on Linux."""
    on_linux = {
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith("--hash=sha256:")]
    pins = {}
    for requirement in (Requirement(line.removesuffix("\\")) for line in lines):
        if requirement.marker is None or requirement.marker.evaluate(on_linux):
            assert requirement.name not in pins, f"{requirement.name} is pinned twice for Python 3.{minor}"
            pins[requirement.name.lower()] = str(requirement.specifier).removeprefix("==")
    return pins


@pytest.mark.parametrize(
    ("minor", "keras"), [(9, "2.15.0"), (10, "2.15.0"), (11, "2.15.0"), (12, "3.15.1"), (13, "3.15.1")]
)
def test_every_package_is_pinned_once_for_each_python(minor, keras):
    pins, asked = pins_of("requirements.txt", minor), pins_of("requirements.in", minor)
    assert {name: pins.get(name) for name in asked} == asked, "run `make requirements`"
    assert pins["keras"] == keras and pins["tensorflow"].startswith("2.15." if minor < 12 else "2.21.")
    assert ("tensorflow-addons" in pins) == (minor < 12)
    assert {"av", "numpy", "scipy", "pytest", "ruff", "setuptools"} <= set(asked)


def test_every_pin_has_hashes():
    text = (ROOT / "requirements.txt").read_text()
    packages = re.split(r"^(?=[a-zA-Z])", text, flags=re.MULTILINE)[1:]
    assert len(packages) > 100
    for package in packages:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", package), package.splitlines()[0]
