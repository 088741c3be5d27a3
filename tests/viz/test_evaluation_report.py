import csv
import html.parser
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rstg_tf.evaluation.metrics import Evaluation
from rstg_tf.viz import attention_stats, evaluation_report, frame_overlay
from rstg_tf.viz.confusion_plot import save_confusion

NAMES = ("up", "down", "stop <&>")
NODES_OF_TWO_SCALES = 5
FRAMES = 4


def hand_made_evaluation():
    """Six clips; 1 and 3 are wrong, 3 more confidently; of the right ones 5 is the least sure."""
    logits = [[3, 0, 0], [0, 1, 0], [0, 4, 0], [0, 0, 5], [0, 0, 4], [0.5, 0, 0]]
    return Evaluation(
        logits=np.array(logits, np.float32),
        labels=np.array([0, 0, 1, 1, 2, 0]),
        media_ids=tuple(f"clip-{number}" for number in range(6)),
    )


class Listener:
    """A model that describes itself: at 'final', K = 2 stages of α in which all listen to the whole frame (node 4)."""

    def describe(self, video):
        alpha = np.zeros((video.shape[0], 2, video.shape[1], NODES_OF_TWO_SCALES, NODES_OF_TWO_SCALES), np.float32)
        alpha[..., 4] = 1.0
        return {"logits": tf.zeros([video.shape[0], len(NAMES)]), "attention": {"final": tf.constant(alpha)}}


def load_clips(indices):
    generator = np.random.default_rng(0)
    return {index: generator.integers(0, 256, (FRAMES, 16, 24, 1), np.uint8) for index in indices}


def write(directory, *, model=None, evaluation=None, loader=load_clips, num_detailed=0, **arguments):
    evaluation = evaluation or hand_made_evaluation()
    evaluation_report.write_report(
        str(directory),
        model=model or Listener(),
        evaluation=evaluation,
        class_names=NAMES,
        result={"dataset": "hand", **evaluation.figures()},
        load_clips=loader,
        num_detailed=num_detailed,
        **arguments,
    )


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


