"""Evaluates a run: every clip of a data set once -> result.json, scores.npz, report/, and a SavedModel if wanted.

    python eval.py                       the newest run under runs/, its newest checkpoint, its test data
    python eval.py --model_dir=RUN --checkpoint=best --split=train
    python eval.py --dataset=DIR --export_dir=BASE
    python eval.py --num_eval_spatial_clips=11 --num_eval_temporal_clips=2    dense: logits averaged over 22 views

Everything else comes from the run's config.json, but that it computes in float32, as the SavedModel does; with
--precision=run both keep the precision of the training. The last line of the output is the result as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags as absl_flags

from datasets.input_pipeline.reading_options import ReadingOptions, open_dataset, reading_options
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import DatasetError
from rstg_tf.common.command_line import failed, run_program
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.interrupts import check_interrupts
from rstg_tf.runs.run import Run, open_run
from rstg_tf.runs.run_flags import parse_run_flags
from rstg_tf.serving.model_versions import check_target

# TensorFlow is imported where it is needed: a wrong folder or flag is answered at once.
PAIRS_IN_RESULT = 10


def define_flags(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_enum("split", "test", ["test", "train"], "which of the run's data sets", flag_values=flags)
    absl_flags.DEFINE_string("dataset", "", "another data set's folder, with the same classes", flag_values=flags)
    absl_flags.DEFINE_integer(
        "batch_size",
        0,
        "clips, or views of clips, at a time over all replicas; 0: as in training",
        lower_bound=0,
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "num_eval_spatial_clips",
        0,
        "crops of a clip, from one end to the other; 0: as in the run's settings; 1: the centre",
        lower_bound=0,
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "num_eval_temporal_clips",
        0,
        "samplings of a clip's frames; 0: as in the run's settings",
        lower_bound=0,
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "eval_crop_size",
        0,
        "side of the crops in pixels; 0: the model's size for one crop, the run's --short_side for several",
        lower_bound=0,
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "num_virtual_devices", 0, "split the CPU into this many replicas; 0: don't", lower_bound=0, flag_values=flags
    )
    absl_flags.DEFINE_boolean("report", True, "write MODEL_DIR/report/", flag_values=flags)
    absl_flags.DEFINE_string("export_dir", "", "also write a SavedModel to EXPORT_DIR/<version>/", flag_values=flags)


def options_from_flags(run: Run, dataset: RecordedDataset, flags: absl_flags.FlagValues) -> ReadingOptions:
    """Frames, crops and views by the flags, else by the run's settings."""
    clip, data = run.config.clip_spec, run.config.data
    return reading_options(
        dataset.manifest,
        clip,
        spatial_views=flags.num_eval_spatial_clips or data.num_eval_spatial_clips,
        temporal_views=flags.num_eval_temporal_clips or data.num_eval_temporal_clips,
        eval_crop_size=flags.eval_crop_size,
    )


