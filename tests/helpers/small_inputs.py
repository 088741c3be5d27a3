"""What a reader has beside the repository when the commands of a page begin: videos, label files, digits; all small."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import yaml
from documented_blocks import ROOT, run_command
from PIL import Image

from datasets.sync_mnist import digits as digit_files
from rstg_tf import build_model, release
from rstg_tf.release.writer import write_checkpoint

# What of the repository the commands name.
FROM_REPOSITORY = (
    "train.py",
    "eval.py",
    "configs",
    "examples",
    "syncmnist.flags",
    "smt.flags",
    "Makefile",
    "setup.sh",
    "requirements.txt",
    "docs",
)
# syncmnist.flags at the widths of tests/golden/syncmnist_small.json.
NARROW = "--num_filters=32 --node_feat_dim=32 --message_dims=32"
CLASSES = ("Holding something", "Dropping something")


def moving_frames(num_frames: int, seed: int, size: tuple[int, int] = (40, 52)) -> np.ndarray:
    """uint8 [T, H, W, 3]: coloured noise that moves to the right."""
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return np.stack([np.roll(picture, 3 * step, axis=1) for step in range(num_frames)])


def write_frames(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / f"{number:05d}.jpg")


def repository(folder: Path) -> None:
    """A stand-in for the repository's folder, with the demo's records: 16 clips to train on, 42 to test."""
    for name in FROM_REPOSITORY:
        (folder / name).symlink_to(ROOT / name)
    for split, clips in (("train", 16), ("test", 42)):
        code = run_command(
            f"python -m datasets.sync_mnist --preset=demo --split={split} --num_clips={clips} "
            f"--num_workers=1 --out_dir={folder}/data/demo/{split}",
            folder,
        )
        assert code == 0


def your_videos(folder: Path) -> None:
    """Two classes of videos as folders of frames; five each, so that some are held out."""
    for number in range(10):
        write_frames(folder / "videos" / ("pouring", "stirring")[number % 2] / str(number), moving_frames(8, number))


def sync_mnist(folder: Path) -> None:
    """mnist/ with a test image of each class, and the release's pickle of paths for 2 × 3 clips of them."""
    images, labels = digit_files.load_digit_images("sklearn", "test")
    first = np.array([np.flatnonzero(labels == label)[0] for label in range(10)])
    (folder / "mnist").mkdir()
    for name, values in (("t10k-images-idx3-ubyte", images[first]), ("t10k-labels-idx1-ubyte", np.arange(10))):
        values = values.astype(np.uint8)
        header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
        (folder / "mnist" / name).write_bytes(header + values.tobytes())
    shape, generator = (2, 3), np.random.default_rng(0)
    digits = np.array([generator.permutation(10)[:5] for _ in range(6)]).reshape(*shape, 5)
    paths = {
        "ind_digits": digits.astype(np.uint32),
        "set_digits": digits[..., 1:].astype(np.uint8),
        "sincron_prob": np.ones(shape, np.uint8),
        "digit_position": np.ones(shape, np.uint8),
        "coords_digits": generator.integers(0, 72, (*shape, 10, 5, 2)).astype(np.uint8),
        "noise_coords": np.zeros((*shape, 10, 0, 2), np.uint8),
        "ind_rand_part": np.zeros((*shape, 0), np.uint32),
    }
    (folder / "predefined_path_test.pickle").write_bytes(pickle.dumps(paths))


def something_something(folder: Path) -> None:
    """Both versions with four videos a split (v2 has no webm here: see `tiny_videos`), and their label files."""
    from tiny_videos import WEBM, write_video

    rows = {"train": [], "validation": []}
    for number in range(8):
        split, media_id = ("train", "validation")[number // 4], str(11 + number)
        rows[split].append((media_id, CLASSES[number % 2]))
        write_frames(folder / "20bn-something-something-v1" / media_id, moving_frames(8, number))
        if split == "train":
            write_video(folder / "20bn-something-something-v2" / f"{media_id}.webm", moving_frames(8, number), WEBM)
    for split, labelled in rows.items():
        text = "".join(f"{media_id};{name}\n" for media_id, name in labelled)
        (folder / f"something-something-v1-{split}.csv").write_text(text)
    (folder / "something-something-v1-labels.csv").write_text("".join(f"{name}\n" for name in CLASSES))
    (folder / "labels.json").write_text(json.dumps({name: str(label) for label, name in enumerate(CLASSES)}))
    (folder / "train.json").write_text(
        json.dumps(
            [
                {
                    "id": media_id,
                    "label": name,
                    "template": name.replace("something", "[something]"),
                    "placeholders": [],
                }
                for media_id, name in rows["train"]
            ]
        )
    )


def authors_weights(folder: Path) -> None:
    """The release's SyncMNIST configuration 32 wide, and a TF1 checkpoint of it with random weights."""
    keys = json.loads((ROOT / "tests" / "golden" / "syncmnist_small.json").read_text())["config"]
    (folder / "mnist_config.yaml").write_text(yaml.safe_dump(keys))
    model = build_model(release.config_from_release(keys).model)
    write_checkpoint(model, str(folder / "checkpoints" / "model.ckpt"))
    sync_mnist_records(folder)


def sync_mnist_records(folder: Path) -> None:
    for split in ("train", "test"):
        assert (
            run_command(
                f"python -m datasets.sync_mnist --split={split} --num_clips=8 --digits=sklearn "
                f"--num_workers=1 --out_dir={folder}/data/sync_mnist/{split}",
                folder,
            )
            == 0
        )
