"""Folders as people lay them out: classes, splits, what systems leave in them, and mixtures that could be either."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image

from datasets.records.manifest import Manifest
from datasets.video_folder import main
from datasets.videos.folders import find_splits, find_videos
from rstg_tf.common.errors import ConfigError

SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
LEFT = ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.jpg", "Desktop.ini", "ehthumbs.db")


def frames(folder, count=2, suffix=".png"):
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(folder / f"{number:03d}{suffix}")


def class_folders(folder, classes=("jump", "run"), count=2, suffix=".png"):
    for name in classes:
        for number in range(count):
            frames(folder / name / f"v{number}", suffix=suffix)
    return folder


def run(capsys, videos, out_dir, *flags):
    code = main([f"--videos={videos}", f"--out_dir={out_dir}", "--num_processes=1", *flags])
    output, errors = capsys.readouterr()
    return code, json.loads(output.splitlines()[-1]) if output else None, errors


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val"),
        ("train", "test"),
        ("train", "validation", "test"),
        ("Train", "Validation"),
        ("TRAIN", "VAL"),
        ("training", "testing"),
        ("train", "dev"),
        ("train", "valid", "Test"),
        ("val", "test"),
        ("test",),
    ],
)
@pytest.mark.parametrize("stray", [(), ("README.txt", "labels.csv", "Thumbs.db")])
def test_folders_named_as_splits_are_splits(capsys, tmp_path, names, stray):
    for number, name in enumerate(names, start=1):
        class_folders(tmp_path / "in" / name, count=number)
    for name in stray:
        (tmp_path / "in" / name).write_text("about these videos")
    (tmp_path / "in" / "__MACOSX" / "train").mkdir(parents=True)
    code, summary, errors = run(capsys, tmp_path / "in", tmp_path / "out")
    assert code == 0, errors
    assert summary["clips"] == {SPLIT_OF[name.lower()]: 2 * number for number, name in enumerate(names, start=1)}
    for name in names:
        manifest = Manifest.read(tmp_path / "out" / SPLIT_OF[name.lower()])
        assert manifest.classes == ("jump", "run") and manifest.split == SPLIT_OF[name.lower()]


def test_a_train_folder_alone_gives_a_share_away_and_says_so(capsys, tmp_path):
    class_folders(tmp_path / "in" / "train", count=8)
    code, summary, errors = run(capsys, tmp_path / "in", tmp_path / "out", "--validation_share=0.3")
    assert code == 0 and sum(summary["clips"].values()) == 16 and set(summary["clips"]) == {"train", "validation"}
    assert "holds no split but train: a share of its videos is held out" in errors


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("train", "jump"),
            "train may be a split, but jump beside it may be a class.*as classes they would be jump and",
        ),
        (("train", "val", "jump", "run"), "train and val may be splits, but jump and run beside them may be classes"),
        (("val", "validation", "train"), "val and validation would both be the split validation"),
        (("Train", "train"), "Train and train would both be the split train"),
    ],
)
def test_a_mixture_that_could_be_either_is_refused_with_what_would_be_a_class(tmp_path, classes, message):
    for name in classes:
        class_folders(tmp_path / name)
    with pytest.raises(ConfigError, match=message):
        find_splits(tmp_path)
    if "jump" not in classes:
        return
    for name in classes:
        frames(tmp_path / name / "v")  # all are classes
    assert find_splits(tmp_path, layout="classes") is None
    assert find_videos(tmp_path)[0] == tuple(sorted(classes))


def test_folders_of_videos_that_are_named_as_splits_are_refused_or_what_the_flag_says(capsys, tmp_path):
    for name in ("train", "test", "car"):
        (tmp_path / "vehicles" / name).mkdir(parents=True)
        frames(tmp_path / "vehicles" / name / "v1")
        for number in range(2, 7):
            frames(tmp_path / "vehicles" / name / f"v{number}")
    with pytest.raises(ConfigError, match="as classes they would be car, test and train"):
        find_splits(tmp_path / "vehicles")
    assert find_videos(tmp_path / "vehicles")[0] == ("car", "test", "train")
    (tmp_path / "vehicles" / "car").rename(tmp_path / "car")
    with pytest.raises(ConfigError, match="train may be a split, but holds no folder per class|test may be a split"):
        find_splits(tmp_path / "vehicles")
    code, summary, errors = run(
        capsys, tmp_path / "vehicles", tmp_path / "out", "--layout=classes", "--seed=3", "--validation_share=0.4"
    )
    assert code == 0 and summary["classes"] == 2, errors
    with pytest.raises(ConfigError, match="holds none of the folders train, val, test"):
        find_splits(tmp_path, layout="splits")


def test_folders_beside_the_splits_that_hold_no_video_change_nothing(tmp_path):
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "val")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.csv").write_text("a,b\n")
    assert {split: len(sources) for split, sources in find_splits(tmp_path)[1].items()} == {"train": 4, "validation": 4}


def test_a_class_written_in_two_normal_forms_is_one(tmp_path):
    names = [unicodedata.normalize(form, "Hände heben") for form in ("NFC", "NFD")]
    class_folders(tmp_path / "train", classes=("a", names[0]))
    class_folders(tmp_path / "val", classes=("a", names[1]))
    classes, splits = find_splits(tmp_path)
    assert classes == ("a", names[0]) or classes == (names[0], "a")
    for sources in splits.values():
        assert all(source.label == classes.index("a") for source in sources if source.media_id.startswith("a/"))
    class_folders(tmp_path / "both", classes=names)
    with pytest.raises(ConfigError, match=r"the class .* comes again as 'H[aä]"):
        find_videos(tmp_path / "both")


def test_splits_with_other_classes_are_refused(tmp_path):
    class_folders(tmp_path / "train", classes=("a", "b", "c"))
    class_folders(tmp_path / "val", classes=("a", "c"))
    with pytest.raises(ConfigError, match="the class 'b' is not in both of train and validation"):
        find_splits(tmp_path)


def test_what_systems_leave_is_passed_over_wherever_it_lies(tmp_path):
    class_folders(tmp_path)
    clean = find_videos(tmp_path)
    for folder in (tmp_path, tmp_path / "jump", tmp_path / "run" / "v0"):
        for name in LEFT:
            (folder / name).write_bytes(b"x")
        (folder / "__MACOSX").mkdir()
        (folder / "__MACOSX" / "._v.mp4").write_bytes(b"x")
    assert find_videos(tmp_path) == clean


@pytest.mark.parametrize("place", ["jump/empty", "jump/monday/empty", "run/empty"])
@pytest.mark.parametrize("left", ["", "Thumbs.db"])
def test_an_empty_folder_is_counted_and_listed_wherever_it_stands(capsys, tmp_path, place, left):
    class_folders(tmp_path / "in" / "train")
    class_folders(tmp_path / "in" / "val")
    (tmp_path / "in" / "train" / place).mkdir(parents=True)
    if left:
        (tmp_path / "in" / "train" / place / left).write_bytes(b"x")
    code, summary, _ = run(capsys, tmp_path / "in", tmp_path / "out", "--max_bad_fraction=0.5")
    assert code == 0 and summary["rejected"] == 1 and summary["clips"] == {"train": 4, "validation": 4}
    assert f"{place}," in (tmp_path / "out" / "train" / "rejected.csv").read_text()


def test_pictures_beside_videos_are_listed_not_made_videos(capsys, tmp_path):
    class_folders(tmp_path / "in" / "train")
    class_folders(tmp_path / "in" / "val")
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "train" / "jump" / "poster.jpg")
    code, summary, _ = run(capsys, tmp_path / "in", tmp_path / "out", "--max_bad_fraction=0.5")
    assert code == 0 and summary["rejected"] == 1 and summary["clips"]["train"] == 4
    assert "jump/poster.jpg" in (tmp_path / "out" / "train" / "rejected.csv").read_text()


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".TIFF", ".webp", ".ppm", ".jp2", ".gif", ".tga", ".jpg", ".png"])
def test_numbered_pictures_of_any_format_are_one_video(capsys, tmp_path, suffix):
    class_folders(tmp_path / "in" / "train", suffix=suffix)
    class_folders(tmp_path / "in" / "val", suffix=suffix)
    code, summary, errors = run(capsys, tmp_path / "in", tmp_path / "out")
    assert code == 0 and summary["clips"] == {"train": 4, "validation": 4}, errors
    assert Manifest.read(tmp_path / "out" / "train").num_frames == 2


def test_names_that_are_no_utf_8_are_read_or_refused(capsys, tmp_path):
    class_folders(tmp_path / "in" / "train")
    class_folders(tmp_path / "in" / "val")
    odd = Path(str(tmp_path / "in" / "train" / "jump") + "/caf\udce9")
    frames(odd)
    (odd.parent / "gone\udce9").mkdir()
    code, summary, errors = run(capsys, tmp_path / "in", tmp_path / "out", "--max_bad_fraction=0.5")
    assert code == 0 and summary["clips"]["train"] == 5 and summary["rejected"] == 1, errors
    assert "jump/gone\\xe9," in (tmp_path / "out" / "train" / "rejected.csv").read_text()
    odd.parent.parent.joinpath("run\udce9").mkdir()
    code, _, errors = run(capsys, tmp_path / "in", tmp_path / "out2")
    assert code == 2 and "the class 'run\\xe9' is no name in UTF-8 on one line: rename it" in errors


names = some.sampled_from(
    [
        "a",
        "b",
        "train",
        "Val",
        "test",
        "dev",
        "v1",
        "00001.png",
        "x.txt",
        "Thumbs.db",
        "e\u0301",
        "\u00e9",
        "c\udce9",
        "line\nbreak",
    ]
)
trees = some.recursive(
    some.sampled_from(["picture", "text", "empty"]),
    lambda inner: some.dictionaries(names, inner, max_size=4),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


def plant(folder, tree):
    folder.mkdir(exist_ok=True)
    for name, what in tree.items():
        if isinstance(what, dict):
            plant(folder / name, what)
        elif what == "picture":
            Image.new("RGB", (8, 8)).save(folder / name, "PNG")
        else:
            (folder / name).write_text("" if what == "empty" else "text")


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(tree=trees)
def test_any_tree_is_taken_or_refused_in_one_sentence(tmp_path_factory, tree):
    folder = tmp_path_factory.mktemp("tree") / "in"
    plant(folder, tree)
    try:
        classes, splits = find_splits(folder) or (None, None)
        if splits is None:
            classes, sources = find_videos(folder)
            splits = {"all": sources}
        for sources in splits.values():
            assert len({source.media_id for source in sources}) == len(sources)
            assert all(0 <= source.label < len(classes) and source.media_id.encode() for source in sources)
    except ConfigError as error:
        assert str(error).startswith("--videos=") and str(error).endswith(".")
