"""The real predict.main on small runs, and what it says to wrong use."""

import io
import os
import pathlib
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from frame_sources import Pipe, carphone, write_frames
from PIL import Image
from predicting import answered, printed, probabilities, refused, softmax, write_run
from tiny_videos import FASTSTART, MPEG4, moving_frames, write_video

import eval as eval_script
from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset
from rstg_tf import predict, runs
from rstg_tf.inference.sliding_windows import Windows
from rstg_tf.runs import run_flags
from rstg_tf.serving import saved_model
from rstg_tf.video import encoding
from rstg_tf.video.clip_spec import ClipSpec, clip_from_frames
from rstg_tf.video.decoding import probe, read_video
from rstg_tf.viz import annotated_video

ROOT = pathlib.Path(__file__).resolve().parents[2]


def logits_of(run_folder, frames):
    """The network's logits of these frames by its own means: uint8 [D, H, W, 3] -> [classes]."""
    run = runs.open_run(str(run_folder))
    clip = clip_from_frames(frames, ClipSpec(num_frames=6, height=32, width=32, channels=3, short_side=40))
    return run.load_model()[0](clip[None], training=False).numpy()[0]


def test_the_scores_are_those_of_eval_for_the_same_clips(grey_run, toy_records, tmp_path, capsys):
    assert eval_script.main([f"--model_dir={grey_run}", "--noreport"]) == 0
    capsys.readouterr()
    dataset = RecordedDataset.open(toy_records / "test")
    [batch] = evaluation_clips(dataset=dataset, options=ReadingOptions(dataset.manifest.clip_spec), batch_size=7)
    with np.load(grey_run / "scores.npz") as scores:
        expected = scores["logits"]
    assert np.ptp(expected, axis=0).min() > 1e-3  # the clips are told apart
    for index in (0, 3, 6):
        np.save(tmp_path / "clip.npy", batch["video"][index, ..., 0])
        found = answered(capsys, f"--model_dir={grey_run}", f"--video={tmp_path / 'clip.npy'}")
        np.testing.assert_allclose(probabilities(found), softmax(expected[index]), atol=1e-6)
        assert [row["name"] for row in found["top"]] == [("up", "down")[row["class"]] for row in found["top"]]
        assert (found["frames"], found["height"], found["width"], found["frames_per_second"]) == (4, 12, 12, 12.0)


def test_without_a_run_or_model_the_newest_run_answers_in_a_table(grey_run, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "clip.npy", np.random.default_rng(1).integers(0, 256, (9, 12, 12), np.uint8))
    monkeypatch.chdir(tmp_path)
    best = answered(capsys, "--video=clip.npy")["top"][0]
    lines = printed(capsys, "--video=clip.npy", "--top=1").out.splitlines()
    assert lines[0] == f"clip.npy, model {os.path.join('runs', 'grey')}"
    assert "9 frames, 12 a second, of 12×12 pixels; one window" in lines
    assert lines[-1].split() == ["1", f"{best['probability']:.3f}", best["name"]]


def test_a_long_video_is_answered_by_windows_and_their_mean_logits(colour_run, capsys):
    frames = read_video(carphone()).frames
    expected = [logits_of(colour_run, frames[start : start + 60]) for start in (0, 30, 60)]  # 2 s of 29.97 a second
    arguments = f"--model_dir={colour_run}", f"--video={carphone()}", "--window_seconds=2"
    found = answered(capsys, *arguments)
    spans = [(window["first_frame"], window["last_frame"]) for window in found["windows"]]
    assert spans == [(0, 59), (30, 89), (60, 119)]
    assert found["windows"][1]["start_seconds"] == pytest.approx(30 * 1001 / 30000)
    assert found["windows"][1]["end_seconds"] == pytest.approx(90 * 1001 / 30000)
    for window, logits in zip(found["windows"], expected):
        np.testing.assert_allclose(probabilities(window), softmax(logits), atol=1e-5)
    np.testing.assert_allclose(probabilities(found), softmax(np.mean(expected, axis=0)), atol=1e-5)
    text = printed(capsys, *arguments).out
    # 176×144 becomes 49×40, of which 32×32 are 114.9×115.2 pixels of the video
    assert "120 frames, 29.97 a second, of 176×144 pixels, of which the middle 115×115 were seen; mean logits" in text
    assert f"    1.0 - 3.0        {found['windows'][1]['top'][0]['probability']:.3f}  " in text


