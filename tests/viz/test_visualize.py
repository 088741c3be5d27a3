"""`python -m rstg_tf.visualize` on a small run: the files, that their numbers are the model's, and wrong use."""

import html.parser
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_resnet
import tensorflow as tf
from PIL import Image

from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset
from rstg_tf import flags, runs, visualize
from rstg_tf.common import files
from rstg_tf.model import build_model
from rstg_tf.viz import graph_report, overlay_panels

ROOT = pathlib.Path(__file__).resolve().parents[2]
FRAMES, STAGES, NODES = 4, 2, 5


def write_run(folder, records, settings):
    """A run folder with one checkpoint, step 5, of random weights; returns it as the commands see it."""
    config = flags.config_from_settings(
        {**settings, "train_dataset": str(records / "train"), "test_dataset": str(records / "test")}
    )
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    shutil.copy(records / "test" / "dataset.json", folder / "test_dataset.json")
    tf.train.Checkpoint(model=build_model(config.model)).write(str(folder / "checkpoints" / "ckpt-5"))
    return runs.open_run(str(folder))


@pytest.fixture
def run(tmp_path, toy_records, toy_settings):
    return write_run(tmp_path / "runs" / "small", toy_records, {**toy_settings, "num_process_iter": STAGES})


class References(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.files = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.files |= {value for key, value in attributes if key in ("src", "href")}


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def refused(capsys, *arguments):
    """The one line that the command ends with, with exit code 2."""
    assert visualize.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("visualize: ") and message.count("\n") == 1
    return message


@pytest.mark.slow
def test_records_become_pictures_whose_numbers_are_what_the_model_describes(run, toy_records, capsys):
    assert visualize.main([f"--model_dir={run.path}", "--clips=5,2", "--num_mean_clips=3"]) == 0
    out = pathlib.Path(run.path) / "visualize"
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts == {
        "out": str(out),
        "model_dir": str(run.path),
        "step": 5,
        "drawn": ["clip-2", "clip-5"],
        "mean_over": 3,
        "places": ["final"],
    }
    pictures = {f"final-{name}" for name in graph_report.PICTURES} | {"regions.png", "clip.json"}
    assert files_in(out) == {"index.html", "scales.png", "scales.json"} | {
        f"clip-{index}/{name}" for index in (2, 5) for name in pictures
    }
    assert References((out / "index.html").read_text(encoding="utf-8")).files == files_in(out) - {"index.html"}
    with Image.open(out / "clip-2" / "final-animation.gif") as animation:
        assert (animation.format, animation.n_frames) == ("GIF", FRAMES)
    with Image.open(out / "clip-2" / "final-overlays.png") as picture:
        assert picture.width > FRAMES * 200 and picture.height > STAGES * 200

    dataset = RecordedDataset.open(toy_records / "test")
    [batch] = evaluation_clips(dataset=dataset, options=ReadingOptions(dataset.manifest.clip_spec), batch_size=7)
    model, _ = run.load_model()
    described = model.describe(batch["video"])
    attention, clip = described["attention"]["final"].numpy(), read_json(out / "clip-5" / "clip.json")
    np.testing.assert_allclose(clip["places"]["final"]["attention"], attention[5], atol=2e-5)
    shares = {row["name"]: row["probability"] for row in clip["ranking"]}
    np.testing.assert_allclose([shares["up"], shares["down"]], tf.nn.softmax(described["logits"][5]), atol=1e-6)
    assert clip["true"] == ("up", "down")[int(batch["label"][5])]
    scales = read_json(out / "scales.json")["places"]["final"]
    # The whole frame's node (4) listens to the four 2×2 nodes: mean over the frames of each of the clips 0, 3 and 6.
    of_clips = attention[::3, ..., 4, :4].sum(axis=-1).mean(axis=2)  # [clips, K]
    np.testing.assert_allclose(np.array(scales["share"])[:, 1, 0], of_clips.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(np.array(scales["share_spread"])[:, 1, 0], of_clips.std(axis=0), atol=1e-5)


def test_arrays_and_frame_folders_are_seen_as_evaluation_would_see_them(run, tmp_path):
    video = np.random.default_rng(0).integers(0, 256, (9, 12, 12, 1), np.uint8)
    np.save(tmp_path / "nine frames.npy", video)
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.fromarray(video[2 * number, :, :, 0]).save(tmp_path / "photos" / f"{number}.png")
    out = tmp_path / "pictures"
    assert (
        visualize.main(
            [
                f"--model_dir={run.path}",
                f"--video={tmp_path / 'nine frames.npy'}",
                f"--video={tmp_path / 'photos'}",
                f"--out={out}",
            ]
        )
        == 0
    )
    model, _ = run.load_model()
    for name, frames in (("nine_frames.npy", [0, 2, 5, 8]), ("photos", [0, 2, 4, 6])):
        clip = read_json(out / name / "clip.json")
        expected = model.describe(video[frames][None])["attention"]["final"][0]
        np.testing.assert_allclose(clip["places"]["final"]["attention"], expected, atol=2e-5)
        assert clip["true"] is None
    assert read_json(out / "scales.json")["clips"] == 2


@pytest.mark.slow
def test_every_graph_of_a_model_gets_its_pictures_and_half_as_many_steps_cover_two_frames_each(tmp_path):
    model = small_resnet.build_with_recipe_weights()
    video = small_resnet.VIDEO[0].astype(np.uint8)
    names = [f"class {label}" for label in range(5)]
    summary = graph_report.write_graph_pictures(
        str(tmp_path / "graphs"), model=model, clips={"a": video}, drawn=["a"], class_names=names
    )
    assert set(summary["places"]) == {"res3", "final"}
    found = files_in(tmp_path / "graphs")
    assert {f"a/{place}-{name}" for place in ("res3", "final") for name in graph_report.PICTURES} < found
    clip = read_json(tmp_path / "graphs" / "a" / "clip.json")
    described = model.describe(video[None])["attention"]
    for place, alpha in described.items():
        assert alpha.shape[2] == 2  # of four frames
        np.testing.assert_allclose(clip["places"][place]["attention"], alpha[0], atol=2e-5)
        with Image.open(tmp_path / "graphs" / "a" / f"{place}-animation.gif") as animation:
            assert animation.n_frames == alpha.shape[2]


def test_steps_are_named_after_the_frames_they_cover():
    def names(num_steps, num_frames):
        return [overlay_panels.step_name(step, num_steps=num_steps, num_frames=num_frames) for step in range(num_steps)]

    assert names(3, 3) == ["1", "2", "3"] and names(2, 4) == ["1-2", "3-4"]
    assert [overlay_panels.frame_of_step(step, num_steps=2, num_frames=8) for step in range(2)] == [2, 6]
    assert [overlay_panels.frame_of_step(step, num_steps=3, num_frames=3) for step in range(3)] == [0, 1, 2]


def test_a_model_without_attention_leaves_nothing_and_the_command_says_so(
    run, toy_records, toy_settings, tmp_path, capsys
):
    class TimeOnly:
        def describe(self, video):
            return {"logits": tf.zeros([1, 2]), "attention": {"final": tf.zeros([1, 0, 4, NODES, NODES])}}

    summary = graph_report.write_graph_pictures(
        str(tmp_path / "none"),
        model=TimeOnly(),
        clips={"a": np.zeros((4, 12, 12, 1), np.uint8)},
        drawn=["a"],
        class_names=("up", "down"),
    )
    assert summary["places"] == {} and not (tmp_path / "none").exists()
    blind = write_run(tmp_path / "blind", toy_records, {**toy_settings, "num_process_iter": 0})
    assert "no graph with a space stage" in refused(capsys, f"--model_dir={blind.path}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--clips=1,x"], "--clips=1,x: expected numbers from 0"),
        (["--clips=7"], "has the clips 0 to 6"),
        (["--clips=1", "--num_clips=2"], "--clips and --num_clips both"),
        (["--num_clips=0"], "num_clips"),
        (["--video=a.npy", "--clips=1"], "--clips chooses among a data set's clips"),
        (["--video=nothing.npy"], "nothing.npy does not exist"),
        (["--dataset=nowhere"], "nowhere"),
        (["--colour=red"], "colour"),
    ],
)
def test_wrong_flags_end_with_exit_code_2_and_one_sentence(run, capsys, arguments, message):
    assert message in refused(capsys, f"--model_dir={run.path}", *arguments)
    assert not (pathlib.Path(run.path) / "visualize").exists()


