"""`python -m datasets.validate DIR`: is a data set whole, and if not, which records are touched?

Compares the shards with the manifest, sizes first, then SHA-256, then goes through every record: it must be readable,
decode, have the frames, size, channels and format that the manifest promises, a label that its classes name, increasing
timestamps, finite numbers and a media id of its own. Each fault is a line that names shard, record (from 0) and byte.
After a fault the check goes on where it can: with the next record, or, when a corrupt length hides where that begins,
with the next shard.

Exit code 0: no fault; 1: faults; 2: not a data set. The last line is JSON: {"directory", "clips", "faults"}, the clips
that are as they should be and the number of faults.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from datasets.records.dataset import RecordedDataset
from datasets.records.faults import shard_outcomes
from datasets.records.manifest import DatasetError, Manifest
from datasets.records.shards import hash_fault, size_fault
from rstg_tf.common.command_line import failed, run_program
from rstg_tf.common.progress_bar import Bar


def validate(dataset: RecordedDataset, *, bar: Any = None) -> Iterator[str | None]:
    """Goes through a data set: yields None for each clip that is as it should be, and each fault as a sentence.

    Args:
      bar: tqdm bar that is moved on by a step per shard hashed and per record read; see `num_checks`.
    """
    directory, manifest = dataset.folder, dataset.manifest
    for shard in manifest.shards:
        fault = size_fault(directory, shard)
        if fault:
            yield fault
    readable = [shard for shard in manifest.shards if os.access(directory / shard.file, os.R_OK)]
    for shard in readable:
        fault = hash_fault(directory, shard)
        _advance(bar, 1)
        if fault:
            yield fault
    seen: dict[str, str] = {}
    for shard in readable:
        for outcome in shard_outcomes(directory, shard, manifest, seen):
            _advance(bar, 1)
            yield outcome


def num_checks(manifest: Manifest) -> int:
    """How many steps `validate` takes on a data set without faults."""
    return len(manifest.shards) + manifest.num_clips


def _advance(bar: Any, steps: int) -> None:
    if bar is not None:
        bar.update(steps)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m datasets.validate", description=__doc__.split("\n\n")[0])
    parser.add_argument("directory", help="folder of a data set, with dataset.json and its shards")
    directory = parser.parse_args(arguments).directory
    # TensorFlow's own chatter would bury the faults.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        dataset = RecordedDataset.open(directory)
    except DatasetError as error:
        return failed("datasets.validate", error, code=2)
    clips = faults = 0
    with Bar(total=num_checks(dataset.manifest), desc="validating", unit="check", file=sys.stderr, disable=None) as bar:
        for outcome in validate(dataset, bar=bar):
            if outcome is None:
                clips += 1
            else:
                faults += 1
                Bar.write(outcome, file=sys.stdout)
    print(json.dumps({"directory": str(directory), "clips": clips, "faults": faults}), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    run_program(main, name="datasets.validate", interrupted="the faults above are not all there may be.")
