"""Progress bars: tqdm's."""

from __future__ import annotations

from tqdm import tqdm


class Bar(tqdm):
    """A `tqdm` that Ctrl-C may interrupt while it is made: tqdm would print an AttributeError, clearing it away."""

    def close(self):
        """Ends the bar, also one whose making failed half-way."""
        if hasattr(self, "start_t"):  # the last thing that __init__ sets
            super().close()