def test_a_video_that_fits_a_window_is_seen_whole(colour_run, capsys):
    found = answered(capsys, f"--model_dir={colour_run}", f"--video={carphone()}")
    assert len(found["windows"]) == 1
    np.testing.assert_allclose(
        probabilities(found), softmax(logits_of(colour_run, read_video(carphone()).frames)), atol=1e-5
    )


def test_window_lengths_in_frames_and_seconds():
    def windows(rate, *arguments):
        parsed = run_flags.parse_run_flags(["--video=x", *arguments], predict.define_flags, description="")
        predict.check_flags(parsed)
        return predict.windows_from_flags(parsed, rate)

    assert windows(25.0) == Windows(length=150, stride=75)
    assert windows(12.0, "--window_seconds=0.5", "--overlap=0") == Windows(length=6, stride=6)
    assert windows(12.0, "--window_frames=10", "--overlap=0.75") == Windows(length=10, stride=2)
    assert windows(1.0, "--window_frames=1", "--overlap=0.9") == Windows(length=1, stride=1)


def test_an_array_a_folder_and_raw_frames_are_answered_alike(colour_run, tmp_path, capsys, monkeypatch):
    frames = np.random.default_rng(2).integers(0, 256, (8, 40, 50, 3), np.uint8)
    np.save(tmp_path / "clip.npy", frames)
    write_frames(tmp_path / "frames", frames)
    run, rate = f"--model_dir={colour_run}", "--frames_per_second=24"
    found = [answered(capsys, run, rate, f"--video={tmp_path / name}") for name in ("clip.npy", "frames")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(frames.tobytes())))
    found.append(answered(capsys, run, rate, "--video=-", "--raw_size=50x40"))
    np.testing.assert_allclose(probabilities(found[0]), softmax(logits_of(colour_run, frames)), atol=1e-5)
    for other in found[1:]:
        assert {**other, "video": ""} == {**found[0], "video": ""}
    assert [answer["video"] for answer in found] == [
        str(tmp_path / "clip.npy"),
        str(tmp_path / "frames"),
        "standard input",
    ]
    assert found[0]["windows"][0]["end_seconds"] == pytest.approx(8 / 24)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(frames[..., 0].tobytes())))
    grey = answered(capsys, run, "--video=-", "--raw_size=50x40", "--raw_pixels=gray")
    expected = logits_of(colour_run, np.repeat(frames[..., :1], 3, axis=-1))
    np.testing.assert_allclose(probabilities(grey), softmax(expected), atol=1e-5)


def test_a_single_frame_is_a_still_video(colour_run, tmp_path, capsys):
    frame = np.random.default_rng(2).integers(0, 256, (1, 40, 50, 3), np.uint8)
    np.save(tmp_path / "frame.npy", frame)
    found = answered(capsys, f"--model_dir={colour_run}", f"--video={tmp_path / 'frame.npy'}")
    np.testing.assert_allclose(
        probabilities(found), softmax(logits_of(colour_run, np.repeat(frame, 6, axis=0))), atol=1e-5
    )


