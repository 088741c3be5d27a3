"""What this machine has and lacks for this project, and which of its promises that affects: a finding for each thing.

Imports nothing but Python's own modules, so that it can say which packages are missing.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

# First and last Python minor version -> the releases that are tested together.
STACKS = {
    (9, 11): {"tensorflow": "2.15", "keras": "2.15", "numpy": "1.23"},
    (12, 13): {"tensorflow": "2.21", "keras": "3.15", "numpy": "2.5"},
}
GOOD, LIMITED, MISSING = "ok", "limited", "missing"
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Finding:
    """A row of the page: what was looked at, what is there, and where that is not all, what it affects."""

    subject: str
    found: str
    state: str = GOOD
    affects: str = ""


def examine() -> list[Finding]:
    """Every row, in the order of the page. No fault of the machine ends it."""
    rows = []
    for look in (
        look_at_python,
        look_at_stack,
        look_at_cpu,
        look_at_gpus,
        look_at_memory,
        look_at_disk,
        look_at_decoders,
        look_at_folders,
        look_at_text,
    ):
        try:
            rows += look()
        except Exception as error:  # noqa: BLE001 - a page with a gap says more than a traceback
            rows.append(Finding(look.__name__[len("look_at_") :], f"could not be examined: {error!r}", LIMITED))
    return rows


def look_at_python(version: tuple[int, int] = sys.version_info[:2]) -> list[Finding]:
    """Whether a stack is tested on this Python."""
    found = f"{platform.python_version()} ({sys.executable}) on {platform.platform()}"
    if _tested_with(version) is not None:
        return [Finding("Python", found)]
    return [
        Finding(
            "Python",
            found,
            MISSING,
            "TensorFlow 2.15 runs on Python 3.9 to 3.11, TensorFlow 2.21 on 3.12 and "
            "3.13: nothing here is tested on another. make setup takes the newest of these that it finds.",
        )
    ]


def _tested_with(version: tuple[int, int]) -> dict[str, str] | None:
    for (first, last), packages in STACKS.items():
        if version[0] == 3 and first <= version[1] <= last:
            return packages
    return None


def look_at_stack(
    version_of: Callable[[str], str] = metadata.version, python: tuple[int, int] = sys.version_info[:2]
) -> list[Finding]:
    """TensorFlow, Keras and NumPy beside the releases that are tested with this Python."""
    tested, found, wrong = _tested_with(python) or {}, [], []
    for package in ("tensorflow", "keras", "numpy"):
        try:
            version = version_of(package)
        except metadata.PackageNotFoundError:
            version = "missing"
        found.append(f"{package} {version}")
        if not version.startswith(f"{tested.get(package, '')}."):
            wrong.append(f"{package} {tested.get(package)}")
    if not tested:
        return [Finding("stack", ", ".join(found), MISSING, "no releases are tested with this Python.")]
    if wrong:
        return [
            Finding(
                "stack",
                ", ".join(found),
                MISSING,
                f"tested are {', '.join(wrong)} with this Python: install "
                "requirements.txt. Golden vectors, equal bits and checkpoints are promised for these alone.",
            )
        ]
    return [Finding("stack", ", ".join(found))]


def look_at_cpu(text: str | None = None) -> list[Finding]:
    """`text`: of /proc/cpuinfo."""
    text = _read("/proc/cpuinfo") if text is None else text
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)).split())
    names = re.findall(r"^model name\s*: *(.*)$", text, re.MULTILINE)
    name = names[0] if names else platform.processor() or platform.machine()
    if not flags:
        return [
            Finding(
                "CPU",
                f"{name}, {cores} cores; its features are not told here",
                LIMITED,
                "how fast bfloat16 is can only be tried.",
            )
        ]
    features = {
        "AVX2": "avx2" in flags,
        "AVX-512": "avx512f" in flags,
        "AVX-512 bfloat16": "avx512_bf16" in flags,
        "AMX bfloat16": "amx_bf16" in flags,
    }
    found = f"{name}, {cores} cores; " + ", ".join(
        f"{feature} {'yes' if there else 'no'}" for feature, there in features.items()
    )
    if features["AVX-512 bfloat16"] or features["AMX bfloat16"] or "bf16" in flags:
        return [Finding("CPU", found)]
    return [
        Finding(
            "CPU",
            found,
            LIMITED,
            "it has no bfloat16 instructions: --precision=mixed_bfloat16 may be slower "
            "than float32 here. The measured speeds in docs/performance.md are of a CPU that has them.",
        )
    ]


def look_at_gpus() -> list[Finding]:
    """The GPUs that TensorFlow sees."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        tf = importlib.import_module("tensorflow")
    except ImportError as error:
        return [Finding("GPUs", f"not told without TensorFlow ({error})", LIMITED)]
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    if gpus:
        return [
            Finding(
                "GPUs",
                f"{len(gpus)}: {', '.join(gpus)}",
                LIMITED,
                "no GPU was there when this was tested: "
                "equal bits are promised by TensorFlow's switch for deterministic kernels, speeds by nobody.",
            )
        ]
    nvidia = shutil.which("nvidia-smi")
    return [
        Finding(
            "GPUs",
            f"none that TensorFlow sees{', though nvidia-smi is there' if nvidia else ''}",
            LIMITED,
            "the demo and SyncMNIST train on a CPU; the Something-Something models are meant for GPUs."
            + (" pip install 'tensorflow[and-cuda]' of the version above brings CUDA." if nvidia else ""),
        )
    ]


