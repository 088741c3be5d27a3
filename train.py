"""Trains an experiment: flags -> ExperimentConfig -> train(config, model_dir).

    python train.py                                         the demo: writes its records first if they are missing
    python train.py --flagfile=syncmnist.flags              the release's SyncMNIST experiment
    python train.py --flagfile=syncmnist.flags --batch_size=8 --model_dir=runs/eight
    python train.py --help                                  every flag

A run is the folder --model_dir, by default runs/ and the flag file's name. Started again with the same command it goes
on where it stopped. Its last line of output is JSON. Exit codes: 0 done, or stopped by SIGTERM or Ctrl-C and saved;
1 failed, and the last checkpoint, if there was one, is good; 2 wrong flags, or data that is not what its manifest
says (repair it, and the same command goes on from the last checkpoint); 130 interrupted before training had begun.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.input_pipeline.reading_options import ReadingOptions, check_fit, clip_spec_of_records
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import MANIFEST_FILE, DatasetError
from rstg_tf import flags
from rstg_tf.common.command_line import failed, run_program
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.text import classes_differ
from rstg_tf.config import ExperimentConfig
from rstg_tf.release.checkpoint_files import weights_to_restore
from rstg_tf.runs.run import class_names_near
from rstg_tf.video.clip_spec import ClipSpec

# TensorFlow 2.15 logs three harmless lines as errors when it starts on a machine without a GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
DEMO_FLAGS = Path(__file__).absolute().parent / "configs" / "demo.flags"


def main(arguments: Sequence[str]) -> int:
    try:
        if {"--help", "-help", "-h"} & set(arguments):
            print(f"{__doc__}\n{flags.parse([]).get_help()}")
            return 0
        if not any(argument.lstrip("-").partition("=")[0] == "flagfile" for argument in arguments):
            print(f"no --flagfile: reading {os.path.relpath(DEMO_FLAGS)}, the demo's", flush=True)
            arguments = [f"--flagfile={DEMO_FLAGS}", *arguments]
        flag_values = flags.parse(arguments)
        config = flags.config_from_flags(flag_values)
        data = open_data(config)
        return run(config, flag_values.model_dir or default_model_dir(arguments), data)
    except (ConfigError, DatasetError) as error:
        return failed("train.py", error, code=2)


def open_data(config: ExperimentConfig) -> TrainingRecords:
    """Checks what is to be read; writes the demo's records where they are missing and --write_missing says so."""
    data = config.data
    if config.train.restore_dir:
        weights_to_restore(config.train.restore_dir)
    if not data.train_dataset:
        raise ConfigError("--train_dataset: give the folder of the training records.")
    if config.train.eval_every and not data.test_dataset:
        raise ConfigError(f"--eval_every={config.train.eval_every} needs --test_dataset, or give --eval_every=0.")
    for split, directory in (("train", data.train_dataset), ("test", data.test_dataset)):
        if directory and not Path(directory, MANIFEST_FILE).exists():
            write_or_refuse(split, directory, config)
    train = checked_dataset("train", data.train_dataset, config)
    test = checked_dataset("test", data.test_dataset, config) if data.test_dataset else None
    if test is not None:
        fault = classes_differ(
            test.manifest.classes, train.manifest.classes, here=data.test_dataset, there=data.train_dataset
        )
        if fault:
            raise ConfigError(f"--test_dataset={data.test_dataset}: {fault}.")
    check_restored_classes(config, train.manifest.classes)
    return TrainingRecords(config, train=train, test=test)


def check_restored_classes(config: ExperimentConfig, classes: Sequence[str]) -> None:
    """Raises ConfigError if the run whose whole weights are to be restored learnt other classes than these."""
    restored = config.train.restore_dir
    if not restored or config.train.restore_scope != "all":
        return
    names = class_names_near(restored)
    fault = names and classes_differ(classes, names, here=config.data.train_dataset, there=restored)
    if fault:
        raise ConfigError(f"--restore_dir={restored}: {fault}. For other classes give --restore_scope=except_head.")


def write_or_refuse(split: str, directory: str, config: ExperimentConfig) -> None:
    if config.data.write_missing == "demo" and Path(directory) == Path("data", "demo", split):
        from datasets.sync_mnist.presets import PRESETS
        from datasets.sync_mnist.writing import write_dataset

        print(f"{directory} is missing: writing the demo's {split} records", flush=True)
        write_dataset(out_dir=directory, **PRESETS["demo"].arguments(split))
        return
    how = "python -m datasets.something_something or, of your own videos, python -m datasets.video_folder"
    if config.model.channels == 1:
        preset = " --preset=demo" if config.data.write_missing == "demo" else ""
        how = f"python -m datasets.sync_mnist{preset} --split={split} --out_dir={shlex.quote(directory)}"
    raise ConfigError(
        f"--{split}_dataset={directory}: no {MANIFEST_FILE} there. Is the path right? If it is, write the records "
        f"first, with {how}."
    )


