"""What may be changed in a training clip without changing what happens in it: its brightness, and left for right.

All of it is a function of a clip's seed, so that a clip comes out the same however often training is resumed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import tensorflow as tf

from datasets.input_pipeline.clip_reader import fold_in

NO_MIRROR_IMAGE = -1
_SIDES = re.compile(r"\b(left|right)(?=(wards?)?\b)", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def mirrored_labels(classes: Sequence[str]) -> tuple[int, ...]:
    """The label of each class seen in a mirror, by the words of its name.

    A name without the words left and right (also leftward, rightwards) keeps its label. Otherwise the words change
    places: 'Pushing something from left to right' gets the label of 'Pushing something from right to left', and where
    no class has that name, NO_MIRROR_IMAGE: such clips are never mirrored. Upper and lower case are alike.
    """
    labels = {name.lower(): label for label, name in enumerate(classes)}
    return tuple(
        labels.get(_SIDES.sub(lambda side: _OTHER[side[1].lower()], name.lower()), NO_MIRROR_IMAGE) for name in classes
    )


def mirrored_in_words(classes: Sequence[str]) -> str:
    """A line that names the classes that a horizontal flip touches, for the user's eyes."""
    partners = mirrored_labels(classes)
    swapped = [name for label, name in enumerate(classes) if partners[label] not in (label, NO_MIRROR_IMAGE)]
    kept = [name for label, name in enumerate(classes) if partners[label] == NO_MIRROR_IMAGE]
    return (
        f"horizontal flip: classes mirrored with the label of their mirror image: {_listed(swapped)}; never "
        f"mirrored: {_listed(kept)}; mirrored with their own label: {len(classes) - len(swapped) - len(kept)}"
    )


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "0"


def flip_horizontally(
    video: tf.Tensor, label: tf.Tensor, *, seed: tf.Tensor, partners: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors every frame of a clip [T, H, W, C] with probability 1/2; its label becomes partners[label].

    Clips whose partner is NO_MIRROR_IMAGE stay as they are.
    """
    partner = tf.gather(tf.constant(partners, tf.int32), label)
    mirrored = (tf.random.stateless_uniform([], fold_in(seed, 1)) < 0.5) & (partner != NO_MIRROR_IMAGE)
    return tf.where(mirrored, tf.reverse(video, axis=[2]), video), tf.where(mirrored, partner, label)


def change_brightness(video: tf.Tensor, *, seed: tf.Tensor, brightness: float) -> tf.Tensor:
    """Adds one value, uniform in ±brightness of full scale (255), to a clip; float32 in 0…255."""
    change = 255.0 * tf.random.stateless_uniform([], fold_in(seed, 2), -brightness, brightness)
    return tf.clip_by_value(tf.cast(video, tf.float32) + change, 0.0, 255.0)
