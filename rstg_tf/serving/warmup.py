"""Requests that a server runs on a model before it takes others, so that no client waits for the first, slow answer.

    assets.extra/tf_serving_warmup_requests    TFRecord of tensorflow.serving.PredictionLog

See https://www.tensorflow.org/tfx/serving/saved_model_warmup. They hold a drawn clip, or on request a recorded one.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from rstg_tf.common.spacing import evenly_spaced_indices
from rstg_tf.serving.request_clips import clips_from_frames
from rstg_tf.video.clip_spec import ClipSpec

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


class EncodedClip(NamedTuple):
    """A clip's frames as PNG or JPEG files, as many as the served model sees, and in words where they come from."""

    frames: list[bytes]
    source: str


def example_clip(directories: Iterable[str], clip: ClipSpec) -> EncodedClip:
    """The first clip of the first of these data sets that has one which the model can take; else a drawn one.

    The words name no folder: they travel with the model.
    """
    reasons = []
    for directory in filter(None, directories):
        try:
            found = recorded_clip(directory, clip)
            # As a graph, for the message: op by op a failed check tells no words, but a tensor.
            tf.function(clips_from_frames, autograph=False)(tf.constant([found.frames]), clip)
            return found
        except (OSError, ValueError, tf.errors.OpError) as error:
            reasons.append(_in_a_line(error).replace(str(directory), "its folder"))
    return drawn_clip(clip, because="; ".join(reasons) or "no recorded one was asked for")


def _in_a_line(error: Exception) -> str:
    _, is_check, message = str(error).partition("assertion failed: ")
    return (message if is_check else str(error)).splitlines()[0]


def recorded_clip(directory: str, clip: ClipSpec) -> EncodedClip:
    """The first clip in the TFRecord shards of `directory`, of which T frames at even distances.

    The records are MediaSequence's: feature list image/encoded, context clip/media_id.
    Raises FileNotFoundError without shards, ValueError for records without frames.
    """
    shards = sorted(map(str, Path(directory).glob("*.tfrecord")))
    if not shards:
        raise FileNotFoundError("no *.tfrecord there")
    for serialized in tf.data.TFRecordDataset(shards[:1]).take(1).as_numpy_iterator():
        example = tf.train.SequenceExample.FromString(serialized)
        steps = example.feature_lists.feature_list["image/encoded"].feature
        images = [step.bytes_list.value[0] for step in steps]
        if images:
            chosen = evenly_spaced_indices(len(images), clip.num_frames)
            [name] = example.context.feature["clip/media_id"].bytes_list.value or [b"first"]
            return EncodedClip(
                [images[index] for index in chosen], f"clip {name.decode(errors='backslashreplace')} of the run's data"
            )
    raise ValueError(f"{shards[0]} begins with no clip")


def drawn_clip(clip: ClipSpec, *, because: str) -> EncodedClip:
    """A bright square that moves over noise, as PNG."""
    generator = np.random.default_rng(0)
    side = max(1, min(clip.height, clip.width) // 4)
    frames = []
    for step in range(clip.num_frames):
        pixels = generator.integers(0, 64, (clip.height, clip.width, clip.channels), np.uint8)
        left = (clip.width - side) * step // max(clip.num_frames - 1, 1)
        pixels[side : 2 * side, left : left + side] = 255
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if clip.channels == 1 else pixels).save(file, "PNG")
        frames.append(file.getvalue())
    return EncodedClip(frames, f"drawn ({because})")


def write_warmup(folder: str, model_name: str, requests: Mapping[str, Mapping[str, tf.Tensor]]) -> None:
    """Writes one request per signature name (to its named inputs) into the SavedModel in `folder`."""
    path = Path(folder, WARMUP_FILE)
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, inputs in requests.items():
            request = PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = model_name, signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = PredictionLog()
            log.predict_log.request.CopyFrom(request)
            file.write(log.SerializeToString())