def checked_dataset(split: str, directory: str, config: ExperimentConfig) -> RecordedDataset:
    """Raises ConfigError with the flag to change where the model's sizes are not those of the records."""
    dataset = RecordedDataset.open(directory)
    dataset.check()
    misfit = check_fit(dataset.manifest, config.model)
    if misfit is not None:
        flag, wanted, found = misfit
        raise ConfigError(
            f"--{flag}={wanted} does not fit the {split} records in {directory}, which have {found}: "
            f"give --{flag}={found}, or other records."
        )
    clip_spec_of_records(dataset.manifest, config.clip_spec)
    return dataset


def default_model_dir(arguments: Sequence[str]) -> str:
    """runs/ and the name of the first flag file."""
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        name, _, value = argument.lstrip("-").partition("=")
        if name == "flagfile":
            return str(Path("runs", Path(value or following).stem))
    raise ConfigError("--model_dir: give the folder of the run.")


class TrainingRecords:
    """The records of a run as `training.loop.train` asks for them, see `training.data.TrainingData`.

    `train`, `test`: data sets that fit the config; without the second there is no evaluation.
    """

    def __init__(self, config: ExperimentConfig, *, train: RecordedDataset, test: RecordedDataset | None):
        self.train, self.test = train, test
        self._config = config
        self._scorer = None

    @property
    def num_clips(self) -> int:
        return self.train.num_clips

    @property
    def manifests(self) -> dict[str, str]:
        return {
            f"{split}_dataset": dataset.manifest_text
            for split, dataset in (("train", self.train), ("test", self.test))
            if dataset
        }

    def batches(self, start_step: int):
        from datasets.input_pipeline.pipeline import training_clips

        records, settings = self._config.data, self._config.train
        return training_clips(
            dataset=self.train,
            clip=self._clip_spec(self.train),
            batch_size=settings.batch_size,
            seed=settings.seed,
            start_step=start_step,
            brightness=records.brightness,
            horizontal_flip=records.horizontal_flip,
            shuffle_buffer=records.shuffle_buffer,
        )

    def evaluate(self, model, stopped: Callable[[], bool]) -> float | None:
        """Traces the model once, however often it is asked."""
        from rstg_tf.evaluation.scoring import ClipScorer, evaluate_clips

        if self._scorer is None or self._scorer.model is not model:
            self._scorer = ClipScorer(model)
        clips = self._centres(self.test, self._config.train.batch_size)
        evaluation = evaluate_clips(model, clips, num_clips=self.test.num_clips, scorer=self._scorer, stopped=stopped)
        return evaluation and evaluation.top1

    def sample(self):
        """The first four clips of the training records."""
        return next(iter(self._centres(self.train, batch_size=4).take(1)))["video"]

    def explain_read_error(self, error: Exception) -> DatasetError | None:
        """See `RecordedDataset.explain_read_error`; the error tells no folder, so both data sets are looked at."""
        faults = (dataset.explain_read_error(error) for dataset in (self.train, self.test) if dataset)
        return next(filter(None, faults), None)

    def _clip_spec(self, dataset: RecordedDataset) -> ClipSpec:
        return clip_spec_of_records(dataset.manifest, self._config.clip_spec)

    def _centres(self, dataset: RecordedDataset, batch_size: int):
        from datasets.input_pipeline.pipeline import evaluation_clips

        options = ReadingOptions(self._clip_spec(dataset))
        return evaluation_clips(dataset=dataset, options=options, batch_size=batch_size)


def run(config: ExperimentConfig, model_dir: str, data: TrainingRecords) -> int:
    """Trains, says where the run lies, and returns the exit code. TensorFlow loads here: wrong flags answer at once."""
    import tensorflow as tf

    from datasets.input_pipeline.augmentation import mirrored_in_words
    from rstg_tf.runs.checkpoints import CheckpointError
    from rstg_tf.training.loop import train
    from rstg_tf.training.train_step import NonFiniteError

    if config.data.horizontal_flip:
        print(mirrored_in_words(data.train.manifest.classes), flush=True)
    try:
        result = train(config, model_dir, data)
    except (NonFiniteError, CheckpointError, OSError) as error:
        return failed("train.py", error, code=1)
    except tf.errors.OpError as error:
        fault = data.explain_read_error(error)
        if fault is None:
            raise
        raise fault from error
    if result.interrupted:
        print(
            f"stopped by {result.interrupted} after step {result.step} of {result.total_steps} and saved; the same "
            "command goes on from there"
        )
    print(f"the run lies in {model_dir}; evaluate it with: python eval.py --model_dir={shlex.quote(model_dir)}")
    print(
        json.dumps(
            {"model_dir": model_dir, "finished": result.step >= result.total_steps, **dataclasses.asdict(result)}
        ),
        flush=True,
    )
    return 0


if __name__ == "__main__":
    run_program(main, name="train.py", interrupted="training had not begun; the same command starts again.")
