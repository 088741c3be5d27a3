"""The clips of the authors' released test set, from their file of predefined paths. NumPy only.

With MNIST's test digits the file `predefined_path_test.pickle` of https://github.com/IuliaDuta/RSTG determines that
test set to the bit.
"""

from __future__ import annotations

import os

import numpy as np

from datasets.sync_mnist.drawing import DIGIT_SIZE
from datasets.sync_mnist.plans import ClipPlans, SyncMnistSettings, pair_label
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.safe_pickle import RefusedPickleError, load_pickle

_RELEASE_KEYS = (
    "ind_digits",
    "set_digits",
    "coords_digits",
    "sincron_prob",
    "digit_position",
    "ind_rand_part",
    "noise_coords",
)


class ReleasedPlans:
    """The clips of such a file, with the interface of `RandomPlans`; `num_clips` of them."""

    def __init__(self, path: str | os.PathLike, *, settings: SyncMnistSettings, image_labels: np.ndarray):
        """Reads and checks the file.

        Args:
          path: a pickle of arrays [repetitions, clips, …] under the release's names.
          settings: must agree with the file in the numbers of digits, frames and noise parts.
          image_labels: classes of the digit images that the file's `ind_digits` count.

        Raises:
          ConfigError: naming the file and what is wrong with it or does not fit the settings or digits.
        """
        settings.check()
        arrays = _read_release_arrays(path)
        expected = {
            "ind_digits": (settings.num_digits,),
            "set_digits": (settings.num_digits - 1,),
            "sincron_prob": (),
            "coords_digits": (settings.num_frames, settings.num_digits, 2),
            "digit_position": (),
            "ind_rand_part": (settings.no_noise_parts,),
            "noise_coords": (settings.num_frames, settings.no_noise_parts, 2),
        }
        for name, shape in expected.items():
            if arrays[name].shape[1:] != shape:
                raise ConfigError(
                    f"--paths={path}: {name} is {list(arrays[name].shape[1:])} per clip, but --num_digits, "
                    f"--num_frames and --no_noise_parts ask for {list(shape)}."
                )
        room = settings.canvas - np.array((DIGIT_SIZE, settings.noise_parts_size))
        for name, highest in (
            ("ind_digits", len(image_labels) - 1),
            ("ind_rand_part", len(image_labels) - 1),
            ("coords_digits", room[0]),
            ("noise_coords", room[1]),
            ("sincron_prob", 1),
        ):
            values = arrays[name]
            if values.size and not 0 <= values.min() <= values.max() <= highest:
                raise ConfigError(
                    f"--paths={path}: {name} holds {values.min()}…{values.max()}, expected 0…{highest} "
                    "for these --digits and this --canvas."
                )
        self._plans = _plans_from_release(path, arrays, settings, image_labels)
        self.num_clips = len(self._plans)

    def clips(self, start: int, stop: int) -> ClipPlans:
        """The clips start ≤ k < stop."""
        return self._plans.select(slice(start, stop))


def _read_release_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The release's arrays as int64, their axes of repetitions and clips made one."""
    try:
        content = load_pickle(path)
    except OSError as error:
        raise ConfigError(f"--paths={path}: {error.strerror}.") from None
    except RefusedPickleError as error:
        raise ConfigError(f"--paths={error}") from None
    missing = [key for key in _RELEASE_KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ConfigError(f"--paths={path}: no file of the release's predefined paths, {', '.join(missing)} missing.")
    arrays = {}
    for key in _RELEASE_KEYS:
        value = content[key]
        if not isinstance(value, np.ndarray) or value.ndim < 2 or value.dtype.kind not in "iu":
            raise ConfigError(f"--paths={path}: {key} is no array of integers [repetitions, clips, …].")
        arrays[key] = (
            value.reshape(-1, *value.shape[2:]).astype(np.int64)
            if value.size
            else np.zeros((value.shape[0] * value.shape[1], *value.shape[2:]), np.int64)
        )
    if len({len(array) for array in arrays.values()}) != 1:
        raise ConfigError(f"--paths={path}: its arrays are for different numbers of clips.")
    return arrays


def _plans_from_release(
    path: str | os.PathLike, arrays: dict[str, np.ndarray], settings: SyncMnistSettings, image_labels: np.ndarray
) -> ClipPlans:
    digit_labels = image_labels[arrays["ind_digits"]]
    wrong = np.flatnonzero((digit_labels[:, 1:] != arrays["set_digits"]).any(axis=1))
    if wrong.size:
        raise ConfigError(
            f"--paths={path}: was made for other digits than --digits: in {len(wrong)} clips, the first "
            f"of them clip {wrong[0]}, the images are not of the classes that the file says."
        )
    if digit_labels.max() >= settings.digit_classes:
        raise ConfigError(
            f"--paths={path}: shows the digit {digit_labels.max()}, but --digit_classes={settings.digit_classes}."
        )
    labels = pair_label(digit_labels[:, 0], digit_labels[:, 1])
    return ClipPlans(
        digit_indices=arrays["ind_digits"],
        digit_labels=digit_labels,
        positions=arrays["coords_digits"],
        labels=np.where(arrays["sincron_prob"] == 1, labels, len(settings.class_names) - 1),
        noise_indices=arrays["ind_rand_part"],
        noise_positions=arrays["noise_coords"],
        digits_in_front=arrays["digit_position"] == 1,
    )
