"""What all tests share: a quiet, seeded TensorFlow with four logical CPUs, and the files that some of them need."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from datasets.records.manifest import Manifest, shard_file
from datasets.records.sequence_examples import ShardWriter, encode_clip
from rstg_tf import build_model, flags, runs

LOGICAL_CPUS = 4
ROOT = pathlib.Path(__file__).resolve().parents[1]
# What depends on TensorFlow's or Keras' release, and so runs on both stacks in continuous integration (docs/stacks.md):
# numbers, layers, exact resume, checkpoints, exports, decoders, what tensorflow-addons measures, and what is installed.
BOTH_STACKS = (
    "ops",
    "layers",
    "backbones",
    "runs",
    "training",
    "video",
    "test_golden.py",
    "test_golden_smt.py",
    "test_model.py",
    "test_recorded_run.py",
    "test_stacks.py",
    "serving/test_export.py",
    "serving/test_signatures.py",
    "test_package.py",
)
EXACT_RESUME = "test_train.py"  # of it the tests that compare bits
# Modules of many tests that each build, train or export a model: some twenty seconds and more each.
SLOW_MODULES = (
    "benchmarks/test_benchmarks.py",
    "benchmarks/test_chaos.py",
    "inference/test_chunks.py",
    "inference/test_predict.py",
    "inference/test_streaming.py",
    "serving/test_any_clip_size.py",
    "serving/test_export.py",
    "serving/test_foreign_models.py",
    "serving/test_signature_refusals.py",
    "serving/test_signatures.py",
    "test_eval.py",
    "test_eval_views.py",
    "test_golden_smt.py",
    "test_recorded_run.py",
    "test_stacks.py",
    "training/test_loop.py",
)

# Started by a script in its background, pytest ignores Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Several replicas need several devices, and TensorFlow splits the CPU only before its first operation.
# The same examples in every run, and none refused for a busy machine.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("project")
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS
)


def pytest_collection_modifyitems(items):
    folders = [(ROOT / "tests" / name).resolve(strict=True) for name in BOTH_STACKS]
    slow = [(ROOT / "tests" / name).resolve(strict=True) for name in SLOW_MODULES]
    for item in items:
        if item.path in slow:
            item.add_marker(pytest.mark.slow)
        compares_bits = item.path.name == EXACT_RESUME and "bits" in item.name
        if compares_bits or any(folder in (item.path, *item.path.parents) for folder in folders):
            item.add_marker(pytest.mark.both_stacks)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """No test sees another one's random numbers or number format."""
    keras.utils.set_random_seed(0)
    yield
    keras.mixed_precision.set_global_policy("float32")


def _files(variable: str, default: str) -> pathlib.Path:
    directory = pathlib.Path(os.environ.get(variable, ROOT / default))
    if not directory.is_dir():
        pytest.skip(f"{directory} is not there: set {variable} to the folder that holds these files")
    return directory


@pytest.fixture(scope="session")
def release_dir() -> pathlib.Path:
    """The files of the authors' release."""
    return _files("RSTG_RELEASE_DIR", "../shared/release")


@pytest.fixture(scope="session")
def mnist_dir() -> pathlib.Path:
    """MNIST as IDX files."""
    return _files("RSTG_MNIST_DIR", "../shared/mnist")


def write_toy_records(directory: pathlib.Path, *, split: str, num_clips: int, seed: int) -> None:
    """Clips of 4 frames of 12×12 grey pixels in two classes: the bright half is the upper or the lower one."""
    directory.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    shards = []
    for number in range(2):
        with ShardWriter(directory / shard_file("toy", number, 2)) as shard:
            for index in range(number, num_clips, 2):
                label = index // 2 % 2
                frames = generator.integers(0, 60, (4, 12, 12, 1)).astype(np.uint8)
                frames[:, 6 * label : 6 * label + 6] += 120
                shard.write(
                    encode_clip(
                        frames=frames,
                        label=label,
                        label_name=("up", "down")[label],
                        media_id=f"{split}-{index}",
                        image_format="PNG",
                        timestamps=range(0, 400_000, 100_000),
                    )
                )
        shards.append(shard.info)
    Manifest(
        name="toy",
        split=split,
        shards=tuple(shards),
        num_frames=4,
        height=12,
        width=12,
        channels=1,
        image_format="PNG",
        classes=("up", "down"),
        made_by={"seed": seed},
    ).write(directory)


@pytest.fixture(scope="session")
def toy_records(tmp_path_factory) -> pathlib.Path:
    """A folder with train/ (20 clips) and test/ (7 clips) of `write_toy_records`."""
    directory = tmp_path_factory.mktemp("toy")
    write_toy_records(directory / "train", split="train", num_clips=20, seed=1)
    write_toy_records(directory / "test", split="test", num_clips=7, seed=2)
    return directory


@pytest.fixture
def toy_settings() -> dict:
    """Flags and values of a graph small enough for many steps a second, on clips of `toy_records`' size."""
    return {
        "num_conv_layers": 1,
        "num_filters": 4,
        "num_scales": 2,
        "num_process_iter": 1,
        "node_feat_dim": 4,
        "message_dims": 4,
        "dim_h": 12,
        "dim_w": 12,
        "video_num_frames": 4,
        "num_classes": 2,
        "batch_size": 8,
        "pixel_scaling": "centred",
        "input_batch_norm": True,
        "loss_reduction": "mean",
        "optimizer": "adam",
        "learning_rate": 1e-2,
        "num_steps": 60,
    }


@pytest.fixture
def small_run(tmp_path, toy_records, toy_settings):
    """A run folder with one checkpoint, step 5, of random weights; returns it as the commands see it."""
    config = flags.config_from_settings(
        {**toy_settings, "train_dataset": str(toy_records / "train"), "test_dataset": str(toy_records / "test")}
    )
    folder = tmp_path / "runs" / "small"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    for split in ("train", "test"):
        shutil.copy(toy_records / split / "dataset.json", folder / f"{split}_dataset.json")
    tf.train.Checkpoint(model=build_model(config.model)).write(str(folder / "checkpoints" / "ckpt-5"))
    return runs.open_run(str(folder))
