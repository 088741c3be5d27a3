"""What people install: the wheel and the sdist, each in an environment of its own, in a folder with other modules."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = ["rstg-doctor", "rstg-export", "rstg-predict", "rstg-visualize"]
# Somebody else's module of that name: whoever imports it leaves a trace.
FOREIGN = "import pathlib\npathlib.Path(__file__).with_name('datasets-was-imported').touch()\n"
USE = """
import json, sys
import numpy as np
from tensorflow import keras
import rstg_tf
from rstg_tf import RecurrentSpaceTimeGraph, export, predict

clips, labels = np.random.default_rng(0).random((4, 3, 6, 6, 2), np.float32), np.array([0, 1, 0, 1])
video = keras.Input((3, 6, 6, 2))
features = RecurrentSpaceTimeGraph(num_scales=2, space_iterations=1, node_width=4, message_width=4)(video)
model = keras.Model(video, keras.layers.Dense(2)(features))
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
losses = model.fit(clips, labels, epochs=2, verbose=0).history["loss"]
model.save("with_graph.keras")
loaded = keras.models.load_model("with_graph.keras")
np.testing.assert_allclose(loaded(clips), model(clips), rtol=0, atol=1e-6)

assert export.main([f"--model_dir={sys.argv[1]}", "--out=served"]) == 0
assert predict.main(["--export_dir=served", "--video=clip.npy", "--json"]) == 0
print(json.dumps({"from": rstg_tf.__file__, "losses": losses, "datasets": "datasets" in sys.modules}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, pathlib.Path]:
    """The wheel and the sdist of a copy of what belongs to the package, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for name in ("rstg_tf", "datasets", "benchmarks", "configs", "tests/helpers"):  # all but the first to be left out
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "train.py", "eval.py"):
        shutil.copy(ROOT / name, source / name)
    code = f"from setuptools import build_meta as it; it.build_sdist({str(folder)!r}); it.build_wheel({str(folder)!r})"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=source, check=True, capture_output=True, timeout=240
    )
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


def test_both_hold_the_package_alone(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        wheel_names = {name for name in wheel.namelist()}
        scripts = wheel.read(next(name for name in wheel_names if name.endswith("entry_points.txt"))).decode()
    assert {name.split("/")[0].partition("-")[0] for name in wheel_names} == {"rstg_tf"}
    assert [line.split(" = ")[0] for line in scripts.splitlines() if " = " in line] == SCRIPTS
    with tarfile.open(built["sdist"]) as sdist:
        sdist_names = {name.partition("/")[2] for name in sdist.getnames()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "rstg_tf").rglob("*.py")}
    for names in (wheel_names, sdist_names):
        assert {name for name in names if name.endswith(".py")} - {"setup.py"} == modules
        assert not {name for name in names if name.startswith(("datasets", "tests", "train", "eval"))}


def installed(package: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The bin/ of a new environment with this package, beside the packages of the stack that runs the tests.

    Those are lent by a path file: to install TensorFlow anew would take minutes and add nothing.
    """
    venv.create(folder, with_pip=False)
    bin_folder = folder / "bin"
    site = pathlib.Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "stack.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            str(bin_folder / "python"),
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
            str(package),
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    return bin_folder


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installed_it_serves_in_a_keras_model_exports_and_predicts_beside_other_peoples_datasets(
    kind, built, small_run, tmp_path
):
    commands = installed(built[kind], tmp_path / "environment")
    folder = tmp_path / "somebody"
    folder.mkdir()
    (folder / "datasets.py").write_text(FOREIGN)
    np.save(folder / "clip.npy", np.zeros((4, 12, 12, 1), np.uint8))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def ran(*command, code: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == code, done.stderr[-2000:]
        return done

    facts = json.loads(ran(commands / "python", "-c", USE, small_run.path).stdout.splitlines()[-1])
    assert facts["from"].startswith(str(tmp_path / "environment"))
    assert np.isfinite(facts["losses"]).all() and not facts["datasets"]
    for script in SCRIPTS:
        assert "--" in ran(commands / script, "--help").stdout
    refused = ran(commands / "rstg-visualize", f"--model_dir={small_run.path}", code=2)
    assert "records are read by datasets/ of the repository, which is not there" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (folder / "datasets-was-imported").exists()


def test_the_sdist_installs_the_same_files_as_the_wheel(built, tmp_path):
    kinds = {}
    with zipfile.ZipFile(built["wheel"]) as wheel:
        kinds["wheel"] = {
            name: hashlib.sha256(wheel.read(name)).hexdigest() for name in wheel.namelist() if name.endswith(".py")
        }
    with tarfile.open(built["sdist"]) as sdist:
        kinds["sdist"] = {
            member.name.partition("/")[2]: hashlib.sha256(sdist.extractfile(member).read()).hexdigest()
            for member in sdist.getmembers()
            if member.name.endswith(".py")
        }
    kinds["sdist"].pop("setup.py", None)
    assert kinds["wheel"] == kinds["sdist"]
