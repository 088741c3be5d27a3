"""A run -> a SavedModel that TF Serving, or any TensorFlow runtime, loads without this project's code.

    python -m rstg_tf.export --model_dir=RUN --out=BASE [--version=N] [--checkpoint=STEP|best] [--precision=run]
                             [--num_frames=T] [--height=H] [--width=W]

BASE/<version>/ holds the graph with its signatures (see `rstg_tf.signatures`), its weights (averaged ones where the run
keeps an average), and

    assets/class_names.txt   a name per line, in the order of the logits
    assets/experiment.json   the run's config.json
    assets/export.json       step, number format, the clips it takes and how frames become one, every signature's inputs
                             and outputs, and which signatures this model cannot have, with the reason
    assets.extra/tf_serving_warmup_requests   what a server runs before it takes requests

The numbers are computed in float32 whatever the run was trained in, because not every runtime has bfloat16 kernels;
`--precision=run` keeps the run's. Before the model gets its name it is loaded again, and the answers of every signature
are compared. The last line of the output is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import flags as absl_flags

from rstg_tf.commands import failed, run_program
from rstg_tf.config import ConfigError, ExperimentConfig
from rstg_tf.interrupts import ignored_interrupts, kept_interrupts
from rstg_tf.runs import Run, open_run, parse_run_flags, sync_folder
from rstg_tf.versions import building_folder, check_target, load_signatures, publish

# TensorFlow is imported where it is needed: a wrong folder or flag is answered at once.

ALLOWED_DIFFERENCE = 1e-4  # of an output, relative to the largest: another graph may sum in another order


class ExportError(RuntimeError):
    """The written model, loaded again, does not give the answers of the model it was made from."""


def export_run(run: Run, *, base: str, version: int | None = None, precision: str = "float32", num_frames: int = 0,
               height: int = 0, width: int = 0) -> str:
    """Exports a run's checkpoint to `base`/<version>/ and returns that path; see `export_model`.

    `precision`: 'float32', or 'run' for the one that the run was trained in. `num_frames`, `height`, `width` (pixels):
    of the clips that are served; 0 for the training's. The model is built anew, outside of any distribution strategy,
    so that the graph knows nothing of the devices it was trained on.
    """
    check_target(base, version)
    from tensorflow import keras

    from rstg_tf import devices

    clip = run_clip(run, num_frames=num_frames, height=height, width=width)
    policy = keras.mixed_precision.global_policy()
    devices.set_precision(run.precision(precision))
    try:
        model, step = run.load_model()
        return export_model(model, base=base, config=run.config, class_names=run.class_names(), step=step,
                            version=version, clip=clip)
    finally:
        keras.mixed_precision.set_global_policy(policy)


def run_clip(run: Run, **sizes: int):
    """The ServedClip of a run: frames become clips as those of its own data set did. `sizes`: see `served_clip`."""
    return served_clip(run.config, whole_frames=_takes_whole_frames(run), **sizes)


def served_clip(config: ExperimentConfig, *, whole_frames: bool | None = None, num_frames: int = 0, height: int = 0,
                width: int = 0):
    """The ServedClip of a run; sizes that are given replace the training's. Raises ConfigError for impossible ones.

    `whole_frames`: whether the clips it learnt from were taken as they are, none resized (None: grey clips were).
    Colour frames of another size are then resized to just cover the model's size; grey ones, drawn for it, are refused.
    """
    from rstg_tf.served_clips import ServedClip

    model = config.model
    num_frames = num_frames or model.num_frames
    served = dataclasses.replace(model, num_frames=num_frames, height=height or model.height,
                                 width=width or model.width,
                                 graph_frames=model.graph_frames * num_frames // model.num_frames)
    if served != model:
        try:
            served.check()
        except ConfigError as error:
            raise ConfigError(f"--num_frames={num_frames} --height={served.height} --width={served.width}: as the "
                              f"model's own sizes these would be refused: {error}") from error
    short_side: int | None = config.data.short_side
    if model.channels == 1 if whole_frames is None else whole_frames:
        short_side = None if model.channels == 1 else min(served.height, served.width)
    return ServedClip(num_frames=num_frames, height=served.height, width=served.width, channels=served.channels,
                      short_side=short_side)


def export_model(model, *, base: str, config: ExperimentConfig, class_names: Sequence[str], step: int = 0,
                 version: int | None = None, clip=None) -> str:
    """Writes `base`/<version>/ with the signatures that the model can have and returns its path.

    `version`: None for the next after the largest integer there. `clip`: a ServedClip; None for the config's. The
    folder is built under a hidden name beside `base`, which a server that watches `base` does not see, forced to the
    disk, and renamed.

    Raises ConfigError if the version exists or the model cannot take such clips, ExportError if the written model,
    loaded again, computes something else.
    """
    check_target(base, version)
    if len(class_names) != config.model.num_classes:
        raise ConfigError(f"{len(class_names)} class names for {config.model.num_classes} classes.")
    building = building_folder(base)
    try:
        with kept_interrupts():
            _write(building, model, clip or served_clip(config), config, class_names, step,
                   model_name=os.path.basename(os.path.abspath(base)))
            sync_folder(building)
        with ignored_interrupts():
            return publish(building, base, version)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _takes_whole_frames(run: Run) -> bool | None:
    """Whether the run's clips were taken as they were stored, none resized; None if it kept no manifest."""
    from rstg_tf.clips import taken_whole

    path = os.path.join(run.path, "train_dataset.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        manifest = json.load(file)
    return taken_whole(image_format=manifest.get("image_format", ""),
                       stored_size=(manifest.get("height"), manifest.get("width")),
                       model_size=(run.config.model.height, run.config.model.width))


def _write(folder: str, model, clip, config: ExperimentConfig, class_names: Sequence[str], step: int,
           model_name: str) -> None:
    """Writes the whole SavedModel, and loads it again."""
    import tensorflow as tf
    from tensorflow import keras

    from rstg_tf.served_clips import clips_from_frames
    from rstg_tf.signatures import build_signatures, explain
    from rstg_tf.warmup import example_clip, write_warmup

    try:
        functions, left_out = build_signatures(model, clip, class_names)
        explained = {name: explain(name, function) for name, function in functions.items()}
    except ValueError as error:
        raise ConfigError(f"the model cannot take clips of {clip.num_frames} frames of {clip.height}×{clip.width} "
                          f"pixels: {str(error).splitlines()[0]}") from error
    # Gradients are training's; left out, the graph stays small and without custom-gradient functions.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(_weights(model), folder, signatures=functions, options=options)
    example = example_clip((config.data.test_dataset, config.data.train_dataset), clip)
    facts = {"step": step, "precision": keras.mixed_precision.global_policy().name, "video": _explain_clip(clip),
             "signatures": explained, "left_out": left_out, "warmup": example.source}
    _write_assets(folder, config, class_names, facts)
    frames = tf.constant([example.frames, example.frames[::-1]])
    video = clips_from_frames(frames, clip)
    write_warmup(folder, model_name, {"serving_default": {"video": video[:1]}, "serving_bytes": {"frames": frames[:1]}})
    _compare(folder, model, functions, {"video": video, "frames": frames, "frame": video[:, 0]})


def _explain_clip(clip) -> dict:
    resize = "none: frames must have this size" if clip.short_side is None else (
        f"bicubic, shorter side to {clip.short_side} pixels, then the centre")
    return {"dtype": "uint8", "range": [0, 255], "frames": clip.num_frames, "height": clip.height, "width": clip.width,
            "channels": clip.channels, "short_side": clip.short_side, "resize": resize,
            "sampling": f"of D frames those at linspace(0, D-1, {clip.num_frames}), truncated"}


def _weights(model):
    """The variables alone: a tracked Keras model would be saved layer by layer, which no signature needs."""
    import tensorflow as tf

    holder = tf.Module(name="rstg")
    holder.weights = [weight if isinstance(weight, tf.Variable) else weight.value for weight in model.variables]
    return holder


def _write_assets(folder: str, config: ExperimentConfig, class_names: Sequence[str], facts: dict) -> None:
    contents = {"class_names.txt": "".join(f"{name}\n" for name in class_names), "experiment.json": config.to_json(),
                "export.json": json.dumps(facts, indent=2, ensure_ascii=False) + "\n"}
    os.makedirs(os.path.join(folder, "assets"), exist_ok=True)
    for name, text in contents.items():
        with open(os.path.join(folder, "assets", name), "w", encoding="utf-8") as file:
            file.write(text)


def _compare(folder: str, model, functions: Mapping[str, Callable], inputs: Mapping) -> None:
    """Loads what was written and compares the answers of each signature with the model's."""
    import tensorflow as tf

    loaded = load_signatures(folder)
    # Traced like the signatures, for any B: op by op bfloat16 is rounded where a traced graph fuses ops and does not.
    traced = tf.function(lambda video: tf.cast(model(video, training=False), tf.float32), autograph=False,
                         input_signature=[tf.TensorSpec([None, *inputs["video"].shape[1:]], inputs["video"].dtype)])
    logits = traced(inputs["video"])
    for name, function in functions.items():
        given = {spec.name: inputs[spec.name] if spec.name in inputs else tf.zeros([2, spec.shape[1]], spec.dtype)
                 for spec in function.input_signature}
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


def _define_flags(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("out", "", "folder that a server watches; the model becomes OUT/<version>/",
                             flag_values=flags)
    absl_flags.DEFINE_integer("version", None, "its version; unless given, the next integer", flag_values=flags)
    for name, what in (("num_frames", "frames"), ("height", "pixels"), ("width", "pixels")):
        absl_flags.DEFINE_integer(name, 0, f"{what} of the clips that are served, if the model takes other clips than "
                                  "those of the training; 0: those", lower_bound=0, flag_values=flags)


def main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        flags = parse_run_flags(arguments, _define_flags, description=__doc__)
        if flags is None:
            return 0
        if not flags.out:
            raise ConfigError("--out is missing: give the folder that the server watches.")
        run = open_run(flags.model_dir, flags.checkpoint)
        path = export_run(run, base=flags.out, version=flags.version, precision=flags.precision,
                          num_frames=flags.num_frames, height=flags.height, width=flags.width)
    except (ConfigError, ExportError, OSError) as error:
        return failed("export", error, code=2 if isinstance(error, ConfigError) else 1)
    with ignored_interrupts():
        print(json.dumps({"export": path, "model_dir": run.path, **_published(path)}))
    return 0


def _published(path: str) -> dict:
    with open(os.path.join(path, "assets", "export.json"), encoding="utf-8") as file:
        facts = json.load(file)
    return {"step": facts["step"], "signatures": list(facts["signatures"]), "left_out": facts["left_out"],
            "warmup": facts["warmup"]}


if __name__ == "__main__":
    run_program(main, name="export", interrupted="nothing was published.")
