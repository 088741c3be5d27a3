"""Pictures mean the same wherever they are read: data sets, prediction, exported models, the training pipeline."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as some
from kinds_of_pictures import GREY16, HEIGHT, IMAGE, OTHERS, PALETTE, PICTURES, SUFFIXES, WIDTH, encode, turned
from PIL import Image
from tiny_videos import MPEG4, WEBM, Encoding, moving_frames, write_video

from datasets.input_pipeline.pipeline import evaluation_clips
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import RecordedDataset
from datasets.videos.sources import Rejection, VideoSource, encode_source
from datasets.videos.writing import write_videos
from rstg_tf.common.errors import VideoError
from rstg_tf.serving.request_clips import clips_from_frames
from rstg_tf.video import exif as exif_graph
from rstg_tf.video.clip_spec import ClipSpec
from rstg_tf.video.frame_folders import list_frame_files, looks_like_video
from rstg_tf.video.pictures import picture_format, pixels_of
from rstg_tf.video.sources import open_source

MOTION_JPEG = Encoding("mjpeg", {}, "yuvj422p")


def mean_colour(frames):
    """float [3] of frames [..., C]."""
    return np.broadcast_to(np.asarray(frames, np.float64).reshape(-1, np.shape(frames)[-1]).mean(0), 3)


def frame_folder(folder, content, suffix, count=3):
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        (folder / f"{number:05d}{suffix}").write_bytes(content)
    return folder


def means(tmp_path, content, suffix):
    """The mean colour of a folder of such frames as the data set, prediction and the training pipeline have it."""
    folder = frame_folder(tmp_path / "frames", content, suffix)
    found = {"predict": mean_colour(np.stack(list(open_source(folder).read(None))))}
    stored = encode_source(VideoSource("v", str(folder), 0), 256)
    assert not isinstance(stored, Rejection), stored.reason
    found["stored"] = mean_colour([np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")) for frame in stored.frames])
    write_videos(
        sources=[VideoSource("v", str(folder), 0)],
        classes=("a",),
        out_dir=tmp_path / "out",
        name="n",
        split="train",
        made_by={},
        num_processes=1,
        show_progress=False,
    )
    dataset = RecordedDataset.open(tmp_path / "out")
    height, width = dataset.manifest.height, dataset.manifest.width
    assert {height, width} == {HEIGHT, WIDTH}
    clip = ClipSpec(num_frames=2, height=height, width=width, channels=3)
    [batch] = evaluation_clips(dataset=dataset, options=ReadingOptions(clip), batch_size=1)
    found["pipeline"] = mean_colour(batch["video"])
    return found


@pytest.mark.parametrize("kind", PICTURES)
def test_a_kind_of_picture_has_the_same_mean_colour_everywhere(tmp_path, kind):
    content, expected = PICTURES[kind]
    found = means(tmp_path, content, ".jpg" if "JPEG" in kind else ".png")
    height, width = (WIDTH, HEIGHT) if "turned" in kind else (HEIGHT, WIDTH)
    clip = ClipSpec(num_frames=2, height=height, width=width, channels=3, short_side=HEIGHT)
    served = clips_from_frames(tf.constant([[content] * 3]), clip)
    found["served"] = mean_colour(served)
    for reader, colour in found.items():
        np.testing.assert_allclose(colour, expected, atol=1.0, err_msg=reader)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_folder_of_pictures_in_any_format_is_one_video(tmp_path, kind):
    content, expected = OTHERS[kind]
    for reader, colour in means(tmp_path, content, SUFFIXES[kind]).items():
        np.testing.assert_allclose(colour, expected, atol=1.0, err_msg=reader)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_pictures_are_shown_upright(orientation):
    upright = np.asarray(Image.open(io.BytesIO(encode(IMAGE, "PNG"))))
    undo = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    stored = encode(Image.fromarray(np.ascontiguousarray(undo)), "PNG", exif=turned(orientation))
    np.testing.assert_array_equal(pixels_of(stored, named="f"), upright)


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_graph_turns_jpegs_as_pillow_does(orientation, order):
    exif = turned(orientation)
    exif[0x010F] = "a camera"  # an entry before the one that counts
    exif.endian = order
    content = encode(IMAGE, "JPEG", quality=95, exif=exif)
    found = exif_graph.upright(
        tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE"), exif_graph.orientation(tf.constant(content))
    )
    np.testing.assert_array_equal(found, pixels_of(content, named="f"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe1\0\x08Exif\0\0",
        b"\xff\xd8\xff\xe1\0\x08Exif\0\0II*\0\xff\xff\xff\xff",
        b"\xff\xd8\xff\xe1\0\x08Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        PICTURES["colour PNG"][0],
        PICTURES["grey JPEG"][0],
        b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0",
    ],
)
def test_files_that_do_not_say_how_they_were_held_are_upright(content):
    assert exif_graph.orientation(tf.constant(content)) == 1


def test_16_bits_become_8_by_their_upper_byte_as_tf_io_does():
    content = PICTURES["16-bit grey PNG"][0]
    np.testing.assert_array_equal(pixels_of(content, named="f")[..., 0], GREY16 >> 8)
    np.testing.assert_array_equal(pixels_of(content, named="f"), tf.io.decode_png(content, 1))


def test_plain_jpegs_are_stored_as_they_are_and_others_as_every_decoder_reads_them(tmp_path):
    for kind in ("colour JPEG", "grey JPEG", "CMYK JPEG", "JPEG that the camera turned"):
        content = PICTURES[kind][0]
        stored = encode_source(VideoSource("v", str(frame_folder(tmp_path / kind, content, ".jpg")), 0), 256)
        assert (stored.frames == [content] * 3) == (kind in ("colour JPEG", "grey JPEG"))
        image = Image.open(io.BytesIO(stored.frames[0]))
        assert image.mode in ("RGB", "L") and image.size == (stored.width, stored.height)
        assert not image.getexif()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f is empty"),
        (b"no picture", "f is no picture that Pillow can read"),
        (PICTURES["colour JPEG"][0][:900], "f cannot be decoded as JPEG"),
        (PICTURES["colour PNG"][0][:-30], "f cannot be decoded as PNG"),
        (encode(Image.fromarray(GREY16.astype(np.float32)), "TIFF"), "floating point, whose range is not known"),
        (encode(Image.fromarray(GREY16.astype(np.int32)), "TIFF"), "pixels of 32 bits"),
        (encode(IMAGE, "TIFF", save_all=True, append_images=[IMAGE]), "holds 2 pictures"),
    ],
)
def test_what_is_no_whole_picture_is_refused(content, message):
    with pytest.raises(VideoError, match=message):
        pixels_of(content, named="f")


@given(
    some.sampled_from([*PICTURES.values(), *OTHERS.values()]),
    some.integers(0, 2**16),
    some.integers(1, 255),
    some.booleans(),
)
def test_damaged_pictures_are_pixels_or_one_sentence(picture, place, change, is_cut):
    content = bytearray(picture[0])
    if is_cut:
        del content[place % len(content) :]
    else:
        content[place % len(content)] ^= change
    try:
        assert pixels_of(bytes(content), named="f").dtype == np.uint8
    except VideoError as error:
        assert str(error).startswith("f ") and "\n" not in str(error)


def test_pictures_are_known_by_their_content_whatever_they_are_called(tmp_path):
    for kind, (content, _) in {**PICTURES, **OTHERS}.items():
        if kind == "TGA":  # begins with nothing to be known by
            continue
        (tmp_path / "x.mp4").write_bytes(content)
        assert picture_format(tmp_path / "x.mp4"), kind
        assert not looks_like_video(tmp_path / "x.mp4")
    (tmp_path / "x.tga").write_bytes(OTHERS["TGA"][0])
    assert picture_format(tmp_path / "x.tga") == "TGA"
    animation = encode(PALETTE, "GIF", save_all=True, append_images=[PALETTE.transpose(Image.Transpose.ROTATE_180)])
    for content in (animation, b"", b"#!/bin/sh\n", b"BMW videos\n", b"P1 is the first\n", b"\0" * 64):
        (tmp_path / "x.jpg").write_bytes(content)
        assert picture_format(tmp_path / "x.jpg") is None
    assert looks_like_video(tmp_path / "x.jpg") is False
    (tmp_path / "x.jpg").write_bytes(animation)
    assert looks_like_video(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    ("container", "encoding"),
    [
        (".mp4", MPEG4),
        (".mkv", MPEG4),
        (".avi", MPEG4),
        (".mov", MPEG4),
        (".webm", WEBM),
        (".mpg", Encoding("mpeg2video", {})),
        (".ts", Encoding("mpeg2video", {})),
        (".mjpeg", MOTION_JPEG),
    ],
)
def test_videos_are_no_pictures_whatever_they_are_called(tmp_path, container, encoding):
    path = write_video(tmp_path / f"x{container}", moving_frames(4, height=96, width=96), encoding, rate=25)
    if encoding is MOTION_JPEG:  # begins as a picture does
        assert picture_format(path) is None
        return
    for name in ("x.jpg", "x.png", "x.bmp", "nameless"):
        path = path.rename(tmp_path / name)
        assert picture_format(path) is None and looks_like_video(path)
    assert encode_source(VideoSource("v", str(path), 0), 256).height == 96


def test_a_picture_is_never_a_video_of_one_frame(tmp_path):
    for kind, (content, _) in {**PICTURES, **OTHERS}.items():
        path = tmp_path / f"x{SUFFIXES.get(kind, '.mp4')}"
        path.write_bytes(content)
        outcome = encode_source(VideoSource("v", str(path), 0), 256)
        assert isinstance(outcome, Rejection) and "is a single picture" in outcome.reason, kind
        with pytest.raises(VideoError, match="is a single picture .*expected a video file, a folder"):
            open_source(path)


def test_what_systems_leave_among_frames_is_no_frame(tmp_path):
    folder = frame_folder(tmp_path / "v", PICTURES["colour JPEG"][0], ".jpg")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._00001.jpg", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    assert [file.name for file in list_frame_files(folder)] == ["00001.jpg", "00002.jpg", "00003.jpg"]


def test_a_clip_saved_under_any_name_is_known_by_its_content(tmp_path):
    np.save(tmp_path / "clip.npy", np.zeros((2, 4, 6), np.uint8))
    (tmp_path / "clip.npy").rename(tmp_path / "clip.bin")
    assert open_source(tmp_path / "clip.bin").num_frames == 2