class References(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.files, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.files += [value for key, value in attributes if key in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_page_refers_to_every_file_and_to_no_other(tmp_path):
    write(tmp_path / "report", num_examples=3, num_detailed=1)
    folder = tmp_path / "report"
    page = References((folder / "index.html").read_text(encoding="utf-8"))
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    in_detail = {file for file in written if file.startswith("graph/clip-")}  # on the page graph/index.html
    assert set(page.files) == written - {"index.html"} - in_detail
    assert {"confusion.png", "clips/mistake-clip3.gif", "graph/scales.png", "graph/clip-3/clip.json"} <= written
    assert "stop <&>" in page.text  # escaped, so read back as it is


def test_tables_hold_the_counts_of_the_six_clips(tmp_path):
    write(tmp_path / "report")
    assert rows_of(tmp_path / "report" / "confusion.csv") == [
        ["true \\ predicted", *NAMES],
        ["up", "2", "1", "0"],
        ["down", "0", "1", "1"],
        ["stop <&>", "0", "0", "1"],
    ]
    assert rows_of(tmp_path / "report" / "per_class.csv")[1:] == [
        ["0", "up", "3", "2", "2", "0.6667", "1.0"],
        ["1", "down", "2", "2", "1", "0.5", "0.5"],
        ["2", "stop <&>", "1", "2", "1", "1.0", "0.5"],
    ]
    assert rows_of(tmp_path / "report" / "confused_pairs.csv")[1:] == [
        ["up", "down", "1", "0.3333"],
        ["down", "stop <&>", "1", "0.5"],
    ]


def test_a_class_without_clips_has_no_accuracy():
    evaluation = Evaluation(logits=np.array([[1, 0, 0]], np.float32), labels=np.array([0]), media_ids=("a",))
    assert evaluation_report.per_class_rows(evaluation, NAMES)[1:] == [
        (1, "down", 0, 0, 0, "", ""),
        (2, "stop <&>", 0, 0, 0, "", ""),
    ]


def test_examples_are_the_most_confident_mistakes_then_the_least_confident_right_answers():
    chosen = evaluation_report.choose_examples(hand_made_evaluation(), 3)
    assert [(example.kind, example.index) for example in chosen] == [("mistake", 3), ("mistake", 1), ("unsure", 5)]
    assert [example.kind for example in evaluation_report.choose_examples(hand_made_evaluation(), 1)] == ["mistake"]
    # softmax of (0, 0, 5)
    assert chosen[0].probability == pytest.approx(np.exp(5) / (2 + np.exp(5)), rel=1e-6)


def test_animations_have_a_frame_per_frame_and_their_numbers_beside_them(tmp_path):
    write(tmp_path / "report", num_examples=3)
    records = json.loads((tmp_path / "report" / "clips.json").read_text(encoding="utf-8"))
    assert [(record["true"], record["predicted"]) for record in records] == [
        ("down", "stop <&>"),
        ("up", "down"),
        ("up", "up"),
    ]
    for record in records:
        with Image.open(tmp_path / "report" / record["file"]) as animation:
            assert (animation.format, animation.n_frames) == ("GIF", FRAMES)
        final = record["attention"]["final"]
        assert final["received"] == [[0, 0, 0, 0, 5]] * FRAMES  # all five nodes listen to node 4 alone
        assert final["strongest_messages"][0][0] == {"from": "1×1", "to": "2×2 (1,1)", "weight": 1.0}


def test_a_model_without_a_graph_gets_its_clips_plain_and_no_attention(tmp_path):
    write(tmp_path / "report", model=object())
    assert not (tmp_path / "report" / "graph").exists()
    assert len(list((tmp_path / "report" / "clips").iterdir())) == 6
    assert "Who listens" not in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_time_stages_alone_have_no_attention_to_report(tmp_path):
    class TimeOnly:
        def describe(self, video):
            return {
                "logits": tf.zeros([video.shape[0], 3]),
                "attention": {"final": tf.zeros([video.shape[0], 0, 2, 5, 5])},
            }

    write(tmp_path / "report", model=TimeOnly())
    assert not (tmp_path / "report" / "graph").exists()


def test_a_new_report_replaces_the_old_one_whole(tmp_path):
    write(tmp_path / "report", num_examples=3)
    write(tmp_path / "report", num_examples=1)
    assert [path.name for path in (tmp_path / "report" / "clips").iterdir()] == ["mistake-clip3.gif"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_report_that_fails_leaves_the_old_one_and_no_half_one(tmp_path):
    def unreadable(indices):
        raise OSError("gone")

    write(tmp_path / "report", num_examples=1)
    with pytest.raises(OSError, match="gone"):
        write(tmp_path / "report", loader=unreadable)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert (tmp_path / "report" / "index.html").exists()


def test_strongest_messages_leave_out_what_a_node_tells_itself():
    alpha = np.array([[0.9, 0.1, 0.0], [0.3, 0.1, 0.6], [0.5, 0.2, 0.3]])  # row: receiver
    assert attention_stats.strongest_messages(alpha, 2) == [(2, 1, 0.6), (0, 2, 0.5)]
    assert len(attention_stats.strongest_messages(alpha, 99)) == 6
    np.testing.assert_allclose(attention_stats.received_attention(alpha), [1.7, 0.4, 0.9])


def test_boxes_are_tinted_by_the_attention_they_receive():
    video = np.full((1, 16, 16, 1), 40, np.uint8)
    alpha = np.zeros((1, 5, 5))
    alpha[..., 0] = 1.0  # all listen to the upper left region
    frame = np.asarray(frame_overlay.clip_frames(video, {"final": alpha}, heading=[], num_lines=0)[0]).astype(int)
    left = frame_overlay.GAP + (frame_overlay.PANEL_PIXELS + frame_overlay.GAP)  # the panel of the 2×2 regions
    top = 2 * frame_overlay.GAP + 2 * frame_overlay.LINE_HEIGHT
    quarter = frame_overlay.PANEL_PIXELS // 2
    upper_left, lower_right = (frame[top + offset + 80, left + offset + 80] for offset in (0, quarter))
    assert upper_left[0] > 100 and upper_left[0] > 2 * upper_left[2]  # orange
    assert lower_right.tolist() == [40, 40, 40]


@pytest.mark.parametrize("height, width, channels", [(16, 16, 1), (48, 64, 3), (300, 400, 3)])
def test_frames_of_any_size_are_drawn_about_equally_large(height, width, channels):
    frames = frame_overlay.clip_frames(np.zeros((3, height, width, channels), np.uint8), {}, heading=["one line"])
    assert len(frames) == 3 and all(frame.size == frames[0].size for frame in frames)
    assert 0.7 * frame_overlay.PANEL_PIXELS < frames[0].height < 2 * frame_overlay.PANEL_PIXELS


def test_a_graph_with_fewer_steps_than_frames_is_drawn_over_all_frames():
    alpha = np.full((2, 5, 5), 0.2)
    alpha[1] = np.eye(5)[0]  # in the second half all listen to node 0
    frames = frame_overlay.clip_frames(np.zeros((4, 16, 16, 1), np.uint8), {"res3": alpha}, heading=[])
    headless = [np.asarray(frame)[60:] for frame in frames]  # below 'frame 1 of 4'
    assert (headless[0] == headless[1]).all() and (headless[2] == headless[3]).all()
    assert (headless[1] != headless[2]).any()


def test_attention_that_fits_no_grids_is_refused():
    with pytest.raises(ValueError, match="attention of 6 nodes: expected 1, 5, 14"):
        attention_stats.count_scales(np.zeros((6, 6)))


@pytest.mark.parametrize("classes", [2, 46, 174])
def test_a_confusion_matrix_of_any_number_of_classes_is_drawn(tmp_path, classes):
    names = [f"class {number}" for number in range(classes)]
    save_confusion(tmp_path / "confusion.png", np.eye(classes, dtype=int), names, title="eye")
    with Image.open(tmp_path / "confusion.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels == 0).mean() > 0.5 / classes**2 and pixels.max() == 255
