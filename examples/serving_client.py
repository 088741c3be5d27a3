"""Asks a TensorFlow model server what it sees in a video, and prints the best classes.

    python examples/serving_client.py --video=FILE [--server=HOST:PORT] [--protocol=grpc|rest] [--model=rstg]
                                      [--version=N] [--signature=serving_bytes|serving_default] [--top=5] [--json]

The video is a file of any usual kind, a folder of JPEG or PNG frames, or a .npy file, uint8 [T, H, W] or
[T, H, W, C]. Of its frames as many as the model sees are sent, at even distances (a shorter video repeats some):

    serving_bytes     as PNG files (those of a folder as they are); the server resizes and crops, and tells the names
    serving_default   as pixels, resized and cropped here; names from --class_names, the model's assets/class_names.txt

Exit codes: 0; 1 if the server is not there, does not know the model, refuses or is late; 2 for wrong use.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# As a script it finds the package beside it; `pip install -e .` does the same.
sys.path.append(str(Path(__file__).absolute().parents[1]))

from rstg_tf.common.command_line import run_program
from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.common.spacing import evenly_spaced_indices
from rstg_tf.common.text import read_text_file
from rstg_tf.video.clip_spec import ClipSpec, clip_from_frames
from rstg_tf.video.frame_folders import list_frame_files
from rstg_tf.video.sources import FrameSource, open_source

PORTS = {"grpc": 8500, "rest": 8501}
LONGEST_MESSAGE = 400  # characters of what a server says


class ServerError(RuntimeError):
    """What went wrong between this client and the server, and what to look at."""


class GrpcServer:
    """`input_shape` and `predict` of a model over gRPC. `timeout`: seconds for each answer."""

    def __init__(self, address: str, *, model: str, version: int | None, timeout: float):
        import grpc
        from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

        self._grpc, self._address, self._model, self._version = grpc, address, model, version
        self._timeout = timeout
        # A clip of pixels is longer than the 4 MiB that gRPC takes unless told otherwise.
        unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self._stub = PredictionServiceStub(grpc.insecure_channel(address, options=unlimited))

    def input_shape(self, signature: str, name: str) -> list[int]:
        """Sizes of an input as the server declares it; -1 for unknown ones."""
        from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap

        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        answer = self._call(self._stub.GetModelMetadata, request)
        signatures = SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
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
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def _call(self, method, request):
        request.model_spec.name = self._model
        if self._version is not None:
            request.model_spec.version.value = self._version
        try:
            return method(request, timeout=self._timeout)
        except self._grpc.RpcError as error:
            code, message = error.code(), _shortened(error.details() or "")
            explained = {
                self._grpc.StatusCode.UNAVAILABLE: _not_there(self._address, "grpc", message),
                self._grpc.StatusCode.DEADLINE_EXCEEDED: _late(self._address, self._timeout),
                self._grpc.StatusCode.NOT_FOUND: _unknown(self._address, self._model, self._version, message),
                self._grpc.StatusCode.INVALID_ARGUMENT: f"the server refused the request: {message}",
            }
            raise ServerError(
                explained.get(code, f"the server at {self._address} failed with {code.name}: {message}")
            ) from error


class RestServer:
    """The same over REST, https://www.tensorflow.org/tfx/serving/api_rest."""

    def __init__(self, address: str, *, model: str, version: int | None, timeout: float):
        self._address, self._model, self._version, self._timeout = address, model, version, timeout
        suffix = "" if version is None else f"/versions/{version}"
        self._url = f"http://{address}/v1/models/{model}{suffix}"

    def input_shape(self, signature: str, name: str) -> list[int]:
        signatures = self._call(f"{self._url}/metadata")["metadata"]["signature_def"]["signature_def"]
        if signature not in signatures:
            raise ServerError(_no_signature(self._model, signature, signatures))
        return [int(size["size"]) for size in signatures[signature]["inputs"][name]["tensor_shape"]["dim"]]

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {name: _as_json(value.tolist()) for name, value in inputs.items()}
        answer = self._call(f"{self._url}:predict", {"signature_name": signature, "inputs": values})
        return {name: np.array(value) for name, value in answer["outputs"].items()}

    def _call(self, url: str, message: dict | None = None) -> dict:
        body = None if message is None else json.dumps(message).encode()
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            message = _message_of_rest(error)
            if error.code == 404:
                raise ServerError(_unknown(self._address, self._model, self._version, message)) from error
            what = "refused the request" if error.code == 400 else f"failed with {error.code}"
            raise ServerError(f"the server {what}: {message}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise ServerError(_late(self._address, self._timeout)) from error
            raise ServerError(_not_there(self._address, "rest", _shortened(str(reason) or repr(reason)))) from error


SERVERS = {"grpc": GrpcServer, "rest": RestServer}


def _as_json(value):
    """Nested lists with bytes as REST wants them."""
    if isinstance(value, list):
        return [_as_json(part) for part in value]
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _message_of_rest(error: urllib.error.HTTPError) -> str:
    with error:
        content = error.read().decode(errors="replace")
    try:
        return _shortened(str(json.loads(content)["error"]))
    except (ValueError, KeyError, TypeError):
        return _shortened(content)


def _shortened(message: str) -> str:
    message = " ".join(message.split())
    return message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + " …"


def _not_there(address: str, protocol: str, message: str) -> str:
    return (
        f"no {protocol} server answers at {address} ({message}): is it running, and is this its {protocol} port "
        f"(usually {PORTS[protocol]})?"
    )


def _late(address: str, timeout: float) -> str:
    return f"the server at {address} did not answer within {timeout:g} seconds; give a longer --timeout."


def _unknown(address: str, model: str, version: int | None, message: str) -> str:
    which = model if version is None else f"{model}, version {version},"
    return f"the server at {address} has no model {which} ({message}); see --model and --version."


def _no_signature(model: str, signature: str, known: Mapping) -> str:
    return f"the model {model} has no signature {signature}, only {', '.join(sorted(known))}."


def clip_inputs(path: str, signature: str, clip: ClipSpec) -> dict[str, np.ndarray]:
    """What is sent for a video: `frames` bytes [1, T], or `video` uint8 [1, T, H, W, C], for such clips."""
    if signature == "serving_default":
        frames = np.stack(sampled_frames(open_source(path), clip.num_frames, clip.short_side))
        return {"video": clip_from_frames(frames, clip)[None]}
    if Path(path).is_dir():
        files = list_frame_files(path)
        frames = [files[index].read_bytes() for index in evenly_spaced_indices(len(files), clip.num_frames)]
    else:
        frames = [_to_png(frame) for frame in sampled_frames(open_source(path), clip.num_frames, clip.short_side)]
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


def _to_png(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(file, "PNG", compress_level=1)
    return file.getvalue()


def best_classes(answer: Mapping[str, np.ndarray], top: int, names: Sequence[str] | None) -> list[tuple[str, float]]:
    """(name, probability) of the `top` most probable classes of the one clip, best first."""
    if names is None and "classes" in answer and top <= answer["classes"].shape[1]:
        best = [name.decode() if isinstance(name, bytes) else str(name) for name in answer["classes"][0]]
        return list(zip(best, answer["scores"][0].tolist()))[:top]
    probabilities = answer["probabilities"][0]
    if names is not None and len(names) != len(probabilities):
        raise ConfigError(f"--class_names holds {len(names)} names, but the model has {len(probabilities)} classes.")
    return [
        (names[index] if names else f"class {index}", float(probabilities[index]))
        for index in np.argsort(-probabilities, kind="stable")[:top]
    ]


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
    parser.add_argument("--class_names", default="", help="a file with a name per line")
    parser.add_argument("--top", type=int, default=5, help="how many classes are printed")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for each answer of the server")
    parser.add_argument("--json", action="store_true", help="print one line of JSON alone")
    flags = parser.parse_args(arguments)
    if flags.top < 1 or flags.timeout <= 0 or (flags.short_side or 1) < 1:
        parser.error("--top, --timeout and --short_side: expected numbers above 0")
    return flags


def main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    flags = _parse(arguments)
    try:
        names = None
        if flags.class_names:
            names = read_text_file(flags.class_names, named=f"--class_names={flags.class_names}").splitlines()
        open_source(flags.video)  # a wrong path is told before the server is asked
        server = SERVERS[flags.protocol](
            flags.server or f"localhost:{PORTS[flags.protocol]}",
            model=flags.model,
            version=flags.version,
            timeout=flags.timeout,
        )
        clip = ClipSpec(*server.input_shape("serving_default", "video")[1:], short_side=flags.short_side)
        answer = server.predict(flags.signature, clip_inputs(flags.video, flags.signature, clip))
        best = best_classes(answer, flags.top, names)
    except (ConfigError, VideoError) as error:
        print(f"serving_client: {error}", file=sys.stderr)
        return 2
    except ServerError as error:
        print(f"serving_client: {error}", file=sys.stderr)
        return 1
    if not flags.json:
        print(*(f"{probability:.4f}  {name}" for name, probability in best), sep="\n")
        return 0
    classes = [{"name": name, "probability": probability} for name, probability in best]
    print(json.dumps({"video": flags.video, "model": flags.model, "classes": classes}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    run_program(main, name="serving_client", interrupted="no answer was waited for.")
