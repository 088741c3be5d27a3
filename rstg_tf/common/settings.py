"""Checks of settings, whose sentences name the flag, and dataclasses of settings out of JSON. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rstg_tf.common.choices import require_choice
from rstg_tf.common.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_at_most(maximum: float, **values: float) -> None:
    """Raises ConfigError naming the flag (the keyword) of the first value that is larger."""
    for flag, value in values.items():
        require(value <= maximum, f"--{flag}={value}: expected at most {maximum}.")


def require_flag_choice(flag: str, value: Any, choices: tuple[str, ...]) -> None:
    """`require_choice` of a flag, whose name is given without dashes."""
    require_choice(f"--{flag}", value, choices, error=ConfigError)


def require_at_least(minimum: float, **values: float) -> None:
    """Raises ConfigError naming the flag (the keyword) of the first value that is smaller."""
    for flag, value in values.items():
        require(value >= minimum, f"--{flag}={value}: expected at least {minimum}.")


def dataclass_from_json(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass, and those in it, from what JSON holds; lists become tuples where the default is one.

    Raises ConfigError for keys that no field has, as they would be silently lost, and for values of another kind than
    the field's default. `where` begins the sentence.
    """
    require(isinstance(values, Mapping), f"{where}: is {_shown(values)}; expected settings by name.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    require(not unknown, f"{where}: unknown setting {', '.join(unknown)}; expected some of {', '.join(fields)}.")
    arguments = {}
    for name, value in values.items():
        field = fields[name]
        default = field.default_factory() if field.default is dataclasses.MISSING else field.default
        if dataclasses.is_dataclass(default):
            value = dataclass_from_json(type(default), value, f"{where}.{name}")
        elif isinstance(default, tuple):
            kind = type(default[0]) if default else str
            fits = isinstance(value, (list, tuple)) and all(_is_a(kind, entry) for entry in value)
            require(fits, f"{where}.{name}: is {_shown(value)}; expected a list of {_KINDS[kind]}.")
            value = tuple(value)
        else:
            kind = type(default)
            require(_is_a(kind, value), f"{where}.{name}: is {_shown(value)}; expected {_KINDS[kind]}.")
        arguments[name] = value
    return cls(**arguments)


_KINDS = {int: "whole numbers", float: "numbers", str: "text", bool: "true or false"}


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