def evaluate(run: Run, dataset: RecordedDataset, options: ReadingOptions, flags: absl_flags.FlagValues) -> dict:
    """Evaluates, writes what the flags ask for into the run's folder, and returns the result."""
    from datasets.input_pipeline.pipeline import evaluation_clips
    from rstg_tf.common import devices
    from rstg_tf.common.files import write_json
    from rstg_tf.evaluation.metrics import RESULT_FILE, SCORES_FILE, write_scores
    from rstg_tf.evaluation.scoring import evaluate_clips

    settings, precision, manifest = run.config, run.precision(flags.precision), dataset.manifest
    strategy = devices.prepare(
        num_virtual_devices=flags.num_virtual_devices, precision=precision, seed=settings.train.seed
    )
    with strategy.scope():
        model, step = run.load_model()
    clips = evaluation_clips(dataset=dataset, options=options, batch_size=flags.batch_size or settings.train.batch_size)
    print(
        f"{run.path}, step {step}: {dataset.num_clips} clips of {dataset.folder}, views of each: {options.num_views}",
        flush=True,
    )
    if warning := run.left_to_train(step):
        print(warning, flush=True)
    evaluation = evaluate_clips(model, clips, num_clips=dataset.num_clips, views=options.num_views, progress=True)
    result = {
        "dataset": manifest.name,
        "split": manifest.split,
        **evaluation.figures(),
        **_protocol(options),
        "step": step,
        "checkpoint": "best" if run.checkpoint == "best" else f"ckpt-{step}",
        "model_dir": str(run.path),
        "dataset_dir": str(dataset.folder),
        "precision": precision,
        "confused_pairs": _most_confused(evaluation, manifest.classes),
    }
    check_interrupts()
    write_scores(run.path / SCORES_FILE, evaluation)
    write_json(run.path / RESULT_FILE, result, indent=2)
    print(_in_words(result))
    if flags.report:
        print("drawing the report", flush=True)
        from datasets.input_pipeline.clips_by_index import clips_by_index
        from rstg_tf.viz.evaluation_report import write_report

        centre = reading_options(manifest, settings.clip_spec)

        def load_clips(indices: Iterable[int]) -> dict:
            return {index: clip.video for index, clip in clips_by_index(dataset, centre, indices).items()}

        write_report(
            run.path / "report",
            model=model,
            evaluation=evaluation,
            class_names=manifest.classes,
            result=result,
            load_clips=load_clips,
        )
        print(f"report: {run.path / 'report' / 'index.html'}")
    return result


def _protocol(options: ReadingOptions) -> dict[str, Any]:
    """What was shown of a clip: crops × samplings, and the crops' height and width in pixels."""
    return {
        "spatial_views": options.spatial_views,
        "temporal_views": options.temporal_views,
        "crop_size": list(options.clip.frame_size),
    }


def _most_confused(evaluation, names: Sequence[str]) -> list[dict[str, Any]]:
    """The classes most often taken for one another; `share` is of the true class's clips."""
    return [
        {"true": names[true], "predicted": names[predicted], "clips": clips, "share": share}
        for true, predicted, clips, share in evaluation.confused_pairs()[:PAIRS_IN_RESULT]
    ]


def _in_words(result: dict) -> str:
    low, high = result["top1_interval"]
    return (
        f"top-1 {result['top1']:.4f} (95 % interval {low:.4f} to {high:.4f}), top-5 {result['top5']:.4f}, mean "
        f"over classes {result['class_mean_accuracy']:.4f}, loss {result['loss']:.4f}"
    )


def main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        flags = parse_run_flags(arguments, define_flags, description=__doc__)
        if flags is None:
            return 0
        run = open_run(flags.model_dir, flags.checkpoint)
        dataset = open_dataset(run, flags.dataset, flags.split)
        options = options_from_flags(run, dataset, flags)
        if flags.export_dir:
            check_target(flags.export_dir)
    except (ConfigError, DatasetError) as error:
        return failed("eval.py", error, code=2)
    except OSError as error:
        return failed("eval.py", error, code=1)
    return _run(run, dataset, options, flags)


def _run(run: Run, dataset: RecordedDataset, options: ReadingOptions, flags: absl_flags.FlagValues) -> int:
    import tensorflow as tf

    from rstg_tf.evaluation.scoring import EvaluationError
    from rstg_tf.serving.saved_model import ExportError, export_run

    try:
        result = evaluate(run, dataset, options, flags)
        if flags.export_dir:
            print("building the SavedModel, a function for each signature: half a minute or more", flush=True)
            result["export"] = export_run(run, base=flags.export_dir, precision=flags.precision)
            print(f"SavedModel: {result['export']}")
    except (ConfigError, DatasetError) as error:
        return failed("eval.py", error, code=2)
    except (EvaluationError, ExportError, OSError) as error:
        return failed("eval.py", error, code=1)
    except tf.errors.OpError as error:
        fault = dataset.explain_read_error(error)
        if fault is None:
            raise
        return failed("eval.py", fault, code=2)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_program(main, name="eval.py", interrupted="kept is what the lines above report, nothing else.")
