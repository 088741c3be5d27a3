"""Folders of results: one that appears whole or not at all, and names for those within."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Iterator

from rstg_tf.runs import sync_folder


def folder_name(text: str) -> str:
    """Any text as the name of a folder: 'a b/c.mp4' -> 'a_b_c.mp4'."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "unnamed"


@contextlib.contextmanager
def whole_folder(directory: str) -> Iterator[str]:
    """Gives the path of an empty folder to fill; at the end it is forced to the disk and takes `directory`'s place.

    The old one stays until then, and stays if filling fails. What earlier, killed attempts left is removed.
    """
    building = f"{directory}.tmp-{os.getpid()}"
    for stale in glob.glob(f"{glob.escape(directory)}.tmp-*"):
        shutil.rmtree(stale)
    os.makedirs(building)
    try:
        yield building
        sync_folder(building)
        old = f"{building}-old"
        if os.path.exists(directory):
            os.rename(directory, old)
        os.rename(building, directory)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
