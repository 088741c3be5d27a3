"""Handwritten digits, 28×28: scikit-learn's (no download), Keras' MNIST, or MNIST's own IDX files in a folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import read_bytes

SPLITS = ("train", "test")
IMAGE_SIZE = 28
LARGEST_IDX = 256 << 20  # bytes of a file, packed and unpacked; MNIST's largest has 47 million

_SKLEARN_SPLIT_SEED = 2019  # one split for everybody: a test digit must never be a training digit of another run
_SKLEARN_TRAIN_SHARE = 0.75
_IDX_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_UNSIGNED_BYTE = 0x08


def load_digit_images(source: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits of one split; train and test never share an image.

    Args:
      source: `sklearn`: the 1,797 digits that come with scikit-learn, three quarters of each class for training;
        `mnist`: Keras' copy of MNIST, downloaded on first use; `idx:DIR`: MNIST's files in the folder DIR, named as
        their authors named them (`train-images-idx3-ubyte`, …), gzipped or not.
      split: `train` or `test`.

    Returns:
      images uint8 [n, 28, 28], white (255) on black (0), the digit within the central 20×20; labels int64 [n], 0…9.

    Raises:
      ConfigError: for an unknown source or split, a failed download, missing or damaged files.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split={split}: expected one of {', '.join(SPLITS)}.")
    if source == "sklearn":
        return _load_sklearn(split)
    if source == "mnist":
        return _load_keras_mnist(split)
    if source.startswith("idx:") and source != "idx:":
        return _load_idx_folder(Path(source[len("idx:") :]).expanduser(), split)
    raise ConfigError(f"--digits={source}: expected sklearn, mnist, or idx:DIR with the folder of MNIST's IDX files.")


def digits_sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 (hex) of the images' bytes followed by the labels as little-endian int64: identifies a set of digits."""
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


def _load_sklearn(split: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # takes a second to import, and only this source needs it

    small, labels = load_digits(return_X_y=True)
    chosen = _split_by_class(labels, split)
    images = np.stack([enlarge_digit(image) for image in small[chosen].reshape(-1, 8, 8)])
    return images, labels[chosen].astype(np.int64)


def _split_by_class(labels: np.ndarray, split: str) -> np.ndarray:
    """Sorted indices of the images of one split: the same share of every class, drawn with a fixed seed."""
    # PCG64 by name: what `default_rng` stands for may change with NumPy's version, and the split must not.
    generator = np.random.Generator(np.random.PCG64(_SKLEARN_SPLIT_SEED))
    chosen = []
    for label in range(10):
        shuffled = generator.permutation(np.flatnonzero(labels == label))
        train_count = round(_SKLEARN_TRAIN_SHARE * len(shuffled))
        chosen.append(shuffled[:train_count] if split == "train" else shuffled[train_count:])
    return np.sort(np.concatenate(chosen))


def enlarge_digit(small: np.ndarray) -> np.ndarray:
    """An 8×8 digit of values 0…16 as 28×28 uint8: bicubic to 20×20, as large as MNIST's digits, in a border of 4.

    Bicubic enlargement leaves the strokes grey; MNIST's are white with narrow grey edges. Doubling the contrast around
    the middle grey gives them about the same share of inked (≥ 10) and of white pixels as MNIST has.
    """
    full_range = np.rint(small * (255 / 16)).astype(np.uint8)
    grey = np.asarray(Image.fromarray(full_range).resize((20, 20), Image.BICUBIC), np.float64)
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    image[4:24, 4:24] = np.rint(np.clip(2 * (grey - 127.5) + 127.5, 0, 255))
    return image


def _load_keras_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    from tensorflow import keras

    try:
        train, test = keras.datasets.mnist.load_data()
    # Keras raises a bare Exception when a download fails, and OSError or ValueError for a damaged cached file.
    except Exception as error:
        raise ConfigError(
            f"--digits=mnist: Keras could not download MNIST or read its copy ({error}). Without network give "
            "--digits=sklearn, or --digits=idx:DIR with MNIST's own files."
        ) from error
    images, labels = train if split == "train" else test
    return images, labels.astype(np.int64)


def _load_idx_folder(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    if not folder.is_dir():
        raise ConfigError(f"--digits=idx:{folder}: there is no such folder.")
    images_path = _find_idx(folder, f"{_IDX_PREFIXES[split]}-images", "idx3-ubyte")
    labels_path = _find_idx(folder, f"{_IDX_PREFIXES[split]}-labels", "idx1-ubyte")
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise ConfigError(f"{images_path}: images of {images.shape[1]}×{images.shape[2]} pixels, expected 28×28.")
    if len(images) != len(labels):
        raise ConfigError(f"{images_path} holds {len(images)} images, but {labels_path} {len(labels)} labels.")
    if not len(labels) or labels.max() > 9:
        raise ConfigError(
            f"{labels_path}: expected labels 0…9, found "
            + (f"a label {labels.max()}." if len(labels) else "none at all.")
        )
    return images, labels.astype(np.int64)


def _find_idx(folder: Path, stem: str, kind: str) -> Path:
    # Some tools unpack the files under a name with a dot in place of the second hyphen.
    names = [f"{stem}{separator}{kind}{packed}" for separator in "-." for packed in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"--digits=idx:{folder}: found none of {', '.join(names)} there.")


def read_idx(path: str | os.PathLike, *, dimensions: int, limit: int = LARGEST_IDX) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not; the format is on http://yann.lecun.com/exdb/mnist.

    Two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
    integer, then the values, last dimension fastest.

    Returns:
      uint8, with `dimensions` dimensions.

    Raises:
      ConfigError: naming the file, for another type or number of dimensions, or a size that does not fit.
    """
    content = read_bytes(path, named=str(path), limit=limit)
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{path}: damaged gzip file ({error}). Download it again.") from None
    if len(content) > limit:
        raise ConfigError(f"{path}: unpacks to more than {limit} bytes, the most that is read.")
    header_size = 4 + 4 * dimensions
    expected = bytes((0, 0, _IDX_UNSIGNED_BYTE, dimensions))
    if content[:4] != expected:
        raise ConfigError(
            f"{path}: begins with {content[:4].hex(' ') or 'nothing'}, expected {expected.hex(' ')}: not an IDX file "
            f"of unsigned bytes in {dimensions} dimension{'s' if dimensions > 1 else ''}."
        )
    if len(content) < header_size:
        raise ConfigError(f"{path}: ends inside its header. Download it again.")
    shape = struct.unpack(f">{dimensions}I", content[4:header_size])
    values = np.frombuffer(content, np.uint8, offset=header_size)
    if values.size != math.prod(shape):
        raise ConfigError(
            f"{path}: {values.size} values, but its header says {'×'.join(map(str, shape))}. Download it again."
        )
    return values.reshape(shape)
