"""A data set made of folders of frames."""

from __future__ import annotations

import pytest
from nine_videos import contents, frame_sources, write


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """Nine frame folders, the data set made of them, and its files' contents."""
    sources = frame_sources(tmp_path_factory.mktemp("frames"))
    out_dir = tmp_path_factory.mktemp("nine") / "out"
    return sources, write(sources, out_dir).manifest, contents(out_dir)
