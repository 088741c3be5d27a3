"""Progress bars: tqdm's."""

from __future__ import annotations

from tqdm import tqdm


class Bar(tqdm):
    """A `tqdm` that Ctrl-C may interrupt while it is made: tqdm would print an AttributeError clearing it away."""

    disable = True  # of a bar whose __init__ was not reached: there is nothing to close
