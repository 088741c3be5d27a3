"""Lists of videos as Kinetics, PySlowFast and mmaction2 write them."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from tiny_videos import moving_frames, write_frames, write_video

from datasets.records.manifest import Manifest
from datasets.video_folder import main
from datasets.videos.list_rows import read_list
from datasets.videos.lists import read_lists
from datasets.videos.sources import Rejection, Stretch, VideoSource, encode_source
from rstg_tf.common.errors import ConfigError


def run(capsys, out_dir, *flags):
    code = main([f"--out_dir={out_dir}", "--num_processes=1", *flags])
    output, errors = capsys.readouterr()
    return code, json.loads(output.splitlines()[-1]) if output else None, errors


@pytest.fixture
def root(tmp_path):
    """Folders of frames: jump/0 … jump/3, run/0 … run/3 of 3 frames each."""
    for name in ("jump", "run"):
        for number in range(4):
            write_frames(tmp_path / "root" / name / str(number), moving_frames(3, height=16, width=16, seed=number))
    return tmp_path / "root"


ROWS = [("jump/0", "0"), ("jump/1", "0"), ("run/0", "1"), ("run/1", "1")]


@pytest.mark.parametrize("delimiter", [" ", ",", "\t", "  ", ";"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", ["", "path{}label\n"])
def test_a_path_and_a_label_on_each_row(tmp_path, root, delimiter, line_end, encoding, header):
    text = header.format(delimiter) + "\n\n".join(delimiter.join(row) for row in ROWS) + "\n\n"
    (tmp_path / "train.csv").write_bytes(text.replace("\n", line_end).encode(encoding))
    classes, splits = read_lists({"train": str(tmp_path / "train.csv")}, root=str(root))
    assert classes == ("0", "1")
    assert [(source.media_id, source.label) for source in splits["train"]] == [
        (path, int(label)) for path, label in ROWS
    ]


@pytest.mark.parametrize(
    ("text", "classes", "labels"),
    [
        ("jump/0,jumping high\nrun/0,riding a bike\n", ("jumping high", "riding a bike"), [0, 1]),
        ('jump/0,"run, then jump"\nrun/0,"a ""quote"""\n', ('a "quote"', "run, then jump"), [1, 0]),
        ("jump/0 jump\nrun/0 run\n", ("jump", "run"), [0, 1]),
        ("jump/0 3 1\nrun/0 3 0\n", ("0", "1"), [1, 0]),
        ("jump/0 1 2 0\nrun/0 2 3 1\n", ("0", "1"), [0, 1]),
        ("video,category,split\njump/0,b,train\nrun/0,a,train\n", ("a", "b"), [1, 0]),
        ("label,path\nb,jump/0\na,run/0\n", ("a", "b"), [1, 0]),
    ],
)
def test_labels_may_be_names_and_rows_may_hold_more(tmp_path, root, text, classes, labels):
    (tmp_path / "train.csv").write_text(text)
    found, splits = read_lists({"train": str(tmp_path / "train.csv")}, root=str(root))
    assert found == classes and [source.label for source in splits["train"]] == labels


