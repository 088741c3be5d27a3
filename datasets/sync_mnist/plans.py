"""What a SyncMNIST clip shows, before it is drawn: its digits, their paths and its label. NumPy only.

The rules, which are those of the authors' release (https://github.com/IuliaDuta/RSTG): a clip shows digits of different
classes. Its first digit goes through the digit images in order, the others are drawn at random. With probability
`out_of_step_share` all digits move on their own; else the first two move in step: at each step both make the same move.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from datasets.sync_mnist.digits import SPLITS
from datasets.sync_mnist.drawing import DIGIT_SIZE
from rstg_tf.common.errors import ConfigError

CLIPS_PER_BLOCK = 256  # clips of one block share a random generator, hence the even size: twins share it too
_MAX_REDRAWS = 20


@dataclasses.dataclass(frozen=True)
class SyncMnistSettings:
    """What the clips are like; the defaults are the release's. Sizes and moves are in pixels of the canvas."""

    num_digits: int = 5
    digit_classes: int = 10
    canvas: int = 100
    frame_size: int = 64
    num_frames: int = 10
    max_move: int = 10
    out_of_step_share: float = 1 / 92
    twin_clips: bool = False
    no_noise_parts: int = 0
    noise_parts_size: int = 8

    @property
    def class_names(self) -> tuple[str, ...]:
        return class_names(self.digit_classes)

    def check(self) -> SyncMnistSettings:
        """Returns itself. Raises ConfigError with the flag, the value found and what was expected."""
        _require_within("digit_classes", self.digit_classes, 2, 10)
        _require_within(
            "num_digits",
            self.num_digits,
            2,
            self.digit_classes,
            "the digits of a clip are of different --digit_classes",
        )
        _require_within("canvas", self.canvas, DIGIT_SIZE + 4, 1024, "a digit of 28 pixels must have room to move")
        _require_within("frame_size", self.frame_size, 8, 1024)
        _require_within("num_frames", self.num_frames, 2, 1000, "one frame shows no movement")
        _require_within("max_move", self.max_move, 1, self.canvas)
        _require_within("out_of_step_share", self.out_of_step_share, 0, 1)
        _require_within("no_noise_parts", self.no_noise_parts, 0, 1000)
        _require_within("noise_parts_size", self.noise_parts_size, 1, DIGIT_SIZE, "they are cut from digits")
        if self.twin_clips:
            _require_within(
                "out_of_step_share",
                self.out_of_step_share,
                0.5 if self.num_digits == 2 else 0,
                0.5,
                "with --twin_clips one clip of a couple at most is out of step, and of two digits, which "
                "have one pair only, one must be",
            )
        return self


