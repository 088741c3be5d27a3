"""How a version of a model gets its name: whole or not at all, whatever comes in between."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import served_models
from served_models import GREY

from rstg_tf import export
from rstg_tf.common.command_line import run_program
from rstg_tf.common.errors import ConfigError
from rstg_tf.runs import checkpoints
from rstg_tf.serving import model_versions, saved_model

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def light(monkeypatch):
    """Exports write one small file in the place of a SavedModel: for tests of where it goes."""

    def write(folder, *arguments, **options):
        os.makedirs(folder)
        pathlib.Path(folder, "saved_model.pb").write_text("a model")

    monkeypatch.setattr(saved_model, "_write", write)


def publish(base, version=None, names=None):
    return saved_model.export_model(
        None, base=str(base), config=GREY, version=version, class_names=names or served_models.class_names(GREY)
    )


def test_versions_count_up_and_a_published_one_is_refused(light, tmp_path):
    base = tmp_path / "base"
    assert publish(base) == str(base / "1")
    assert publish(base, 20) == str(base / "20")
    (base / "20" / "saved_model.pb").write_text("served")
    with pytest.raises(ConfigError, match="base/20 exists, and a published version never changes"):
        publish(base, 20)
    assert (base / "20" / "saved_model.pb").read_text() == "served"
    assert publish(base) == str(base / "21")
    assert sorted(path.name for path in base.iterdir()) == ["1", "20", "21"]
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_of_two_exports_at_once_the_later_takes_the_next_version_or_is_refused(light, tmp_path, monkeypatch):
    base = tmp_path / "base"
    following = model_versions._next_version

    def overtaken(folder):
        number = following(folder)
        other = base / str(number)
        other.mkdir()
        (other / "saved_model.pb").touch()
        monkeypatch.setattr(model_versions, "_next_version", following)
        return number

    monkeypatch.setattr(model_versions, "_next_version", overtaken)
    assert publish(base) == str(base / "2")
    building = tmp_path / "building"
    building.mkdir()
    with pytest.raises(ConfigError, match="/1 exists"):
        model_versions.publish(str(building), str(base), 1)


@pytest.mark.parametrize("version", [-1, 2**63])
def test_a_version_that_no_server_would_load_is_refused(light, tmp_path, version):
    with pytest.raises(ConfigError, match=f"version {version}: expected an integer from 0 to 9223372036854775807"):
        publish(tmp_path / "base", version)
    assert not (tmp_path / "base").exists()


def test_what_a_killed_export_left_is_swept_and_a_running_ones_is_not(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    ours = pathlib.Path(model_versions.building_folder(str(base)))
    assert ours.parent == tmp_path and ours.name.startswith(".base.tmp-")
    prefix = ours.name[: -len(str(os.getpid()))]
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        (tmp_path / f"{prefix}{child.pid}").mkdir()
        model_versions.building_folder(str(base))
        assert (tmp_path / f"{prefix}{child.pid}").exists()
        child.communicate(b"\n")
    model_versions.building_folder(str(base))
    assert not (tmp_path / f"{prefix}{child.pid}").exists()


def test_another_number_of_class_names_is_refused(light, tmp_path):
    with pytest.raises(ConfigError, match="2 class names for 7 classes"):
        publish(tmp_path, names=("a", "b"))


@pytest.mark.slow
def test_an_interrupted_export_ends_with_130_and_leaves_nothing(small_run, tmp_path):
    base = tmp_path / "served"
    process = subprocess.Popen(
        [sys.executable, "-m", "rstg_tf.export", f"--model_dir={small_run.path}", f"--out={base}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob(".served.tmp-*/saved_model.pb")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert (process.returncode, message.splitlines()[-1]) == (130, "export: interrupted; nothing was published.")
    assert "Traceback" not in message
    assert not list(base.iterdir()) and sorted(path.name for path in tmp_path.iterdir()) == ["runs", "served"]


def test_an_export_that_lost_its_interrupt_publishes_nothing(light, tmp_path, monkeypatch):
    write = saved_model._write

    def lose_an_interrupt(*arguments, **settings):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        write(*arguments, **settings)

    monkeypatch.setattr(saved_model, "_write", lose_an_interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "base")
    assert not list((tmp_path / "base").iterdir()) and [path.name for path in tmp_path.iterdir()] == ["base"]


def test_an_interrupt_that_comes_while_a_version_gets_its_name_comes_too_late(light, tmp_path, monkeypatch):
    rename = os.rename

    def rename_and_press_ctrl_c(*paths):
        rename(*paths)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "rename", rename_and_press_ctrl_c)
    assert publish(tmp_path / "base") == str(tmp_path / "base" / "1")


def test_an_interrupt_that_is_lost_while_the_run_is_loaded_ends_the_command(light, small_run, tmp_path, monkeypatch):
    restore = checkpoints.restore_for_inference

    def lose_an_interrupt(*arguments):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        return restore(*arguments)

    monkeypatch.setattr(checkpoints, "restore_for_inference", lose_an_interrupt)
    monkeypatch.setattr(sys, "argv", ["export", f"--model_dir={small_run.path}", f"--out={tmp_path / 'served'}"])
    try:
        with pytest.raises(SystemExit) as ended:
            run_program(export.main, name="export", interrupted="nothing was published.")
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # an ended program ignores it
    assert ended.value.code == 130
    assert not list((tmp_path / "served").iterdir())
