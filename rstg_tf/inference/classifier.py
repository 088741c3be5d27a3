"""A trained network behind one face, be it a run's checkpoint or a SavedModel: clip -> logits and attention.

Needs no TensorFlow until `load`: a wrong folder is answered at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig
from rstg_tf.runs.run import Run
from rstg_tf.serving.model_versions import load_signatures
from rstg_tf.video.clip_spec import ClipSpec

LOGITS_SIGNATURE, ATTENTION_SIGNATURE = "serving_default", "attention"


@dataclasses.dataclass(frozen=True)
class Network:
    """A loaded network, and how frames become a clip for it.

    `answer`: clip uint8 [T, H, W, C] -> float32 logits [classes], and place of a graph -> attention α [K, T', N, N],
    empty unless asked for. `clip`: the clips that it takes.
    """

    answer: Callable[[np.ndarray], tuple[np.ndarray, Mapping[str, np.ndarray]]]
    clip: ClipSpec


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network that has been found, not loaded yet: its name, its classes, and `load(with_attention)`.

    `load` raises ConfigError when the weights are not there, or cannot give what is asked for.
    """

    name: str
    class_names: tuple[str, ...]
    load: Callable[[bool], Network]


def run_classifier(run: Run, *, precision: str = "float32") -> Classifier:
    """The network of a run. `precision`: see `Run.precision`."""

    def load(with_attention: bool) -> Network:
        import tensorflow as tf

        from rstg_tf.common import devices
        from rstg_tf.runs.clip_spec_of_run import clip_spec_of_run

        devices.set_precision(run.precision(precision))
        model, _ = run.load_model()

        @tf.function
        def describe(video):
            found = model.describe(video) if with_attention else {"logits": model(video, training=False)}
            return tf.cast(found["logits"], tf.float32), found.get("attention", {})

        def answer(clip: np.ndarray) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
            logits, attention = describe(tf.constant(clip[None]))
            return logits[0].numpy(), _by_place(attention)

        return Network(answer=answer, clip=clip_spec_of_run(run))

    return Classifier(name=str(run.path), class_names=run.class_names(), load=load)


def exported_classifier(path: str) -> Classifier:
    """The network of a SavedModel that `rstg_tf.export` wrote: the folder of a version, or the one of all versions.

    Raises ConfigError when there is none at `path`, or its assets/ don't tell clips and class names.
    """
    folder = _newest_version(path)
    facts = json.loads(_asset(folder, "export.json"))
    places = ExperimentConfig.from_json(_asset(folder, "experiment.json")).model.graph_places

    def load(with_attention: bool) -> Network:
        import tensorflow as tf

        try:
            signatures = load_signatures(folder)
        except (OSError, tf.errors.OpError, ValueError) as error:
            raise ConfigError(f"{folder} cannot be loaded as a SavedModel ({str(error).splitlines()[0]}).") from error
        if with_attention and ATTENTION_SIGNATURE not in signatures:
            reason = facts.get("left_out", {}).get(ATTENTION_SIGNATURE, "it was exported without")
            raise ConfigError(f"--out shows attention, but {folder} has no signature {ATTENTION_SIGNATURE!r}: {reason}")

        def answer(clip: np.ndarray) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
            video = tf.constant(clip[None])
            logits = signatures[LOGITS_SIGNATURE](video=video)["logits"][0].numpy()
            found = signatures[ATTENTION_SIGNATURE](video=video) if with_attention else {}
            return logits, _by_place(_in_order(found, places) if with_attention else {})

        return Network(answer=answer, clip=ClipSpec.from_json(facts["video"]))

    return Classifier(name=folder, class_names=tuple(_asset(folder, "class_names.txt").splitlines()), load=load)


def _by_place(attention: Mapping) -> dict[str, np.ndarray]:
    """Of one clip, α [1, K, T', N, N] -> [K, T', N, N], without places that have no space stage (K = 0)."""
    return {place: alpha[0].numpy() for place, alpha in attention.items() if alpha.shape[1]}


def _in_order(outputs: Mapping, places: Sequence[str]) -> dict:
    """The outputs attention_res3, …, or attention where there is one graph, by place, in the network's order."""
    return {place: outputs.get(f"{ATTENTION_SIGNATURE}_{place}", outputs.get(ATTENTION_SIGNATURE))
            for place in sorted(places, key=lambda place: (place == "final", place))}


def _newest_version(path: str) -> str:
    if not os.path.isdir(path):
        raise ConfigError(f"--export_dir={path}: no such folder; give what python -m rstg_tf.export wrote.")
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return os.path.normpath(path)
    versions = [int(name) for name in os.listdir(path)
                if name.isdecimal() and os.path.exists(os.path.join(path, name, "saved_model.pb"))]
    if not versions:
        raise ConfigError(f"--export_dir={path}: no SavedModel there (neither {os.path.join(path, 'saved_model.pb')} "
                          "nor a version with one).")
    return os.path.join(path, str(max(versions)))


def _asset(folder: str, name: str) -> str:
    path = os.path.join(folder, "assets", name)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise ConfigError(f"--export_dir: {path} is missing, so {folder} was not written by python -m rstg_tf.export; "
                          "give one that was.") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
