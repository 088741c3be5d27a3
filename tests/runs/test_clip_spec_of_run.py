"""The clips that a run takes from users and servers."""

from __future__ import annotations

import json
import pathlib

import pytest
from served_models import COLOUR, GREY

from rstg_tf.common.errors import ConfigError
from rstg_tf.runs import clip_spec_of_run


def test_a_run_serves_frames_as_its_own_data_set_was_read(small_run):
    assert clip_spec_of_run.clip_spec_of_run(small_run).short_side is None  # its clips are drawn
    manifest = pathlib.Path(small_run.path) / "train_dataset.json"
    facts = json.loads(manifest.read_text())
    for height, short_side in ((None, 256), (facts["height"] + 1, 256), (facts["height"], None)):
        manifest.write_text(json.dumps({**facts, "image_format": "JPEG", "height": height}))
        assert clip_spec_of_run.clip_spec_of_run(small_run).short_side == short_side


def test_sizes_that_the_model_cannot_take_are_refused():
    with pytest.raises(ConfigError, match="clips of 3 frames of 32×32 pixels: .*must be even"):
        clip_spec_of_run.served_clip_spec(COLOUR, num_frames=3)
    with pytest.raises(ConfigError, match="of 16×32 pixels: .*frames of at least 32 pixels"):
        clip_spec_of_run.served_clip_spec(COLOUR, height=16)


@pytest.mark.parametrize(
    "config, as_stored, short_side",
    [
        (GREY, True, None),
        (GREY, None, None),
        (GREY, False, 256),
        (COLOUR, False, 256),
        (COLOUR, None, 256),
        (COLOUR, True, 32),
    ],
)
def test_frames_are_resized_as_the_runs_own_data_was(config, as_stored, short_side):
    assert clip_spec_of_run.served_clip_spec(config, as_stored=as_stored).short_side == short_side
