"""OpenVINO and ONNX Runtime, installed beside the environment, and the answers of a SavedModel in them."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parent
REQUIREMENTS = FOLDER / "requirements.txt"


def install(cache: pathlib.Path) -> pathlib.Path:
    """A folder below `cache` with the packages; a second run finds it there. Skips where pip cannot get them."""
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    packages = cache / key
    if packages.exists():
        return packages
    building = cache / f"{key}.{os.getpid()}"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--target",
            building,
            "--requirement",
            REQUIREMENTS,
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        shutil.rmtree(building, ignore_errors=True)
        pytest.skip(f"OpenVINO and ONNX Runtime cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    try:
        building.rename(packages)
    except OSError:  # another run was faster
        assert packages.exists()
        shutil.rmtree(building)
    return packages


def convert_to_onnx(saved_model: str, out: pathlib.Path, packages: pathlib.Path) -> None:
    _run(
        packages,
        "-m",
        "tf2onnx.convert",
        "--saved-model",
        saved_model,
        "--tag",
        "serve",
        "--signature_def",
        "serving_default",
        "--opset",
        "15",
        "--output",
        out,
    )


def answer(runtime: str, model, video: np.ndarray, packages: pathlib.Path, folder: pathlib.Path) -> dict:
    """What `answer.py` finds with that runtime, in a process of its own, for the clips and for wrong ones."""
    np.save(folder / "video.npy", video)
    _run(packages, FOLDER / "answer.py", runtime, model, folder / "video.npy", folder / "answers.npz")
    with np.load(folder / "answers.npz") as answers:
        return dict(answers)


def _run(packages: pathlib.Path, *command) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=packages,
        env={**os.environ, "PYTHONPATH": str(packages)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
