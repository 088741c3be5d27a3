"""A table of requests that a served model has to refuse. They are meant for grey clips of 10 frames of 32×32."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from c_server import STRING, Tensor
from served_models import encode

UINT8 = Tensor.of(np.zeros(0, np.uint8)).data_type
NO_TYPE = 99


class Malformed(NamedTuple):
    """`make` turns the inputs of a good request, for two clips, into wrong ones; the refusal matches `message`."""

    signature: str
    wrong: str
    make: Callable
    message: str

    def __str__(self) -> str:
        return f"{self.signature}: {self.wrong}"


def _shape(*sizes: object) -> str:
    return rf"is not compatible with expected shape \[\?,{','.join(map(str, sizes))}\]"


def _type(expected: str, found: str) -> str:
    return f"Expects arg.* to be {expected} but {found} is provided"


VIDEO_SHAPE, FRAME_SHAPE = _shape(10, 32, 32, 1), _shape(32, 32, 1)
FRAMES_SHAPE, STATE_SHAPE = _shape(r"\?"), _shape(r"\d+")
NO_TENSOR, OTHER_BYTES = "no tensor has that type and these sizes", "bytes are not as many as its type and sizes need"
NO_PICTURE = r"\[frame\] \[2\] \[of clip\] \[1\] \[is no whole JPEG or PNG picture; its bytes are\] "

# What is wrong -> (the video made of a good one, what is told): sent to each signature that takes a video.
VIDEOS = {
    "a frame too few": (lambda video: video[:, 1:], VIDEO_SHAPE),
    "a frame too many": (lambda video: video[:, [0, *range(10)]], VIDEO_SHAPE),
    "no frame": (lambda video: video[:, :0], VIDEO_SHAPE),
    "no clip": (lambda video: video[:0], "video holds no clip, expected at least one"),
    "height": (lambda video: video[:, :, 1:], VIDEO_SHAPE),
    "width": (lambda video: video[:, :, :, :16], VIDEO_SHAPE),
    "three channels": (lambda video: video.repeat(3, axis=-1), VIDEO_SHAPE),
    "no channel": (lambda video: video[..., :0], VIDEO_SHAPE),
    "channels before pixels": (lambda video: video.transpose(0, 1, 4, 2, 3), VIDEO_SHAPE),
    "time behind pixels": (lambda video: video.transpose(0, 2, 3, 1, 4), VIDEO_SHAPE),
    "a clip without batch": (lambda video: video[0], VIDEO_SHAPE),
    "no channel axis": (lambda video: video[..., 0], VIDEO_SHAPE),
    "a batch of batches": (lambda video: video[None], VIDEO_SHAPE),
    "all pixels in a row": (lambda video: video.ravel(), VIDEO_SHAPE),
    "frames in one axis with clips": (lambda video: video.reshape(20, 32, 32, 1), VIDEO_SHAPE),
    "a single number": (lambda video: video[0, 0, 0, 0, 0], VIDEO_SHAPE),
    "floats": (lambda video: video.astype(np.float32), _type("uint8", "float")),
    "32-bit integers": (lambda video: video.astype(np.int32), _type("uint8", "int32")),
    "truth values": (lambda video: video > 0, _type("uint8", "bool")),
    "strings": (lambda video: Tensor(STRING, (2, 1), [b"a clip", b""]), _type("uint8", "string")),
    "half of the bytes": (lambda video: Tensor(UINT8, video.shape, [video[0].tobytes()]), OTHER_BYTES),
    "bytes left over": (lambda video: Tensor(UINT8, video[:1].shape, [video.tobytes()]), OTHER_BYTES),
    "an unknown type": (lambda video: Tensor(NO_TYPE, video.shape, [video.tobytes()]), NO_TENSOR),
    "a negative size": (lambda video: Tensor(UINT8, (-2, *video.shape[1:]), [video.tobytes()]), NO_TENSOR),
    "more than fits in memory": (lambda video: Tensor(UINT8, (2**40, *video.shape[1:]), [b""]), NO_TENSOR),
}


def _replaced(frames, content: bytes):
    changed = frames.copy()
    changed[1, 2] = content
    return changed


def _picture(height: int, width: int, image_format: str) -> bytes:
    return encode(np.full((1, height, width, 1), 7, np.uint8), image_format)[0]


FRAMES = {
    "a frame too few": (
        lambda frames: frames[:, 1:],
        r"\[frames holds clips of\] \[9\] \[frames, expected at least\] \[10\]",
    ),
    "no frame": (lambda frames: frames[:, :0], r"\[frames holds clips of\] \[0\]"),
    "no clip": (lambda frames: frames[:0], "frames holds no clip, expected at least one"),
    "a clip without batch": (lambda frames: frames[0], FRAMES_SHAPE),
    "a batch of batches": (lambda frames: frames[None], FRAMES_SHAPE),
    "a single frame": (lambda frames: Tensor(STRING, (), [frames[0, 0]]), FRAMES_SHAPE),
    "pixels": (lambda frames: np.zeros(frames.shape, np.uint8), _type("string", "uint8")),
    "an empty frame": (lambda frames: _replaced(frames, b""), NO_PICTURE + r"\[0\]"),
    "text": (lambda frames: _replaced(frames, b"no picture"), NO_PICTURE + r"\[10\]"),
    "base64": (lambda frames: _replaced(frames, base64.b64encode(frames[1, 2])), NO_PICTURE),
    "a PNG cut short": (lambda frames: _replaced(frames, frames[1, 2][:-30]), NO_PICTURE),
    "a JPEG cut short": (lambda frames: _replaced(frames, _picture(32, 32, "JPEG")[:-30]), NO_PICTURE),
    "two bytes of a JPEG": (lambda frames: _replaced(frames, _picture(32, 32, "JPEG")[:2]), NO_PICTURE + r"\[2\]"),
    "a GIF": (lambda frames: _replaced(frames, _picture(32, 32, "GIF")), NO_PICTURE),
    "a BMP": (lambda frames: _replaced(frames, _picture(32, 32, "BMP")), NO_PICTURE),
    "a JPEG's first and last bytes": (lambda frames: _replaced(frames, b"\xff\xd8\xff\xff\xd9"), "JPEG"),
    "a PNG's first and last bytes": (lambda frames: _replaced(frames, b"\x89PNG\r\n\x1a\nIEND"), "PNG"),
    "a PNG with a hole": (lambda frames: _replaced(frames, frames[1, 2][:50] + bytes(20) + frames[1, 2][70:]), "PNG"),
    "a larger picture": (
        lambda frames: _replaced(frames, _picture(32, 33, "PNG")),
        r"\[frame\] \[2\] \[of clip\] \[1\] \[is of height, width\] \[32 33\] \[pixels, expected\] "
        r"\[32 32\]",
    ),
}
# Changes to both inputs of the stream.
STREAM = {
    "a whole clip": (lambda good: {**good, "frame": good["frame"][:, None]}, FRAME_SHAPE),
    "height": (lambda good: {**good, "frame": good["frame"][:, 1:]}, FRAME_SHAPE),
    "no channel axis": (lambda good: {**good, "frame": good["frame"][..., 0]}, FRAME_SHAPE),
    "floats": (lambda good: {**good, "frame": good["frame"] / np.float32(255)}, _type("uint8", "float")),
    "no clip": (lambda good: {name: value[:0] for name, value in good.items()}, "frame holds no clip"),
    "a state too few": (
        lambda good: {**good, "state": good["state"][:1]},
        r"\[frame holds\] \[2\] \[clips, but state\] \[1\]",
    ),
    "no state": (lambda good: {**good, "state": good["state"][:0]}, r"\[clips, but state\] \[0\]"),
    "a narrower state": (lambda good: {**good, "state": good["state"][:, 1:]}, STATE_SHAPE),
    "a state without batch": (lambda good: {**good, "state": good["state"][0]}, STATE_SHAPE),
    "a state in doubles": (lambda good: {**good, "state": good["state"].astype(np.float64)}, _type("float", "double")),
    "a state in bytes": (lambda good: {**good, "state": good["state"].astype(np.uint8)}, _type("float", "uint8")),
}


def _of_one_input(signature: str, name: str, rows: dict) -> list[Malformed]:
    return [
        Malformed(signature, wrong, lambda good, make=make: {name: make(good[name])}, message)
        for wrong, (make, message) in rows.items()
    ]


def _missing(signature: str, name: str) -> list[Malformed]:
    """Without the input; with it under another name; with one more."""
    return [
        Malformed(
            signature,
            f"{name} is missing",
            lambda good: {key: good[key] for key in good if key != name},
            f"You must feed a value for placeholder .*{name}",
        ),
        Malformed(
            signature,
            f"{name} under another name",
            lambda good: {f"{key}s" if key == name else key: good[key] for key in good},
            f"{name}s: the model has no tensor of that name",
        ),
        Malformed(
            signature,
            f"an input beside {name}",
            lambda good: {**good, "label": good[name]},
            "label: the model has no tensor of that name",
        ),
    ]


REQUESTS = [
    *(row for name in ("serving_default", "features", "attention") for row in _of_one_input(name, "video", VIDEOS)),
    *_missing("serving_default", "video"),
    *_of_one_input("serving_bytes", "frames", FRAMES),
    *_missing("serving_bytes", "frames"),
    *(Malformed("stream", wrong, make, message) for wrong, (make, message) in STREAM.items()),
    *_missing("stream", "frame"),
    *_missing("stream", "state"),
]
