"""Decoding: exact frames, true counts, every way a file can be cut or broken, and no process or pipe left behind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess

import numpy as np
import pytest
from tiny_videos import (
    LOSSLESS,
    MPEG4,
    WEBM,
    bundled_clip,
    cut_file,
    moving_frames,
    needs_ffmpeg,
    write_frames,
    write_video,
)

from rstg_tf.common.errors import VideoError
from rstg_tf.video import decoding, probing

FASTSTART = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart")


@needs_ffmpeg
def test_a_lossless_file_gives_the_pixels_that_were_written(tmp_path):
    frames = moving_frames(num_frames=7, height=24, width=40)
    decoded = decoding.read_video(write_video(tmp_path / "a.mp4", frames, rate=10))
    np.testing.assert_array_equal(decoded.frames, frames)
    assert decoded.frames.dtype == np.uint8 and decoded.timestamps.dtype == np.int64
    assert decoded.timestamps.tolist() == [0, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000]
    assert decoded.frames_per_second == 10


@needs_ffmpeg
def test_the_facts_are_told_without_decoding(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=7, height=24, width=40), rate=10)
    assert decoding.probe(path) == probing.VideoFacts(
        width=40, height=24, frames_per_second=10, declared_frames=7, codec="h264")
    webm = write_video(tmp_path / "a.webm", moving_frames(num_frames=7), *WEBM)
    assert decoding.probe(webm).declared_frames is None and decoding.probe(webm).codec == "vp9"


@needs_ffmpeg
@pytest.mark.parametrize(("name", "shape", "rate"), [
    ("carphone_pristine.mp4", (120, 144, 176, 3), 30_000 / 1001), ("bikes.mp4", (250, 272, 640, 3), 25)])
def test_real_clips_have_all_their_frames(name, shape, rate):
    decoded = decoding.read_video(bundled_clip(name))
    assert decoded.frames.shape == shape
    assert decoded.frames_per_second == pytest.approx(rate)
    np.testing.assert_allclose(decoded.timestamps, np.arange(shape[0]) * 1e6 / rate, atol=1)
    assert decoded.frames.std() > 20


@needs_ffmpeg
def test_the_frames_of_a_real_clip_are_those_that_ffmpeg_itself_writes(tmp_path):
    clip = bundled_clip("carphone_pristine.mp4")
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", clip, "-sws_flags", "bicubic+accurate_rnd+bitexact", "-f",
                          "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True).stdout
    np.testing.assert_array_equal(decoding.read_video(clip).frames.ravel(), np.frombuffer(raw, np.uint8))


@needs_ffmpeg
@pytest.mark.parametrize(("size", "short_side", "expected"), [
    ((24, 40), 12, (12, 20)), ((40, 24), 12, (20, 12)), ((24, 40), 48, (48, 80)),
    ((32, 51), 16, (16, 26)),  # 51 · 16 / 32 = 25.5, rounded up
    ((33, 47), None, (33, 47))])  # odd sides
def test_the_short_side_is_as_asked_and_the_other_in_proportion(tmp_path, size, short_side, expected):
    frames = np.full((3, *size, 3), 100, np.uint8)
    decoded = decoding.read_video(write_video(tmp_path / "a.mp4", frames), short_side=short_side)
    np.testing.assert_array_equal(decoded.frames, np.full((3, *expected, 3), 100))


@needs_ffmpeg
def test_turned_videos_are_shown_upright(tmp_path):
    frames = moving_frames(num_frames=2, height=24, width=40)
    lying = write_video(tmp_path / "lying.mp4", frames)
    turned = tmp_path / "turned.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", lying, "-c", "copy", "-metadata:s:v", "rotate=90", turned],
                   check=True)
    assert (decoding.probe(turned).height, decoding.probe(turned).width) == (40, 24)
    decoded = decoding.read_video(turned).frames
    assert any(np.array_equal(decoded, np.rot90(frames, turns, axes=(1, 2))) for turns in (1, 3))


@needs_ffmpeg
def test_frames_of_uneven_rate_pass_one_by_one_with_their_own_times(tmp_path):
    even = write_video(tmp_path / "even.mp4", moving_frames(num_frames=12), rate=10)
    uneven = tmp_path / "uneven.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", even, "-vf", "select='not(mod(n,4))+eq(n,1)'", "-vsync", "vfr",
                    *LOSSLESS, uneven], check=True)
    decoded = decoding.read_video(uneven)  # frames 0, 1, 4 and 8
    assert decoded.timestamps.tolist() == [0, 100_000, 400_000, 800_000]
    np.testing.assert_array_equal(decoded.frames, moving_frames(num_frames=12)[[0, 1, 4, 8]])


@needs_ffmpeg
def test_frames_that_an_edit_list_hides_are_not_missed(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", moving_frames(num_frames=24), *LOSSLESS, "-g", "24")
    edited = tmp_path / "edited.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "1", "-i", whole, "-c", "copy", edited], check=True)
    assert decoding.probe(edited).declared_frames > 12
    np.testing.assert_array_equal(decoding.read_video(edited).frames, moving_frames(num_frames=24)[12:])


@needs_ffmpeg
@pytest.mark.parametrize("name", ["two words.mp4", "-dash.mp4", "it's \"quoted\".mp4", "a:b.mp4", "100%d.mp4",
                                  "no ending", "strange.divx"])
def test_any_name_will_do(tmp_path, monkeypatch, name):
    write_video(tmp_path / "plain.mp4", moving_frames(num_frames=3)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert decoding.read_video(name).frames.shape == (3, 32, 48, 3)


@needs_ffmpeg
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(("name", "options"), [
    ("a.mp4", FASTSTART), ("a.webm", WEBM), ("a.avi", MPEG4), ("a.mkv", LOSSLESS), ("a.mov", (*FASTSTART, "-bf", "0"))])
def test_a_file_that_was_cut_is_refused(tmp_path, name, options, share):
    path = write_video(tmp_path / name, moving_frames(num_frames=30, height=64, width=96), *options)
    assert len(decoding.read_video(path).frames) == 30
    cut_file(path, share)
    with pytest.raises(VideoError, match="truncated or damaged: .* frames decoded|frames decoded, but ffmpeg reports|"
                                         "cannot be read as video|no frame could be decoded"):
        decoding.read_video(path)


@needs_ffmpeg
def test_a_webm_cut_between_two_frames_is_refused_for_its_length(tmp_path):
    path = write_video(tmp_path / "a.webm", moving_frames(num_frames=36), *WEBM)
    cut_file(path, 0.5)
    with pytest.raises(VideoError, match=r"which end after \d.\d\d of the 3.00 seconds that its header"):
        decoding.read_video(path)


@needs_ffmpeg
def test_the_decoded_frames_are_given_before_the_fault_is_told(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=30, height=64, width=96), *FASTSTART)
    cut_file(path, 0.6)
    frames = []
    with pytest.raises(VideoError, match="its header declares 30"):
        frames.extend(decoding.iter_frames(path))
    assert 0 < len(frames) < 30


@needs_ffmpeg
def test_damage_inside_a_file_of_the_right_length_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=20, height=64, width=96), *FASTSTART)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat")
    for position in range(begin + 1200, len(content), 97):
        content[position] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(VideoError, match="damaged"):
        decoding.read_video(path)


@needs_ffmpeg
@pytest.mark.parametrize(("content", "message"), [
    (b"", "is empty"), (bytes(range(256)) * 20, "cannot be read as video"), (b"just words\n" * 300, "cannot be read"),
    (None, "is no file")])
def test_what_is_no_video_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "what.mp4"
    if content is not None:
        path.write_bytes(content)
    for read in (decoding.probe, decoding.read_video, lambda path: next(decoding.iter_frames(path))):
        with pytest.raises(VideoError, match=f"what.mp4: {message}"):
            read(path)


@needs_ffmpeg
def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=d=1", path], check=True)
    with pytest.raises(VideoError, match="no video stream"):
        decoding.read_video(path)


@needs_ffmpeg
def test_sound_that_outlasts_the_picture_does_not_matter(tmp_path):
    silent, spoken = write_video(tmp_path / "a.mkv", moving_frames(num_frames=12)), tmp_path / "b.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-i", silent, "-f", "lavfi", "-i", "sine=d=1.5", "-c:v", "copy", spoken],
                   check=True)
    assert len(decoding.read_video(spoken).frames) == 12


def children():
    """Names of the processes that this one started and has not waited for."""
    names = set()
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(") ")
            if int(rest.split()[1]) == os.getpid():
                names.add(name)
    return names


def open_descriptors():
    return set(os.listdir("/proc/self/fd"))


@needs_ffmpeg
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to count open files and children")
def test_neither_processes_nor_pipes_are_left(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=60, height=240, width=320), *FASTSTART)
    decoding.read_video(path)
    before = open_descriptors()
    frames = decoding.iter_frames(path)
    next(frames)
    assert "ffmpeg" in children()
    frames.close()  # in the middle of the video
    cut_file(path, 0.5)
    with pytest.raises(VideoError):
        decoding.read_video(path)
    assert "ffmpeg" not in children()
    assert open_descriptors() == before


def test_without_ffmpeg_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (probing.require_ffmpeg, lambda: decoding.probe("a.mp4"), lambda: decoding.read_video("a.mp4")):
        with pytest.raises(VideoError, match="ffmpeg and ffprobe not found: .*apt-get install ffmpeg"):
            call()


def test_frame_files_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("frame_1.jpg", "frame_2.jpg", "frame_10.jpg", "frame_9.JPG", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    for number in (3, 4, 5, 6, 7, 8):
        (tmp_path / f"frame_{number:03d}.jpeg").touch()
    names = [path.name for path in decoding.list_frame_files(tmp_path)]
    assert names[:3] == ["frame_1.jpg", "frame_2.jpg", "frame_003.jpeg"]
    assert names[-3:] == ["frame_008.jpeg", "frame_9.JPG", "frame_10.jpg"]


@pytest.mark.parametrize(("names", "message"), [
    ([], "holds no frame"), (["1.jpg", "2.jpg", "4.jpg"], "frame 3 is missing; found 3 of the frames 1 to 4"),
    (["2.jpg", "3.jpg"], "frame 1 is missing; found 2 of the frames 1 to 3"),
    (["1.jpg", "2.png"], "JPEG and PNG"), (["1.jpg", "01.jpg"], "01.jpg and 1.jpg are the same frame number"),
    (["a.jpg"], "a.jpg: expected a name that ends with the number")])
def test_frame_folders_with_holes_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(VideoError, match=message):
        decoding.list_frame_files(tmp_path)


def test_a_frame_folder_is_listed_as_it_was_written(tmp_path):
    write_frames(tmp_path / "v", moving_frames(num_frames=11), first=0)
    assert [path.name for path in decoding.list_frame_files(tmp_path / "v")] == [f"{n:05d}.jpg" for n in range(11)]
