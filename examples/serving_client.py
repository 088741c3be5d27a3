"""Asks a TensorFlow model server what it sees in a video, and prints the best classes.

    python examples/serving_client.py --video=FILE [--server=HOST:PORT] [--protocol=grpc|rest] [--model=rstg]
                                      [--version=N] [--signature=serving_bytes|serving_default] [--top=5] [--json]
                                      [--tls [--ca_file=PEM]]

The video is a file of any usual kind, a folder of JPEG or PNG frames, or a .npy file, uint8 [T, H, W] or
[T, H, W, C]. Of its frames as many as the model sees are sent, at even distances (a shorter video repeats some):

    serving_bytes     as PNG files, large ones as JPEG (those of a folder as they are); the server resizes and crops,
                      and tells the names
    serving_default   as pixels, resized and cropped here; names from --class_names, the model's assets/export.json or
                      assets/class_names.txt

What a server answers is not trusted: it has --timeout seconds for all of an answer, of --max_answer_bytes at most, is
not followed to other places, and its answers are checked before they are used. With --tls its certificate is verified.

Exit codes: 0; 1 if the server is not there, does not know the model, refuses or is late; 2 for wrong use.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# As a script it finds the package beside it (`pip install -e .` does the same), and the module in its own folder.
sys.path += map(str, list(Path(__file__).absolute().parents)[:2])

from model_servers import PORTS, SERVERS, Address, ServerError, shortened

from rstg_tf.common.command_line import json_line, run_program
from rstg_tf.common.data_text import parse_json
from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.common.shown import printable
from rstg_tf.common.spacing import evenly_spaced_indices
from rstg_tf.common.text import read_text_file
from rstg_tf.video.clip_spec import ClipSpec, clip_from_frames
from rstg_tf.video.frame_folders import list_frame_files
from rstg_tf.video.pictures import picture_bytes
from rstg_tf.video.sources import FrameSource, open_source

_LARGEST_PNG = 2**21  # bytes; exports take no larger ones unless told
_MOST_PIXELS = 2**30  # of the clip that a model says it takes


def clip_inputs(path: str, signature: str, clip: ClipSpec) -> dict[str, np.ndarray]:
    """What is sent for a video: `frames` bytes [1, T], or `video` uint8 [1, T, H, W, C], for such clips."""
    if signature == "serving_default":
        frames = np.stack(sampled_frames(open_source(path), clip.num_frames, clip.short_side))
        return {"video": clip_from_frames(frames, clip)[None]}
    if Path(path).is_dir():
        files = list_frame_files(path)
        chosen = (files[index] for index in evenly_spaced_indices(len(files), clip.num_frames))
        frames = [picture_bytes(file, named=os.fspath(file)) for file in chosen]
    else:
        frames = [_encoded(frame) for frame in sampled_frames(open_source(path), clip.num_frames, clip.short_side)]
    return {"frames": np.array([frames], object)}


def sampled_frames(source: FrameSource, num_frames: int, short_side: int | None) -> list[np.ndarray]:
    """T frames at even distances of those that are shown, uint8 [H, W, 1 or 3]; others are not kept.

    What a video file says of its length is a hint: where it turns out otherwise, the file is read once more.
    """
    expected, shown = source.num_frames or 1, 0
    while True:
        chosen = evenly_spaced_indices(expected, num_frames)
        frames = {}
        for shown, frame in enumerate(source.read(short_side), start=1):
            if shown - 1 in chosen:
                frames[shown - 1] = frame
        if shown == expected:
            return [frames[index] for index in chosen]
        expected = shown


def _encoded(frame: np.ndarray) -> bytes:
    """As PNG, or where that is too large for a server as JPEG of quality 95, as data sets hold frames."""
    picture = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    if len(file.getvalue()) > _LARGEST_PNG:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=95)
    return file.getvalue()


def clip_of_model(shape: Sequence[int], short_side: int | None) -> ClipSpec:
    """The clips that a server says its model takes, [B, T, H, W, C]. Raises ServerError for what no model takes."""
    if len(shape) != 5 or min(shape[1:]) < 1 or shape[4] not in (1, 3) or math.prod(shape[1:]) > _MOST_PIXELS:
        raise ServerError(
            f"the server says that its model takes clips of shape {shortened(str(list(shape)))}: expected "
            "[B, T, H, W, C] of known sizes, with C 1 or 3."
        )
    return ClipSpec(*shape[1:], short_side=short_side)


def best_classes(answer: Mapping[str, np.ndarray], top: int, names: Sequence[str] | None) -> list[tuple[str, float]]:
    """(name, probability) of the `top` most probable classes of the one clip, best first."""
    if names is None and "classes" in answer:
        best, scores = answer["classes"], _numbers(answer, "scores")
        if best.shape != scores.shape or not all(isinstance(name, (bytes, str)) for name in best[0].tolist()):
            raise ServerError("the server's answer cannot be used: expected a name for each of its scores.")
        if top <= best.shape[1]:
            best_names = [
                name.decode(errors="replace") if isinstance(name, bytes) else name for name in best[0].tolist()
            ]
            return list(zip(best_names, scores[0].tolist()))[:top]
    probabilities = _numbers(answer, "probabilities")[0]
    if names is not None and len(names) != len(probabilities):
        raise ConfigError(f"--class_names holds {len(names)} names, but the model has {len(probabilities)} classes.")
    return [
        (names[index] if names else f"class {index}", float(probabilities[index]))
        for index in np.argsort(-probabilities, kind="stable")[:top]
    ]


def _numbers(answer: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """An output of one clip: finite numbers [1, n], n at least 1."""
    values = answer.get(name, np.zeros(0))
    if values.dtype.kind not in "fiu" or values.ndim != 2 or len(values) != 1 or not values.size:
        raise ServerError(
            f"the server's answer cannot be used: expected numbers [1, n] called {name}, found "
            f"{values.dtype} {list(values.shape)}."
        )
    if not np.isfinite(values).all():
        raise ServerError(f"the server's answer cannot be used: {name} holds NaN or Inf.")
    return values


def _class_names(path: str) -> list[str]:
    """The names in assets/export.json, which may hold line ends, or the lines of a text file."""
    named = f"--class_names={path}"
    text = read_text_file(path, named=named)
    if not path.endswith(".json"):
        return text.removesuffix("\n").split("\n")
    facts: Any = parse_json(text, named=named)
    names = facts.get("class_names") if isinstance(facts, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{named}: expected an export's export.json, with a list class_names.")
    return names


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serving_client", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", required=True, help="video file, folder of frames, or .npy file")
    parser.add_argument("--protocol", choices=sorted(SERVERS), default="grpc")
    parser.add_argument("--server", default="", help="HOST:PORT; unless given, localhost and the protocol's usual port")
    parser.add_argument("--model", default="rstg", help="its name on the server")
    parser.add_argument("--version", type=int, help="unless given, the server's newest")
    parser.add_argument("--signature", choices=["serving_bytes", "serving_default"], default="serving_bytes")
    parser.add_argument(
        "--short_side",
        type=int,
        help="shrink video files to this short side, in pixels, while "
        "they are decoded (data sets are made so, at 256); with serving_default also before the crop",
    )
    parser.add_argument("--class_names", default="", help="a file with a name per line, or an export's export.json")
    parser.add_argument("--top", type=int, default=5, help="how many classes are printed")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for each whole answer of the server")
    parser.add_argument("--max_answer_bytes", type=int, default=2**24, help="at most so many bytes of an answer")
    parser.add_argument("--tls", action="store_true", help="speak TLS, and verify the server's certificate")
    parser.add_argument("--ca_file", default="", help="with --tls: a PEM file of the certificates that are trusted")
    parser.add_argument("--json", action="store_true", help="print one line of JSON alone")
    flags = parser.parse_args(arguments)
    numbers = (flags.top, flags.timeout, flags.short_side or 1, flags.max_answer_bytes)
    if not all(0 < number < float("inf") for number in numbers):
        parser.error("--top, --timeout, --short_side and --max_answer_bytes: expected numbers above 0")
    if flags.ca_file and not (flags.tls and Path(flags.ca_file).is_file()):
        parser.error("--ca_file: expected a file, and --tls")
    return flags


def main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    flags = _parse(arguments)
    try:
        names = None
        if flags.class_names:
            names = _class_names(flags.class_names)
        open_source(flags.video)  # a wrong path is told before the server is asked
        address = Address(
            flags.server or f"localhost:{PORTS[flags.protocol]}",
            timeout=flags.timeout,
            most_bytes=flags.max_answer_bytes,
            tls=flags.tls,
            ca_file=flags.ca_file,
        )
        server = SERVERS[flags.protocol](address, model=flags.model, version=flags.version)
        clip = clip_of_model(server.input_shape("serving_default", "video"), flags.short_side)
        answer = server.predict(flags.signature, clip_inputs(flags.video, flags.signature, clip))
        best = best_classes(answer, flags.top, names)
    except (ConfigError, VideoError) as error:
        print(printable(f"serving_client: {error}"), file=sys.stderr)
        return 2
    except ServerError as error:
        print(printable(f"serving_client: {error}"), file=sys.stderr)
        return 1
    if not flags.json:
        print(*(f"{probability:.4f}  {printable(name)}" for name, probability in best), sep="\n")
        return 0
    classes = [{"name": name, "probability": probability} for name, probability in best]
    print(json_line({"video": flags.video, "model": flags.model, "classes": classes}))
    return 0


if __name__ == "__main__":
    run_program(main, name="serving_client", interrupted="no answer was waited for.")
