"""The lists of variables of the release's models."""

from __future__ import annotations

import json
import pathlib

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = {path.stem: json.loads(path.read_text()) for path in GOLDEN.glob("s*.json") if "checksums" not in path.name}


def shapes_of(case: dict) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape, _ in case["variables"]}
