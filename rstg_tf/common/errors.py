"""Errors that a program tells in one sentence."""

from __future__ import annotations

import errno


class ConfigError(ValueError):
    """A setting that cannot work, or two that contradict each other. Scripts print it and end with exit code 2."""


class VideoError(ValueError):
    """A video that cannot be used: the message names the file, what was expected and what was found."""


def is_full_disk(error: OSError) -> bool:
    """Whether the disk lacks space, which is no fault of the name that was given: exit code 1, not 2."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
