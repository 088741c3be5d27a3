"""Reads pickles that hold data only: NumPy arrays and scalars, plain containers, strings and numbers.

A pickle is a program: loading one can call any function that can be imported. The loader here knows the few names that
NumPy's own data needs and refuses every other before anything is called. NumPy only; no TensorFlow.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from typing import Any, BinaryIO

import numpy as np

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import open_regular

LARGEST_PICKLE = 256 << 20  # bytes; the release's largest has 30 million
LARGEST_CODES = 20_000_000

_PLAIN_KINDS = "biufcSU"  # bool, int, unsigned, float, complex, bytes, str


class RefusedPickleError(pickle.UnpicklingError):
    """The pickle is damaged or asks for something that is not plain data. The message names it."""


def load_pickle(path: str | os.PathLike, *, encoding: str = "ASCII", limit: int = LARGEST_PICKLE) -> Any:
    """Returns the object in the file `path`.

    Args:
        path: the file.
        encoding: how 8-bit strings of Python 2 are read: "ASCII", "latin1" (needed for NumPy arrays that Python 2
            pickled) or "bytes", as for `pickle.load`.
        limit: bytes of the largest file that is read.

    Raises:
        RefusedPickleError: names the file and what was refused.
    """
    try:
        with open_regular(path, named="the file") as file:
            return load_pickle_stream(file, encoding=encoding, limit=limit)
    except (RefusedPickleError, ConfigError) as error:
        raise RefusedPickleError(f"{os.fspath(path)}: {error}") from None


def load_pickle_stream(stream: BinaryIO, *, encoding: str = "ASCII", limit: int = LARGEST_PICKLE) -> Any:
    """`load_pickle` for an open binary stream."""
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise RefusedPickleError(f"has more than the {limit} bytes that are read at most.")
    try:
        _check_codes(content)
        return _Checker().check(_DataUnpickler(io.BytesIO(content), fix_imports=False, encoding=encoding).load())
    except RefusedPickleError:
        raise
    # A damaged stream makes the unpickler raise almost anything: EOFError, IndexError, KeyError, ValueError, ...
    except Exception as error:
        raise RefusedPickleError(f"not a readable pickle ({type(error).__name__}: {error}).") from error


def _check_codes(content: bytes) -> None:
    """Goes through the pickle as a list of codes, which builds nothing: numbers that ask for memory are refused."""
    for count, (code, argument, place) in enumerate(pickletools.genops(content)):
        if count > LARGEST_CODES:
            raise RefusedPickleError(f"has more than {LARGEST_CODES} parts.")
        # A place in the memo beyond what can have been filled makes Python's reader fill all places up to it.
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= count:
            raise RefusedPickleError(f"byte {place}: refused the memo's place {argument} after {count} parts.")


def _bytes_of(content: Any = b"", encoding: Any = "") -> bytes:
    """`bytes` of bytes or text alone: of a number it would be as many zeros."""
    if isinstance(content, (bytes, bytearray)):
        return bytes(content)
    if isinstance(content, str) and encoding in ("latin1", "latin-1"):
        return content.encode("latin1")
    if isinstance(content, (list, tuple)) and all(isinstance(byte, int) for byte in content):
        return bytes(content)
    raise RefusedPickleError(f"refused bytes made of a {type(content).__name__}.")


def _bytearray_of(content: Any = b"", encoding: Any = "") -> bytearray:
    return bytearray(_bytes_of(content, encoding))


class _Dtype:
    """Stands in for `numpy.dtype` while loading; `.dtype` is the checked one."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(text, str) or np.dtype(text).kind not in _PLAIN_KINDS:
            raise RefusedPickleError(f"refused a NumPy array or scalar of dtype {code!r}: only numbers and strings.")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        # (version, byte order, sub-array, field names, fields, item size, alignment, flags)
        if any(part is not None for part in state[2:5]):
            raise RefusedPickleError("refused a NumPy array of a structured dtype: only numbers and strings.")
        byte_order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array:
    """Stands in for `numpy.ndarray` while loading; `_check` puts `.array` in its place."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        # (version, shape, dtype, Fortran order, raw bytes)
        _, shape, dtype, fortran_order, content = state
        raw = _raw_bytes(content)
        if not isinstance(dtype, _Dtype):
            raise RefusedPickleError("refused a NumPy array without a dtype of its own.")
        if len(raw) != math.prod(shape) * dtype.dtype.itemsize:
            raise RefusedPickleError(f"a NumPy array of shape {shape}, {dtype.dtype}, has {len(raw)} bytes of content.")
        # A bytearray, not bytes: the array can be written to, as one that NumPy had unpickled.
        self.array = np.ndarray(shape, dtype.dtype, bytearray(raw), order="F" if fortran_order else "C")


def _raw_bytes(content: Any) -> bytes:
    """An object array holds a list of objects here: refused."""
    if isinstance(content, str):  # from Python 2, read with encoding "latin1"
        content = content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)):
        raise RefusedPickleError(f"refused NumPy data given as a {type(content).__name__}: only raw numbers are read.")
    return content


def _reconstruct_array(subtype: Any, shape: Any, code: Any) -> _Array:
    if subtype is not _Array:
        raise RefusedPickleError(f"refused a NumPy array of the type {subtype!r}.")
    return _Array()


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """How NumPy stores contiguous arrays in pickle protocol 5."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", buffer))
    return array


