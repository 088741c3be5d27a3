"""A trained network behind one face, be it a run's checkpoint or a SavedModel: clip -> logits and attention.

Needs no TensorFlow until `load`: a wrong folder is answered at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from rstg_tf.common.data_text import parse_json
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import require_inside
from rstg_tf.common.text import read_text_file
from rstg_tf.config import ExperimentConfig
from rstg_tf.runs.clip_spec_of_run import clip_spec_of_run
from rstg_tf.runs.run import Run
from rstg_tf.serving.model_versions import load_signatures
from rstg_tf.video.clip_spec import ClipSpec

LOGITS_SIGNATURE, ATTENTION_SIGNATURE = "serving_default", "attention"
_GRAPH_FILE = "saved_model.pb"


class Predictor(Protocol):
    """A trained network that has been found: its name, its classes, the clips that it takes.

    `load(with_attention=...)` first; then it is called with a clip.
    """

    name: str
    class_names: tuple[str, ...]
    clip_spec: ClipSpec

    def load(self, *, with_attention: bool) -> None:
        """Raises ConfigError when the weights are not there, or cannot give what is asked for."""

    def __call__(self, clip: np.ndarray) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """uint8 [T, H, W, C] -> float32 logits [classes], and place of a graph -> attention α [K, T', N, N].

        The second is empty unless it was loaded with attention.
        """


class RunPredictor:
    """The network of a run, a `Predictor`. `precision`: see `Run.precision`."""

    def __init__(self, run: Run, *, precision: str = "float32"):
        self.name, self.class_names, self.clip_spec = str(run.path), run.class_names(), clip_spec_of_run(run)
        self._run, self._precision = run, precision

    def load(self, *, with_attention: bool) -> None:
        """Builds the network and restores the run's weights."""
        import tensorflow as tf

        from rstg_tf.common import devices

        devices.set_precision(self._run.precision(self._precision))
        model, _ = self._run.load_model()

        @tf.function
        def describe(video):
            found = model.describe(video) if with_attention else {"logits": model(video, training=False)}
            return tf.cast(found["logits"], tf.float32), found.get("attention", {})

        self._describe = describe

    def __call__(self, clip: np.ndarray) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        logits, attention = self._describe(clip[None])
        return logits[0].numpy(), _by_place(attention)


class SavedModelPredictor:
    """A SavedModel that `rstg_tf.export` wrote, a `Predictor`: the folder of a version, or the one of all versions.

    `trust`: whether it is loaded whatever its graph holds, see `check_saved_model`.

    Raises ConfigError when there is none at `path`, or its assets/ don't tell clips and class names.
    """

    def __init__(self, path: str, *, trust: bool = False):
        self._trust = trust
        self.name = _newest_version(path)
        where = Path(self.name, "assets")
        facts = parse_json(_asset(self.name, "export.json"), named=str(where / "export.json"))
        # Exports of version 1.0 hold the names in lines alone.
        lines = _asset(self.name, "class_names.txt").removesuffix("\n").split("\n")
        try:
            self._facts = _facts(facts)
            self.class_names = tuple(self._facts.get("class_names", lines))
            self.clip_spec = ClipSpec.from_json(self._facts["video"])
            self._config = ExperimentConfig.from_json(_asset(self.name, "experiment.json")).model
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        for file, names in (("class_names.txt", lines), ("export.json", self.class_names)):
            if len(names) != self._config.num_classes:
                raise ConfigError(
                    f"{where / file}: {len(names)} names; expected {self._config.num_classes}, as experiment.json says."
                )

    def load(self, *, with_attention: bool) -> None:
        """Loads the SavedModel's signatures."""
        try:
            signatures = load_signatures(self.name, trust=self._trust)
        except ConfigError:
            raise
        # A damaged model makes TensorFlow raise almost anything.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"{self.name} cannot be loaded as a SavedModel ({reason}).") from error
        if with_attention and ATTENTION_SIGNATURE not in signatures:
            reason = self._facts.get("left_out", {}).get(ATTENTION_SIGNATURE, "it was exported without")
            raise ConfigError(
                f"{self.name} shows no attention, as it has no signature {ATTENTION_SIGNATURE!r}: {reason}"
            )
        if LOGITS_SIGNATURE not in signatures:
            raise ConfigError(f"{self.name} has no signature {LOGITS_SIGNATURE!r}; expected an export of this project.")
        self._logits = signatures[LOGITS_SIGNATURE]
        self._attention = signatures[ATTENTION_SIGNATURE] if with_attention else None

    def __call__(self, clip: np.ndarray) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        import tensorflow as tf

        video = tf.constant(clip[None])
        try:
            attention = _in_order(self._attention(video=video), self._config.graph_places) if self._attention else {}
            logits = self._logits(video=video)["logits"].numpy()
        except (tf.errors.OpError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{self.name} does not take the clips that its export.json tells of "
                f"({(str(error).splitlines() or [''])[0]})."
            ) from error
        if logits.shape != (1, len(self.class_names)) or logits.dtype.kind != "f":
            raise ConfigError(
                f"{self.name} answers {logits.dtype} {list(logits.shape)}; expected [1, {len(self.class_names)}], a "
                "number for each class."
            )
        return logits[0], _by_place(attention)


def _by_place(attention: Mapping) -> dict[str, np.ndarray]:
    """Of one clip, α [1, K, T', N, N] -> [K, T', N, N], without places that have no space stage (K = 0)."""
    return {place: alpha[0].numpy() for place, alpha in attention.items() if alpha.shape[1]}


def _in_order(outputs: Mapping, places: Sequence[str]) -> dict:
    """The outputs attention_res3, …, or attention where there is one graph, by place, in the network's order."""
    return {
        place: outputs.get(f"{ATTENTION_SIGNATURE}_{place}", outputs.get(ATTENTION_SIGNATURE))
        for place in sorted(places, key=lambda place: (place == "final", place))
    }


def _newest_version(path: str) -> str:
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(f"{path}: no such folder; give what python -m rstg_tf.export wrote.")
    if (folder / _GRAPH_FILE).exists():
        return str(folder)
    versions = [int(found.parent.name) for found in folder.glob(f"*/{_GRAPH_FILE}") if found.parent.name.isdecimal()]
    if not versions:
        raise ConfigError(f"{path}: no SavedModel there (neither {folder / _GRAPH_FILE} nor a version with one).")
    return str(folder / str(max(versions)))


def _asset(folder: str, name: str) -> str:
    path = Path(folder, "assets", name)
    if not os.path.lexists(path):
        raise ConfigError(
            f"{folder}: not written by python -m rstg_tf.export, as {path} is missing; give one that was."
        )
    require_inside(path.parent, named=folder)
    return read_text_file(path, named=str(path))


def _facts(values: object) -> dict:
    expected = {"video": dict, "left_out": dict}
    if not isinstance(values, dict) or any(not isinstance(values.get(key, {}), kind) for key, kind in expected.items()):
        raise ConfigError("export.json: expected an object with the objects 'video' and 'left_out' in it.")
    names = values.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("export.json: 'class_names' is no list of names.")
    return {"left_out": {}, "video": {}, **values}
