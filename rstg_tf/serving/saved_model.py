"""A trained model -> a SavedModel, compared with the model before it gets its name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.files import sync_folder
from rstg_tf.common.interrupts import ignored_interrupts, kept_interrupts
from rstg_tf.common.shown import printable
from rstg_tf.config import ExperimentConfig
from rstg_tf.runs.clip_spec_of_run import clip_spec_of_run, served_clip_spec
from rstg_tf.runs.run import Run
from rstg_tf.serving.model_versions import building_folder, check_target, load_signatures, publish
from rstg_tf.serving.request_limits import RequestLimits
from rstg_tf.video.clip_spec import ClipSpec

ALLOWED_DIFFERENCE = 1e-4  # of an output, relative to the largest: another graph may sum in another order


class ExportError(RuntimeError):
    """The written model, loaded again, does not give the answers of the model it was made from."""


def export_run(
    run: Run,
    *,
    base: str,
    version: int | None = None,
    precision: str = "float32",
    clip: ClipSpec | None = None,
    limits: RequestLimits | None = None,
    warmup_clips: str = "drawn",
) -> str:
    """Exports a run's checkpoint to `base`/<version>/ and returns that path; see `export_model`.

    `precision`: 'float32', or 'run' for the one that the run was trained in. `clip`: the
    clips that are served; None for those of `clip_spec_of_run`. `limits`, `warmup_clips`: see there.
    The model is built anew, outside of any distribution strategy, so that the graph knows nothing of the devices it was
    trained on.
    """
    check_target(base, version)
    from tensorflow import keras

    from rstg_tf.common import devices

    policy = keras.mixed_precision.global_policy()
    devices.set_precision(run.precision(precision))
    try:
        model, step = run.load_model()
        return export_model(
            model,
            base=base,
            config=run.config,
            class_names=run.class_names(),
            step=step,
            version=version,
            clip=clip or clip_spec_of_run(run),
            limits=limits,
            warmup_clips=warmup_clips,
        )
    finally:
        keras.mixed_precision.set_global_policy(policy)


def export_model(
    model,
    *,
    base: str,
    config: ExperimentConfig,
    class_names: Sequence[str],
    step: int = 0,
    version: int | None = None,
    clip: ClipSpec | None = None,
    limits: RequestLimits | None = None,
    warmup_clips: str = "drawn",
) -> str:
    """Writes `base`/<version>/ with the signatures that the model can have and returns its path.

    `version`: None for the next after the largest integer there. `clip`: what it takes; None for the config's.
    `limits`: of requests of encoded frames; None for the default ones. `warmup_clips`: 'drawn', or 'recorded' for the
    first clip of the config's data sets, which then travels with the model. No path of this machine does. The
    folder is built under a hidden name beside `base`, which a server that watches `base` does not see, forced to the
    disk, and renamed.

    Raises ConfigError if the version exists or the model cannot take such clips, ExportError if the written model,
    loaded again, computes something else, OSError if the disk refuses.
    """
    check_target(base, version)
    if len(class_names) != config.model.num_classes:
        raise ConfigError(f"{len(class_names)} class names for {config.model.num_classes} classes.")
    building = building_folder(base)
    try:
        with kept_interrupts():
            _write(
                building,
                model,
                clip or served_clip_spec(config),
                config,
                class_names,
                step,
                model_name=Path(base).absolute().name,
                limits=limits or RequestLimits(),
                warmup_clips=warmup_clips,
            )
            sync_folder(building)
        with ignored_interrupts():
            return publish(building, base, version)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(
    folder: str,
    model,
    clip: ClipSpec,
    config: ExperimentConfig,
    class_names: Sequence[str],
    step: int,
    *,
    model_name: str,
    limits: RequestLimits,
    warmup_clips: str,
) -> None:
    """Writes the whole SavedModel, and loads it again."""
    import tensorflow as tf
    from tensorflow import keras

    from rstg_tf.serving.request_clips import clips_from_frames
    from rstg_tf.serving.signatures import build_signatures, explain
    from rstg_tf.serving.warmup import example_clip, write_warmup

    try:
        functions, left_out = build_signatures(model, clip, class_names, limits)
        explained = {name: explain(name, function) for name, function in functions.items()}
    except ValueError as error:
        raise ConfigError(
            f"the model cannot take clips of {clip.num_frames} frames of {clip.height}×{clip.width} "
            f"pixels: {str(error).splitlines()[0]}"
        ) from error
    # Gradients are training's; left out, the graph stays small and without custom-gradient functions.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with _refusals_of_the_disk(folder):
        tf.saved_model.save(_weights(model), folder, signatures=functions, options=options)
    recorded = (config.data.test_dataset, config.data.train_dataset) if warmup_clips == "recorded" else ()
    example = example_clip(recorded, clip)
    facts = {
        "step": step,
        "class_names": list(class_names),
        "precision": keras.mixed_precision.global_policy().name,
        "video": _explain_clip(clip),
        "request_limits": limits.for_clips(clip).to_json(),
        "signatures": explained,
        "left_out": left_out,
        "warmup": example.source,
    }
    _write_assets(folder, config, class_names, facts)
    frames = tf.constant([example.frames, example.frames[::-1]])
    video = clips_from_frames(frames, clip)
    requests = {"serving_default": {"video": video[:1]}, "serving_bytes": {"frames": frames[:1]}}
    with _refusals_of_the_disk(folder):
        write_warmup(folder, model_name, requests)
    _compare(folder, model, functions, {"video": video, "frames": frames, "frame": video[:, 0]})


@contextlib.contextmanager
def _refusals_of_the_disk(folder: str) -> Iterator[None]:
    """TensorFlow's errors when it writes, as the OSError that Python would raise: it is full, say."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"{folder}: could not be written ({error.message}); nothing was published.") from error


