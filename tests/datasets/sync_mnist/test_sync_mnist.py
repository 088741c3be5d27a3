"""The data set that the command writes: the release's bit for bit, resumable, independent of shards and workers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from datasets.records import sequence_examples
from datasets.records.dataset import RecordedDataset
from datasets.records.manifest import DatasetError, Manifest
from datasets.records.sequence_examples import decode_clip
from datasets.sync_mnist import writing
from datasets.sync_mnist.__main__ import main
from datasets.sync_mnist.digits import load_digit_images
from datasets.sync_mnist.drawing import draw_clips
from datasets.sync_mnist.plans import RandomPlans, SyncMnistSettings, pair_label
from datasets.sync_mnist.presets import PRESETS
from datasets.sync_mnist.writing import write_dataset
from rstg_tf.common.errors import ConfigError

SMALL = SyncMnistSettings(num_digits=3, digit_classes=4, canvas=48, frame_size=24, num_frames=4, out_of_step_share=0.25)
NUM_CLIPS = 600  # three blocks of random numbers


def write_small(folder, **changes) -> Manifest:
    arguments = dict(
        split="train",
        digits="sklearn",
        num_clips=NUM_CLIPS,
        settings=SMALL,
        seed=5,
        num_shards=4,
        num_workers=1,
        show_progress=False,
    )
    return write_dataset(out_dir=folder, **{**arguments, **changes})


def read_records(folder) -> list[bytes]:
    files = [str(folder / shard.file) for shard in Manifest.read(folder).shards]
    return list(tf.data.TFRecordDataset(files).as_numpy_iterator())


@pytest.fixture(scope="module")
def small_dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return folder, write_small(folder)


def test_the_manifest_describes_the_data_set(small_dataset):
    folder, manifest = small_dataset
    assert Manifest.read(folder) == manifest
    RecordedDataset(folder, manifest).check()
    assert [shard.records for shard in manifest.shards] == [150] * 4
    assert (manifest.num_frames, manifest.height, manifest.width, manifest.channels) == (4, 24, 24, 1)
    assert manifest.classes == SMALL.class_names
    settings = {key: manifest.made_by[key] for key in dataclasses.asdict(SMALL)}
    assert settings == dataclasses.asdict(SMALL)
    assert manifest.made_by["best_guess_from_digits"] < 0.4  # three pairs or none: a quarter each, in expectation
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.json"] + [s.file for s in manifest.shards]


def test_every_clip_can_be_drawn_again_from_the_trajectories_stored_with_it(small_dataset):
    folder, _ = small_dataset
    images, image_labels = load_digit_images("sklearn", "train")
    for number, record in enumerate(read_records(folder)[::7]):
        clip = decode_clip(record)
        extra = clip["extra"]
        indices, labels = extra["sync_mnist/digit_indices"], extra["sync_mnist/digit_labels"]
        positions = extra["sync_mnist/positions"].reshape(1, 4, 3, 2)
        np.testing.assert_array_equal(labels, image_labels[indices])
        redrawn = draw_clips(digit_images=images[indices][None], positions=positions, canvas=48, frame_size=24)
        np.testing.assert_array_equal(clip["frames"][..., 0], redrawn[0])
        in_step = (np.diff(positions[0, :, 0], axis=0) == np.diff(positions[0, :, 1], axis=0)).all()
        assert clip["label"] == (pair_label(labels[0], labels[1]) if in_step else 6)
        assert clip["label_name"] == SMALL.class_names[clip["label"]]
        assert clip["media_id"] == f"train-{7 * number:07d}"
        assert clip["timestamps"].tolist() == [0, 100_000, 200_000, 300_000]


def test_the_bytes_do_not_depend_on_the_number_of_workers(small_dataset, tmp_path):
    _, manifest = small_dataset
    assert write_small(tmp_path, num_workers=2).shards == manifest.shards


def test_the_clips_do_not_depend_on_the_number_of_shards_or_clips(small_dataset, tmp_path):
    folder, _ = small_dataset
    write_small(tmp_path, num_shards=3, num_clips=500)
    assert read_records(tmp_path) == read_records(folder)[:500]


def test_another_seed_or_split_gives_other_clips(small_dataset, tmp_path):
    folder, manifest = small_dataset
    write_small(tmp_path / "seed", seed=6, num_clips=50, num_shards=1)
    write_small(tmp_path / "test", split="test", num_clips=50, num_shards=1)
    frames = {
        name: [decode_clip(record)["frames"].tobytes() for record in read_records(path)[:50]]
        for name, path in (("first", folder), ("seed", tmp_path / "seed"), ("test", tmp_path / "test"))
    }
    assert len(set(frames["first"] + frames["seed"] + frames["test"])) == 150


class Crash(BaseException):
    """Ends a run as a kill would: no handler for ordinary errors sees it."""


def crash_after(monkeypatch, clips: int) -> None:
    encode = sequence_examples.encode_clip
    left = iter(range(clips))

    def encode_or_crash(**arguments):
        if next(left, None) is None:
            raise Crash
        return encode(**arguments)

    monkeypatch.setattr(writing, "encode_clip", encode_or_crash)


@pytest.mark.filterwarnings("ignore:.*tasks.*(unused|not used|cancelled):UserWarning")  # joblib, of what a crash wasted
@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_interrupted_run_keeps_its_finished_shards_and_ends_with_the_same_bytes(
    small_dataset, tmp_path, monkeypatch, num_workers
):
    _, manifest = small_dataset
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crash_after(patch, 370)  # in the third shard of 150
        write_small(tmp_path, num_workers=num_workers)
    first, second = manifest.shards[:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.file, second.file, "unfinished.json"]
    with pytest.raises(DatasetError, match="not a finished data set"):
        Manifest.read(tmp_path)
    inodes = {file: (tmp_path / file).stat().st_ino for file in (first.file, second.file)}
    with monkeypatch.context() as patch:
        crash_after(patch, 300)  # the clips of the two missing shards: one more would crash
        assert write_small(tmp_path, num_workers=num_workers) == manifest
    assert inodes == {file: (tmp_path / file).stat().st_ino for file in inodes}
    RecordedDataset.open(tmp_path).check()
    assert not (tmp_path / "unfinished.json").exists()


def test_a_finished_data_set_is_left_alone_and_a_damaged_shard_of_it_written_again(monkeypatch, tmp_path):
    manifest = write_small(tmp_path, num_clips=40)
    damaged = tmp_path / manifest.shards[2].file
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    with monkeypatch.context() as patch:
        crash_after(patch, 10)  # one shard's clips
        assert write_small(tmp_path, num_clips=40) == manifest
    with monkeypatch.context() as patch:
        crash_after(patch, 0)
        assert write_small(tmp_path, num_clips=40) == manifest


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_clips_of_other_settings_is_refused(tmp_path, monkeypatch, finished):
    with monkeypatch.context() as patch:
        if not finished:
            crash_after(patch, 15)
        try:
            write_small(tmp_path, num_clips=40)
        except Crash:
            assert not finished
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = dataclasses.replace(SMALL, max_move=9)
    with pytest.raises(ConfigError, match=r"other settings: seed \(5 there, 6 now\), max_move \(10 there, 9 now\)"):
        write_small(tmp_path, num_clips=40, settings=other, seed=6)
    with pytest.raises(ConfigError, match=r"split \(train there, test now\), digits_sha256"):
        write_small(tmp_path, num_clips=40, split="test")
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_folder_with_shards_of_unknown_origin_is_refused(tmp_path):
    (tmp_path / "train-00000-of-00001.tfrecord").write_bytes(b"somebody's work")
    with pytest.raises(ConfigError, match="unknown origin"):
        write_small(tmp_path)
    assert (tmp_path / "train-00000-of-00001.tfrecord").read_bytes() == b"somebody's work"


def test_the_releases_test_set_is_reproduced_bit_for_bit(release_dir, mnist_dir, tmp_path):
    checksums = json.loads((release_dir / "golden" / "syncmnist_test_checksums.json").read_text())
    write_dataset(
        out_dir=tmp_path,
        split="test",
        digits=f"idx:{mnist_dir}",
        num_clips=1000,
        num_shards=2,
        settings=PRESETS["release"].settings,
        paths=release_dir / "files" / "predefined_path_test.pickle",
        num_workers=1,
        show_progress=False,
    )
    clips = [decode_clip(record) for record in read_records(tmp_path)]
    frames = np.stack([clip["frames"][..., 0] for clip in clips])
    assert hashlib.sha256(frames.tobytes()).hexdigest() == checksums["per_1000"][0]
    with np.load(release_dir / "golden" / "syncmnist_test_first16.npz") as first:
        np.testing.assert_array_equal(frames[:16], first["videos"])
        np.testing.assert_array_equal([clip["label"] for clip in clips[:16]], first["labels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split=train"], "--out_dir is missing"),
        (["--split=valid", "--out_dir={out}"], "split"),
        (["--split=test", "--out_dir={out}", "--num_digits=five"], "num_digits"),
        (["--split=test", "--out_dir={out}", "--nois_parts=3"], "nois_parts"),
        (["--split=test", "--out_dir={out}", "12"], "'12' is no flag"),
        (["--split=test", "--out_dir={out}", "--digits=sklearn", "--num_clips=0"], "--num_clips=0"),
        (["--split=test", "--out_dir={out}", "--digits=sklearn", "--num_clips=3", "--num_shards=4"], "--num_shards=4"),
        (["--split=test", "--out_dir={out}", "--preset=demo", "--num_clips=3"], "--num_clips=3: expected an even"),
        (["--split=test", "--out_dir={out}", "--digits=sklearn", "--paths={out}/none"], "No such file"),
    ],
)
def test_wrong_flags_end_with_exit_code_2_and_one_sentence(tmp_path, capsys, arguments, message):
    assert main([argument.format(out=tmp_path / "out") for argument in arguments]) == 2
    output, errors = capsys.readouterr()
    assert message in errors and not output
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_preset_with_single_flags_changed(tmp_path, capsys):
    flags = ["--preset=demo", "--split=test", "--num_clips=20", "--frame_size=16", "--num_workers=1"]
    assert main([*flags, f"--out_dir={tmp_path}"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == {
        "out_dir": str(tmp_path),
        "split": "test",
        "clips": 20,
        "classes": 7,
        "shards": 1,
        "best_guess_from_digits": summary["best_guess_from_digits"],
    }
    assert summary["best_guess_from_digits"] <= 0.5
    made_by = Manifest.read(tmp_path).made_by
    expected = dataclasses.asdict(dataclasses.replace(PRESETS["demo"].settings, frame_size=16))
    assert {key: made_by[key] for key in expected} == expected


def test_the_demo_cannot_be_solved_by_recognising_digits():
    for split in ("train", "test"):
        preset = PRESETS["demo"].arguments(split)
        image_labels = load_digit_images(preset["digits"], split)[1]
        plans = RandomPlans(settings=preset["settings"], image_labels=image_labels, split=split, seed=0)
        assert writing._best_guess(plans, preset["num_clips"]) <= 0.5


def test_neither_a_worker_nor_a_refused_command_pays_for_importing_tensorflow():
    script = (
        "import sys; from datasets.sync_mnist.__main__ import main\n"
        "code = main(['--split=test', '--out_dir=x', '--canvas=9'])\n"
        "print(code, 'tensorflow' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert finished.stdout.split() == ["2", "False"]
    assert "--canvas=9: expected 32 to 1024" in finished.stderr and len(finished.stderr.splitlines()) == 1
