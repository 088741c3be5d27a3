"""What broken and hostile requests cost an exported model, beside the largest right one: time and memory of each.

    python -m benchmarks.fuzzed_requests --export_dir=BASE/VERSION [--requests=500] [--seed=0] [--json=FILE]

Requests of one clip go through `serving_bytes` of the loaded SavedModel. The right one holds T frames of the largest
size that the export takes, as progressive JPEG. The others are right ones with bytes changed, cut out, doubled and
exchanged, and pictures made to cost much: sizes that are claimed, compressed texts, pixels that go on behind the last,
scan after scan, strips. Time is that of all cores together, so that what else runs does not count. Memory is the peak
of the process during a request beyond what it had once the model had answered a small one (Linux); what the allocator
keeps of earlier requests counts too.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags as absl_flags
from PIL import Image

from benchmarks.measuring import markdown, run_command
from rstg_tf.common.errors import ConfigError

_RIGHT_RUNS = 3
_PNG_MARK = b"\x89PNG\r\n\x1a\n"


def photograph(height: int, width: int) -> Image.Image:
    """Coarse and fine structure, as a camera's picture has."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 16, 3), np.uint8)).resize((width, height))
    return Image.fromarray(np.asarray(coarse) // 2 + generator.integers(0, 32, (height, width, 3), np.uint8))


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *, parts: bytes = b"", room: int | None = None) -> bytes:
    """A black PNG; `parts` stand before its pixels, and with `room` zeros follow them until the file has that size."""
    begin = _PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + parts
    deflate = zlib.compressobj(9)
    pixels = bytearray(deflate.compress(bytes(min((3 * width + 1) * height, 2**25))))
    while room is not None and len(begin) + len(pixels) + 1500 < room:
        pixels += deflate.compress(bytes(2**20))
    return begin + chunk(b"IDAT", bytes(pixels) + deflate.flush()) + chunk(b"IEND", b"")


