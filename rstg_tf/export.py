"""A run -> a SavedModel that TF Serving, or any TensorFlow runtime, loads without this project's code.

    python -m rstg_tf.export --model_dir=RUN --out=BASE [--version=N] [--checkpoint=STEP|best] [--precision=run]

BASE/<version>/ holds the graph, its weights (averaged ones where the run keeps an average) and, in assets/:

    class_names.txt   a name per line, in the order of the logits
    experiment.json   the run's config.json
    export.json       step, number format, shape of the input

The numbers are computed in float32 whatever the run was trained in, because not every runtime has bfloat16 kernels;
`--precision=run` keeps the run's. Before the model gets its name it is loaded again and compared on random clips.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import flags as absl_flags
from tensorflow import keras

from rstg_tf import devices
from rstg_tf.config import ConfigError, ExperimentConfig, ModelConfig
from rstg_tf.runs import Run, open_run, parse_run_flags, sync_folder, sync_path

ALLOWED_DIFFERENCE = 1e-4  # of a reloaded logit, relative to the largest: another graph may sum in another order


class ExportError(RuntimeError):
    """The written model, loaded again, does not give the logits of the model it was made from."""


def classify_clips(model, config: ModelConfig):
    """Signature uint8 `video` [B, T, H, W, C] -> float32 `logits` and `probabilities` [B, classes]; T, H, W, C fixed.

    The first op checks the shape: TF Serving itself compares names and types only, and a reshape further on could
    absorb a clip of another size and answer nonsense.
    """
    shape = [None, config.num_frames, config.height, config.width, config.channels]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name="video")])
    def serving_default(video):
        logits = tf.cast(model(tf.ensure_shape(video, shape), training=False), tf.float32)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    return serving_default


# A row per signature: its name in the SavedModel, and the function (model, config) -> tf.function.
SIGNATURES: Mapping[str, Callable] = {
    "serving_default": classify_clips,
}


class _Weights(tf.Module):
    """The variables alone: a tracked Keras model would be saved layer by layer, which no signature needs."""

    def __init__(self, model):
        super().__init__(name="rstg")
        self.weights = [weight if isinstance(weight, tf.Variable) else weight.value for weight in model.variables]


def export_run(run: Run, *, base: str, version: int | None = None, precision: str = "float32") -> str:
    """Exports a run's checkpoint to `base`/<version>/ and returns that path; see `export_model`.

    `precision`: 'float32', or 'run' for the one that the run was trained in. The model is built anew, outside of any
    distribution strategy, so that the graph knows nothing of the devices it was trained on.
    """
    _check_version(base, version)
    policy = keras.mixed_precision.global_policy()
    devices.set_precision(run.precision(precision))
    try:
        model, step = run.load_model()
        return export_model(model, base=base, config=run.config, class_names=run.class_names(), step=step,
                            version=version)
    finally:
        keras.mixed_precision.set_global_policy(policy)


def export_model(model, *, base: str, config: ExperimentConfig, class_names: Sequence[str], step: int = 0,
                 version: int | None = None) -> str:
    """Writes `base`/<version>/ with the rows of SIGNATURES and returns its path.

    `version`: None for the next after the largest integer there. The folder is built under a hidden name beside `base`,
    which a server that watches `base` does not see, forced to the disk, and renamed.

    Raises ConfigError if the version exists, ExportError if the written model, loaded again, computes something else.
    """
    _check_version(base, version)
    if len(class_names) != config.model.num_classes:
        raise ConfigError(f"{len(class_names)} class names for {config.model.num_classes} classes.")
    os.makedirs(base, exist_ok=True)
    building = _building_folder(base)
    try:
        signatures = {name: build(model, config.model) for name, build in SIGNATURES.items()}
        # Gradients are training's; left out, the graph stays small and without custom-gradient functions.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(_Weights(model), building, signatures=signatures, options=options)
        _write_assets(building, config, class_names, step, precision=keras.mixed_precision.global_policy().name)
        _compare(building, model, config.model)
        sync_folder(building)
        return _give_version(building, base, version)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _check_version(base: str, version: int | None) -> None:
    if version is None:
        return
    if version < 0:
        raise ConfigError(f"--version={version}: expected an integer from 0.")
    path = os.path.join(base, str(version))
    if os.path.exists(path):
        raise ConfigError(f"--version={version}: {path} exists, and a published version never changes; give another, "
                          "or none for the next.")


def _next_version(base: str) -> int:
    return 1 + max((int(name) for name in os.listdir(base) if name.isdecimal()), default=0)


def _building_folder(base: str) -> str:
    """A new hidden name beside `base`, or inside it where its parent is another file system or closed to us."""
    base = os.path.abspath(base)
    parent, name = os.path.split(base)
    if os.stat(parent).st_dev != os.stat(base).st_dev or not os.access(parent, os.W_OK | os.X_OK):
        parent = base
    prefix = f".{name}.exporting-{socket.gethostname()}-"
    for stale in os.listdir(parent):
        if stale.startswith(prefix) and not _is_running(stale[len(prefix):]):
            shutil.rmtree(os.path.join(parent, stale))
    return os.path.join(parent, f"{prefix}{os.getpid()}")


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True  # somebody else's
    return int(process) != os.getpid()


def _give_version(building: str, base: str, version: int | None) -> str:
    while True:
        target = os.path.join(base, str(_next_version(base) if version is None else version))
        try:
            os.rename(building, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            _check_version(base, version)  # another export was faster: refused, or the next number
            continue
        sync_path(base)
        return target


def _write_assets(folder: str, config: ExperimentConfig, class_names: Sequence[str], step: int, precision: str) -> None:
    model = config.model
    facts = {"step": step, "precision": precision, "signatures": list(SIGNATURES),
             "video": {"dtype": "uint8", "frames": model.num_frames, "height": model.height, "width": model.width,
                       "channels": model.channels}}
    contents = {"class_names.txt": "".join(f"{name}\n" for name in class_names), "experiment.json": config.to_json(),
                "export.json": json.dumps(facts, indent=2) + "\n"}
    os.makedirs(os.path.join(folder, "assets"), exist_ok=True)
    for name, text in contents.items():
        with open(os.path.join(folder, "assets", name), "w", encoding="utf-8") as file:
            file.write(text)


def _compare(folder: str, model, config: ModelConfig) -> None:
    """Loads what was written and compares its logits with the model's, on two random clips."""
    shape = (2, config.num_frames, config.height, config.width, config.channels)
    video = tf.constant(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    loaded = tf.saved_model.load(folder)
    found = loaded.signatures["serving_default"](video=video)["logits"].numpy()
    expected = tf.cast(model(video, training=False), tf.float32).numpy()
    difference = float(np.max(np.abs(found - expected)))
    if not difference <= ALLOWED_DIFFERENCE * max(1.0, float(np.max(np.abs(expected)))):
        raise ExportError(f"the exported model's logits differ by {difference:g} from the model's; nothing was "
                          "published.")


def _define_flags(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("out", "", "folder that a server watches; the model becomes OUT/<version>/",
                             flag_values=flags)
    absl_flags.DEFINE_integer("version", None, "its version; unless given, the next integer", flag_values=flags)


def main(arguments: Sequence[str]) -> int:
    try:
        flags = parse_run_flags(arguments, _define_flags)
        if flags.help:
            print(__doc__, flags.get_help(), sep="\n")
            return 0
        if not flags.out:
            raise ConfigError("--out is missing: give the folder that the server watches.")
        run = open_run(flags.model_dir, flags.checkpoint)
        path = export_run(run, base=flags.out, version=flags.version, precision=flags.precision)
    except (ConfigError, ExportError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(json.dumps({"export": path, "model_dir": run.path, "signatures": list(SIGNATURES)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
