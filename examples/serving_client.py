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
import base64
import contextlib
import http.client
import io
import json
import math
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# As a script it finds the package beside it; `pip install -e .` does the same.
sys.path.append(str(Path(__file__).absolute().parents[1]))

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

PORTS = {"grpc": 8500, "rest": 8501}
LONGEST_MESSAGE = 400  # characters of what a server says


_ERROR_BYTES = 2**16  # of the body that comes with an error
_LARGEST_PNG = 2**21  # bytes; exports take no larger ones unless told
_MOST_VALUES = 10**6  # of one output
_MOST_PIXELS = 2**30  # of the clip that a model says it takes


class ServerError(RuntimeError):
    """What went wrong between this client and the server, and what to look at."""


class Address(NamedTuple):
    """Where a server is and how it is asked: `name` HOST:PORT, `timeout` seconds for each whole answer of at most
    `most_bytes`; over TLS, `ca_file` a PEM file of the certificates that are trusted, '' for the system's."""

    name: str
    timeout: float
    most_bytes: int
    tls: bool = False
    ca_file: str = ""


class GrpcServer:
    """`input_shape` and `predict` of a model over gRPC."""

    def __init__(self, address: Address, *, model: str, version: int | None):
        import grpc
        from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

        self._grpc, self._address, self._model, self._version = grpc, address, model, version
        # A clip of pixels is longer than the 4 MiB that gRPC sends unless told otherwise.
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", address.most_bytes)]
        if address.tls:
            trusted = Path(address.ca_file).read_bytes() if address.ca_file else None
            channel = grpc.secure_channel(address.name, grpc.ssl_channel_credentials(trusted), options=options)
        else:
            channel = grpc.insecure_channel(address.name, options=options)
        self._stub = PredictionServiceStub(channel)

    def input_shape(self, signature: str, name: str) -> list[int]:
        """Sizes of an input as the server declares it; -1 for unknown ones."""
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap

        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        answer = self._call(self._stub.GetModelMetadata, request)
        signatures = SignatureDefMap()
        try:
            answer.metadata["signature_def"].Unpack(signatures)
        except DecodeError as error:
            raise ServerError(_malformed(self._address, f"its signatures cannot be read ({error})")) from error
        if signature not in signatures.signature_def:
            raise ServerError(_no_signature(self._model, signature, signatures.signature_def))
        return [size.size for size in signatures.signature_def[signature].inputs[name].tensor_shape.dim]

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The named outputs for the named inputs."""
        import tensorflow as tf
        from tensorflow_serving.apis.predict_pb2 import PredictRequest

        request = PredictRequest()
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        answer = self._call(self._stub.Predict, request)
        try:
            for name, value in answer.outputs.items():
                # One value in the message stands for as many as the shape tells.
                sizes = [size.size for size in value.tensor_shape.dim]
                if any(size < 0 for size in sizes) or math.prod(sizes) > _MOST_VALUES:
                    raise ValueError(f"{name} is of shape {sizes}")
            return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}
        except (ValueError, TypeError) as error:
            raise ServerError(_malformed(self._address, str(error))) from error

    def _call(self, method, request):
        request.model_spec.name = self._model
        if self._version is not None:
            request.model_spec.version.value = self._version
        try:
            return method(request, timeout=self._address.timeout)
        except self._grpc.RpcError as error:
            code, message = error.code(), _shortened(error.details() or "")
            explained = {
                self._grpc.StatusCode.UNAVAILABLE: _not_there(self._address, "grpc", message),
                self._grpc.StatusCode.DEADLINE_EXCEEDED: _late(self._address),
                self._grpc.StatusCode.NOT_FOUND: _unknown(self._address, self._model, self._version, message),
                self._grpc.StatusCode.INVALID_ARGUMENT: f"the server refused the request: {message}",
            }
            raise ServerError(
                explained.get(code, f"the server at {self._address.name} failed with {code.name}: {message}")
            ) from error


class RestServer:
    """The same over REST, https://www.tensorflow.org/tfx/serving/api_rest."""

    def __init__(self, address: Address, *, model: str, version: int | None):
        self._address, self._model, self._version = address, model, version
        self._path = f"/v1/models/{model}" + ("" if version is None else f"/versions/{version}")

    def input_shape(self, signature: str, name: str) -> list[int]:
        answer = self._call("GET", f"{self._path}/metadata")
        try:
            signatures = dict(answer["metadata"]["signature_def"]["signature_def"])
            if signature not in signatures:
                raise ServerError(_no_signature(self._model, signature, signatures))
            return [int(size["size"]) for size in signatures[signature]["inputs"][name]["tensor_shape"]["dim"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(_malformed(self._address, f"its metadata has no {error}")) from error

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {name: _as_json(value.tolist()) for name, value in inputs.items()}
        answer = self._call("POST", f"{self._path}:predict", {"signature_name": signature, "inputs": values})
        try:
            return {name: np.array(value) for name, value in dict(answer["outputs"]).items()}
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(_malformed(self._address, f"it has no outputs ({error})")) from error

    def _call(self, method: str, path: str, message: dict | None = None) -> dict:
        body = None if message is None else json.dumps(message).encode()
        deadline = time.monotonic() + self._address.timeout
        try:
            with self._answer(method, path, body) as answer:
                if answer.status != 200:
                    self._explain(answer, answer.read(_ERROR_BYTES))
                content = answer.read(self._address.most_bytes + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
                raise ServerError(_late(self._address)) from error
            raise ServerError(_not_there(self._address, "rest", _shortened(str(error) or repr(error)))) from error
        if time.monotonic() >= deadline:  # it was cut off
            raise ServerError(_late(self._address))
        if len(content) > self._address.most_bytes:
            told = f"it is longer than {self._address.most_bytes} bytes (--max_answer_bytes)"
            raise ServerError(_malformed(self._address, told))
        try:
            values = parse_json(content.decode(), named="its body")
        except ValueError as error:
            raise ServerError(_malformed(self._address, _shortened(str(error)))) from error
        if not isinstance(values, dict):
            raise ServerError(_malformed(self._address, "it is no JSON object"))
        return values

    @contextlib.contextmanager
    def _answer(self, method: str, path: str, body: bytes | None) -> Iterator[http.client.HTTPResponse]:
        """The server's answer; when the time is over, whatever is being waited for ends."""
        deadline = time.monotonic() + self._address.timeout
        if self._address.tls:
            trusted = ssl.create_default_context(cafile=self._address.ca_file or None)
            asked = http.client.HTTPSConnection(self._address.name, timeout=self._address.timeout, context=trusted)
        else:
            asked = http.client.HTTPConnection(self._address.name, timeout=self._address.timeout)
        with contextlib.closing(asked):
            asked.connect()
            # A timeout of the socket starts anew with each byte that comes.
            end = threading.Timer(max(0.0, deadline - time.monotonic()), _cut_off, [asked.sock])
            end.daemon = True
            end.start()
            try:
                asked.request(method, path, body, {"Content-Type": "application/json"})
                with contextlib.closing(asked.getresponse()) as answer:
                    yield answer
            finally:
                end.cancel()

    def _explain(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        """Raises ServerError for another status than 200."""
        message = _message_of_rest(content)
        if 300 <= answer.status < 400:
            place = _shortened(str(answer.headers.get("Location")))
            raise ServerError(f"the server at {self._address.name} sends to {place}, which is not followed.")
        if answer.status == 404:
            raise ServerError(_unknown(self._address, self._model, self._version, message))
        what = "refused the request" if answer.status == 400 else f"failed with {answer.status}"
        raise ServerError(f"the server {what}: {message}")


def _cut_off(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


SERVERS = {"grpc": GrpcServer, "rest": RestServer}


def _as_json(value):
    """Nested lists with bytes as REST wants them."""
    if isinstance(value, list):
        return [_as_json(part) for part in value]
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _message_of_rest(content: bytes) -> str:
    text = content.decode(errors="replace")
    try:
        return _shortened(str(parse_json(text, named="error")["error"]))
    except (ValueError, KeyError, TypeError):
        return _shortened(text)


def _shortened(message: str) -> str:
    message = printable(" ".join(message.split()))
    return message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + " …"


def _not_there(address: Address, protocol: str, message: str) -> str:
    return (
        f"no {protocol} server answers at {address.name} ({message}): is it running, and is this its {protocol} port "
        f"(usually {PORTS[protocol]})?"
    )


def _late(address: Address) -> str:
    return f"the server at {address.name} did not answer within {address.timeout:g} seconds; give a longer --timeout."


def _malformed(address: Address, what: str) -> str:
    return f"the answer of the server at {address.name} cannot be used: {what}."


def _unknown(address: Address, model: str, version: int | None, message: str) -> str:
    which = model if version is None else f"{model}, version {version},"
    return f"the server at {address.name} has no model {which} ({message}); see --model and --version."


def _no_signature(model: str, signature: str, known: Mapping) -> str:
    return f"the model {model} has no signature {signature}, only {', '.join(sorted(known))}."


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
            f"the server says that its model takes clips of shape {_shortened(str(list(shape)))}: expected "
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
            told = [name.decode(errors="replace") if isinstance(name, bytes) else name for name in best[0].tolist()]
            return list(zip(told, scores[0].tolist()))[:top]
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
