"""A running clip, frame by frame; see `layers.streaming_state` for what a model keeps between two frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from rstg_tf.layers.streaming_state import pack_state, packed_size, unpack_state


def packed_step(model):
    """`model.step` as one TensorFlow function, traced once: uint8 [B, H, W, C], state [B, D] -> logits, state after it.

    B may change from call to call; H, W and C are those the model was built for. Raises ConfigError as
    `model.check_streamable` does.
    """
    model.check_streamable()

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *model.video_shape[1:]], tf.uint8, name="frame"),
            tf.TensorSpec([None, packed_size(model)], tf.float32, name="state"),
        ]
    )
    def step(frame, state):
        logits, state = model.step(frame, unpack_state(model, state))
        return logits, pack_state(state)

    return step


def stream_clip(model, frames: Iterable[np.ndarray], step: Callable | None = None) -> Iterator[np.ndarray]:
    """The logits so far, float32 [classes], after each frame (uint8 [H, W, C]) of one clip of any length.

    `step`: what `packed_step(model)` returned, to trace it once for many clips. Raises ConfigError as
    `model.check_streamable` does, ValueError with the number of a frame of another size or type.
    """
    step = step or packed_step(model)
    state = tf.zeros([1, packed_size(model)])
    for number, frame in enumerate(frames):
        frame = np.asarray(frame)
        if frame.shape != model.video_shape[1:] or frame.dtype != np.uint8:
            raise ValueError(
                f"frame {number}: expected uint8 {model.video_shape[1:]}, got {frame.dtype} {frame.shape}."
            )
        logits, state = step(tf.constant(frame[None]), state)
        yield logits.numpy()[0]
