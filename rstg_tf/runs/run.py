"""A finished or running experiment as the other commands see it: its folder, settings, checkpoint and classes.

Needs no TensorFlow until weights are loaded, so that a command with a wrong folder answers at once.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from rstg_tf.common.data_text import read_json
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.interrupts import check_interrupts
from rstg_tf.common.text import read_text_file
from rstg_tf.config import ExperimentConfig

RUNS_DIR = "runs"
CONFIG_FILE = "config.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a run, its settings, and the checkpoint that was asked for: None (newest), a step, or 'best'."""

    path: Path
    config: ExperimentConfig
    checkpoint: str | None = None

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 0, 1, … as the run's data set had them; 'class 0', … where it has kept none."""
        return kept_class_names(self.path) or tuple(f"class {label}" for label in range(self.config.model.num_classes))

    def precision(self, choice: str) -> str:
        """The number format that --precision asks for: 'float32', or with 'run' the one that the run was trained in."""
        return self.config.train.precision if choice == "run" else choice

    def left_to_train(self, step: int) -> str | None:
        """A warning where `step`, of the newest checkpoint, is not the training's last; None where it is, where the
        checkpoint was chosen, and where the run has kept no manifest that tells the epochs' length."""
        train, manifest = self.config.train, self.path / "train_dataset.json"
        if self.checkpoint or not (train.num_steps or manifest.exists()):
            return None
        total = train.total_steps(0 if train.num_steps else _num_clips(manifest))
        if step >= total:
            return None
        return f"warning: {self.path} is trained to step {step} of {total}; train.py, given again, goes on from there."

    def load_model(self):
        """The network with the run's weights, built in the present strategy and precision, and the weights' step.

        Averaged weights where the run keeps an average. Raises ConfigError when there is no such checkpoint, or when it
        does not fit.
        """
        from rstg_tf.model import build_model
        from rstg_tf.runs.checkpoints import restore_for_inference

        model = build_model(self.config.model)
        step = restore_for_inference(model, self.path, self.checkpoint)
        check_interrupts()
        return model, step


def open_run(model_dir: str | os.PathLike = "", checkpoint: str = "", *, runs_dir: str | os.PathLike = RUNS_DIR) -> Run:
    """The run in `model_dir`; without it the one that `checkpoint` lies in if that is a path, else the newest.

    `checkpoint`: '' for the newest, a step, 'best', or a path such as runs/demo/checkpoints/ckpt-1200.
    Raises ConfigError saying what was looked for and where.
    """
    folder = Path(model_dir) if model_dir else None
    if os.sep in checkpoint:
        owner, checkpoint = _split_checkpoint_path(Path(checkpoint))
        if folder is not None and folder.resolve() != owner.resolve():
            raise ConfigError(f"--checkpoint lies in the run {owner}, but --model_dir={model_dir} names another.")
        folder = owner
    folder = newest_run(runs_dir) if folder is None else folder
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(
            f"--model_dir={folder}: no run there ({path} is missing); give the folder that train.py wrote."
        )
    if not _checkpoints(folder):
        raise ConfigError(
            f"--model_dir={folder}: no checkpoint in {folder / 'checkpoints'} yet; let train.py write "
            "one (see --save_every)."
        )
    return Run(path=folder, config=kept_config(path), checkpoint=checkpoint or None)


def kept_config(path: Path) -> ExperimentConfig:
    """The settings in a run's config.json. Raises ConfigError, naming the file, if it holds none that can work."""
    text = read_text_file(path, named=str(path))
    try:
        return ExperimentConfig.from_json(text)
    except ConfigError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def newest_run(runs_dir: str | os.PathLike = RUNS_DIR) -> Path:
    """The folder in `runs_dir` whose checkpoints changed last. Raises ConfigError where no run has a checkpoint."""
    runs = [path.parent for path in Path(runs_dir).glob(f"*/{CONFIG_FILE}")]
    ready = [run for run in runs if _checkpoints(run)]
    if not ready:
        found = f"{len(runs)} run(s) without a checkpoint" if runs else "no run"
        raise ConfigError(f"{found} under {runs_dir}{os.sep}: train one first (python train.py), or give --model_dir.")
    return max(ready, key=lambda run: (max(path.stat().st_mtime for path in _checkpoints(run)), run))


def _split_checkpoint_path(path: Path) -> tuple[Path, str]:
    """runs/demo/checkpoints/ckpt-1200 -> (runs/demo, ckpt-1200); …/checkpoints/best/ckpt-1200 -> (runs/demo, best)."""
    directory, name = path.parent, path.name.removesuffix(".index")
    if directory.name == "best":
        directory, name = directory.parent, "best"
    if directory.name != "checkpoints":
        raise ConfigError(f"--checkpoint={path}: expected a step, 'best', or a path RUN/checkpoints/ckpt-STEP.")
    return directory.parent, name


def kept_class_names(run: Path) -> tuple[str, ...] | None:
    """The names of the classes of the data set that a run has begun with; None where it has kept no manifest."""
    for split in ("train", "test"):
        path = run / f"{split}_dataset.json"
        if path.exists():
            return tuple(_classes(path))
    return None


def class_names_near(checkpoint: str | os.PathLike) -> tuple[str, ...] | None:
    """`kept_class_names` of the run that a path is, or lies in; None for other checkpoints, such as the release's."""
    path = Path(checkpoint).absolute()
    for folder in [path, *path.parents][:4]:  # RUN/checkpoints/best/ckpt-STEP
        if (folder / CONFIG_FILE).is_file():
            return kept_class_names(folder)
    return None


def kept_manifest(path: Path) -> dict[str, Any]:
    """The copy of a data set's manifest that a run keeps; its `classes`, where it has them, are names.

    Raises ConfigError, naming the file, for anything else.
    """
    manifest = read_json(path, named=str(path))
    classes = manifest.get("classes", []) if isinstance(manifest, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ConfigError(f"{path}: holds no list of classes; copy the data set's dataset.json there again.")
    return manifest


def _num_clips(path: Path) -> int:
    try:
        return sum(shard["records"] for shard in kept_manifest(path)["shards"])
    except (KeyError, TypeError):
        raise ConfigError(f"{path}: lists no shards; copy the data set's dataset.json there again.") from None


def _classes(path: Path) -> list[str]:
    manifest = kept_manifest(path)
    if "classes" not in manifest:
        raise ConfigError(f"{path}: holds no list of classes; copy the data set's dataset.json there again.")
    return manifest["classes"]


def _checkpoints(run: Path) -> list[Path]:
    directory = run / "checkpoints"
    return [*directory.glob("ckpt-*.index"), *directory.glob("best/*.index")]