def look_at_memory(text: str | None = None) -> list[Finding]:
    """`text`: of /proc/meminfo."""
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo") if text is None else text, re.MULTILINE))
    if "MemTotal" not in sizes:
        return [Finding("memory", "not told here")]
    total = int(sizes["MemTotal"]) * 1024 / _GIB
    free = int(sizes.get("MemAvailable", sizes["MemTotal"])) * 1024 / _GIB
    limit = _read("/sys/fs/cgroup/memory.max").strip() if text is None else ""
    if limit.isdecimal():
        total, free = min(total, int(limit) / _GIB), min(free, int(limit) / _GIB)
    found = f"{total:.1f} GiB, {free:.1f} free"
    if free >= 4:
        return [Finding("memory", found)]
    return [
        Finding(
            "memory",
            found,
            LIMITED,
            "a step of smt.flags takes 3.3 GiB; README has the MiB "
            "per clip of each model. Lower --batch_size, or give --remat.",
        )
    ]


def look_at_disk(folder: str = os.curdir) -> list[Finding]:
    """Free space in a folder."""
    free = shutil.disk_usage(folder).free / _GIB
    found = f"{free:.1f} GiB free in {Path(folder).absolute()}"
    if free >= 3:
        return [Finding("disk", found)]
    return [
        Finding(
            "disk",
            found,
            LIMITED,
            "the packages take 2 GB, records of videos far more. A full disk ends a "
            "run with its last checkpoint whole.",
        )
    ]


def look_at_decoders() -> list[Finding]:
    """What decodes video files here."""
    try:
        av = importlib.import_module("av")
        libraries = ".".join(map(str, av.library_versions.get("libavcodec", ())))
        return [
            Finding(
                "decoders",
                f"PyAV {av.__version__} (libavcodec {libraries}; H.264 encoder "
                f"{'yes' if 'libx264' in av.codecs_available else 'no'})",
            )
        ]
    except ImportError:
        return [
            Finding(
                "decoders",
                "no PyAV",
                MISSING,
                "no video file can be read; folders of JPEG or PNG frames and .npy files can: pip install av",
            )
        ]


def look_at_folders() -> list[Finding]:
    """Whether the working, temporary and home folders can be written."""
    rows = []
    for name, folder, affects in (
        ("working", os.curdir, "runs/, data/ and build/ go here: give --model_dir and --out_dir elsewhere."),
        ("temporary", tempfile.gettempdir(), "videos from standard input and the tests need it: set TMPDIR."),
        ("home", os.path.expanduser("~"), "pip and matplotlib keep caches there; no promise needs them."),
    ):
        writable = _is_writable(folder)
        lacks = LIMITED if name == "home" else MISSING
        rows.append(
            Finding(
                f"{name} folder",
                f"{Path(folder).absolute()} {'writable' if writable else 'not writable'}",
                GOOD if writable else lacks,
                "" if writable else affects,
            )
        )
    return rows


def look_at_text() -> list[Finding]:
    """Whether file names and output are UTF-8."""
    names, output = sys.getfilesystemencoding(), sys.stdout.encoding or "none"
    if names.lower() == "utf-8" and output.lower() == "utf-8":
        return [Finding("text", "UTF-8")]
    return [
        Finding(
            "text",
            f"file names in {names}, output in {output}",
            LIMITED,
            "names of classes and files in other scripts may not be shown: set LC_ALL=C.UTF-8.",
        )
    ]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _is_writable(folder: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