def test_kinetics_rows_name_the_file_by_id_and_times(tmp_path):
    for path in ("riding a bike/abc_000010_000020.mp4", "jumping/xyz_000001_000011.mp4"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    (tmp_path / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nriding a bike,abc,10,20,train\n"
        '"jumping",xyz,1,11,train\njumping,gone,5,15,train\n'
    )
    classes, splits = read_lists({"train": str(tmp_path / "train.csv")}, root="")
    assert classes == ("jumping", "riding a bike")
    assert [(source.media_id, source.label) for source in splits["train"]] == [
        ("riding a bike/abc_000010_000020.mp4", 1),
        ("jumping/xyz_000001_000011.mp4", 0),
        ("gone_000005_000015.mp4", 0),
    ]


@pytest.mark.parametrize("time", ["1*", "inf", "nan"])
def test_kinetics_rows_with_times_that_are_none_are_refused_by_their_line(tmp_path, time):
    (tmp_path / "train.csv").write_text(f"label,youtube_id,time_start,time_end\nrun,abc,{time},11\n")
    with pytest.raises(ConfigError, match="row 2 is .*; expected times in seconds"):
        read_list(str(tmp_path / "train.csv"))


def test_lists_become_data_sets_and_missing_files_are_counted_and_listed(capsys, tmp_path, root):
    (tmp_path / "train.csv").write_text("jump/0 0\njump/1 0\nrun/0 1\njump/gone 0\n")
    (tmp_path / "val.csv").write_text("run/2 1\njump/2 0\n")
    (tmp_path / "names.txt").write_text("jumping\nrunning\n")
    flags = (
        f"--list={tmp_path}/train.csv",
        f"--val_list={tmp_path}/val.csv",
        f"--videos={root}",
        f"--classes={tmp_path}/names.txt",
    )
    code, _, errors = run(capsys, tmp_path / "out", *flags)
    assert code == 1 and "1 of 4 videos are rejected" in errors and "jump/gone (there is no such video)" in errors
    code, summary, errors = run(capsys, tmp_path / "out", *flags, "--max_bad_fraction=0.3")
    assert code == 0 and summary["clips"] == {"train": 3, "validation": 2} and summary["rejected"] == 1, errors
    assert Manifest.read(tmp_path / "out" / "train").classes == ("jumping", "running")
    assert "jump/gone," in (tmp_path / "out" / "train" / "rejected.csv").read_text()


def test_of_a_list_alone_a_share_is_held_out_and_said(capsys, tmp_path, root):
    (root / "train.csv").write_text(
        "".join(f"{name}/{number},{name}\n" for name in ("jump", "run") for number in range(4))
    )
    code, summary, errors = run(capsys, tmp_path / "out", f"--list={root}/train.csv", "--validation_share=0.3")
    assert code == 0 and sum(summary["clips"].values()) == 8 and "a share of its videos is held out" in errors


def test_a_video_in_two_lists_is_told(capsys, tmp_path, root):
    (root / "train.csv").write_text("jump/0 0\nrun/0 1\n")
    (root / "val.csv").write_text("jump/0 0\nrun/1 1\n")
    code, _, errors = run(capsys, tmp_path / "out", f"--list={root}/train.csv", f"--val_list={root}/val.csv")
    assert code == 0 and "1 videos are in two of the lists" in errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected 'path label'"),
        ("jump/0\n", "row 1 is 'jump/0', 1 field(s); expected 'path label'"),
        ("jump/0 0\n\nrun/0\n", "row 3 is 'run/0', 1 field(s)"),
        ("path,label\n", "holds a header and no video"),
        ("jump/0,0\nrun/0,1,2,3,4\n", "row 2 is 'run/0,1,2,3,4', 5 field(s)"),
        ("a,0\nb,1\n", "not one of its 2 videos"),
        ("jump/0,0\njump/0,1\n", "the video 'jump/0' comes twice, in the rows 1 and 2"),
        ("jump/0,0\njump/1,0\nrun/0,run\n", "row 3 has the label 'run', no number unlike others"),
        ("jump/0,a\njump/1,b\nrun/0,1\n", "row 3 has the label '1', a number unlike others"),
        ("jump/0,99999999\n", "row 1 has the label 99999999; expected the number of a class"),
        ("jump/0,\nrun/0,1\n", "row 1 is 'jump/0,', without a label"),
        (",0\n", "row 1 is ',0', without a path"),
        ("jump/0,2,1,0\n", "a start and an end after it"),
        ('"jump/0,0\n', "row 1 is no CSV"),
        ("jump/0,-1\nrun/0,1\n", "row 1 has the label '-1', no number unlike others"),
    ],
)
def test_faulty_lists_are_refused_with_the_row(capsys, tmp_path, root, text, message):
    (root / "train.csv").write_text(text)
    code, _, errors = run(capsys, tmp_path / "out", f"--list={root}/train.csv")
    assert code == 2 and message in errors and "train.csv" in errors and len(errors.splitlines()) == 1