def test_sources_that_would_share_a_folder_are_refused(run, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "clip.npy", np.zeros((4, 12, 12, 1), np.uint8))
    message = refused(
        capsys,
        f"--model_dir={run.path}",
        f"--video={tmp_path / 'a' / 'clip.npy'}",
        f"--video={tmp_path / 'b' / 'clip.npy'}",
    )
    assert "another one is named clip.npy too" in message


@pytest.mark.slow
def test_a_folder_with_other_files_is_never_replaced_but_older_pictures_are(run, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert "holds other files" in refused(capsys, f"--model_dir={run.path}", f"--out={out}")
    (out / "thesis.txt").rename(out / "scales.json")  # now it looks like what this command writes
    assert visualize.main([f"--model_dir={run.path}", f"--out={out}", "--clips=1", "--num_mean_clips=1"]) == 0
    assert read_json(out / "scales.json")["clips"] == 1 and [path.name for path in tmp_path.glob("mine*")] == ["mine"]


def test_a_folder_that_fails_while_it_is_filled_leaves_the_old_one(tmp_path):
    for text in ("old", "new"):
        try:
            with files.whole_folder(str(tmp_path / "results")) as folder:
                (pathlib.Path(folder) / "number.txt").write_text(text)
                if text == "new":
                    raise OSError("disk full")
        except OSError as error:
            assert str(error) == "disk full"
    assert files_in(tmp_path) == {"results/number.txt"}
    assert (tmp_path / "results" / "number.txt").read_text() == "old"


def test_a_clips_name_becomes_one_folder_within():
    assert [files.folder_name(name) for name in ("clip-3", "a b/c.mp4", "../..", "été.webm")] == [
        "clip-3",
        "a_b_c.mp4",
        "unnamed",
        "été.webm",
    ]


@pytest.mark.slow
def test_an_installed_package_says_what_records_need_and_shows_videos(run, tmp_path):
    """Without the repository around it: only rstg_tf on the path."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "rstg_tf").symlink_to(ROOT / "rstg_tf")
    np.save(tmp_path / "clip.npy", np.zeros((4, 12, 12, 1), np.uint8))

    def visualized(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "rstg_tf.visualize", f"--model_dir={run.path}", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=240,
        )

    records = visualized()
    assert records.returncode == 2 and "in its folder, or give --video=FILE" in records.stderr
    assert "Traceback" not in records.stderr
    shown = visualized("--video=clip.npy")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout.splitlines()[-1])["drawn"] == ["clip.npy"]