def test_a_video_file_on_standard_input_is_answered_as_the_file(colour_run, capsys, monkeypatch):
    run = f"--model_dir={colour_run}"
    expected = answered(capsys, run, f"--video={carphone()}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(carphone().read_bytes())))
    assert answered(capsys, run, "--video=-") == {**expected, "video": "standard input"}


def test_an_exported_model_answers_and_draws_as_its_run(colour_run, exported, tmp_path, capsys):
    np.save(tmp_path / "clip.npy", read_video(carphone()).frames[:16])
    video = [f"--video={tmp_path / 'clip.npy'}", "--window_frames=10"]
    expected = answered(capsys, f"--model_dir={colour_run}", *video, f"--out={tmp_path / 'run.mp4'}")
    for folder in (exported, exported / "1"):
        found = answered(capsys, f"--export_dir={folder}", *video, f"--out={tmp_path / 'export.mp4'}")
        assert found["model"] == str(exported / "1") and len(found["windows"]) == 3
        for one, other in zip([found, *found["windows"]], [expected, *expected["windows"]]):
            np.testing.assert_allclose(probabilities(one), probabilities(other), atol=1e-5)
            assert [row["name"] for row in one["top"]] == [row["name"] for row in other["top"]]
    drawn = [read_video(tmp_path / name).frames.astype(int) for name in ("run.mp4", "export.mp4")]
    assert np.abs(drawn[0] - drawn[1]).mean() < 0.5


def test_out_is_the_video_again_with_the_seen_part_bright_and_its_regions_in_colour(colour_run, tmp_path, capsys):
    path, original = tmp_path / "annotated.mp4", tmp_path / "short.mp4"
    write_video(original, read_video(carphone()).frames[:30], rate=Fraction(30000, 1001))
    found = answered(capsys, f"--model_dir={colour_run}", f"--video={original}", f"--out={path}", "--top=2")
    assert found["out"] == str(path)
    facts = probe(path)
    assert (facts.codec, facts.declared_frames) == ("h264", 30)
    assert facts.frames_per_second == pytest.approx(30000 / 1001, rel=1e-6)
    frames, source = read_video(path).frames, read_video(original).frames
    assert frames.shape[1] % 2 == 0 and frames.shape[2] == 640
    # 176×144, three times as large, in the middle of 640 pixels: the video is at columns 56…583, rows 0…431.
    video = frames[:, :432, 56:584]
    margin = np.asarray(Image.fromarray(source[20]).resize((528, 432), Image.Resampling.BICUBIC))[100:300, :80]
    ratio = video[20, 100:300, :80].mean() / margin.mean()
    assert ratio == pytest.approx(annotated_video.UNSEEN_BRIGHTNESS, abs=0.04)
    # The part that was seen: 32 of 40 rows and of 49 columns, from row 4 and column 8, framed in orange.
    top, left = 4 * 432 // 40, 8 * 528 // 49
    border = video[20, top + 30 : top + 60, left : left + 3].reshape(-1, 3).mean(axis=0)
    assert border[0] > 180 and border[0] - border[2] > 80
    assert sorted(tmp_path.iterdir()) == [path, original]


def test_small_grey_clips_are_drawn_large(grey_run, tmp_path, capsys):
    np.save(tmp_path / "clip.npy", np.random.default_rng(1).integers(0, 256, (5, 12, 12), np.uint8))
    printed(capsys, f"--model_dir={grey_run}", f"--video={tmp_path / 'clip.npy'}", f"--out={tmp_path / 'a.mp4'}")
    facts = probe(tmp_path / "a.mp4")
    assert (facts.declared_frames, facts.frames_per_second, facts.width) == (5, 12.0, 640)
    assert facts.height > 444  # 12 pixels, 37 times, and the names below


def test_what_fails_while_drawing_leaves_nothing_and_keeps_the_old_file(grey_run, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "clip.npy", np.zeros((5, 12, 12), np.uint8))
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "a.mp4"
    path.write_bytes(b"old")
    arguments = f"--model_dir={grey_run}", f"--video={tmp_path / 'clip.npy'}", f"--out={path}"
    assert "--place=res9: the model shows attention at final" in refused(capsys, *arguments, "--place=res9")

    monkeypatch.setattr(encoding, "ENCODERS", {"no_such_encoder": {}})
    assert "has none of the encoders no_such_encoder" in refused(capsys, *arguments, code=1)
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == b"old"


def test_a_model_without_a_graph_is_drawn_plain_and_its_export_says_why_it_is_not(toy_settings, tmp_path, capsys):
    run = write_run(tmp_path / "run", {**toy_settings, "head": "mean_lstm"}, manifests={})
    np.save(tmp_path / "clip.npy", np.full((5, 12, 12), 100, np.uint8))
    video, out = f"--video={tmp_path / 'clip.npy'}", f"--out={tmp_path / 'a.mp4'}"
    printed(capsys, f"--model_dir={run}", video, out)
    frame = read_video(tmp_path / "a.mp4").frames[2]
    np.testing.assert_allclose(frame[:440, 100:540].astype(int), 100, atol=6)
    saved_model.export_run(runs.open_run(str(run)), base=str(tmp_path / "served"))
    assert "has no signature 'attention': the model has no graph" in refused(
        capsys, f"--export_dir={tmp_path / 'served'}", video, out
    )


def test_frames_that_come_as_a_stream_are_answered_as_the_file(colour_run, capsys, monkeypatch):
    expected = answered(capsys, f"--model_dir={colour_run}", f"--video={carphone()}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(read_video(carphone()).frames.tobytes())))
    found = answered(capsys, f"--model_dir={colour_run}", "--video=-", "--raw_size=176x144", "--frames_per_second=30")
    assert found["frames"] == 120
    np.testing.assert_allclose(probabilities(found), probabilities(expected), atol=1e-6)


UNEVEN = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 30, 31, 32, 33, 34, 60, 61, 62, 63, 64]  # twelfths of a second


def test_times_are_those_of_the_frames_where_the_rate_varies(colour_run, tmp_path, capsys):
    path = write_video(tmp_path / "uneven.mp4", moving_frames(20, height=40, width=56), rate=12, ticks=UNEVEN)
    found = answered(capsys, f"--model_dir={colour_run}", f"--video={path}", "--window_frames=8", "--overlap=0.5")
    spans = [(window["start_seconds"], window["end_seconds"]) for window in found["windows"]]
    # Frames 0-7, 4-11, 8-15 and 12-19; each is shown until the next one.
    assert spans == [
        pytest.approx(span) for span in ((0, 8 / 12), (4 / 12, 32 / 12), (8 / 12, 61 / 12), (32 / 12, 65 / 12))
    ]


def test_windows_of_seconds_hold_what_is_shown_in_that_time(colour_run, tmp_path, capsys):
    path = write_video(tmp_path / "uneven.avi", moving_frames(20, height=40, width=56), MPEG4, rate=12, ticks=UNEVEN)
    found = answered(capsys, f"--model_dir={colour_run}", f"--video={path}", "--window_seconds=1.5", "--overlap=0")
    # 18 twelfths at a time; nothing is shown from the 36th to the 53rd.
    assert [(window["first_frame"], window["last_frame"]) for window in found["windows"]] == [
        (0, 9),
        (10, 14),
        (15, 19),
    ]


def test_the_annotated_video_keeps_times_and_sound(colour_run, tmp_path, capsys):
    path = write_video(
        tmp_path / "uneven.mp4", moving_frames(20, height=40, width=56), FASTSTART, rate=12, ticks=UNEVEN, sound="aac"
    )
    found = answered(capsys, f"--model_dir={colour_run}", f"--video={path}", f"--out={tmp_path / 'out.mp4'}")
    original, drawn = read_video(path), read_video(tmp_path / "out.mp4")
    assert found["frames"] == 20 and len(drawn.frames) == 20
    np.testing.assert_allclose(drawn.timestamps, original.timestamps, atol=1)
    packets = [sound_of(video) for video in (path, tmp_path / "out.mp4")]
    assert len(packets[1]) > 40 and packets[1] == packets[0][-len(packets[1]) :]
    assert len(packets[0]) - len(packets[1]) <= 1  # what lies before the first frame


def sound_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_sound_that_an_mp4_cannot_hold_is_told(colour_run, tmp_path, capsys):
    path = write_video(tmp_path / "a.avi", moving_frames(6, height=40, width=56), MPEG4, sound="pcm_u8")
    found = printed(capsys, f"--model_dir={colour_run}", f"--video={path}", f"--out={tmp_path / 'out.mp4'}")
    assert "out.mp4 has no whole sound: an .mp4 cannot hold its sound (pcm_u8)." in found.err
    assert len(read_video(tmp_path / "out.mp4").frames) == 6