@dataclasses.dataclass(frozen=True)
class ClipPlans:
    """B clips with D digits and P noise parts in T frames; every array is [B, …].

    `digit_indices` int64 [B,D]: which digit images, in drawing order; `digit_labels` int64 [B,D]: their classes;
    `positions` int64 [B,T,D,2]: row and column of each digit's upper left corner in each frame, pixels of the canvas;
    `labels` int64 [B]: the class of the clip; `noise_indices` int64 [B,P]: the digit images that noise parts are cut
    from; `noise_positions` int64 [B,T,P,2]: their corners; `digits_in_front` bool [B]: digits cover the noise parts.
    """

    digit_indices: np.ndarray
    digit_labels: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    noise_indices: np.ndarray
    noise_positions: np.ndarray
    digits_in_front: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: slice) -> ClipPlans:
        """The plans of some of the clips."""
        return ClipPlans(**{name: value[chosen] for name, value in vars(self).items()})

    @staticmethod
    def join(parts: Sequence[ClipPlans]) -> ClipPlans:
        """The plans of all parts, one after the other."""
        return ClipPlans(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def class_names(digit_classes: int) -> tuple[str, ...]:
    """'1 & 0 in step', '2 & 0 in step', '2 & 1 in step', '3 & 0 in step', …, and last 'none in step'."""
    pairs = [f"{high} & {low} in step" for high in range(digit_classes) for low in range(high)]
    return (*pairs, "none in step")


def pair_label(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The label of a pair of different digit classes, in either order: pairs (high, low) are numbered row by row."""
    high, low = np.maximum(first, second), np.minimum(first, second)
    return high * (high - 1) // 2 + low


def pairs_in_step(positions: np.ndarray) -> np.ndarray:
    """bool [B,D,D]: whether digits i and j make the same move between every two frames, from positions [B,T,D,2]."""
    moves = np.diff(positions.astype(np.int64), axis=1)  # [B,T-1,D,2]
    return (moves[:, :, :, None] == moves[:, :, None, :]).all(axis=(1, 4))


def best_guess_from_digits(digit_labels: np.ndarray, labels: np.ndarray) -> float:
    """The share of clips that the best guess names right which knows a clip's digit classes and not its movement.

    For each set of classes it always names that set's most frequent label, so it is the most that recognition of the
    digits alone can score on these very clips.
    """
    digit_sets = (1 << digit_labels).sum(axis=1)  # one bit per class that is there
    combinations, counts = np.unique(np.stack([digit_sets, labels]), axis=1, return_counts=True)
    best = {}
    for digit_set, count in zip(combinations[0], counts):
        best[digit_set] = max(best.get(digit_set, 0), count)
    return sum(best.values()) / len(labels)


def random_walks(
    generator: np.random.Generator,
    *,
    clips: int,
    steps: int,
    objects: int,
    limit: int,
    max_move: int,
    pairs: np.ndarray,
) -> np.ndarray:
    """Returns paths, int64 [B,T,O,2] with values in [0, limit].

    Starts are uniform in [0, limit]; the first frame comes after the first move. On each axis an object at p moves by a
    uniform integer from [max(-max_move, -p), min(max_move, limit - p)), the upper end excluded. The two objects of a
    pair both make one move from the intersection of their two ranges, or stay where it is empty.

    Args:
      pairs: int [B,2], the two objects that move in step, or (-1, -1) for none.
    """
    paired = np.flatnonzero(pairs[:, 0] >= 0)
    first, second = (paired, pairs[paired, 0]), (paired, pairs[paired, 1])
    position = generator.integers(0, limit + 1, size=(clips, objects, 2))
    paths = np.empty((clips, steps, objects, 2), np.int64)
    for step in range(steps):
        low = np.maximum(-max_move, -position)  # [B,O,2]
        high = np.minimum(max_move, limit - position)
        fraction = generator.random((clips, objects, 2))
        low[first] = low[second] = np.maximum(low[first], low[second])
        high[first] = high[second] = np.minimum(high[first], high[second])
        fraction[second] = fraction[first]
        move = low + (fraction * (high - low)).astype(np.int64)
        position = position + np.where(high > low, move, 0)
        paths[:, step] = position
    return paths


class RandomPlans:
    """An endless row of clips; clip k depends on the settings, the digits, `seed`, `split` and k alone."""

    def __init__(self, *, settings: SyncMnistSettings, image_labels: np.ndarray, split: str, seed: int):
        """`image_labels` int64 [n] are the classes of the digit images; those of other classes are not used."""
        self._settings = settings.check()
        self._entropy = (seed, SPLITS.index(split))
        self._images = np.flatnonzero(image_labels < settings.digit_classes)
        self._image_labels = image_labels
        self._images_of_class = [np.flatnonzero(image_labels == label) for label in range(settings.digit_classes)]
        for label, images in enumerate(self._images_of_class):
            if not images.size:
                raise ConfigError(
                    f"--digits has no image of the digit {label}; --digit_classes="
                    f"{settings.digit_classes} needs every digit below {settings.digit_classes}."
                )

    def clips(self, start: int, stop: int) -> ClipPlans:
        """The clips start ≤ k < stop."""
        parts = []
        for block in range(start // CLIPS_PER_BLOCK, -(-stop // CLIPS_PER_BLOCK)):
            offset = block * CLIPS_PER_BLOCK
            parts.append(self._block(block).select(slice(max(0, start - offset), stop - offset)))
        return ClipPlans.join(parts)

    def _block(self, block: int) -> ClipPlans:
        # A block is always drawn whole, so that its clips do not depend on how many of them are asked for.
        settings = self._settings
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*self._entropy, block))))
        digit_indices = self._draw_digits(generator, block)
        digit_labels = self._image_labels[digit_indices]
        pairs = self._draw_pairs(generator)
        in_pair = np.take_along_axis(digit_labels, np.maximum(pairs, 0), axis=1)
        none_in_step = len(settings.class_names) - 1
        labels = np.where(pairs[:, 0] < 0, none_in_step, pair_label(in_pair[:, 0], in_pair[:, 1]))
        positions = self._draw_paths(generator, pairs)
        parts = settings.no_noise_parts
        return ClipPlans(
            digit_indices=digit_indices,
            digit_labels=digit_labels,
            positions=positions,
            labels=labels,
            noise_indices=self._images[generator.integers(len(self._images), size=(CLIPS_PER_BLOCK, parts))],
            noise_positions=random_walks(
                generator,
                clips=CLIPS_PER_BLOCK,
                steps=settings.num_frames,
                objects=parts,
                max_move=settings.max_move,
                limit=settings.canvas - settings.noise_parts_size - 1,
                pairs=np.full((CLIPS_PER_BLOCK, 2), -1),
            ),
            digits_in_front=(generator.random(CLIPS_PER_BLOCK) < 0.5) | (parts == 0),
        )

    def _draw_digits(self, generator: np.random.Generator, block: int) -> np.ndarray:
        """Image indices [B,D]: the first goes through the images in order, the others are of other classes."""
        rows = np.arange(CLIPS_PER_BLOCK)
        clip = block * CLIPS_PER_BLOCK + rows
        first = self._images[(clip // 2 if self._settings.twin_clips else clip) % len(self._images)]
        order = generator.random((CLIPS_PER_BLOCK, self._settings.digit_classes))
        order[rows, self._image_labels[first]] = -1.0  # sorts first
        classes = order.argsort(axis=1)[:, : self._settings.num_digits]
        fraction = generator.random(classes.shape)
        digit_indices = np.empty(classes.shape, np.int64)
        for label, images in enumerate(self._images_of_class):
            chosen = classes == label
            digit_indices[chosen] = images[(fraction[chosen] * len(images)).astype(np.int64)]
        digit_indices[:, 0] = first
        return digit_indices[rows // 2 * 2] if self._settings.twin_clips else digit_indices

    def _draw_pairs(self, generator: np.random.Generator) -> np.ndarray:
        """Which two digits move in step: positions in drawing order [B,2], or (-1, -1) for none."""
        share = self._settings.out_of_step_share
        if not self._settings.twin_clips:
            out_of_step = generator.random(CLIPS_PER_BLOCK) <= share
            return np.where(out_of_step[:, None], -1, np.array((0, 1)))
        all_pairs = np.array(list(itertools.combinations(range(self._settings.num_digits), 2)))
        couples = CLIPS_PER_BLOCK // 2
        chosen = generator.integers(len(all_pairs), size=couples)
        other = chosen + 1 + (generator.random(couples) * (len(all_pairs) - 1)).astype(np.int64)
        pairs = all_pairs[np.stack([chosen, other % len(all_pairs)], axis=1)]  # [couples, twin, 2]
        has_none = np.flatnonzero(generator.random(couples) < 2 * share)
        pairs[has_none, generator.integers(2, size=couples)[has_none]] = -1
        return pairs.reshape(CLIPS_PER_BLOCK, 2)

    def _draw_paths(self, generator: np.random.Generator, pairs: np.ndarray) -> np.ndarray:
        """Paths [B,T,D,2] in which the digits of `pairs` move in step and, unlike the release's, surely no others."""
        settings = self._settings
        paths = np.empty((len(pairs), settings.num_frames, settings.num_digits, 2), np.int64)
        redraw = np.arange(len(pairs))
        for _ in range(_MAX_REDRAWS):
            paths[redraw] = random_walks(
                generator,
                clips=len(redraw),
                steps=settings.num_frames,
                objects=settings.num_digits,
                limit=settings.canvas - DIGIT_SIZE - 1,
                max_move=settings.max_move,
                pairs=pairs[redraw],
            )
            in_step = np.triu(pairs_in_step(paths), 1).sum(axis=(1, 2))
            redraw = np.flatnonzero(in_step != (pairs[:, 0] >= 0))
            if not redraw.size:
                return paths
        raise ConfigError(
            f"--max_move={settings.max_move}, --num_frames={settings.num_frames}, --canvas={settings.canvas}: with so "
            "little movement digits that should move on their own keep moving in step by chance. Raise one of them."
        )


def _require_within(flag: str, value: float, lowest: float, highest: float, reason: str = "") -> None:
    if not lowest <= value <= highest:
        raise ConfigError(f"--{flag}={value}: expected {lowest} to {highest}{': ' if reason else ''}{reason}.")
