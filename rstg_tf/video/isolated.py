"""A clip of strangers as a source of frames: read in a process of its own, whose memory has a limit.

A decoder that crashes or takes all memory then ends its own process, and the command says so in a sentence. The process
begins with a line of JSON on its command line and answers on standard output: a line of JSON for what the source is,
for each frame (its pixels behind it), for the end or for an error. No TensorFlow in either.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from absl import flags as absl_flags

from rstg_tf.common.errors import ConfigError, VideoError
from rstg_tf.video.decoding import TimedFrame
from rstg_tf.video.limits import DEFAULT_LIMITS, MediaLimits
from rstg_tf.video.sources import FrameSource, open_source

DEFAULT_MEMORY = 2**32  # bytes
_BEGIN = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])["modules"]
from rstg_tf.video import isolated
isolated.serve()
"""
_ERRORS = {"ConfigError": ConfigError, "VideoError": VideoError, "OSError": OSError}


def define_memory_flag(flags: absl_flags.FlagValues) -> None:
    """--max_memory, for `isolated_source`."""
    absl_flags.DEFINE_integer(
        "max_memory",
        DEFAULT_MEMORY,
        "at most so many bytes of memory for the process that reads --video (Linux)",
        lower_bound=1,
        flag_values=flags,
    )


def isolated_source(path: str | os.PathLike, *, memory: int, limits: MediaLimits = DEFAULT_LIMITS) -> FrameSource:
    """`sources.open_source`, whose errors it raises, in another process that can take `memory` bytes of data (Linux).

    Each reading has a process of its own, which is gone when the reading ends or is given up. Raises VideoError where
    it is ended before that: by a crash of the decoder, or for want of memory.
    """
    path = os.fspath(path)
    (facts,) = _answers(path, memory, limits, reading=None)
    size, has_times = facts.pop("frame_size"), facts.pop("has_times")

    def read(short_side: int | None) -> Iterator[np.ndarray]:
        for frame in _answers(path, memory, limits, reading={"short_side": short_side, "timed": False}):
            yield frame["pixels"]

    def read_timed(short_side: int | None) -> Iterator[TimedFrame]:
        for frame in _answers(path, memory, limits, reading={"short_side": short_side, "timed": True}):
            yield TimedFrame(frame["pixels"], frame["seconds"], frame["duration"])

    return FrameSource(
        read=read,
        read_timed=read_timed if has_times else None,
        frame_size=None if size is None else tuple(size),
        **facts,
    )


def _answers(path: str, memory: int, limits: MediaLimits, *, reading: dict | None) -> Iterator[dict]:
    """What the process says, up to its last word."""
    task = {
        "modules": sys.path,
        "path": os.fsencode(path).hex(),
        "memory": memory,
        "limits": vars(limits),
        "read": reading,
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _BEGIN, json.dumps(task)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        for line in process.stdout:
            answer = json.loads(line)
            if answer == "end":
                return
            if "error" in answer:
                raise _ERRORS[answer["error"]](answer["message"])
            if "shape" in answer:
                size = int(np.prod(answer["shape"]))
                content = process.stdout.read(size)
                if len(content) < size:
                    break
                answer["pixels"] = np.frombuffer(content, np.uint8).reshape(answer["shape"])
            yield answer
        raise VideoError(
            f"{path}: the process that reads it ended with {process.wait()}: the decoder crashed on it, or needs more "
            f"than the {memory >> 20} MiB that it may take (--max_memory)."
        )
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def serve() -> None:
    """The other process: reads what its command line names, and says what it finds on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent hears Ctrl-C, and ends it
    task = json.loads(sys.argv[1])
    # Nothing that a library prints may come between the answers.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(ValueError, OSError):  # the system has a lower limit, or none of this kind
        resource.setrlimit(resource.RLIMIT_DATA, (task["memory"], resource.getrlimit(resource.RLIMIT_DATA)[1]))
    path = os.fsdecode(bytes.fromhex(task["path"]))
    with contextlib.suppress(BrokenPipeError):  # nobody wants more
        try:
            _tell_all(output, open_source(path, limits=MediaLimits(**task["limits"])), task["read"])
        except tuple(_ERRORS.values()) as error:
            name = next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
            _tell(output, {"error": name, "message": str(error)})
        except MemoryError:
            most = f"the {task['memory'] >> 20} MiB that a process may take to read it (--max_memory)"
            _tell(output, {"error": "VideoError", "message": f"{path} needs more than {most}."})
        output.flush()
    os._exit(0)  # a decoder's threads, and what else it left, are no matter


def _tell_all(output: BinaryIO, source: FrameSource, reading: dict | None) -> None:
    if reading is None:
        named = ("name", "frames_per_second", "num_frames", "sound_of", "frame_size")
        facts = {name: getattr(source, name) for name in named}
        _tell(output, {**facts, "has_times": source.read_timed is not None})
    elif reading["timed"]:
        for frame in source.read_timed(reading["short_side"]):
            _tell_frame(output, frame.pixels, seconds=frame.seconds, duration=frame.duration)
    else:
        for pixels in source.read(reading["short_side"]):
            _tell_frame(output, pixels)
    _tell(output, "end")


def _tell(output: BinaryIO, answer: object) -> None:
    output.write(json.dumps(answer).encode() + b"\n")


def _tell_frame(output: BinaryIO, pixels: np.ndarray, **times: float | None) -> None:
    _tell(output, {"shape": pixels.shape, **times})
    output.write(np.ascontiguousarray(pixels).data)
    output.flush()
