"""One page on what this machine has and lacks for this project, and which of its promises that affects.

    python -m rstg_tf.doctor           in a checkout, or `rstg-doctor` where the package is installed
    python -m rstg_tf.doctor --json    the same as one JSON object

Paste it into a report of a fault. Needs nothing but Python, so that it can say what is missing. Exit code 0: all that
is needed is there; 1: something that is needed is missing; 2: wrong flags.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rstg_tf.common.machine import LIMITED, MISSING, Finding, examine

WIDTH = 100  # of the page, characters


def own_version() -> str:
    """'1.0.0', and the commit in a checkout that git knows."""
    try:
        version = metadata.version("rstg-tf")
    except metadata.PackageNotFoundError:
        version = "a checkout"
    root = Path(__file__).absolute().parents[1]
    if not (root / ".git").is_dir() or shutil.which("git") is None:
        return version
    commit = subprocess.run(
        ["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{version}, commit {commit}" if commit else version


def page(rows: Sequence[Finding], version: str) -> str:
    """The rows as text, at most WIDTH wide, and a last line that sums them up."""
    margin = " " * 19
    lines = [f"rstg_tf: {version}", ""]
    for row in rows:
        lines += textwrap.wrap(f"{row.subject:18} {row.state + ':':9}{row.found}", WIDTH, subsequent_indent=margin)
        if row.affects:
            lines += textwrap.wrap(f"-> {row.affects}", WIDTH, initial_indent=margin, subsequent_indent=margin + "   ")
    missing = [row.subject for row in rows if row.state == MISSING]
    limited = [row.subject for row in rows if row.state == LIMITED]
    summary = f"missing: {', '.join(missing)}" if missing else "everything that is needed is there"
    return "\n".join([*lines, "", summary + (f"; limited: {', '.join(limited)}" if limited else "")])


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="doctor", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args(arguments)
    rows, version = examine(), own_version()
    if wanted.json:
        print(json.dumps({"version": version, "findings": [dataclasses.asdict(row) for row in rows]}))
    else:
        print(page(rows, version))
    return int(any(row.state == MISSING for row in rows))


def program() -> None:
    """The command `rstg-doctor`."""
    try:
        from rstg_tf.common.command_line import run_program
    except ImportError:  # packages are missing, as the page will say
        sys.exit(main(sys.argv[1:]))
    run_program(main, name="doctor", interrupted="nothing was changed.")


if __name__ == "__main__":
    program()
