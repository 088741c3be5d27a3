"""Digit images: what each source gives, that splits share nothing, and how damaged files are refused."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from datasets.sync_mnist.digits import digits_sha256, enlarge_digit, load_digit_images, read_idx
from rstg_tf.common.errors import ConfigError


def idx_bytes(array: np.ndarray, *, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """Three training digits, unpacked, and two test digits, gzipped under the names with a dot."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (5, 28, 28), np.uint8)
    labels = np.array([3, 1, 4, 1, 9], np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(images[:3]))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels[:3]))
    (tmp_path / "t10k-images.idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images[3:])))
    (tmp_path / "t10k-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels[3:])))
    return tmp_path, images, labels


def test_sklearn_digits_are_split_three_to_one_within_every_class():
    train_images, train_labels = load_digit_images("sklearn", "train")
    test_images, test_labels = load_digit_images("sklearn", "test")
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        assert (images.dtype, labels.dtype, images.shape) == (np.uint8, np.int64, (len(labels), 28, 28))
    train, test = np.bincount(train_labels), np.bincount(test_labels)
    np.testing.assert_array_equal(train + test, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])  # UCI's counts
    np.testing.assert_array_less(np.abs(train - 0.75 * (train + test)), 0.51)


def test_no_sklearn_digit_is_in_both_splits():
    train, _ = load_digit_images("sklearn", "train")
    test, _ = load_digit_images("sklearn", "test")
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_sklearn_digits_are_the_same_each_time():
    first, second = load_digit_images("sklearn", "test"), load_digit_images("sklearn", "test")
    assert digits_sha256(*first) == digits_sha256(*second)
    assert digits_sha256(*first) != digits_sha256(first[0], first[1][::-1])


def test_an_enlarged_digit_fills_the_central_square_from_black_to_white():
    full = enlarge_digit(np.full((8, 8), 16.0))
    assert (full[4:24, 4:24] == 255).all() and full.sum() == 400 * 255
    assert not enlarge_digit(np.zeros((8, 8))).any()
    # A quarter of full range, 64, lies 63.5 under the middle grey; doubled that is 127: almost black.
    assert (enlarge_digit(np.full((8, 8), 4.0))[4:24, 4:24] <= 1).all()
    corner = np.zeros((8, 8))
    corner[0, 7] = 16.0  # the upper right corner stays the upper right corner
    row, column = np.unravel_index(enlarge_digit(corner).argmax(), (28, 28))
    assert 4 <= row <= 6 and 21 <= column <= 23


def test_sklearn_digits_are_inked_about_as_much_as_mnist(mnist_dir):
    ours, _ = load_digit_images("sklearn", "train")
    mnist, labels = load_digit_images(f"idx:{mnist_dir}", "test")
    assert labels[:5].tolist() == [7, 2, 1, 0, 4] and len(mnist) == 10_000
    for lowest in (10, 128, 250):  # transparent below 10; half; white
        assert 0.75 < (ours >= lowest).mean() / (mnist >= lowest).mean() < 1.35


def test_idx_files_are_read_packed_or_not(idx_folder):
    folder, images, labels = idx_folder
    for split, part in (("train", slice(0, 3)), ("test", slice(3, 5))):
        read_images, read_labels = load_digit_images(f"idx:{folder}", split)
        np.testing.assert_array_equal(read_images, images[part])
        np.testing.assert_array_equal(read_labels, labels[part])
        assert read_labels.dtype == np.int64


DAMAGED_IDX_FILES = {
    "empty": (b"", "begins with nothing"),
    "picture": (b"\x89PNG" + bytes(20), "begins with 89 50 4e 47, expected 00 00 08 03"),
    "dimensions": (idx_bytes(np.zeros((2, 28), np.uint8)), "in 3 dimensions"),
    "type": (idx_bytes(np.zeros((1, 28, 28), np.uint8), kind=13), "00 00 0d 03"),
    "header": (idx_bytes(np.zeros((1, 28, 28), np.uint8))[:10], "inside its header"),
    "short": (idx_bytes(np.zeros((2, 28, 28), np.uint8))[:-1], "1567 values, but its header says 2×28×28"),
    "long": (idx_bytes(np.zeros((2, 28, 28), np.uint8)) + b"x", "1569 values"),
    "gzip": (gzip.compress(idx_bytes(np.zeros((2, 28, 28), np.uint8)))[:-9], "damaged gzip"),
    "size": (idx_bytes(np.zeros((3, 27, 28), np.uint8)), "27×28 pixels, expected 28×28"),
    "count": (idx_bytes(np.zeros((2, 28, 28), np.uint8)), "2 images, but .* 3 labels"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED_IDX_FILES.values(), ids=DAMAGED_IDX_FILES)
def test_a_damaged_idx_file_is_refused_by_name(idx_folder, content, message):
    folder, _, _ = idx_folder
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ConfigError, match=f"train-images-idx3-ubyte.*{message}"):
        load_digit_images(f"idx:{folder}", "train")


def test_labels_that_are_no_digits_are_refused(idx_folder):
    folder, _, _ = idx_folder
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([1, 10, 2], np.uint8)))
    with pytest.raises(ConfigError, match="found a label 10"):
        load_digit_images(f"idx:{folder}", "train")


def test_read_idx_keeps_the_order_of_the_values(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "values").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(range(24)))
    np.testing.assert_array_equal(read_idx(tmp_path / "values", dimensions=3), values)


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("emnist", "train", "--digits=emnist: expected sklearn, mnist, or idx:DIR"),
        ("idx:", "train", "--digits=idx:: expected"),
        ("idx:/no/such/folder", "train", "no such folder"),
        ("sklearn", "valid", "--split=valid: expected one of train, test"),
    ],
)
def test_an_unknown_source_or_split_is_refused(source, split, message):
    with pytest.raises(ConfigError, match=message):
        load_digit_images(source, split)


def test_a_folder_without_the_files_is_refused_with_their_names(tmp_path):
    with pytest.raises(ConfigError, match=r"none of t10k-images-idx3-ubyte, t10k-images-idx3-ubyte\.gz"):
        load_digit_images(f"idx:{tmp_path}", "test")


def test_mnist_without_network_is_one_clear_sentence(monkeypatch):
    from tensorflow import keras

    def fail():
        raise Exception("URL fetch failure on https://storage.googleapis.com")  # what Keras raises

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(ConfigError, match="could not download MNIST .*URL fetch failure.*--digits=sklearn"):
        load_digit_images("mnist", "train")


def test_mnist_splits_are_kerass_own(monkeypatch):
    from tensorflow import keras

    splits = tuple((np.full((2, 28, 28), value, np.uint8), np.array([value, 5], np.uint8)) for value in (1, 2))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: splits)
    images, labels = load_digit_images("mnist", "test")
    assert (images == 2).all() and labels.tolist() == [2, 5] and labels.dtype == np.int64


def test_a_gzip_file_that_unpacks_to_more_than_the_limit_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(ConfigError, match="unpacks to more than 65536 bytes"):
        read_idx(path, dimensions=3, limit=1 << 16)
