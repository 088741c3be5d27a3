"""A confusion matrix as a picture; matplotlib's object interface, no global state."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rstg_tf.common.shown import printable

LARGEST_NUMBERED_CLASSES = 60


def save_confusion(path: str | os.PathLike, confusion: np.ndarray, class_names: Sequence[str], *, title: str) -> None:
    """A confusion matrix [classes, classes] of counts, rows the true classes; darker for a larger share of its row.

    Up to 60 classes every cell with a clip shows its count; with more, the CSV beside it has them.
    """
    classes = len(class_names)
    numbered = classes <= LARGEST_NUMBERED_CLASSES
    inches = max(5.0, (0.36 if numbered else 0.12) * classes + 2.5)
    figure = Figure(figsize=(inches, inches), dpi=100, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greys", vmin=0.0, vmax=1.0)
    names = [_shortened(printable(name)) for name in class_names]
    literally = {"parse_math": False}  # a name may hold a $
    size = 9 if numbered else 5
    axes.set_xticks(range(classes), names, rotation=90, fontsize=size, **literally)
    axes.set_yticks(range(classes), names, fontsize=size, **literally)
    axes.set_xlabel("predicted class", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    caption = f"{printable(title)}\nshade: share of the true class, white 0, black 1"
    axes.set_title(caption, fontsize=11, **literally)
    if numbered:
        for row, column in zip(*np.nonzero(confusion)):
            axes.text(
                column,
                row,
                str(confusion[row, column]),
                ha="center",
                va="center",
                fontsize=8 if classes > 12 else 11,
                color="white" if shares[row, column] > 0.5 else "black",
            )
    figure.savefig(path)


def _shortened(name: str, length: int = 40) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
