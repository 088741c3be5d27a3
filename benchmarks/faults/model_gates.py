"""The gates for models of others as targets for fuzzers: checkpoints, settings, SavedModels, requests and answers."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.faults.data_gates import pictures
from benchmarks.faults.targets import Target, file_of
from rstg_tf.common.errors import ConfigError, VideoError


def _take_checkpoint(content: bytes) -> object:
    from rstg_tf.release.checkpoint_files import read_variables

    file_of(_checkpoint()[1], "ckpt.data-00000-of-00001")
    return read_variables(str(file_of(with_checksums(content), "ckpt.index")).removesuffix(".index"))


@functools.lru_cache(maxsize=1)
def _checkpoint() -> tuple[bytes, bytes]:
    """A small one: its index, which is fuzzed, and its data."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/ckpt"
        values = [tf.constant([1.0, 2.0]), tf.constant(3, tf.int64)]
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["a/kernel", "step"], shape_and_slices=["", ""], tensors=values)
        return Path(f"{prefix}.index").read_bytes(), Path(f"{prefix}.data-00000-of-00001").read_bytes()


def with_checksums(table: bytes) -> bytes:
    """The index of a checkpoint with the checksums that its blocks should have, as far as they can be found: else
    TensorFlow would look at hardly any changed one."""
    from rstg_tf.runs import checkpoint_gate as gate

    mended = bytearray(table)
    with contextlib.suppress(ValueError, IndexError):
        places, start = [], len(table) - 48
        for _ in range(2):
            offset, size, start = gate._place(table, start)
            places.append((offset, size))
        places += [gate._place(handle, 0)[:2] for _, handle in gate._block(table, *places[1])]
        for offset, size in places:
            if offset + size + 5 <= len(table):
                checksum = _crc32c(table[offset : offset + size + 1])
                masked = (checksum >> 15 | checksum << 17) + 0xA282EAD8 & 0xFFFFFFFF
                mended[offset + size + 1 : offset + size + 5] = masked.to_bytes(4, "little")
    return bytes(mended)


def _crc32c(content: bytes) -> int:
    checksum = 0xFFFFFFFF
    for byte in content:
        checksum = checksum >> 8 ^ _crc32c_table()[(checksum ^ byte) & 0xFF]
    return checksum ^ 0xFFFFFFFF


@functools.lru_cache(maxsize=1)
def _crc32c_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


def _take_weights(content: bytes) -> object:
    """Names and shapes of a checkpoint, one `NAME SIZE SIZE …` a line."""
    from rstg_tf.release.config_matching import settings_from_weights, unknown_settings

    rows = [line.split() for line in content.decode("utf-8", "replace").splitlines()]
    shapes = {row[0]: tuple(int(size) for size in row[1:] if size.isascii() and size.isdigit()) for row in rows if row}
    return unknown_settings(settings_from_weights(shapes))


def _weights() -> list[bytes]:
    convnet = b"tower/conv0/conv2d/kernel 5 5 1 16\ntower/conv1/conv2d/kernel 5 5 16 32\ntower/pred/kernel 32 10\n"
    resnet = b"tower/resnet_i3d/backbone/conv1/kernel 5 7 7 3 64\ntower/nonlocal_conv3_1/g/kernel 1 1 512 256\n"
    return [convnet, resnet, b"tower/whole_graph_model_final/space_0/att/kernel 512 64\n" + resnet]


def _take_config(content: bytes) -> object:
    from rstg_tf.runs.run import kept_config

    return kept_config(file_of(content, "config.json"))


def _configs() -> list[bytes]:
    from rstg_tf.config import ExperimentConfig

    return [ExperimentConfig().to_json().encode()]


def _take_release_config(content: bytes) -> object:
    from rstg_tf.release.configs import config_from_release

    return config_from_release(file_of(content, "config.yaml"))


def _take_state(content: bytes) -> object:
    from rstg_tf.release.checkpoint_files import checkpoint_prefix
    from rstg_tf.runs.checkpoints import check_state_file

    folder = file_of(content, "state/checkpoint").parent
    file_of(b"", "state/ckpt-7.index")
    check_state_file(folder)
    return checkpoint_prefix(str(folder))


def _take_saved_model(content: bytes) -> object:
    from rstg_tf.serving.foreign_models import GRAPH_FILE, check_saved_model

    return check_saved_model(file_of(content, f"exported/{GRAPH_FILE}").parent)


