"""Bytes that are flipped and files that are cut, in shards and in checkpoints: found, named, and never used."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.programs import Fault, Row, require_same_bits, run, tensors, train_command
from datasets.input_pipeline.pipeline import training_clips
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import DatasetError
from datasets.records.shards import record_offsets
from datasets.validate import validate
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig

NUM_CLIPS, BATCH_SIZE = 16, 4
STEPS, SAVE_EVERY = 60, 20
RESUMED_STEPS = (STEPS, STEPS - SAVE_EVERY)


def flip_shards(data: Path, generator: random.Random, *, tries: int = 100, programs: int = 4) -> Row:
    """One byte of a shard at a time; the last `programs` tries also start train.py."""
    row = Row("a byte flipped in a shard", "shard and record named, not trained on")
    dataset = RecordedDataset.open(data / "train")
    sound, refused, in_steps = set(_clips_until_fault(dataset)[0]), 0, 0
    for number in range(tries):
        shard = generator.choice(dataset.manifest.shards)
        path = dataset.folder / shard.file
        offsets, _ = record_offsets(path)
        position, mask = generator.randrange(shard.bytes), generator.randrange(1, 256)
        record = sum(offset <= position for offset in offsets) - 1
        with row.attempt(f"{shard.file}, byte {position} ^ {mask}"), _flipped(path, position, mask):
            message = " ".join(filter(None, validate(dataset)))
            _require_named(message, shard.file, f"record {record}")
            seen, message, before_step_0 = _clips_until_fault(dataset)
            if not set(seen) <= sound:
                raise Fault("a damaged clip came out of the training pipeline")
            _require_named(message, shard.file, f"record {record}")
            refused, in_steps = refused + before_step_0, in_steps + (not before_step_0)
            if number >= tries - programs:
                _refused_by_train(data, shard.file)
    row.figures = (
        f"{refused} refused before step 0, {in_steps} when the shard was read; `datasets.validate` named all of them; "
        f"{programs} of them through train.py"
    )
    return row


def cut_shards(data: Path, generator: random.Random, *, tries: int = 25) -> Row:
    """Truncations of a shard at random offsets, each met by train.py."""
    row = Row("a shard cut at a random byte", "shard named, refused before step 0")
    dataset = RecordedDataset.open(data / "train")
    for _ in range(tries):
        shard = generator.choice(dataset.manifest.shards)
        size = generator.randrange(shard.bytes)
        with (
            row.attempt(f"{shard.file} cut to {size}"),
            _changed(dataset.folder / shard.file, lambda whole, size=size: whole[:size]),
        ):
            _require_named(" ".join(filter(None, validate(dataset))), shard.file)
            if _refused_by_train(data, shard.file).exists():
                raise Fault("the refused run left its folder")
    row.figures = "all through train.py: exit code 2, no run folder made"
    return row


def flip_checkpoints(data: Path, folder: Path, generator: random.Random, *, tries: int = 100, programs: int = 4) -> Row:
    """One byte at a time of the newest checkpoint (data, index) or of the list `checkpoint` beside it."""
    row = Row("a byte flipped in a checkpoint", "named, and the one before it taken")

    def damage(whole: bytes) -> bytes:
        position = generator.randrange(len(whole))
        return whole[:position] + bytes([whole[position] ^ generator.randrange(1, 256)]) + whole[position + 1 :]

    kinds = ["data-00000-of-00001"] * 5 + ["index"] * 4 + ["checkpoint"]
    return _damaged_checkpoints(
        row, data, folder, generator, damage=damage, kinds=kinds, tries=tries, programs=programs
    )


def cut_checkpoints(data: Path, folder: Path, generator: random.Random, *, tries: int = 25, programs: int = 2) -> Row:
    """Truncations of the same files at random offsets."""
    row = Row("a checkpoint cut at a random byte", "named, and the one before it taken")

    def damage(whole: bytes) -> bytes:
        return whole[: generator.randrange(len(whole))]

    kinds = ["data-00000-of-00001", "index", "data-00000-of-00001", "index", "checkpoint"]
    return _damaged_checkpoints(
        row, data, folder, generator, damage=damage, kinds=kinds, tries=tries, programs=programs
    )


def _damaged_checkpoints(
    row: Row,
    data: Path,
    folder: Path,
    generator: random.Random,
    *,
    damage: Callable[[bytes], bytes],
    kinds: list[str],
    tries: int,
    programs: int,
) -> Row:
    run_dir, damaged = folder / "saved", folder / "damaged"
    flags = (f"--num_steps={STEPS}", f"--save_every={SAVE_EVERY}", "--eval_every=0")
    if not run_dir.exists():
        run(*train_command(data, run_dir, *flags)).require(0)
    restorer = _Restorer(run_dir)
    named, kept, refused = 0, 0, 0
    for number in range(tries):
        kind = kinds[number % len(kinds)]
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(run_dir, damaged)
        path = damaged / "checkpoints" / (kind if kind == "checkpoint" else f"ckpt-{STEPS}.{kind}")
        path.write_bytes(damage(path.read_bytes()))
        with row.attempt(f"{path.name}, try {number + 1}"):
            step, message = restorer.restore(damaged)
            if step is None:
                refused += 1
                _require_named(message, str(path))
            elif step == STEPS:
                kept += 1  # the list was written anew, or the byte was one that nothing depends on
            else:
                named += 1
                _require_named(message, f"ckpt-{STEPS}")
            if number >= tries - programs and step is not None:
                run(*train_command(data, damaged, *flags)).require(0)
                require_same_bits(damaged, run_dir, STEPS)
    row.figures = (
        f"{named} times the one before it was taken, {kept} times the newest itself, with the same bits (the list "
        f"`checkpoint` is written anew; padding), {refused} refused by name; {programs} went on by train.py to the "
        "same bits"
    )
    return row


class _Restorer:
    """What train.py does before step 0 with the checkpoints of a run, again and again with one model."""

    def __init__(self, run_dir: Path):
        from rstg_tf.model import build_model
        from rstg_tf.runs.weight_average import WeightAverage
        from rstg_tf.training.optimizers import build_optimizer

        self._config = ExperimentConfig.from_json((run_dir / "config.json").read_text(encoding="utf-8"))
        self._model = build_model(self._config.model)
        weights, settings = self._model.trainable_variables, self._config.train
        self._optimizer = build_optimizer(settings, total_steps=STEPS, variables=weights)
        self._average = WeightAverage(weights, settings.ema_momentum)
        self._expected = {step: tensors(run_dir / "checkpoints" / f"ckpt-{step}") for step in RESUMED_STEPS}

    def restore(self, run_dir: Path) -> tuple[int | None, str]:
        """The step that was restored, None where the folder was refused, and what was said.

        Raises Fault unless what was restored are the bits that were saved at that step.
        """
        import tensorflow as tf

        from rstg_tf.runs.checkpoints import Checkpoints
        from rstg_tf.runs.run_folder import RunFolder

        parts = {"model": self._model, "optimizer": self._optimizer, "average": self._average}
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), RunFolder(run_dir, self._config) as folder:
                step = Checkpoints(folder, keep=3, **parts).restore()
        except ConfigError as error:
            return None, str(error)
        except Exception as error:  # whatever else comes out would be a traceback
            raise Fault(f"{type(error).__name__}: {error}") from error
        if step not in RESUMED_STEPS:
            raise Fault(f"restored step {step}, expected {RESUMED_STEPS[0]} or {RESUMED_STEPS[1]}")
        again = run_dir / "again"
        found = tensors(Path(tf.train.Checkpoint(**parts).write(os.fspath(again))))
        differing = [name for name, value in self._expected[step].items() if found[name].tobytes() != value.tobytes()]
        if differing:
            raise Fault(f"step {step} was restored with other bits: {differing[0]}")
        return step, said.getvalue()


def _clips_until_fault(dataset: RecordedDataset) -> tuple[list[str], str, bool]:
    """The clips of one epoch as training gets them, up to a fault: hashes, the sentence, whether it came at once."""
    import tensorflow as tf

    seen: list[str] = []
    try:
        dataset.check()
        clips = training_clips(dataset=dataset, clip=dataset.manifest.clip_spec, batch_size=BATCH_SIZE, seed=0)
        for batch in clips.take(dataset.num_clips // BATCH_SIZE).as_numpy_iterator():
            pairs = zip(batch["video"], batch["label"])
            seen += [hashlib.sha256(video.tobytes() + bytes([label])).hexdigest() for video, label in pairs]
    except DatasetError as error:
        return seen, str(error), not seen
    except tf.errors.OpError as error:
        return seen, str(dataset.explain_read_error(error)), False
    return seen, "", False


def _refused_by_train(data: Path, shard: str) -> Path:
    """Starts train.py, which must refuse the data and name the shard; returns the folder that was to hold the run."""
    run_dir = data.parent / "refused"
    shutil.rmtree(run_dir, ignore_errors=True)
    ended = run(*train_command(data, run_dir, f"--num_steps={NUM_CLIPS // BATCH_SIZE}", "--eval_every=0"))
    if ended.code != 2 or any("Traceback" in line for line in ended.said):
        raise Fault(f"train.py ended with {ended.code}, expected 2: {' / '.join(ended.said[-2:])}")
    _require_named(" ".join(ended.said), shard)
    return run_dir


def _require_named(message: str, *names: str) -> None:
    missing = [name for name in names if not re.search(rf"{re.escape(name)}(?!\d)", message)]
    if missing:
        raise Fault(f"{' and '.join(missing)} not named: {message[:200] or 'nothing said'}")


@contextlib.contextmanager
def _changed(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    try:
        yield
    finally:
        path.write_bytes(whole)


def _flipped(path: Path, position: int, mask: int) -> contextlib.AbstractContextManager[None]:
    return _changed(path, lambda whole: whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :])
