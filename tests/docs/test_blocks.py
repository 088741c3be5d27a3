"""Every block of README, CONTRIBUTING and docs/ is run, on small data, or stands in EXCEPTIONS with the reason.

The blocks of a page run one after the other in a folder of the page's own, its Python blocks in common names. Each page
begins with what "Your first run" leaves behind (docs/first_run.md, itself run first), `clip.npy` among it, and with the
files that `small_inputs` puts there. What would take hours is made smaller by what SMALLER appends; nothing else is
changed.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_inputs
from documented_blocks import PAGES, ROOT, RUN, SHOWN, Block, all_blocks, blocks_of, run_command, run_python

from rstg_tf import flags

# Beginning of a command -> why no test runs it. As few as can be.
EXCEPTIONS = {
    ". .venv/bin/activate": "changes a shell, and the tests run inside the environment already",
    "pip install -e .": "changes the environment that the tests run in",
    "cat frames.gray |": "needs a shell; tests/inference/test_predict.py gives bare frames to --video=-",
    "tensorflow_model_server": "no package brings TF Serving's binary; tests/serving/ runs the SavedModel",
    "docker run": "needs docker and the network",
    "python examples/serving_client.py": "needs a server; tests/serving/test_serving_client.py has a stand-in for one",
    "python examples/camera_moves.py": "tests/test_real_video.py runs it, and the three commands after it",
    "python -m datasets.video_folder --videos=data/real_video/videos": "tests/test_real_video.py runs it",
    "python train.py --flagfile=configs/real_video.flags": "tests/test_real_video.py runs it",
    "python eval.py --model_dir=runs/real_video": "tests/test_real_video.py runs it",
    "python train.py --flagfile=configs/smt_c2d_rstg_final.flags": "needs the authors' weights; its flags are checked",
}
# Beginning of a command -> what is run in its place, for the same reason; the command's own flags are checked.
INSTEAD = {
    "python train.py --flagfile=smt.flags": "python train.py --flagfile=configs/real_video.flags --num_classes=2 "
    "--train_dataset=data/something_something_v1/train --test_dataset=data/something_something_v1/validation "
    "--model_dir=runs/smt"
}

FEW_STEPS = "--num_steps=2 --num_epochs=0 --warmup_steps=1 --batch_size=4 --eval_every=2 --print_every=1"
# Beginning of a command -> what the test gives after it (the last of two equal flags counts), so that it takes seconds.
SMALLER = {
    "make ": "-n",  # says what it would do; those commands are on these pages too
    "python train.py": FEW_STEPS,
    "python train.py --flagfile=syncmnist.flags": f"{FEW_STEPS} {small_inputs.NARROW}",
    "python eval.py": "--noreport",
    "python eval.py --model_dir=runs/demo --report": "",
    "python eval.py --model_dir=runs/syncmnist": "--noreport --export_dir=",  # the first run has exported already
    "python -m benchmarks.fuzzed_requests": "--requests=8",
    "python -m datasets.sync_mnist": "--num_clips=8 --num_workers=1 --digits=sklearn",
    "python -m datasets.sync_mnist --split=test --digits=idx:mnist": "--num_clips=4 --num_workers=1",
    "python -m datasets.video_folder": "--num_processes=1 --validation_share=0.5",
    "python -m datasets.something_something": "--num_processes=1",
    "python -m rstg_tf.visualize": "--num_mean_clips=2",
    "python -m rstg_tf.visualize --model_dir=runs/demo --video": "",
}
# Page -> what lies in the folder beside what the first run left there.
INPUTS = {
    "docs/your_videos.md": small_inputs.your_videos,
    "docs/sync_mnist.md": small_inputs.sync_mnist,
    "docs/something_something.md": small_inputs.something_something,
    "docs/authors_weights.md": small_inputs.authors_weights,
}
FIRST_RUN = ROOT / "docs" / "first_run.md"


def longest_beginning(table: dict[str, str], command: str) -> str | None:
    return max((beginning for beginning in table if command.startswith(beginning)), key=len, default=None)


def made_smaller(command: str) -> str:
    beginning = longest_beginning(SMALLER, command)
    return f"{command} {SMALLER[beginning]}" if beginning else command


def run_block(block: Block, names: dict, folder: Path) -> None:
    if block.language == "python":
        run_python(block, names)
    for command in block.commands() if block.language == "sh" else ():
        if command.startswith("python train.py --"):
            flags.config_from_flags(flags.parse(shlex.split(command)[2:])).check()
        if not longest_beginning(EXCEPTIONS, command):
            small = made_smaller(INSTEAD.get(longest_beginning(INSTEAD, command), command))
            assert run_command(small, folder) == 0, f"{block.place}: {command}\nrun as: {small}"


def run_page(page: Path, folder: Path) -> None:
    names = {"__name__": "documentation"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks_of(page):
            run_block(block, names, folder)


@pytest.fixture(scope="module")
def after_first_run(tmp_path_factory) -> Path:
    """The folder in which the commands of docs/first_run.md have run."""
    folder = tmp_path_factory.mktemp("first_run")
    small_inputs.repository(folder)
    run_page(FIRST_RUN, folder)
    return folder


def pages_to_run() -> list[Path]:
    return [page for page in PAGES if page != FIRST_RUN and any(block.language in RUN for block in blocks_of(page))]


@pytest.mark.slow
def test_the_first_run_leaves_what_its_page_says(after_first_run):
    for file in (
        "result.json",
        "report/index.html",
        "export/1/saved_model.pb",
        "tensorboard",
        "config.json",
        "checkpoints",
        "visualize/index.html",
    ):
        assert (after_first_run / "runs" / "demo" / file).exists(), file
    clip = np.load(after_first_run / "clip.npy")
    assert (clip.shape, clip.dtype) == ((10, 32, 32, 1), np.uint8)
    assert clip.any() and (after_first_run / "frames.gray").read_bytes() == clip.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_to_run(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_the_page_run(page, after_first_run, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(after_first_run, folder, symlinks=True)
    name = page.relative_to(ROOT).as_posix()
    if name in INPUTS:
        INPUTS[name](folder)
    run_page(page, folder)


def test_every_block_says_whether_it_is_run_or_only_shown():
    assert [block.place for block in all_blocks() if block.language not in (*RUN, *SHOWN)] == []


def python_block(text: str) -> Block:
    return Block(page=ROOT / "README.md", line=7, language="python", text=text)


def test_a_print_may_print_nothing_but_what_the_comment_behind_it_says(capsys):
    run_python(python_block("print((2, 3))  # (2, 3): [B, C]\nprint('a', 1.5)  # a 1.5\nprint(1)\n"), {})
    assert capsys.readouterr().out == "(2, 3)\na 1.5\n1\n"
    with pytest.raises(AssertionError, match=r"line 9: prints '\(2, 4\)', its comment says '\(2, 3\)'"):
        run_python(python_block("x = 4\nprint((2, x))  # (2, 3): [B, C]\n"), {})


def test_every_fence_is_closed():
    for page in PAGES:
        fences = [line for line in page.read_text().splitlines() if line.lstrip().startswith("```")]
        assert len(fences) == 2 * len(blocks_of(page)), page


def test_every_exception_and_every_change_is_for_a_command_of_a_page():
    commands = [command for block in all_blocks() if block.language == "sh" for command in block.commands()]
    for table in (EXCEPTIONS, INSTEAD, SMALLER):
        used = {longest_beginning(table, command) for command in commands}
        assert set(table) - used == set()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
