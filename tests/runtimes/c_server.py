"""The C program of this folder, compiled and started on a SavedModel, and a client that speaks its protocol."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import struct
import subprocess
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

SOURCE = pathlib.Path(__file__).with_name("serve.c")
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
STRING = tf.string.as_datatype_enum
PATIENCE = 120  # seconds


class Refused(Exception):
    """The server answered with a message instead of tensors."""


class Tensor(NamedTuple):
    """As it goes over the wire: `data_type` is TensorFlow's number, `texts` one for all elements, or one per string."""

    data_type: int
    shape: tuple[int, ...]
    texts: list[bytes]

    @classmethod
    def of(cls, value) -> Tensor:
        """Of an array or a number of NumPy's; an array of objects holds strings."""
        array = np.asarray(value)
        if array.dtype == object:
            return cls(STRING, array.shape, [bytes(text) for text in array.ravel()])
        return cls(tf.as_dtype(array.dtype).as_datatype_enum, array.shape, [array.tobytes()])

    def packed(self) -> bytes:
        head = struct.pack(f"<2I{len(self.shape)}q", self.data_type, len(self.shape), *self.shape)
        return head + b"".join(map(_text, self.texts))


def _text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


class Client:
    """A connection, for one thread at a time."""

    def __init__(self, port: int, signatures):
        self.signatures = signatures
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")

    def ask(self, signature: str, inputs: dict) -> dict[str, np.ndarray]:
        """The signature's outputs for named arrays or Tensors. A name it lacks is sent as it is. Raises Refused."""
        self.send(signature, inputs)
        (code,) = self._read("<I")
        if code:
            raise Refused(self._read_text().decode())
        return {name: self._read_tensor() for name in self.signatures[signature].outputs}

    def send(self, signature: str, inputs: dict) -> None:
        declared = self.signatures[signature]
        parts = [struct.pack("<2I", len(inputs), len(declared.outputs))]
        for name, value in inputs.items():
            in_graph = declared.inputs[name].name if name in declared.inputs else name
            parts += [_text(in_graph.encode()), (value if isinstance(value, Tensor) else Tensor.of(value)).packed()]
        parts += [_text(info.name.encode()) for info in declared.outputs.values()]
        self.socket.sendall(b"".join(parts))

    def _read(self, layout: str) -> tuple:
        return struct.unpack(layout, self._read_bytes(struct.calcsize(layout)))

    def _read_bytes(self, size: int) -> bytes:
        content = self.stream.read(size)
        if len(content) < size:
            raise ConnectionError("the server closed the connection in the midst of an answer")
        return content

    def _read_text(self) -> bytes:
        return self._read_bytes(*self._read("<Q"))

    def _read_tensor(self) -> np.ndarray:
        data_type, rank = self._read("<2I")
        shape = self._read(f"<{rank}q")
        if data_type == STRING:
            return np.array([self._read_text() for _ in range(np.prod(shape, dtype=int))], object).reshape(shape)
        return np.frombuffer(self._read_text(), tf.as_dtype(data_type).as_numpy_dtype).reshape(shape)

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


class Server(NamedTuple):
    process: subprocess.Popen
    port: int
    signatures: object  # as the SavedModel declares them: name -> SignatureDef

    @contextlib.contextmanager
    def client(self):
        with contextlib.closing(Client(self.port, self.signatures)) as client:
            yield client


def compile_server(folder: pathlib.Path) -> pathlib.Path:
    """The program, compiled in `folder` against the library that TensorFlow's wheel brings. Skips without gcc or it."""
    library = pathlib.Path(tf.sysconfig.get_lib())
    missing = [str(library / name) for name in LIBRARIES if not (library / name).exists()]
    if missing or shutil.which("gcc") is None:
        pytest.skip(f"no C program can be tried: {missing[0] if missing else 'gcc'} is missing")
    program = folder / "serve"
    subprocess.run(
        [
            "gcc",
            "-std=c11",
            "-D_GNU_SOURCE",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pthread",
            "-o",
            program,
            SOURCE,
            "-I",
            tf.sysconfig.get_include(),
            "-L",
            library,
            f"-Wl,-rpath,{library}",
            *(f"-l:{name}" for name in LIBRARIES),
        ],
        check=True,
        timeout=PATIENCE,
    )
    return program


@contextlib.contextmanager
def serving(program: pathlib.Path, saved_model: str):
    """A Server, while it runs. That it ends in good order when it is told to is tested by the way."""
    content = SavedModel.FromString(pathlib.Path(saved_model, "saved_model.pb").read_bytes())
    process = subprocess.Popen(
        [program, saved_model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    with process:
        try:
            line = process.stdout.readline()
            assert line, "the server did not start: its standard error says why"
            yield Server(process, int(line), content.meta_graphs[0].signature_def)
            process.stdin.close()
            assert process.wait(timeout=PATIENCE) == 0
        finally:
            process.kill()
