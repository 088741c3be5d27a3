"""The command on tiny copies of Something-Something's layouts: official label files, the release's pickle, counts."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_videos import WEBM, cut_file, moving_frames, read_clips, write_frames, write_video

from datasets.records.manifest import Manifest
from datasets.something_something.__main__ import main
from datasets.something_something.labels import read_labels
from rstg_tf.common.errors import ConfigError

CLASSES = ("Holding something", "Dropping something", "Putting number of something onto something")
TEMPLATES = ("Holding [something]", "Dropping [something]", "Putting [number of] [something] onto [something]")


def write_labels(folder):
    """The official files of both versions and the release's pickle, for the videos 11 to 16 of classes 0, 1, 2, 0, …"""
    folder.mkdir(parents=True, exist_ok=True)
    labelled = [(str(11 + number), number % 3) for number in range(6)]
    (folder / "v1-labels.csv").write_text("".join(f"{name}\n" for name in CLASSES))
    (folder / "v1-train.csv").write_text("".join(f"{media_id};{CLASSES[label]}\n" for media_id, label in labelled))
    (folder / "labels.json").write_text(json.dumps({name: str(label) for label, name in enumerate(CLASSES)}))
    (folder / "train.json").write_text(
        json.dumps(
            [
                {"id": media_id, "label": "filled in", "template": TEMPLATES[label], "placeholders": ["a cup"]}
                for media_id, label in labelled
            ]
        )
    )
    (folder / "test.json").write_text(json.dumps([{"id": "99"}]))
    # The release's order is another one: 0 is Dropping, 1 Putting, 2 Holding.
    (folder / "release.pickle").write_bytes(
        pickle.dumps(
            {media_id: {"label": CLASSES[label], "label_id": (2, 0, 1)[label]} for media_id, label in labelled}, 2
        )
    )
    return folder


