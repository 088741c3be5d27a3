"""Files that were cut, damaged or are no video are refused by name; wrong numbers in headers do not matter."""

from __future__ import annotations

import errno
import io

import av
import numpy as np
import pytest
from PIL import Image
from tiny_videos import FASTSTART, LOSSLESS, MPEG4, WEBM, Encoding, cut_file, moving_frames, write_video

from datasets.videos.sources import Rejection, VideoSource, encode_source
from rstg_tf.common.errors import VideoError
from rstg_tf.video import decoding, probing


@pytest.mark.parametrize(
    ("name", "encoding", "field", "wrong"),
    [
        ("a.avi", MPEG4, b"avih", slice(24, 28)),  # frames in all
        ("a.avi", MPEG4, b"strh", slice(40, 44)),
    ],
)  # length of the stream
def test_a_wrong_count_in_the_header_does_not_matter(tmp_path, name, encoding, field, wrong):
    path = write_video(tmp_path / name, moving_frames(num_frames=10), encoding)
    content = bytearray(path.read_bytes())
    place = content.index(field)
    content[place + wrong.start : place + wrong.stop] = (5000).to_bytes(4, "little")
    path.write_bytes(content)
    assert len(decoding.read_video(path).frames) == 10


def test_a_wrong_length_in_a_webm_header_does_not_matter(tmp_path):
    path = write_video(tmp_path / "a.webm", moving_frames(num_frames=24), WEBM)
    content = bytearray(path.read_bytes())
    place = content.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes
    content[place : place + 8] = np.array([90_000.0], ">f8").tobytes()
    path.write_bytes(content)
    assert len(decoding.read_video(path).frames) == 24


def cut_matroska(folder):
    """A Matroska file of 45 bytes, of which FFmpeg's reader says EIO, as of a disk that fails."""
    path = folder / "a.mkv"
    header = "1a45dfa3a3428681014 2f7810142f2810442f3810842 82886d6174726f736b61428781044285 8102d8114d9b74"
    path.write_bytes(bytes.fromhex(header.replace(" ", "")))
    return path


def test_a_video_whose_reader_blames_the_disk_is_refused_where_the_disk_reads_it(tmp_path):
    path = cut_matroska(tmp_path)
    with pytest.raises(VideoError, match="a.mkv: cannot be read as video"):
        decoding.probe(path)
    assert isinstance(encode_source(VideoSource("v", str(path), 0), 256), Rejection)


def test_a_disk_that_fails_is_no_fault_of_the_video(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(probing, "_read_through", fail)
    with pytest.raises(OSError, match="Input/output error"):
        decoding.probe(cut_matroska(tmp_path))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("a.mp4", FASTSTART),
        ("a.webm", WEBM),
        ("a.avi", MPEG4),
        ("a.mkv", LOSSLESS),
        ("a.mov", FASTSTART),
        ("a.mp4", Encoding("libx264", {"movflags": "frag_keyframe+empty_moov", "g": "5"})),
    ],
    ids=["mp4", "webm", "avi", "mkv", "mov", "fragmented"],
)
def test_a_file_that_was_cut_is_refused(tmp_path, name, encoding, share):
    path = write_video(tmp_path / name, moving_frames(num_frames=30, height=64, width=96), encoding)
    assert len(decoding.read_video(path).frames) == 30
    cut_file(path, share)
    with pytest.raises(
        VideoError,
        match=rf"^{path}: (truncated or damaged: .* decoded|cannot be read as video|"
        "no frame could be decoded)",
    ):
        decoding.read_video(path)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("a.avi", MPEG4),
        ("a.avi", Encoding("libx264", {"bf": "0"})),
        ("a.mp4", FASTSTART),
        ("a.webm", WEBM),
        ("a.mkv", FASTSTART),
    ],
)
def test_a_file_that_was_cut_between_two_packets_is_refused(tmp_path, name, encoding):
    path = write_video(tmp_path / name, moving_frames(num_frames=12), encoding)
    content = path.read_bytes()
    with av.open(str(path)) as container:
        places = sorted((packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)
    for position, size in places[3:-1]:
        # The last packet before the cut is whole, with the byte that fills an AVI's up to an even length.
        path.write_bytes(content[: position + size + (8 if name == "a.avi" else 0) + (name == "a.avi" and size % 2)])
        with pytest.raises(VideoError, match="truncated or damaged|no frame could be decoded"):
            decoding.read_video(path)


def test_the_decoded_frames_are_given_before_the_fault_is_told_with_its_time(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=30, height=64, width=96), FASTSTART)
    cut_file(path, 0.6)
    frames = []
    with pytest.raises(VideoError, match=r"at \d.\d\d s; \d+ frames decoded, the last of them at \d.\d\d s"):
        frames.extend(decoding.iter_frames(path))
    assert 0 < len(frames) < 30


def test_damage_inside_a_file_of_the_right_length_is_refused_each_time(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(num_frames=20, height=64, width=96), FASTSTART)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat")
    for position in range(begin + 1200, len(content), 97):
        content[position] ^= 0x55
    path.write_bytes(content)
    for _ in range(2):  # the libraries say the same sentence again, which they would pass over
        with pytest.raises(VideoError, match="truncated or damaged: h264"):
            decoding.read_video(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (bytes(range(256)) * 20, "cannot be read as video"),
        (b"just words\n" * 300, "cannot be read"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nother.ts\n#EXT-X-ENDLIST\n", "cannot be read as video"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "cannot be read as video"),
        (None, "is no file"),
    ],
)
def test_what_is_no_video_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "what.mp4"
    if content is not None:
        path.write_bytes(content)
    for read in (decoding.probe, decoding.read_video, lambda path: next(decoding.iter_frames(path))):
        with pytest.raises(VideoError, match=f"what.mp4: {message}"):
            read(path)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "TGA"])
def test_a_picture_is_no_video_of_one_frame(tmp_path, image_format):
    content = io.BytesIO()
    Image.fromarray(moving_frames(1)[0]).save(content, image_format)
    (tmp_path / "picture").write_bytes(content.getvalue())
    with pytest.raises(VideoError, match="picture: (cannot be read as video|is a picture)"):
        decoding.read_video(tmp_path / "picture")


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        samples.sample_rate, samples.pts = 8000, 0
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        decoding.read_video(path)
