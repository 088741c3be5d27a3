"""gRPC and REST servers of an exported model, for tests of the client. They are NOT TensorFlow Serving.

They speak its messages (the gRPC service and protos of tensorflow-serving-api; the paths and JSON of its REST API) and
run the SavedModel in this process, in the eager runtime. So they prove what the client sends and how it reads answers
and errors, not how TF Serving itself loads, batches or words anything.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import pathlib
import threading
from concurrent import futures

import grpc
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.predict_pb2 import PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)


class UnknownModelError(Exception):
    pass


class StandInModel:
    """One version of one model. While `asleep` is set, answers wait."""

    def __init__(self, name, path):
        self.name, self.version = name, int(pathlib.Path(path).name)
        self.loaded = tf.saved_model.load(path).signatures
        content = SavedModel.FromString(pathlib.Path(path, "saved_model.pb").read_bytes())
        declared = content.meta_graphs[0].signature_def
        self.declared = SignatureDefMap(signature_def={name: declared[name] for name in self.loaded})
        self.asleep, self.awake = threading.Event(), threading.Event()

    def check(self, name, version=None):
        if name != self.name or version not in (None, self.version):
            raise UnknownModelError(f"Servable not found for request: {name} {version or 'Latest'}")

    def predict(self, signature, inputs):
        if self.asleep.is_set():
            self.awake.wait(timeout=60)
        specs = self.loaded[signature].structured_input_signature[1]
        return self.loaded[signature](**{name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()})


class _GrpcService(PredictionServiceServicer):
    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        with self._refusals(context):
            self._check(request)
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            outputs = self.model.predict(request.model_spec.signature_name, inputs)
            return PredictResponse(outputs={name: tf.make_tensor_proto(value) for name, value in outputs.items()})

    def GetModelMetadata(self, request, context):
        with self._refusals(context):
            self._check(request)
            response = GetModelMetadataResponse()
            response.metadata["signature_def"].Pack(self.model.declared)
            return response

    def _check(self, request):
        spec = request.model_spec
        self.model.check(spec.name, spec.version.value if spec.HasField("version") else None)

    @contextlib.contextmanager
    def _refusals(self, context):
        try:
            yield
        except UnknownModelError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


@contextlib.contextmanager
def grpc_server(model):
    """Its address, while it runs."""
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]  # as TF Serving has it
    server = grpc.server(futures.ThreadPoolExecutor(4), options=unlimited)
    add_PredictionServiceServicer_to_server(_GrpcService(model), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _handler(model):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            declared = json_format.MessageToDict(model.declared, preserving_proto_field_name=True)
            self._answer(lambda: {"metadata": {"signature_def": declared}}, suffix="/metadata")

        def do_POST(self):
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(lambda: {"outputs": _outputs(model, message)}, suffix=":predict")

        def _answer(self, make, suffix):
            status, content = 200, None
            try:
                self._check(suffix)
                content = make()
            except UnknownModelError as error:
                status, content = 404, {"error": str(error)}
            except tf.errors.InvalidArgumentError as error:
                status, content = 400, {"error": str(error)}
            body = json.dumps(content).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def _check(self, suffix):
            head, _, rest = self.path.partition("/v1/models/")
            if head or not rest.endswith(suffix):
                raise UnknownModelError(f"Malformed request: {self.path}")
            name, _, version = rest[: -len(suffix)].partition("/versions/")
            model.check(name, int(version) if version else None)

        def log_message(self, *arguments):
            pass

    return Handler


def _outputs(model, message):
    inputs = {name: _from_json(value) for name, value in message["inputs"].items()}
    outputs = model.predict(message["signature_name"], inputs)
    return {name: _to_json(value.numpy().tolist()) for name, value in outputs.items()}


def _from_json(value):
    if isinstance(value, list):
        return [_from_json(part) for part in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def _to_json(value):
    if isinstance(value, list):
        return [_to_json(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value


@contextlib.contextmanager
def rest_server(model):
    """Its address, while it runs."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(model))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