def _saved_models() -> list[bytes]:
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    graph = model.meta_graphs.add()
    graph.object_graph_def.nodes.add().user_object.identifier = "_generic_user_object"
    constant = graph.graph_def.node.add(name="c", op="Const")
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
    for name, called in (("outer", "inner"), ("inner", "MatMul")):
        function = graph.graph_def.library.function.add()
        function.signature.name = name
        function.node_def.add(name="n", op=called).attr["f"].func.name = called
    return [model.SerializeToString()]


def _take_header(content: bytes) -> object:
    """What an exported model looks at before it decodes."""
    import tensorflow as tf

    try:
        return _header_graph()(tf.constant([content], tf.string))
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise VideoError(str(error)) from None


@functools.lru_cache(maxsize=1)
def _header_graph():
    import tensorflow as tf

    from rstg_tf.video import picture_header

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([1], tf.string)])
    def look(encoded):
        return picture_header.unpacks_to_more_than_pixels(encoded, picture_header.stored_sizes(encoded))

    return look


def _take_rest_answer(content: bytes) -> None:
    servers = _servers()

    class Body(io.BytesIO):
        status = 200

    class Answers(servers.RestServer):
        @contextlib.contextmanager
        def _answer(self, method, path, body):
            yield Body(content)

    _ask(Answers(servers.Address("localhost:1", 5.0, 1 << 20), model="rstg", version=None))


def _ask(server) -> None:
    for ask in (lambda: server.predict("serving_default", {}), lambda: server.input_shape("serving_default", "video")):
        with contextlib.suppress(_servers().ServerError):
            ask()


def _take_grpc_answer(content: bytes) -> None:
    """Bytes that are no message of the kind asked for are gRPC's own matter."""
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

    servers = _servers()

    class Answers(servers.GrpcServer):
        def _call(self, method, request):
            named = type(request).__name__.replace("Request", "Response")
            kind = getattr(predict_pb2, named, None) or getattr(get_model_metadata_pb2, named)
            try:
                return kind.FromString(content)
            except DecodeError as error:
                raise servers.ServerError(str(error)) from None

    _ask(Answers(servers.Address("localhost:1", 5.0, 1 << 20), model="rstg", version=None))


def _grpc_answers() -> list[bytes]:
    import tensorflow as tf
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

    outputs, metadata = predict_pb2.PredictResponse(), get_model_metadata_pb2.GetModelMetadataResponse()
    outputs.outputs["probabilities"].CopyFrom(tf.make_tensor_proto([[0.25, 0.75]]))
    outputs.outputs["classes"].CopyFrom(tf.make_tensor_proto([b"up", b"down"]))
    signatures = get_model_metadata_pb2.SignatureDefMap()
    video = signatures.signature_def["serving_default"].inputs["video"]
    video.tensor_shape.CopyFrom(tf.TensorShape([None, 4]).as_proto())
    metadata.metadata["signature_def"].Pack(signatures)
    return [outputs.SerializeToString(), metadata.SerializeToString()]


def _servers():
    examples = str(Path(__file__).resolve().parents[2] / "examples")
    if examples not in sys.path:
        sys.path.append(examples)
    import model_servers

    return model_servers


def _rest_answers() -> list[bytes]:
    video = {"video": {"tensor_shape": {"dim": [{"size": "-1"}, {"size": "4"}]}}}
    metadata = {"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": video}}}}}
    return [json.dumps(value).encode() for value in ({"outputs": {"probabilities": [[0.25, 0.75]]}}, metadata)]


def model_gates() -> dict[str, Target]:
    """Name -> target."""
    state = b'model_checkpoint_path: "ckpt-7"\nall_model_checkpoint_paths: "ckpt-7"\n'
    release = b"dataset: mnist\nnum_classes: 10\nlearning_rate: 1e-4\nplace_graph: final\nuse_att: dot\n"
    return {
        "checkpoint": Target(_take_checkpoint, (ConfigError,), lambda: [_checkpoint()[0]]),
        "config": Target(_take_config, (ConfigError,), _configs),
        "grpc_answer": Target(_take_grpc_answer, (), _grpc_answers),
        "header": Target(_take_header, (VideoError,), pictures),
        "release_config": Target(_take_release_config, (ConfigError,), lambda: [release]),
        "rest_answer": Target(_take_rest_answer, (), _rest_answers),
        "saved_model": Target(_take_saved_model, (ConfigError,), _saved_models),
        "state": Target(_take_state, (ConfigError,), lambda: [state]),
        "weights": Target(_take_weights, (), _weights),
    }
