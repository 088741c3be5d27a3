"""Records whose frames would take gigabytes, or start programs, when they are decoded."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from tiny_clips import tiny_record

from datasets.records import sequence_examples
from datasets.records.manifest import DatasetError
from datasets.records.sequence_examples import decode_clip


def flat(width, height):
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("side, told", [(8200, "8200×8200 pixels: expected at most"), (16384, "268435456 pixels")])
def test_a_frame_that_is_large_by_its_header_is_not_decoded(side, told, monkeypatch):
    frame = flat(side, side)
    monkeypatch.setattr(sequence_examples, "_common_size", lambda *told: (side, side))
    record = tiny_record(0, frames=[frame] * 3)
    with pytest.raises(DatasetError, match=f"frame 0 cannot be decoded as PNG .*{told}"):
        decode_clip(record)


def test_frames_that_are_many_are_not_all_decoded(monkeypatch):
    monkeypatch.setattr(sequence_examples, "_MOST_PIXELS", 2 * 100 * 100)
    assert decode_clip(tiny_record(0, frames=[flat(100, 100)] * 2, timestamps=[0, 1]))["frames"].shape[0] == 2
    with pytest.raises(DatasetError, match="frames are more than 20000 pixels in all"):
        decode_clip(tiny_record(0, frames=[flat(100, 100)] * 3))


def test_a_format_that_starts_programs_is_not_opened():
    record = tiny_record(0)
    assert record.count(b"PNG\r") and record.count(b"\x03PNG") == 1
    with pytest.raises(DatasetError, match="image format: 'EPS', expected one of"):
        decode_clip(record.replace(b"\x03PNG", b"\x03EPS"))
