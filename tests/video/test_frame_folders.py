"""Folders of frame files: their order, and those with holes."""

from __future__ import annotations

import pytest
from tiny_videos import moving_frames, write_frames

from rstg_tf.common.errors import VideoError
from rstg_tf.video import frame_folders


def test_frame_files_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("frame_1.jpg", "frame_2.jpg", "frame_10.jpg", "frame_9.JPG", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    for number in (3, 4, 5, 6, 7, 8):
        (tmp_path / f"frame_{number:03d}.jpeg").touch()
    names = [path.name for path in frame_folders.list_frame_files(tmp_path)]
    assert names[:3] == ["frame_1.jpg", "frame_2.jpg", "frame_003.jpeg"]
    assert names[-3:] == ["frame_008.jpeg", "frame_9.JPG", "frame_10.jpg"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no frame"),
        (["1.jpg", "2.jpg", "4.jpg"], "frame 3 is missing; found 3 of the frames 1 to 4"),
        (["2.jpg", "3.jpg"], "frame 1 is missing; found 2 of the frames 1 to 3"),
        (["1.jpg", "2.png"], "JPEG and PNG"),
        (["1.jpg", "01.jpg"], "01.jpg and 1.jpg are the same frame number"),
        (["a.jpg"], "a.jpg: expected a name that ends with the number"),
    ],
)
def test_frame_folders_with_holes_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(VideoError, match=message):
        frame_folders.list_frame_files(tmp_path)


def test_a_frame_folder_is_listed_as_it_was_written(tmp_path):
    write_frames(tmp_path / "v", moving_frames(num_frames=11), first=0)
    assert [path.name for path in frame_folders.list_frame_files(tmp_path / "v")] == [f"{n:05d}.jpg" for n in range(11)]