def test_labels_beyond_the_named_classes_are_refused(tmp_path, root):
    (root / "train.csv").write_text("jump/0 0\nrun/0 2\n")
    (root / "names.json").write_bytes('\ufeff\n{"jump": 0, "run": "1"}'.encode())
    with pytest.raises(ConfigError, match=r"row 2 has the label '2', which is none of the 2 classes \('jump', …\)"):
        read_lists({"train": str(root / "train.csv")}, root="", classes_file=str(root / "names.json"))
    (root / "train.csv").write_text("jump/0 run\nrun/0 0\n")
    for name, content in (("names.txt", "1 run\n0 jump\n"), ("n.json", '["jump", "run"]'), ("n", "jump\r\nrun")):
        (root / name).write_text(content)
        classes, splits = read_lists({"train": str(root / "train.csv")}, root="", classes_file=str(root / name))
        assert classes == ("jump", "run") and [source.label for source in splits["train"]] == [1, 0]


def test_paths_are_found_in_either_normal_form_with_backslashes_and_without_their_ending(tmp_path):
    (tmp_path / unicodedata.normalize("NFD", "Tür")).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / unicodedata.normalize("NFD", "Tür") / "1.png")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.mp4").write_bytes(b"x")
    (tmp_path / "train.csv").write_text(unicodedata.normalize("NFC", "Tür 0\n") + "a\\x.mp4 1\na/x 1\n")
    _, splits = read_lists({"train": str(tmp_path / "train.csv")}, root="")
    assert all((tmp_path / source.path).exists() for source in splits["train"])


def test_a_stretch_of_a_folder_goes_by_frame_numbers_and_counts_are_compared(tmp_path, root):
    whole = encode_source(VideoSource("v", str(root / "jump" / "0"), 0), 256)
    part = encode_source(VideoSource("v", str(root / "jump" / "0"), 0, Stretch(start=2, end=3)), 256)
    assert part.frames == whole.frames[1:] and part.timestamps.tolist() == [0, 166667 - 83333]
    for stretch, reported in (
        (Stretch(start=2, end=4), "holds the frames 1 to 3, but the list takes 2 to 4"),
        (Stretch(count=4), "holds 3 frames, but the list says 4"),
    ):
        found = encode_source(VideoSource("v", str(root / "jump" / "0"), 0, stretch), 256)
        assert isinstance(found, Rejection) and reported in found.reason
    assert encode_source(VideoSource("v", str(root / "jump" / "0"), 0, Stretch(count=3)), 256).frames == whole.frames


def test_a_stretch_of_a_file_goes_by_seconds(tmp_path):
    path = str(write_video(tmp_path / "a.mp4", moving_frames(24), rate=12))
    whole = encode_source(VideoSource("v", path, 0), 256)
    part = encode_source(VideoSource("v", path, 0, Stretch(start=0.5, end=1.0)), 256)
    assert part.frames == whole.frames[6:12] and np.all(part.timestamps[:2] == [0, 83333])
    found = encode_source(VideoSource("v", path, 0, Stretch(start=0, end=24)), 256)
    assert "is 2.0 seconds long, but the list takes 0 to 24; expected seconds" in found.reason


fields = some.text(
    some.characters(exclude_characters='\0\r\n\t,; "\ufeff', exclude_categories=["Cs", "Zs", "Cc"]),
    min_size=1,
    max_size=6,
)


@given(some.lists(some.tuples(fields, fields), min_size=1, max_size=5), some.sampled_from([",", "\t", " "]))
def test_any_names_come_back_as_they_were_written(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.mktemp("list") / "l.csv"
    text = f"path{delimiter}label\n" + "\n".join(delimiter.join(row) for row in rows)
    path.write_bytes(text.encode())
    assert [(entry.paths[0], entry.label) for entry in read_list(str(path))] == [
        (name.strip(), label.strip()) for name, label in rows
    ]


@given(some.binary(max_size=80) | some.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))
def test_any_file_is_a_list_or_refused_in_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("list") / "l.csv"
    path.write_bytes(content)
    try:
        read_lists({"train": str(path)}, root="")
    except ConfigError as error:
        assert str(error).startswith("--list") and "\n" not in str(error)
