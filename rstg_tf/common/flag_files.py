"""The flags of every program: absl's, but flag files are read by `rstg_tf.common.text`, and errors tell their lines."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from absl import flags as absl_flags

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.text import read_text_file, visible

_DIRECTIVE = re.compile(r"--?flagfile(?:=(.*))?$")


class FlagValues(absl_flags.FlagValues):
    """absl's FlagValues. A flag file holds `--name=value` on each line; blank lines and those that begin with # or //
    say nothing, `--flagfile=OTHER` stands for the lines of the other file.

    Called with a command line it raises ConfigError for a flag file that cannot be read or holds another line, and
    absl's errors for flags that cannot be, those from a file with its name and line.
    """

    def __call__(self, argv: Sequence[str], known_only: bool = False) -> list[str]:
        self.__dict__["origins"] = {}
        try:
            return super().__call__(argv, known_only)
        except absl_flags.Error as error:
            named = re.search(r"--(\w+)|'(\w+)'", str(error))
            origin = named and self.__dict__["origins"].get(named[1] or named[2])
            if not origin:
                raise
            raise ConfigError(f"{origin}: {' '.join(str(error).split())}.") from None

    def read_flags_from_files(self, argv: Sequence[str], force_gnu: bool = True) -> list[str]:
        """The arguments with the lines of every flag file in the place where it is named."""
        expanded, arguments = [], iter(argv)
        for argument in arguments:
            directive = _DIRECTIVE.fullmatch(argument)
            if argument == "--":
                return [*expanded, argument, *arguments]
            if directive is None:
                expanded.append(argument)
                self.__dict__["origins"].pop(_flag_name(argument), None)
                continue
            path = next(arguments, None) if directive[1] is None else directive[1]
            if path is None:
                raise ConfigError("--flagfile: the name of the file is missing; expected --flagfile=FILE.")
            expanded += self._lines(os.path.expanduser(path.strip()), [])
        return expanded

    def _lines(self, path: str, outer: Sequence[str]) -> list[str]:
        """The arguments in a flag file; `outer` are the files that lead to it."""
        if not path:
            return []
        if os.path.realpath(path) in outer:
            raise ConfigError(f"--flagfile={path}: includes itself.")
        found: list[str] = []
        for number, line in enumerate(read_text_file(path, named=f"--flagfile={path}").split("\n"), start=1):
            line, origin = line.strip(), f"{path}, line {number}"
            if not line or line.startswith(("#", "//")):
                continue
            directive = _DIRECTIVE.fullmatch(line)
            if directive and directive[1] is not None:
                found += self._lines(os.path.expanduser(directive[1].strip()), [*outer, os.path.realpath(path)])
                continue
            takes_value = bool(found) and found[-1].startswith("-") and "=" not in found[-1]
            if not line.startswith("-") and not takes_value:
                raise ConfigError(
                    f"--flagfile={path}: line {number} is {visible(line[:80])}; expected --name=value, "
                    "or a comment, which begins with #."
                )
            found.append(line)
            self.__dict__["origins"][_flag_name(line)] = origin
        return found


def _flag_name(argument: str) -> str:
    return argument.lstrip("-").partition("=")[0]