@pytest.fixture(scope="module")
def labels_dir(tmp_path_factory):
    return write_labels(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def v1_videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v1")
    for number in range(7):  # the last has no label: a video of another split
        write_frames(folder / str(11 + number), moving_frames(num_frames=3, seed=number))
    return folder


@pytest.fixture(scope="module")
def v2_videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v2")
    for number in range(7):
        write_video(folder / f"{11 + number}.webm", moving_frames(num_frames=6, seed=number), WEBM)
    return folder


def run(capsys, version, videos, labels, out_dir, *flags):
    """(exit code, last line or None, stderr) of the command."""
    code = main(
        [
            f"--version={version}",
            f"--videos={videos}",
            f"--labels={labels}",
            "--split=train",
            f"--out_dir={out_dir}",
            "--num_processes=1",
            *flags,
        ]
    )
    output, errors = capsys.readouterr()
    return code, json.loads(output.splitlines()[-1]) if output else None, errors


def test_version_1_keeps_the_bytes_of_the_frames(capsys, labels_dir, v1_videos, tmp_path):
    labels = f"{labels_dir}/v1-train.csv,{labels_dir}/v1-labels.csv"
    code, summary, errors = run(capsys, "v1", v1_videos, labels, tmp_path, "--videos_per_shard=4")
    assert code == 0 and {key: summary[key] for key in ("out_dir", "clips", "rejected", "classes", "shards")} == {
        "out_dir": str(tmp_path),
        "clips": 6,
        "rejected": 0,
        "classes": 3,
        "shards": 2,
    }
    assert "6 labelled videos; Something-Something-v1 has 86017 for train." in errors
    assert summary["count_differences"] == [
        "6 labelled videos; Something-Something-v1 has 86017 for train.",
        "3 classes; Something-Something has 174.",
    ]
    manifest = Manifest.read(tmp_path)
    assert manifest.classes == CLASSES and manifest.num_frames == 3
    assert manifest.made_by["command"] == "datasets.something_something" and manifest.made_by["version"] == "v1"
    clips = read_clips(tmp_path, manifest)
    assert sorted(clips) == ["11", "12", "13", "14", "15", "16"]
    assert [clips[str(11 + number)]["label"] for number in range(6)] == [0, 1, 2, 0, 1, 2]
    assert clips["13"]["encoded"] == [path.read_bytes() for path in sorted((v1_videos / "13").iterdir())]


def test_version_2_is_decoded_once_and_templates_lose_their_brackets(capsys, labels_dir, v2_videos, tmp_path):
    labels = f"{labels_dir}/train.json,{labels_dir}/labels.json"
    code, summary, _ = run(capsys, "v2", v2_videos, labels, tmp_path)
    assert code == 0 and summary["clips"] == 6 and summary["complete"]
    manifest = Manifest.read(tmp_path)
    assert (manifest.num_frames, manifest.height, manifest.width) == (6, 32, 48)
    clips = read_clips(tmp_path, manifest)
    assert [clips[str(11 + number)]["label_name"] for number in range(6)] == [*CLASSES, *CLASSES]
    frames = clips["12"]["frames"].astype(int)
    assert frames.shape == (6, 32, 48, 3)
    assert np.abs(frames - moving_frames(num_frames=6, seed=1)).mean() < 30  # VP9 at a low rate


def test_the_releases_pickle_gives_its_own_order_of_the_classes(capsys, labels_dir, v1_videos, tmp_path):
    alone = read_labels([labels_dir / "release.pickle"])
    assert alone.classes == (CLASSES[1], CLASSES[2], CLASSES[0])
    assert [alone.videos[str(11 + number)] for number in range(6)] == [2, 0, 1, 2, 0, 1]
    labels = f"{labels_dir}/v1-train.csv,{labels_dir}/release.pickle"
    code, _, _ = run(capsys, "v1", v1_videos, labels, tmp_path)
    assert code == 0 and Manifest.read(tmp_path).classes == alone.classes
    assert read_clips(tmp_path, Manifest.read(tmp_path))["11"]["label"] == 2


def test_a_pickle_orders_the_classes_of_version_2_too(labels_dir):
    labels = read_labels([labels_dir / "train.json", labels_dir / "release.pickle"])
    assert labels.classes[2] == CLASSES[0] and labels.videos["13"] == 1
    both = read_labels([labels_dir / "train.json", labels_dir / "labels.json", labels_dir / "release.pickle"])
    assert (both.classes, both.videos) == (labels.classes, labels.videos)


def test_bad_videos_are_listed_and_end_the_command_unless_allowed(capsys, labels_dir, v2_videos, tmp_path):
    videos = tmp_path / "videos"
    subprocess.run(["cp", "-r", v2_videos, videos], check=True)
    cut_file(videos / "12.webm", 0.6)
    (videos / "13.webm").write_bytes(b"")
    (videos / "14.webm").unlink()
    labels = f"{labels_dir}/train.json,{labels_dir}/labels.json"
    code, summary, errors = run(capsys, "v2", videos, labels, tmp_path / "out")
    assert code == 1 and summary is None and "3 of 6 videos are rejected" in errors and "rejected.csv" in errors
    assert "Traceback" not in errors and not (tmp_path / "out" / "dataset.json").exists()
    rows = (tmp_path / "out" / "rejected.csv").read_text().splitlines()
    assert rows[0] == "media_id,path,reason"
    assert rows[1].startswith("12,") and "truncated or damaged" in rows[1]
    assert rows[2].startswith("13,") and "is empty" in rows[2]
    assert rows[3].startswith("14,") and "there is no such video" in rows[3]
    code, summary, _ = run(capsys, "v2", videos, labels, tmp_path / "out", "--max_bad_fraction=0.5")
    assert code == 0 and (summary["clips"], summary["rejected"]) == (3, 3)


def test_a_video_without_a_label_in_the_list_is_rejected(capsys, labels_dir, v1_videos, tmp_path):
    (tmp_path / "train.csv").write_text(f"11;{CLASSES[0]}\n12;\n13;{CLASSES[1]}\n")
    labels = f"{tmp_path}/train.csv,{labels_dir}/v1-labels.csv"
    code, summary, _ = run(capsys, "v1", v1_videos, labels, tmp_path / "out", "--max_bad_fraction=0.4")
    assert code == 0 and (summary["clips"], summary["rejected"]) == (2, 1)
    assert "12," in (tmp_path / "out" / "rejected.csv").read_text()


@pytest.mark.parametrize(
    ("version", "labels", "message"),
    [
        ("v1", "train.json,labels.json", "--version=v1 has CSV files of labels"),
        ("v2", "v1-train.csv,v1-labels.csv", "--version=v2 has JSON files of labels"),
        ("v1", "v1-train.csv", "0 files give the order of the classes"),
        ("v1", "v1-labels.csv", "0 files list videos"),
        ("v1", "v1-train.csv,train.json,v1-labels.csv", "2 files list videos"),
        ("v1", "v1-train.csv,none.csv", "none.csv: cannot be read (No such file or directory)"),
        ("v2", "test.json,labels.json", "gives no video a label (a test file?)"),
    ],
)
def test_label_files_that_do_not_belong_together_are_refused(
    capsys, labels_dir, v1_videos, tmp_path, version, labels, message
):
    labels = ",".join(str(labels_dir / name) for name in labels.split(","))
    code, _, errors = run(capsys, version, v1_videos, labels, tmp_path / "out")
    assert code == 2 and message in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"11;Holding something\n11;Holding something\n", "the video id '11' comes twice"),
        (
            "a.csv",
            b"11;Flying something\n",
            "video 11 has the template 'Flying something', which is none of the 3 classes",
        ),
        ("a.csv", b"id,label\n11,Holding something\n12;x\n", "row 3 is '12;x'; expected 'id,template'"),
        ("a.csv", b"a\nb\xff\n", "line 2 holds the byte 0xff, which is no UTF-8"),
        ("a.csv", b"  \n", "is empty"),
        ("a.json", b'[{"id": 1}, {"id": 1}]', "the video id '1' comes twice"),
        ("a.json", b"[1, 2]", "expected a list of"),
        ("a.json", b'{"a": 0', "no readable JSON"),
        ("a.json", b'{"a": "0", "b": "2"}', "2 classes have the indices 0 to 2"),
        ("a.json", b'{"a": "0", "a": "1"}', "the key 'a' comes twice"),
        ("a.pickle", pickle.dumps({"11": "Holding something"}), "expected {video id"),
        ("a.json", b'[{"id": "/etc/passwd", "template": "x"}]', "the video id '/etc/passwd' is no plain name"),
        ("a.pickle", pickle.dumps({"..": {"label": "a", "label_id": 0}}), "the video id '..' is no plain name"),
        ("a.pickle", pickle.dumps([1]), "holds a list"),
        ("a.pickle", pickle.dumps(os.system), "refused"),
        (
            "a.pickle",
            pickle.dumps({"1": {"label": "a", "label_id": 0}, "2": {"label": "a", "label_id": 1}}),
            "has the indices 0 and 1",
        ),
    ],
)
def test_faulty_label_files_are_named(labels_dir, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_labels([tmp_path / name, labels_dir / "v1-labels.csv"])
    assert message in str(error.value) and name in str(error.value)


def test_classes_of_two_files_must_be_the_same(labels_dir, tmp_path):
    (tmp_path / "labels.csv").write_text("Holding something\nDropping something\n")
    with pytest.raises(ConfigError, match="name different classes, such as 'Putting number of"):
        read_labels([labels_dir / "release.pickle", tmp_path / "labels.csv"])


def test_videos_of_the_other_version_or_of_none_are_named(capsys, labels_dir, v1_videos, tmp_path):
    v1 = f"{labels_dir}/v1-train.csv,{labels_dir}/v1-labels.csv"
    v2 = f"{labels_dir}/train.json,{labels_dir}/labels.json"
    _, _, errors = run(capsys, "v2", v1_videos, v2, tmp_path / "out")
    assert "--version=v2" in errors and "holds the videos of v1 (11); expected 11.webm" in errors
    (tmp_path / "0011").mkdir()
    _, _, errors = run(capsys, "v1", tmp_path, v1, tmp_path / "out")
    assert "holds none of the 6 labelled videos; it holds 1 entries such as '0011', expected such as '11'" in errors
    code, _, errors = run(capsys, "v1", tmp_path / "nowhere", v1, tmp_path / "out")
    assert code == 2 and "cannot be listed" in errors and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--version=v1"], "--videos is missing"),
        (["--version=v3"], "version"),
        (["--verion=v1"], "verion"),
        (["--version=v1", "x"], "'x' is no flag"),
        ([], "--version is missing"),
    ],
)
def test_wrong_flags_end_with_exit_code_2_and_one_sentence(capsys, arguments, message):
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert message in errors and not output


def test_a_refused_command_does_not_pay_for_importing_tensorflow():
    script = (
        "import sys; from datasets.something_something.__main__ import main; code = main(['--version=v1'])\n"
        "print(code, 'tensorflow' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert finished.stdout.split() == ["2", "False"]