def _explain_clip(clip: ClipSpec) -> dict:
    resize = (
        "none: frames must have this size"
        if clip.short_side is None
        else (f"bicubic, shorter side to {clip.short_side} pixels, then the centre")
    )
    return {
        "dtype": "uint8",
        "range": [0, 255],
        **clip.to_json(),
        "resize": resize,
        "sampling": f"of D frames those at linspace(0, D-1, {clip.num_frames}), truncated",
    }


def _weights(model):
    """The variables alone: a tracked Keras model would be saved layer by layer, which no signature needs."""
    import tensorflow as tf

    from rstg_tf.common.keras_compat import tensorflow_variable

    holder = tf.Module(name="rstg")
    holder.weights = [tensorflow_variable(weight) for weight in model.weights]
    return holder


def _write_assets(folder: str, config: ExperimentConfig, class_names: Sequence[str], facts: dict) -> None:
    contents = {
        "class_names.txt": "".join(f"{printable(name)}\n" for name in class_names),
        "experiment.json": _without_paths(config).to_json(),
        "export.json": json.dumps(facts, indent=2, ensure_ascii=False) + "\n",
    }
    assets = Path(folder, "assets")
    assets.mkdir(exist_ok=True)
    for name, text in contents.items():
        (assets / name).write_text(text, encoding="utf-8")


def _without_paths(config: ExperimentConfig) -> ExperimentConfig:
    """Who gets the model need not know where its maker's data and checkpoints lie, nor under which user name."""
    data = dataclasses.replace(config.data, train_dataset="", test_dataset="", write_missing="none")
    return dataclasses.replace(
        config, data=data, train=dataclasses.replace(config.train, restore_dir="", restore_scope="all")
    )


def _compare(folder: str, model, functions: Mapping[str, Callable], inputs: Mapping) -> None:
    """Loads what was written and compares the answers of each signature with the model's."""
    import tensorflow as tf

    loaded = load_signatures(folder, trust=True)  # our own, of the layers that the caller has given
    # Traced like the signatures, for any B: op by op bfloat16 is rounded where a traced graph fuses ops and does not.
    traced = tf.function(
        lambda video: tf.cast(model(video, training=False), tf.float32),
        autograph=False,
        input_signature=[tf.TensorSpec([None, *inputs["video"].shape[1:]], inputs["video"].dtype)],
    )
    logits = traced(inputs["video"])
    for name, function in functions.items():
        given = {
            spec.name: inputs[spec.name] if spec.name in inputs else tf.zeros([2, spec.shape[1]], spec.dtype)
            for spec in function.input_signature
        }
        expected = function(**given)
        if "frame" not in given and "logits" in expected:
            expected["logits"] = logits
        for output, value in loaded[name](**given).items():
            if value.dtype == tf.float32:
                _require_close(f"{output} of {name}", value.numpy(), expected[output].numpy())


def _require_close(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    difference = float(np.max(np.abs(found - expected)))
    if not difference <= ALLOWED_DIFFERENCE * max(1.0, float(np.max(np.abs(expected)))):
        raise ExportError(f"{what} differ by {difference:g} from the model's; nothing was published.")
