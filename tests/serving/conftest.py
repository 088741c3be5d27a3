"""The small models of `served_models`, exported."""

from __future__ import annotations

import pytest
import served_models
from served_models import COLOUR, GREY


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    return served_models.serve(served_models.build_grey(), GREY, tmp_path_factory.mktemp("served") / "grey")


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    return served_models.serve(served_models.build_colour(), COLOUR, tmp_path_factory.mktemp("served") / "colour")
