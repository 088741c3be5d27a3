"""Interruptions, damage, processes and machines change no byte, and shards of other settings are left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nine_videos import contents, frame_sources, write
from tiny_videos import cut_file

from datasets.records import sequence_examples
from datasets.videos import writing
from rstg_tf.common.errors import ConfigError


@pytest.mark.parametrize("num_processes", [2, 3])
def test_the_bytes_do_not_depend_on_the_number_of_processes(nine, tmp_path, monkeypatch, num_processes):
    sources, _, files = nine
    monkeypatch.setattr(writing, "_VIDEOS_AT_A_TIME", 1)
    write(sources, tmp_path / "out", num_processes=num_processes)
    assert contents(tmp_path / "out") == files


class Crash(BaseException):
    """Ends a run as a kill would: no handler for ordinary errors sees it."""


def test_an_interrupted_run_keeps_its_finished_shards_and_ends_with_the_same_bytes(nine, tmp_path, monkeypatch):
    sources, _, files = nine
    out_dir = tmp_path / "out"
    encode, left = sequence_examples.encode_clip, iter(range(4))

    def encode_or_crash(**arguments):
        if next(left, None) is None:
            raise Crash
        return encode(**arguments)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(writing, "encode_clip", encode_or_crash)
        write(sources, out_dir)
    assert len(list(out_dir.glob("*.tfrecord"))) == 2 and not (out_dir / "dataset.json").exists()  # 1 + 2 videos
    before = {path.name: path.stat().st_ino for path in out_dir.glob("*.tfrecord")}
    write(sources, out_dir)
    assert contents(out_dir) == files
    assert before == {name: (out_dir / name).stat().st_ino for name in before}


def test_a_damaged_shard_is_written_again(nine, tmp_path):
    sources, manifest, files = nine
    out_dir = tmp_path / "out"
    write(sources, out_dir)
    cut_file(out_dir / manifest.shards[2].file, 0.9)
    write(sources, out_dir)
    assert contents(out_dir) == files


def test_machines_share_the_shards_and_the_last_completes_the_data_set(nine, tmp_path):
    sources, manifest, files = nine
    shared = tmp_path / "shared"
    first = write(sources, shared, num_workers=2, worker_index=1)
    assert first.manifest is None and first.missing_shards == 3
    assert sorted(path.name for path in shared.glob("*.tfrecord")) == [manifest.shards[k].file for k in (1, 3)]
    assert write(sources, shared, num_workers=2, worker_index=0).manifest == manifest
    assert contents(shared) == files
    assert write(sources, shared, num_workers=2, worker_index=1).manifest == manifest  # again: nothing to do


def test_folders_of_several_machines_can_be_copied_together(nine, tmp_path):
    sources, _, files = nine
    for worker in range(3):
        write(sources, tmp_path / str(worker), num_workers=3, worker_index=worker)
    for worker in (1, 2):
        subprocess.run(["cp", "-r", f"{tmp_path}/{worker}/.", tmp_path / "0"], check=True)
    write(sources, tmp_path / "0", num_workers=3, worker_index=0)
    assert contents(tmp_path / "0") == files


def test_a_shard_that_was_not_copied_whole_is_named(nine, tmp_path):
    sources, manifest, _ = nine
    write(sources, tmp_path, num_workers=2, worker_index=1)
    cut_file(tmp_path / manifest.shards[3].file, 0.5)
    with pytest.raises(ConfigError, match=f"{manifest.shards[3].file} is not as it was written"):
        write(sources, tmp_path, num_workers=2, worker_index=0)
    assert not (tmp_path / "dataset.json").exists()


def test_two_commands_cannot_write_the_same_shards(nine, tmp_path):
    sources, _, _ = nine
    write(sources, tmp_path)
    notes = tmp_path / "shard_notes"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import fcntl, sys, time\nlock = open(sys.argv[1], 'a')\nfcntl.flock(lock, fcntl.LOCK_EX)\n"
                "print('locked')\nsys.stdout.flush()\ntime.sleep(60)"
            ),
            str(notes / "worker-1-of-2.lock"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        with pytest.raises(ConfigError, match="another command is writing these shards"):
            write(sources, tmp_path, num_workers=2, worker_index=1)
        with pytest.raises(ConfigError, match="another command is writing these shards"):
            write(sources, tmp_path)  # alone, it would write that worker's shards too
        write(sources, tmp_path, num_workers=2, worker_index=0)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert write(sources, tmp_path).manifest.num_clips == 9  # the lock went with the process


def test_a_lock_that_is_a_link_or_a_pipe_is_refused_and_what_it_points_to_stays(nine, tmp_path):
    sources, _, _ = nine
    write(sources, tmp_path / "out")
    lock, victim = tmp_path / "out" / "shard_notes" / "worker-0-of-1.lock", tmp_path / "victim"
    victim.write_text("precious")
    lock.symlink_to(victim)
    with pytest.raises(ConfigError, match=r"worker-0-of-1\.lock cannot be opened as a file of its own"):
        write(sources, tmp_path / "out")
    assert victim.read_text() == "precious"
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(ConfigError, match=r"worker-0-of-1\.lock is no regular file"):
        write(sources, tmp_path / "out")


def test_other_settings_and_unknown_shards_are_refused(nine, tmp_path):
    sources, _, files = nine
    write(sources, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"other settings: seed \(0 there, 3 now\)"):
        write(sources, tmp_path / "out", seed=3)
    with pytest.raises(ConfigError, match=r"begun for other videos: .*\(num_videos \(9 there, 8 now\)"):
        write(sources[1:], tmp_path / "out")
    assert contents(tmp_path / "out") == files
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "train-00000-of-00001.tfrecord").write_bytes(b"somebody's work")
    with pytest.raises(ConfigError, match="unknown origin"):
        write(sources, tmp_path / "x")


@pytest.mark.slow
def test_a_killed_command_leaves_what_the_next_one_needs(tmp_path):
    """`kill -9` of a process that writes, at three moments, then the same call to the end."""
    sources = frame_sources(tmp_path / "frames", num_videos=12)
    reference = tmp_path / "reference"
    write(sources, reference, videos_per_shard=1)
    script = (
        "import sys, json, time\n"
        "import datasets.videos.writing as writing\nfrom datasets.videos.sources import VideoSource\n"
        "encode = writing.encode_clip\n"
        "writing.encode_clip = lambda **arguments: (time.sleep(0.1), encode(**arguments))[1]\n"
        "sources = [VideoSource(*source) for source in json.loads(sys.argv[1])]\n"
        "writing.write_videos(sources=sources, classes=('left', 'right'), out_dir=sys.argv[2], name='tiny',\n"
        "    split='train', made_by={'command': 'test'}, videos_per_shard=1, num_processes=1)\n"
    )
    texts = json.dumps([[source.media_id, source.path, source.label] for source in sources])
    out_dir = tmp_path / "out"
    for finished in (1, 4, 8):
        process = subprocess.Popen(
            [sys.executable, "-c", script, texts, str(out_dir)],
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[3],
        )
        while len(list(out_dir.glob("*.tfrecord"))) < finished and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (out_dir / "dataset.json").exists()
    write(sources, out_dir, videos_per_shard=1)
    assert contents(out_dir) == contents(reference)
