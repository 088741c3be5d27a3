"""Progress bars."""

from __future__ import annotations

import io
import sys

import pytest
from tqdm import tqdm

from rstg_tf.bars import Bar


@pytest.mark.parametrize(("made", "complaints"), [(tqdm, 1), (Bar, 0)])
def test_a_bar_interrupted_while_it_is_made_is_cleared_away_in_silence(made, complaints, monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)

    class Interrupted(made):
        @classmethod
        def get_lock(cls):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted(total=3)
    assert len(said) == complaints  # tqdm's own: what Bar is there for


def test_a_bar_shows_its_steps_unless_it_is_told_not_to():
    shown, hidden = io.StringIO(), io.StringIO()
    for file, disable in ((shown, False), (hidden, True)):
        with Bar(total=4, file=file, disable=disable) as bar:
            bar.update(4)
            assert bar.disable is disable
    assert "4/4" in shown.getvalue()
    assert not hidden.getvalue()
