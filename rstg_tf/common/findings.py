"""What the doctor found on a machine, a row each, and the rows as a page. Needs nothing but Python."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from importlib import metadata

GOOD, LIMITED, MISSING = "ok", "limited", "missing"
WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Finding:
    """A row of the page: what was looked at, what is there, and where that is not all, what it affects."""

    subject: str
    found: str
    state: str = GOOD
    affects: str = ""


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


def own_version() -> str:
    """'1.0.0', and the commit in a checkout that git knows."""
    try:
        version = metadata.version("rstg-tf")
    except metadata.PackageNotFoundError:
        version = "a checkout"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if not os.path.isdir(os.path.join(root, ".git")) or shutil.which("git") is None:
        return version
    commit = subprocess.run(
        ["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{version}, commit {commit}" if commit else version
