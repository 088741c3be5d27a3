"""A TensorFlow model server as a client asks it: what a model takes, and what it answers, over gRPC or REST.

What a server answers is not trusted: it has a deadline and a largest size for each whole answer, is not followed to
other places, its certificate is verified where TLS is asked for, and shapes are checked before they are used.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import math
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rstg_tf.common.data_text import parse_json
from rstg_tf.common.shown import printable

PORTS = {"grpc": 8500, "rest": 8501}
LONGEST_MESSAGE = 400  # characters of what a server says
_ERROR_BYTES = 2**16  # of the body that comes with an error
_MOST_VALUES = 10**6  # of one output


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
            code, message = error.code(), shortened(error.details() or "")
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
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of lists of several lengths NumPy 1.23 makes objects, and warns
                return {name: np.array(value) for name, value in dict(answer["outputs"]).items()}
        except (KeyError, TypeError, ValueError, Warning) as error:
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
            raise ServerError(_not_there(self._address, "rest", shortened(str(error) or repr(error)))) from error
        if time.monotonic() >= deadline:  # it was cut off
            raise ServerError(_late(self._address))
        if len(content) > self._address.most_bytes:
            what = f"it is longer than {self._address.most_bytes} bytes (--max_answer_bytes)"
            raise ServerError(_malformed(self._address, what))
        try:
            values = parse_json(content.decode(), named="its body")
        except ValueError as error:
            raise ServerError(_malformed(self._address, shortened(str(error)))) from error
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
            place = shortened(str(answer.headers.get("Location")))
            raise ServerError(f"the server at {self._address.name} sends to {place}, which is not followed.")
        if answer.status == 404:
            raise ServerError(_unknown(self._address, self._model, self._version, message))
        what = "refused the request" if answer.status == 400 else f"failed with {answer.status}"
        raise ServerError(f"the server {what}: {message}")


def _cut_off(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _as_json(value):
    """Nested lists with bytes as REST wants them."""
    if isinstance(value, list):
        return [_as_json(part) for part in value]
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _message_of_rest(content: bytes) -> str:
    text = content.decode(errors="replace")
    try:
        return shortened(str(parse_json(text, named="error")["error"]))
    except (ValueError, KeyError, TypeError):
        return shortened(text)


def shortened(message: str) -> str:
    """What a server says on one line, of a length and in letters that a terminal can be given."""
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


SERVERS = {"grpc": GrpcServer, "rest": RestServer}