def _scalar(dtype: Any, content: Any = b"") -> Any:
    array = _Array()
    array.__setstate__((1, (1,), dtype, False, content))
    return array.array[0]


def _encode_latin1(text: Any, encoding: Any) -> bytes:
    """Protocols 0 to 2 store bytes as `_codecs.encode(text, "latin1")`."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError(f"refused _codecs.encode with encoding {encoding!r}.")
    return text.encode("latin1")


def _refuse_state(state: Any) -> None:
    raise RefusedPickleError("refused to change a function.")


# The opcode BUILD sets attributes of whatever lies on the stack; a `__setstate__` of its own takes a function's place.
for _function in (_reconstruct_array, _array_from_buffer, _scalar, _encode_latin1, _bytes_of, _bytearray_of):
    _function.__setstate__ = _refuse_state

_ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode_latin1,
    ("collections", "OrderedDict"): dict,
    **{
        (module, name): kind
        for module in ("builtins", "__builtin__")
        for name, kind in (
            ("set", set),
            ("frozenset", frozenset),
            ("bytes", _bytes_of),
            ("bytearray", _bytearray_of),
            ("complex", complex),
        )
    },
}


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise RefusedPickleError(
                f"refused {module}.{name}: only NumPy arrays and scalars, plain containers, strings and numbers."
            )
        return _ALLOWED[module, name]

    def persistent_load(self, identifier: Any) -> Any:
        raise RefusedPickleError(f"refused the persistent object {identifier!r}.")


class _Checker:
    """Puts arrays in the place of their stand-ins; refuses stand-ins that never became data.

    Each object is looked at once, however often it is shared: a few bytes can share one in another a billion times.
    """

    def __init__(self):
        self._checked: dict[int, tuple[Any, Any]] = {}  # by id: the object, which keeps its id taken, and its result
        self._open: set[int] = set()

    def check(self, value: Any) -> Any:
        """`value` with all that is in it as data."""
        if isinstance(value, (str, bytes, bytearray, int, float, complex, np.generic, type(None))):
            return value
        if id(value) not in self._checked:
            if id(value) in self._open:
                raise RefusedPickleError("not a readable pickle (a container holds itself).")
            self._open.add(id(value))
            self._checked[id(value)] = (value, self._data(value))
            self._open.discard(id(value))
        return self._checked[id(value)][1]

    def _data(self, value: Any) -> Any:
        if isinstance(value, _Array):
            if value.array is None:
                raise RefusedPickleError("a NumPy array without content.")
            return value.array
        if isinstance(value, _Dtype):
            return value.dtype
        if isinstance(value, dict):
            return {self.check(key): self.check(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return type(value)(self.check(item) for item in value)
        if isinstance(value, type) or callable(value):
            raise RefusedPickleError(f"refused a bare reference to {getattr(value, '__name__', value)}.")
        return value
