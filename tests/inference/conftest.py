"""Small runs to predict with."""

from __future__ import annotations

import json

import pytest
from predicting import COLOUR, COLOUR_CLASSES, write_run

from rstg_tf import runs
from rstg_tf.serving import saved_model


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory):
    """RGB frames resized to 40 pixels, of which 32×32 are seen; 6 of a window's frames."""
    manifest = json.dumps({"classes": COLOUR_CLASSES, "height": None, "width": None})
    return write_run(tmp_path_factory.mktemp("colour") / "run", COLOUR, manifests={"train": manifest})


@pytest.fixture
def grey_run(tmp_path, toy_records, toy_settings):
    """On the clips of `toy_records`, of one size: 4 grey frames of 12×12."""
    directories = {f"{split}_dataset": str(toy_records / split) for split in ("train", "test")}
    manifests = {split: (toy_records / split / "dataset.json").read_text() for split in ("train", "test")}
    return write_run(tmp_path / "runs" / "grey", {**toy_settings, **directories}, manifests=manifests)


@pytest.fixture(scope="module")
def exported(colour_run):
    base = colour_run.parent / "served"
    saved_model.export_run(runs.open_run(str(colour_run)), base=str(base))
    return base
