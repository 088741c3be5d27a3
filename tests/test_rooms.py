"""The rule of the rooms: folders lie in the order of a clip's journey, and each imports only what is before it."""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# A room may import itself and those named here; the modules beside the rooms (`config`, `model`, …) count as rooms.
COMMON = {"common"}
LAYERS = COMMON | {"ops", "layers"}
MODEL = LAYERS | {"backbones", "video", "config", "flag_table", "flags", "model"}
RUNS = MODEL | {"runs"}
RELEASE = RUNS | {"release"}
SERVING = RELEASE | {"serving"}
INFERENCE = SERVING | {"inference"}
MAY_IMPORT = {
    "common": set(),
    "ops": COMMON,
    "layers": COMMON | {"ops"},
    "backbones": LAYERS,
    "video": COMMON,
    "config": COMMON | {"video"},
    "flag_table": COMMON | {"config", "video"},
    "flags": COMMON | {"config", "flag_table", "video"},
    "model": MODEL,
    "runs": MODEL,
    "release": RUNS,
    "evaluation": COMMON | {"config"},
    "training": RELEASE | {"evaluation"},
    "serving": RELEASE,
    "inference": SERVING,
    "viz": INFERENCE | {"evaluation"},
}
# Only programs see data sets and pictures: these modules, and the scripts beside the package.
PROGRAMS = {"export", "predict", "visualize", "doctor", "streaming", "__init__"}
DATASETS_MAY_IMPORT = {"common", "config", "video", "runs"}
DATASET_ROOMS = ("records", "sync_mnist", "something_something", "videos", "input_pipeline")


def imported(path: pathlib.Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(package: str) -> list[pathlib.Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room_of(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("path", files_of("rstg_tf"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_before_it(path):
    room = path.relative_to(ROOT / "rstg_tf").parts[0].removesuffix(".py")
    names = imported(path)
    if room in PROGRAMS:
        return
    assert room in MAY_IMPORT, f"{path}: a new room; say in MAY_IMPORT what it may import"
    wrong = {name for name in names if name.startswith("rstg_tf.") and room_of(name) not in MAY_IMPORT[room] | {room}}
    assert not wrong, f"{room} imports {', '.join(sorted(wrong))}"
    assert not {name for name in names if name.split(".")[0] == "datasets"}


@pytest.mark.parametrize("path", files_of("datasets"), ids=lambda path: str(path.relative_to(ROOT)))
def test_data_sets_see_neither_layers_nor_training_nor_serving(path):
    wrong = {
        name for name in imported(path) if name.startswith("rstg_tf.") and room_of(name) not in DATASETS_MAY_IMPORT
    }
    assert not wrong, f"{path.name} imports {', '.join(sorted(wrong))}"


def test_every_room_says_what_it_is_for_and_the_top_floor_is_small():
    rooms = {path.name for path in (ROOT / "rstg_tf").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(MAY_IMPORT) - {"config", "flag_table", "flags", "model"}
    for room in rooms:
        assert ast.get_docstring(ast.parse((ROOT / "rstg_tf" / room / "__init__.py").read_text(encoding="utf-8"))), room
    assert len(list((ROOT / "rstg_tf").glob("*.py"))) <= 14
    for room in DATASET_ROOMS:
        assert (ROOT / "datasets" / room / "__init__.py").is_file()


def test_modules_stay_short_enough_to_be_read_at_a_sitting():
    long = {
        str(path.relative_to(ROOT)): lines
        for package in ("rstg_tf", "datasets")
        for path in files_of(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) >= 300
    }
    assert not long
