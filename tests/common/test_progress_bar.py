"""Progress bars."""

from __future__ import annotations

import io
import sys

import pytest

from rstg_tf.common.progress_bar import Bar


@pytest.mark.parametrize("place", ["get_lock", "_get_free_pos", "status_printer", "refresh"])
def test_a_bar_interrupted_while_it_is_made_is_cleared_away_in_silence(place, monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)

    def interrupt(*arguments, **settings):
        raise KeyboardInterrupt

    made = type("Made", (Bar,), {place: interrupt if place == "refresh" else staticmethod(interrupt)})
    with pytest.raises(KeyboardInterrupt):
        made(total=3, file=io.StringIO())
    assert not said


def test_a_bar_shows_its_steps_unless_it_is_told_not_to():
    shown, hidden = io.StringIO(), io.StringIO()
    for file, disable in ((shown, False), (hidden, True)):
        with Bar(total=4, file=file, disable=disable) as bar:
            bar.update(4)
            assert bar.disable is disable
    assert "4/4" in shown.getvalue()
    assert not hidden.getvalue()
