"""Pictures and videos that are refused by their size, before or while they are decoded."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from absl import flags as absl_flags
from PIL import Image
from tiny_videos import moving_frames, write_frames, write_video

from rstg_tf.common.errors import VideoError
from rstg_tf.video import completeness, decoding
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits, define_limit_flags, limits_from_flags
from rstg_tf.video.pictures import picture_bytes, pixels_of
from rstg_tf.video.sources import load_clip, open_source

ROOT = Path(__file__).resolve().parents[2]
SMALL = dataclasses.replace(DEFAULT_LIMITS, frame_pixels=32 * 48, video_frames=12, video_pixels=12 * 32 * 48)


def claims(path, **changes):
    """A video of 48x32 pixels, 12 frames, whose MP4 tells other numbers: of frames, or width and height."""
    write_video(path, moving_frames())
    content = bytearray(path.read_bytes())
    if "frames" in changes:  # the sample sizes' box: version, the size of all, their number
        place = content.index(b"stsz")
        content[place + 8 : place + 16] = (1).to_bytes(4, "big") + changes["frames"].to_bytes(4, "big")
        place = content.index(b"stts")  # one row: so many, of that length
        content[place + 12 : place + 16] = changes["frames"].to_bytes(4, "big")
    if "size" in changes:
        width, height = changes["size"]
        place = content.index(b"avc1", content.index(b"stsd")) + 28
        content[place : place + 4] = width.to_bytes(2, "big") + height.to_bytes(2, "big")
    path.write_bytes(content)
    return path


def picture(mode, size, image_format, **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, image_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000"])
def test_a_large_picture_is_refused_by_its_header_whatever_its_format(image_format, monkeypatch):
    content = picture("RGB", (49, 32), image_format)
    Image.init()
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(VideoError, match=r"f is 49×32 pixels: expected at most 1536 in all \(--max_frame_pixels\)"):
        pixels_of(content, named="f", limits=SMALL)


def test_a_picture_of_16k_by_16k_is_refused_in_little_memory():
    """Of one bit a pixel, so that the file is small and quickly made."""
    content = picture("1", (16384, 16384), "PNG")
    program = (
        "import resource, sys; from rstg_tf.video.pictures import pixels_of\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: pixels_of(sys.stdin.buffer.read(), named='f')\n"
        "except ValueError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=content, cwd=ROOT, capture_output=True, timeout=120)
    told, mebibytes = done.stdout.decode().splitlines()
    assert "268435456 pixels" in told and int(mebibytes) < 30, done.stderr


def test_a_picture_at_the_limit_is_read_and_a_strip_is_not():
    assert pixels_of(picture("L", (48, 32), "PNG"), named="f", limits=SMALL).shape == (32, 48, 1)
    with pytest.raises(VideoError, match="f is 1×100 pixels: expected no side longer than 78"):
        pixels_of(picture("L", (1, 100), "PNG"), named="f", limits=SMALL)


def test_a_jpeg_of_scan_after_scan_is_refused():
    content = picture("L", (48, 32), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    assert pixels_of(content, named="f").shape == (32, 48, 1)
    with pytest.raises(VideoError, match="f is a JPEG of more than 100 scans"):
        pixels_of(content[:-2] + 100 * last + content[-2:], named="f")


def test_no_format_that_starts_programs_is_opened_whatever_the_name(tmp_path):
    encapsulated = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    with pytest.raises(VideoError, match="1.jpg is no picture that Pillow can read"):
        pixels_of(encapsulated, named="1.jpg")


def test_the_file_of_a_picture_is_refused_by_its_bytes_before_it_is_read(tmp_path):
    with open(tmp_path / "1.png", "wb") as file:
        file.truncate(2**40)  # no block of it is written
    with pytest.raises(VideoError, match=rf"has {2**40} bytes: expected at most {2**28} \(--max_picture_bytes\)"):
        picture_bytes(tmp_path / "1.png", named="1.png")


def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("video.mp4", "clip.npy"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(VideoError, match=f"{name} is no file but a pipe"):
            open_source(tmp_path / name)


def test_frames_too_large_are_refused_before_they_are_decoded(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=3))
    limits = dataclasses.replace(SMALL, frame_pixels=1500)
    with pytest.raises(VideoError, match="its frames are 48×32 pixels: expected at most 1500 in all"):
        decoding.probe(path, limits=limits)


def test_a_video_that_claims_100000_frames_of_8k_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = claims(tmp_path / "a.mp4", frames=100_000, size=(7680, 4320))
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 100_000
    monkeypatch.setattr(completeness.Reading, "packets", lambda reading: pytest.fail("read"))
    with pytest.raises(VideoError, match="(--max_video_pixels|--max_frame_pixels)"):
        open_source(path, limits=dataclasses.replace(DEFAULT_LIMITS, video_pixels=100_000 * 32 * 48 - 1))


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
def test_a_longer_video_is_refused_by_its_count_or_its_length(tmp_path, ending, monkeypatch):
    path = write_video(tmp_path / f"a{ending}", moving_frames(40))
    monkeypatch.setattr(completeness.Reading, "packets", lambda reading: pytest.fail("read"))
    with pytest.raises(VideoError, match=r"claims to hold \d\d frames: expected at most 12 \(--max_video_frames\)"):
        decoding.probe(path, limits=SMALL)


def test_a_video_that_does_not_tell_its_length_is_given_up_on_the_way(tmp_path):
    path = write_video(tmp_path / "a.h264", moving_frames(40))
    read = []
    with pytest.raises(VideoError, match="goes on, after 13 frames: expected at most 12"):
        read.extend(decoding.iter_frames(path, limits=dataclasses.replace(SMALL, video_pixels=10**9)))
    assert len(read) == 12


def test_a_stream_that_grows_within_is_refused_by_the_decoder(tmp_path):
    """Two streams in one file, the second of larger frames than the header tells."""
    parts = [write_video(tmp_path / f"{side}.h264", moving_frames(3, height=side, width=side)) for side in (32, 320)]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError):
        list(decoding.iter_frames(path, limits=dataclasses.replace(DEFAULT_LIMITS, frame_pixels=1600)))


def test_what_a_resize_would_make_too_large_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mkv", moving_frames(2, height=32, width=640))
    with pytest.raises(VideoError, match="its frames, resized, are 12800×640 pixels"):
        list(decoding.iter_frames(path, short_side=640, limits=dataclasses.replace(DEFAULT_LIMITS, frame_pixels=10**6)))


def test_reading_without_a_frame_ends_after_the_time_that_is_given(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", moving_frames(12))
    clock = iter(range(0, 10**6, 3))  # every look at it is three seconds later
    monkeypatch.setattr(completeness.time, "monotonic", lambda: next(clock))
    with decoding.opened(path, limits=dataclasses.replace(DEFAULT_LIMITS, stall_seconds=10.0)) as video:
        reading = completeness.Reading(video)
        with pytest.raises(VideoError, match=r"no frame came out of it for 12 seconds of reading \(after \d packets\)"):
            list(reading.packets())


def test_folders_and_arrays_have_the_limits_of_videos(tmp_path):
    write_frames(tmp_path / "folder", moving_frames(13))
    np.save(tmp_path / "long.npy", moving_frames(13))
    np.save(tmp_path / "large.npy", moving_frames(2, height=64))
    with pytest.raises(VideoError, match="folder holds 13 frames: expected at most 12"):
        open_source(tmp_path / "folder", limits=SMALL)
    with pytest.raises(VideoError, match="long.npy holds 13 frames: expected at most 12"):
        open_source(tmp_path / "long.npy", limits=SMALL)
    with pytest.raises(VideoError, match="large.npy holds frames of 48×64 pixels: expected at most 1536"):
        open_source(tmp_path / "large.npy", limits=SMALL)
    with pytest.raises(VideoError, match="1.jpg is 48×32 pixels: expected at most 1500"):
        load_clip(tmp_path / "folder", channels=3, limits=MediaLimits(frame_pixels=1500))


def test_a_clip_that_is_held_at_once_is_bounded(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", moving_frames(12))
    monkeypatch.setattr("rstg_tf.video.sources._LARGEST_CLIP", 10 * 32 * 48 * 3)
    with pytest.raises(VideoError, match="a.npy: 11 frames are .* too long for one clip"):
        load_clip(tmp_path / "a.npy", channels=3)


def test_every_limit_is_a_flag():
    flags = absl_flags.FlagValues()
    define_limit_flags(flags)
    flags(["", "--max_frame_pixels=5", "--max_video_frames=6", "--max_video_pixels=7", "--max_stall_seconds=0.5"])
    assert limits_from_flags(flags) == MediaLimits(5, 6, 7, 2**28, 0.5)
    assert {f"max_{field.name}" for field in dataclasses.fields(MediaLimits)} <= set(flags)
