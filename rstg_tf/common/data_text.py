"""The gate for JSON and YAML of others: size, depth and numbers are looked at before anything is built of them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import LARGEST_FILE
from rstg_tf.common.text import read_text_file, refuse_repeated

LARGEST_VALUES = 5_000_000  # of a JSON text: those of an empty list each take half a gigabyte
LARGEST_DEPTH = 64
LARGEST_YAML = 1 << 20  # characters; PyYAML reads some hundred thousand a second
LARGEST_YAML_VALUES = 20_000
_LARGEST_SCALAR = 4096  # characters of a word of YAML: a number of more takes long to read
_INTEGERS = range(-(2**63), 2**63)


def parse_json(
    text: str,
    *,
    named: str,
    unique_keys: bool = False,
    largest_values: int = LARGEST_VALUES,
    largest_depth: int = LARGEST_DEPTH,
    any_names: bool = False,
) -> Any:
    """The value of a JSON text; blank lines around it do not matter.

    Raises ConfigError, beginning with `named` and telling the line: no JSON, more values or levels than allowed,
    numbers that are not finite, integers beyond 64 bits, half a character (a lone surrogate, which no file can hold),
    or with `unique_keys` a key that an object has twice. `any_names` takes half a character: it stands for a byte in a
    file's name that is no UTF-8.
    """

    def pairs(found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        refuse_repeated([key for key, _ in found], what="key", named=named)
        return dict(found)

    _check_shape(text, named, largest_values, largest_depth)
    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs if unique_keys else None,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_no_number,
        )
        # Only an escape can bring half a character into decoded text.
        if not any_names and re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{named}: no readable JSON (a \\uD800…\\uDFFF escape stands alone, half a character)."
        ) from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{named}: no readable JSON ({error}).") from None
    return value


def read_json(path: str | os.PathLike, *, named: str, limit: int = LARGEST_FILE, any_names: bool = False) -> Any:
    """The value of a JSON file. Raises ConfigError as `read_text_file` and `parse_json`."""
    return parse_json(read_text_file(path, named=named, limit=limit), named=named, any_names=any_names)


def _check_shape(text: str, named: str, largest_values: int, largest_depth: int) -> None:
    # Without escapes every second piece between quotes is outside of strings.
    bare = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    values = bare.count(",") + bare.count("[") + bare.count("{")
    if values > largest_values:
        raise ConfigError(f"{named}: {values} values of JSON; expected at most {largest_values}.")
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        depth += 1 if bracket in "[{" else -1
        if depth > largest_depth:
            raise ConfigError(
                f"{named}: no readable JSON (nested too deeply: expected at most {largest_depth} levels)."
            )


def _integer(digits: str) -> int:
    # The length first: reading digits takes time that grows with its square.
    if len(digits) > 20 or int(digits) not in _INTEGERS:
        raise ValueError(f"the integer {digits[:20]}{'…' if len(digits) > 20 else ''}; expected one of 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise ValueError(f"the number {digits[:20]}; expected a finite one")
    return float(digits)


def _no_number(word: str) -> float:
    raise ValueError(f"{word}; expected a finite number")


def parse_yaml(
    text: str, *, named: str, largest_values: int = LARGEST_YAML_VALUES, largest_depth: int = LARGEST_DEPTH
) -> Any:
    """The value of a YAML text of plain data. Raises ConfigError, beginning with `named`, if it is none, has aliases
    (a few of them stand for any number of values), or more values or levels than allowed."""
    import yaml

    if len(text) > LARGEST_YAML:
        raise ConfigError(f"{named}: {len(text)} characters of YAML; expected at most {LARGEST_YAML}.")
    try:
        _check_events(yaml, text, named, largest_values, largest_depth)
        return yaml.safe_load(text)
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(f"{named}: cannot be read as YAML (nested too deeply).") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:  # of dates and odd keys
        raise ConfigError(f"{named}: cannot be read as YAML ({' '.join(str(error).split())}).") from None


def _check_events(yaml: Any, text: str, named: str, largest_values: int, largest_depth: int) -> None:
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        fault = None
        if depth > largest_depth:
            fault = f"is nested too deeply, expected at most {largest_depth} levels"
        elif isinstance(event, yaml.AliasEvent):
            fault = f"has the alias *{event.anchor}, expected each value written out"
        elif number > largest_values:
            fault = f"has more than {largest_values} values"
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > _LARGEST_SCALAR:
            fault = f"has a value of {len(event.value)} characters, expected at most {_LARGEST_SCALAR}"
        if fault:
            raise ConfigError(f"{named}: cannot be read as YAML (line {event.start_mark.line + 1} {fault}).")