def with_scans(jpeg: bytes, more: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * more + jpeg[-2:]


def hostile_pictures(limits: Mapping[str, int]) -> dict[str, Callable[[random.Random], bytes]]:
    """What it is -> a picture made to cost much; most lie just within the limits, some beyond."""
    side, room = int(limits["frame_pixels"] ** 0.5), limits["png_bytes"]
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_900_000), 9))
    flat = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    strip = limits["frame_pixels"] // limits["frame_side"]

    def jpeg_that_claims(generator: random.Random) -> bytes:
        content = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG"))
        begin = content.index(b"\xff\xc0")
        content[begin + 5 : begin + 9] = struct.pack(">HH", *(generator.randrange(1, 2**16) for _ in range(2)))
        return bytes(content)

    return {
        "a PNG that claims a size": lambda generator: png(
            *(min(2**31 - 1, 2 ** generator.randrange(1, 32)) for _ in range(2))
        ),
        "a JPEG that claims a size": jpeg_that_claims,
        "texts": lambda generator: png(64, 64, parts=text * generator.randrange(1, 60)),
        "pixels behind the last": lambda generator: png(
            *generator.choice([(64, 64), (side, side)]), room=generator.choice([room, room // 2, 8 * room])
        ),
        "the largest flat PNG": lambda generator: png(side, side),
        "scan after scan": lambda generator: with_scans(flat, generator.choice([1, 5, 10, 11, 100])),
        "a strip": lambda generator: encoded(
            Image.new("RGB", generator.choice([(strip, limits["frame_side"]), (limits["frame_side"], strip)])), "JPEG"
        ),
        "a longer strip": lambda generator: encoded(
            Image.new("RGB", generator.choice([(65000, 40), (40, 65000), (16384, 16)])), "JPEG"
        ),
    }


def mutated(content: bytes, generator: random.Random) -> bytes:
    """A file with some bytes changed, a part cut out, doubled, or exchanged with another."""
    changed = bytearray(content)
    for _ in range(generator.randrange(1, 6)):
        first, second = sorted(generator.randrange(len(changed) + 1) for _ in range(2))
        second = min(second, first + generator.choice([1, 4, 64, len(changed)]))
        what = generator.randrange(4)
        if what == 0:
            changed[first:second] = generator.randbytes(second - first) if second - first < 65 else b""
        elif what == 1:
            changed[first:first] = changed[first:second]
        elif what == 2 and first < len(changed):
            changed[first] = generator.choice([0, 1, 127, 128, 255])
        else:
            header = min(len(changed), 700)
            if header:
                changed[generator.randrange(header)] = generator.randrange(256)
        if not changed:
            return b""
    return bytes(changed)


def requests(limits: Mapping[str, int], num_frames: int, size: tuple[int, int], count: int, seed: int):
    """(what it is, T frames) of each request: half of them mutated right ones, half hostile."""
    generator = random.Random(seed)
    hostile = hostile_pictures(limits)
    right = [
        encoded(photograph(*size), image_format, **options)
        for image_format, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}))
    ]
    for number in range(count):
        if number % 2:
            kind = list(hostile)[number // 2 % len(hostile)]
            content = hostile[kind](generator)
            yield kind, [content] * num_frames
        else:
            content = generator.choice(right)
            frames = [content] * num_frames
            for _ in range(generator.randrange(1, num_frames + 1)):
                frames[generator.randrange(num_frames)] = mutated(content, generator)
            yield "a mutated request", frames


def cost(answer: Callable[[list[bytes]], Any], frames: list[bytes], before: float) -> tuple[float, float, bool]:
    """(core seconds, MiB at the peak beyond those `before`, whether it was answered)."""
    import tensorflow as tf

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    begin = time.process_time()
    try:
        answer(frames)
        is_answered = True
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError):
        is_answered = False
    return time.process_time() - begin, _memory("VmHWM") - before, is_answered


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measure(values: absl_flags.FlagValues) -> dict[str, Any]:
    """Of each kind: how many requests, how many were answered, the largest time and memory; and the right one's."""
    import tensorflow as tf

    from rstg_tf.serving.model_versions import load_signatures

    path = Path(values.export_dir, "assets", "export.json")
    if not values.export_dir or not path.is_file():
        raise ConfigError(
            f"--export_dir={values.export_dir}: expected the folder of a version, with assets/export.json."
        )
    facts = json.loads(path.read_text(encoding="utf-8"))
    limits, clip = facts["request_limits"], facts["video"]
    signature = load_signatures(values.export_dir)["serving_bytes"]

    def answer(frames: list[bytes]) -> Any:
        return signature(frames=tf.constant([frames]))["logits"].numpy()

    size = (clip["height"], clip["width"])
    if clip["short_side"] is not None:
        size = (int((limits["frame_pixels"] * 9 / 16) ** 0.5), int((limits["frame_pixels"] * 16 / 9) ** 0.5))
    largest = [encoded(photograph(*size), "JPEG", quality=90, progressive=True)] * clip["frames"]
    small = (min(size[0], 256), min(size[1], 256))
    answer([encoded(photograph(*small), "JPEG")] * clip["frames"])
    before = _memory("VmRSS")
    right = [cost(answer, largest, before) for _ in range(_RIGHT_RUNS)]
    seconds, memory = (max(run[part] for run in right) for part in range(2))
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for kind, frames in requests(limits, clip["frames"], small, values.requests, values.seed):
        found.setdefault(kind, []).append(cost(answer, frames, before))
    rows = [
        {
            "kind": kind,
            "requests": len(costs),
            "answered": sum(run[2] for run in costs),
            "seconds": round(max(run[0] for run in costs), 3),
            "memory": round(max(run[1] for run in costs)),
        }
        for kind, costs in found.items()
    ]
    return {
        "right": {"size": size, "seconds": round(seconds, 3), "memory": round(memory)},
        "rows": rows,
        "summary": {
            "requests": values.requests,
            "time_ratio": round(max(row["seconds"] for row in rows) / seconds, 2),
            "memory_ratio": round(max(row["memory"] for row in rows) / max(memory, 1), 2),
        },
    }


def show(result: dict[str, Any]) -> None:
    """A row for each kind of request."""
    right = result["right"]
    rows = [(f"the largest right one, {right['size'][1]}×{right['size'][0]}", _RIGHT_RUNS, _RIGHT_RUNS)]
    rows = [(*rows[0], right["seconds"], right["memory"])]
    rows += [tuple(row.values()) for row in result["rows"]]
    print(markdown(("request", "number", "answered", "most core seconds", "most MiB"), rows))


def _define_flags(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("export_dir", "", "a version of an exported model", flag_values=values)
    absl_flags.DEFINE_integer("requests", 500, "how many are sent", 1, flag_values=values)
    absl_flags.DEFINE_integer("seed", 0, "of what is changed in them", flag_values=values)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    return run_command(
        "fuzzed_requests", __doc__, arguments, define_flags=_define_flags, measure=measure, show=show, runs=None
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
