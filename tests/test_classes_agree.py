"""Data sets that are used together have the same classes in the same order, or nothing starts."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as some

import eval as eval_script
import train as train_script
from rstg_tf.common.text import classes_differ


def with_classes(folder, target, classes):
    """A copy of a data set under other names of its classes."""
    shutil.copytree(folder, target)
    manifest = json.loads((target / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**manifest, "classes": list(classes)}))
    return target


def flags_of(settings):
    return [f"--{name}={value}" for name, value in {**settings, "num_steps": 1, "eval_every": 0}.items()]


def train(toy_settings, tmp_path, **settings):
    return train_script.main(
        [*flags_of({**toy_settings, **settings}), f"--flagfile={tmp_path}/f.flags", f"--model_dir={tmp_path}/run"]
    )


@pytest.fixture(autouse=True)
def _flag_file(tmp_path):
    (tmp_path / "f.flags").write_text("# everything is said on the command line\n")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("down", "up"), "class 0 is 'down' in"),
        (("up", "down "), "class 1 is 'down ' in"),
        (("up", "dow\u0578"), "(character 4 is U+0578)"),
        (("u\u200bp", "down"), "'u\\u200bp'"),
    ],
)
def test_train_and_test_records_of_other_classes_are_refused_before_anything_is_written(
    tmp_path, toy_records, toy_settings, capsys, classes, message
):
    other = with_classes(toy_records / "test", tmp_path / "test", classes)
    code = train(toy_settings, tmp_path, train_dataset=toy_records / "train", test_dataset=other)
    errors = capsys.readouterr().err
    assert code == 2 and message in errors and f"--test_dataset={other}: class" in errors
    assert len(errors.splitlines()) == 1 and not (tmp_path / "run").exists()


def test_a_run_is_evaluated_and_restored_on_its_own_classes_alone(
    tmp_path, toy_records, toy_settings, small_run, capsys
):
    other = with_classes(toy_records / "test", tmp_path / "test", ("up", "do\u00a0wn"))
    assert eval_script.main([f"--model_dir={small_run.path}", f"--dataset={other}"]) == 2
    assert "Class 1 is 'do\\xa0wn' (character 3 is U+00A0) in" in capsys.readouterr().err
    other = with_classes(toy_records / "train", tmp_path / "train", ("down", "up"))
    for restored in (small_run.path, f"{small_run.path}/checkpoints/ckpt-5"):
        code = train(toy_settings, tmp_path, train_dataset=other, restore_dir=restored)
        errors = capsys.readouterr().err
        assert code == 2 and "--restore_dir" in errors and "class 0 is 'down' in" in errors
        assert "give --restore_scope=except_head" in errors
    assert (
        train(toy_settings, tmp_path, train_dataset=other, restore_dir=small_run.path, restore_scope="except_head") == 0
    )


def test_a_run_goes_on_with_its_own_classes_alone(tmp_path, toy_records, toy_settings, capsys):
    assert train(toy_settings, tmp_path, train_dataset=toy_records / "train") == 0
    other = with_classes(toy_records / "train", tmp_path / "train", ("up", "Down"))
    capsys.readouterr()
    assert train({**toy_settings, "num_steps": 2}, tmp_path, train_dataset=other) == 2
    assert "class 1 is 'Down' in what --train_dataset names and 'down' in the run" in capsys.readouterr().err


@given(some.lists(some.text(max_size=4), max_size=4), some.lists(some.text(max_size=4), max_size=4))
def test_lists_of_classes_differ_unless_name_and_order_agree(found, expected):
    fault = classes_differ(found, expected, here="one", there="the other")
    assert (fault is None) == (found == expected)
    if fault:
        named = fault.partition(";")[0]
        one, _, other = named.partition(" in one and ")
        assert one.partition(" is ")[2] != other.removesuffix(" in the other")
