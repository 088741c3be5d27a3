"""The fenced blocks of the Markdown pages, the commands in them, and the ways to run both in this process."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Blocks in these languages hold something to run; those in the others don't, and no other language is allowed.
RUN = ("sh", "python")
SHOWN = ("text", "bibtex")
# `python -m NAME` whose `main` lies elsewhere than in NAME or NAME.__main__.
MAIN_MODULES = {"rstg_tf.release": "rstg_tf.release.tool"}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line on which it opens, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"

    def commands(self) -> list[str]:
        """The commands of an `sh` block, one each: continued lines joined, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        stripped = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines)
        return [" ".join(line.split()) for line in stripped if line]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page=page, line=text.count("\n", 0, found.start()) + 1, language=found[1].strip(), text=found[2])
        for found in FENCE.finditer(text)
    ]


def all_blocks() -> Iterator[Block]:
    for page in PAGES:
        yield from blocks_of(page)


def run_python(block: Block, names: dict) -> None:
    """Runs the block in the names of its page; a traceback shows the page's own line.

    A comment behind a `print(…)` is what it prints, up to ': ' where a remark follows. Raises AssertionError where it
    prints something else.
    """
    source = "\n" * block.line + block.text
    promised = _printed_by_comments(source)

    def checked_print(*values, **how):
        line, text = sys._getframe(1).f_lineno, io.StringIO()
        builtins.print(*values, file=text)
        printed = text.getvalue().strip()
        if line in promised and promised[line] != printed:
            raise AssertionError(f"{block.page}, line {line}: prints {printed!r}, its comment says {promised[line]!r}")
        builtins.print(*values, **how)

    names["print"] = checked_print
    exec(compile(source, str(block.page), "exec"), names)


def _printed_by_comments(source: str) -> dict[int, str]:
    """Line of a `print(…)` -> what the comment behind it says that it prints."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    return {
        call.lineno: comments[call.end_lineno].lstrip("# ").split(": ")[0].strip()
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print" and call.end_lineno in comments
    }


def run_command(command: str, folder: Path) -> int:
    """The exit code of `python FILE …`, `python -m MODULE …` or `python -c CODE`, in this process; of `make` as it is.

    In this process, because starting TensorFlow for each of them would take longer than all that they do.
    """
    program, *arguments = shlex.split(command)
    if program == "make":
        return subprocess.run([program, *arguments], cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode
    assert program == "python", f"{command}: only python and make are run; name any other in EXCEPTIONS"
    if arguments[0] == "-c":
        exec(arguments[1], {})
        return 0
    if arguments[0] == "-m":
        return _module_with_main(arguments[1]).main(arguments[2:])
    return _script(folder / arguments[0]).main(arguments[1:])


def _module_with_main(name: str):
    module = importlib.import_module(MAIN_MODULES.get(name, name))
    return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


def _script(path: Path):
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    script = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
