"""The restricted unpickler: data comes through unchanged, everything else is refused before it is called."""

from __future__ import annotations

import collections
import functools
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from rstg_tf.common.safe_pickle import RefusedPickleError, load_pickle, load_pickle_stream

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(content: bytes, **options):
    return load_pickle_stream(io.BytesIO(content), **options)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_scalars_and_containers_come_back_equal_in_every_protocol(protocol):
    counts = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    shared = np.array([1.5, -2.5])
    data = {
        "counts": counts,
        "fortran": np.asfortranarray(counts),
        "strided": counts[:, ::2],
        "twice": [shared, shared],
        "empty": np.zeros((1, 5, 0, 2), np.int64),
        "zero_dimensional": np.array(7),
        "flags": np.array([True, False]),
        "big_endian": shared.astype(">f8"),
        "names": np.array(["Holding", "é"]),
        "scalar": np.float32(0.1),
        "label": np.int64(45),
        (1, "key"): {None, True, 2**70},
        "tuple": (b"\x00\xff", "text", 1.25, 1j, frozenset((1, 2)), bytearray(b"x")),
        np.int64(3): collections.OrderedDict([("b", 1), ("a", [])]),
    }
    loaded = load(pickle.dumps(data, protocol))
    assert list(loaded) == list(data)
    for key, expected in data.items():
        if isinstance(expected, np.ndarray):
            assert loaded[key].dtype == expected.dtype, key
            assert loaded[key].flags.writeable, key
            np.testing.assert_array_equal(loaded[key], expected)
    np.testing.assert_array_equal(loaded["twice"][1], shared)
    assert (loaded["scalar"], loaded["label"]) == (np.float32(0.1), 45)
    assert loaded[1, "key"] == data[1, "key"]
    assert loaded["tuple"] == data["tuple"]
    assert list(loaded[3].items()) == [("b", 1), ("a", [])]


def test_an_array_that_python_2_pickled_is_read_with_latin1():
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03\x85"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\x01\x02\xfftb."
    )
    np.testing.assert_array_equal(load(content, encoding="latin1"), np.array([1, 2, 255], np.uint8))
    np.testing.assert_array_equal(load(content, encoding="bytes"), np.array([1, 2, 255], np.uint8))
    with pytest.raises(RefusedPickleError, match="ascii"):
        load(content)


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_is_refused_by_name_and_never_made(tmp_path, protocol):
    witness = tmp_path / "called"
    path = tmp_path / "evil.pickle"
    path.write_bytes(pickle.dumps({"video": Call(os.system, f"touch {witness}")}, protocol))
    with pytest.raises(RefusedPickleError, match=rf"{path}: refused (posix|nt)\.system"):
        load_pickle(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Call(eval, "1"), "eval"),
        (Call(getattr, "x", "upper"), "getattr"),
        (Call(np.load, "x.npy"), "load"),
        (functools.partial(print), "partial"),
        (Path("x"), "pathlib"),
        (print, "print"),
        (np.ma.array([1]), r"numpy\.ma"),
        (np.datetime64("2019-12-08"), "M8"),
    ],
)
def test_everything_but_plain_data_is_refused(value, name):
    with pytest.raises(RefusedPickleError, match=name):
        load(pickle.dumps(value))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_objects_and_of_records_are_refused(protocol):
    for array in (np.array([Call(os.getcwd)], object), np.array([None]), np.zeros(2, [("a", "i4"), ("b", "f8")])):
        with pytest.raises(RefusedPickleError, match="refused"):
            load(pickle.dumps(array, protocol))


def test_an_object_array_disguised_as_a_numeric_one_is_refused():
    honest = pickle.dumps(np.array([None]), 2)
    with pytest.raises(RefusedPickleError, match="given as a list"):
        load(honest.replace(b"X\x02\x00\x00\x00O8", b"X\x02\x00\x00\x00i8"))


def test_the_unpickler_itself_cannot_be_changed_by_a_pickle():
    change = b"cnumpy.core.multiarray\nscalar\n}X\x0c\x00\x00\x00__defaults__)sb."  # scalar.__defaults__ = ()
    with pytest.raises(RefusedPickleError, match="change a function"):
        load(b"\x80\x02" + change)
    with pytest.raises(RefusedPickleError):
        load(b"\x80\x02N" + change[:-2].replace(b"scalar", b"_reconstruct") + b"\x86b.")
    assert load(pickle.dumps(np.int32(5))) == 5


def test_a_reference_to_an_allowed_name_alone_is_no_data():
    for reference in (b"cnumpy\nndarray\n.", b"cnumpy.core.multiarray\nscalar\n.", b"c__builtin__\nset\n."):
        with pytest.raises(RefusedPickleError, match="bare reference"):
            load(reference)


def test_damaged_pickles_are_refused_as_unreadable():
    whole = pickle.dumps({"videos": np.arange(1000)})
    recursive = []
    recursive.append(recursive)
    for content in (b"", whole[:-1], whole[:200], b"not a pickle", pickle.dumps(recursive)):
        with pytest.raises(RefusedPickleError, match="not a readable pickle"):
            load(content)
    shortened = pickle.dumps(np.zeros(3, np.uint8), 2).replace(b"K\x03\x85", b"K\x04\x85")
    with pytest.raises(RefusedPickleError, match="3 bytes of content"):
        load(shortened)


def _shared_tuples():
    # Each of 30 tuples holds the one before it twice: 2**30 places, a few hundred bytes.
    return (
        b"\x80\x02)"
        + b"".join(b"q" + bytes([number]) + b"h" + bytes([number]) + b"\x86" for number in range(30))
        + b"."
    )


def test_objects_that_are_shared_very_often_are_looked_at_once():
    value, depth = load(_shared_tuples()), 0
    while value:
        assert value[0] is value[1]
        value, depth = value[0], depth + 1
    assert depth == 30


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"Np2000000000\n.",
        b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x50\x85R.",
        b"\x80\x02cbuiltins\nbytes\nJ\x00\x00\x00\x50\x85R.",
        b"\x80\x05\x96\x00\x00\x00\x00\x01\x00\x00\x00.",
        b"\x80\x02]q\x00h\x00a.",
    ],
    ids=["LONG_BINPUT", "PUT", "bytearray", "bytes", "BYTEARRAY8", "itself"],
)
def test_numbers_that_ask_for_memory_and_containers_without_end_are_refused(content):
    with pytest.raises(RefusedPickleError):
        load(content)
