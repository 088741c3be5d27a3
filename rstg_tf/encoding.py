"""Frames -> a video file that browsers play, through scikit-video's writer; whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from rstg_tf.ffmpeg import messages_of, numpy_aliases
from rstg_tf.runs import sync_path
from rstg_tf.video import VideoError, probe, require_ffmpeg

# H.264 in the only layout of colours that browsers decode; faststart: it begins to play before all of it is there.
ENCODING = {"-c:v": "libx264", "-pix_fmt": "yuv420p", "-crf": "20", "-movflags": "+faststart"}
LARGEST_DENOMINATOR = 1001  # of a frame rate: 29.97… is 30000/1001


def write_video(path: str, frames: Iterable[np.ndarray], *, frames_per_second: float, num_frames: int) -> None:
    """Writes `num_frames` frames, uint8 [H, W, 3] with even sides, to `path`, which ends in .mp4.

    Raises VideoError, leaving what was at `path`, if there are more or fewer frames, or the encoder fails.
    """
    require_ffmpeg()
    folder, name = os.path.split(os.path.abspath(path))
    building = os.path.join(folder, f".{name}.tmp-{os.getpid()}.mp4")
    try:
        written = _encode(building, frames, frames_per_second=frames_per_second, name=path)
        if written != num_frames:
            raise VideoError(f"{path}: got {written} frames, expected {num_frames}: has the source been changed?")
        found = probe(building).declared_frames
        if found != num_frames:
            raise VideoError(f"{path}: ffmpeg wrote {found} of {num_frames} frames: expected all.")
        sync_path(building)
        os.replace(building, path)
        sync_path(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(building)


def _encode(building: str, frames: Iterable[np.ndarray], *, frames_per_second: float, name: str) -> int:
    """Writes the file and returns how many frames it was given."""
    rate = Fraction(frames_per_second).limit_denominator(LARGEST_DENOMINATOR)
    count, writer = 0, _writer_class()(building, inputdict={"-r": str(rate)}, outputdict=dict(ENCODING))
    try:
        for frame in frames:
            if not writer.write(frame):
                break
            count += 1
        code, messages = writer.finish()
    finally:
        writer.close()
    if code:
        why = f" ({messages[-1]})" if messages else ""
        raise VideoError(f"{name}: ffmpeg could not write it{why}; is the disk full, or has ffmpeg been built without "
                         "libx264 (ffmpeg -encoders lists what it has)?")
    return count


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
