"""scikit-video's reader and writer, made to tell what went wrong."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

# `bitexact`: the same pixels whatever instructions the processor has.
_SCALING = "bicubic+accurate_rnd+bitexact"


@functools.lru_cache(maxsize=1)
def _writer_class() -> type:
    with numpy_aliases():
        import skvideo
        from skvideo.io import FFmpegWriter

    class Writer(FFmpegWriter):
        """scikit-video's writer, with ffmpeg's messages and exit code kept; it throws both away."""

        _proc = _stderr = None

        def _createProcess(self, inputdict: dict, outputdict: dict, verbosity: int) -> None:
            command = [os.path.join(skvideo.getFFmpegPath(), "ffmpeg"), "-y", "-nostats", "-loglevel", "error",
                       *self._dict2Args(inputdict), "-i", "-", *self._dict2Args(outputdict), self._filename]
            self._stderr, self._cmd = tempfile.TemporaryFile(), " ".join(command)
            # A session of its own: Ctrl-C is for us, who then remove what there is of the file.
            self._proc = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                          stderr=self._stderr, start_new_session=True)

        def write(self, frame: np.ndarray) -> bool:
            """Whether ffmpeg took the frame; if not, it has ended, and `finish` tells why."""
            try:
                with numpy_aliases():
                    self.writeFrame(frame)
            except OSError:
                return False
            return True

        def finish(self) -> tuple[int, list[str]]:
            """ffmpeg's exit code and messages, after it has written the end of the file."""
            if self._proc is None:
                return 0, []
            with contextlib.suppress(BrokenPipeError):
                self._proc.stdin.close()
            code = self._proc.wait()
            self._stderr.seek(0)
            return code, messages_of(self._stderr.read())

        def close(self) -> None:
            if self._proc is not None:
                self._proc.kill()
                with contextlib.suppress(BrokenPipeError):
                    self._proc.stdin.close()
                self._proc.wait()
                self._stderr.close()
            self.DEVNULL.close()

    return Writer


def messages_of(raw: bytes) -> list[str]:
    """ffmpeg's lines, without the addresses in them, which differ from run to run."""
    lines = re.sub(r" @ 0x[0-9a-f]+", "", raw.decode(errors="replace")).splitlines()
    return [line.strip().rstrip(".") for line in lines if line.strip()]


@contextlib.contextmanager
def numpy_aliases() -> Iterator[None]:
    """scikit-video 1.1.11, its last release, uses `np.int` and `np.float`, of which NumPy 1.23 warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@functools.lru_cache(maxsize=1)
def reader_class() -> type:
    """The class `Reader(path, size=(width, height), threads=…)`; `nextFrame()`, then `wait()`, and always `close()`."""
    # scikit-video looks for ffmpeg when it is imported, so that waits until somebody has a video.
    with numpy_aliases():
        import skvideo
        from skvideo.io import FFmpegReader

    version = re.match(r"(\d+)\.(\d+)", skvideo.getFFmpegVersion().replace("b'", "").replace("'", ""))
    passes_frames = "-vsync" if version and (int(version[1]), int(version[2])) < (5, 1) else "-fps_mode"

    class Reader(FFmpegReader):
        """scikit-video's reader, with ffmpeg's messages and exit code kept, and no second or third probing.

        Frames pass one by one: by default ffmpeg repeats and drops some to make the rate even.
        """

        def __init__(self, path: str, *, size: tuple[int, int], threads: int):
            self._size = size
            with numpy_aliases():
                super().__init__(path, inputdict={"-threads": str(threads)}, outputdict={
                    "-map": "0:V:0", passes_frames: "passthrough", "-sws_flags": _SCALING, "-s": f"{size[0]}x{size[1]}",
                    "-f": "rawvideo", "-vcodec": "rawvideo", "-pix_fmt": "rgb24"})  # fmt: skip

        def _probe(self) -> dict:
            # 0 frames: unknown, so that it reads on to the end of what ffmpeg sends.
            return {"video": {"@width": str(self._size[0]), "@height": str(self._size[1]), "@nb_frames": "0"}}

        def _getSupportedDecoders(self) -> Any:
            return NotImplemented  # files are known by their content, not by a list of endings

        def _createProcess(self, inputdict: dict, outputdict: dict, verbosity: int) -> None:
            command = [os.path.join(skvideo.getFFmpegPath(), "ffmpeg"), "-nostats", "-loglevel", "error",
                       *self._dict2Args(inputdict), "-i", self._filename,
                       *self._dict2Args(outputdict), "-"]  # fmt: skip
            # A file: a pipe that nobody empties stops ffmpeg when it is full.
            self._stderr = tempfile.TemporaryFile()
            # A session of its own: Ctrl-C is for us, and ffmpeg ending early would look like a damaged video.
            self._proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                          stderr=self._stderr, start_new_session=True)  # fmt: skip

        def wait(self) -> tuple[int, list[str]]:
            code = self._proc.wait()
            self._stderr.seek(0)
            return code, messages_of(self._stderr.read())

        def close(self) -> None:
            if self._proc.poll() is None:
                self._proc.kill()
            self._proc.wait()
            self._proc.stdout.close()
            self._stderr.close()

    return Reader
