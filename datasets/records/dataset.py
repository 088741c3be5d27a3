"""A data set on the disk: its folder, the manifest there, and what is said when the shards are not what it promises.

No TensorFlow until a read error is explained: the checks answer at once.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from pathlib import Path

from datasets.records.faults import first_fault
from datasets.records.manifest import MANIFEST_FILE, DatasetError, Manifest
from datasets.records.shards import count_fault, size_fault
from rstg_tf.common.text import read_text_file

# The messages of the checks inside the input pipeline begin with it; `RecordedDataset.explain_read_error` reads them.
DATASET_FAULT_MARK = "Faulty data set:"
# The ops whose errors are about a record's content; their messages name neither file nor clip.
_CONTENT_OPS = re.compile("ParseSingleSequenceExample|DecodePng|DecodeJpeg|DecodeAndCropJpeg|ExtractJpegShape")


@dataclasses.dataclass(frozen=True)
class RecordedDataset:
    """A folder of shards and what its `dataset.json` says of them.

    Example:
      >>> dataset = RecordedDataset.open("data/demo/train")  # doctest: +SKIP
      >>> dataset.check()  # doctest: +SKIP
      >>> dataset.manifest.num_clips  # doctest: +SKIP
      2000
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | os.PathLike) -> RecordedDataset:
        """Reads the manifest; raises DatasetError as `Manifest.read` does."""
        return cls(Path(folder), Manifest.read(folder))

    @property
    def num_clips(self) -> int:
        return self.manifest.num_clips

    @property
    def manifest_text(self) -> str:
        """`dataset.json` as it is written."""
        return read_text_file(self.folder / MANIFEST_FILE, named=str(self.folder / MANIFEST_FILE))

    @property
    def shard_paths(self) -> list[str]:
        """The shards' files, in the manifest's order."""
        return [os.fspath(self.folder / shard.file) for shard in self.manifest.shards]

    def check(self, *, count_seconds: float = 3.0) -> None:
        """Compares the shards with the manifest without reading their content; made to run before step 0.

        Existence and size of every shard are always compared. The records are counted by their length fields for at
        most `count_seconds`, so that a slow disk doesn't hold up the start; the input pipeline counts each shard again
        as it reads it.

        Raises:
          DatasetError: with a line per fault, or if there is no clip at all.
        """
        shards = self.manifest.shards
        faults = list(filter(None, (size_fault(self.folder, shard) for shard in shards)))
        deadline = time.monotonic() + count_seconds
        for shard in shards if not faults else ():
            if time.monotonic() > deadline:
                break
            fault = count_fault(self.folder, shard)
            if fault:
                faults.append(fault)
        if not faults and self.num_clips == 0:
            faults.append("the manifest lists no clip")
        if faults:
            raise DatasetError(
                f"{self.folder}: {len(faults)} of {len(shards)} shards disagree with {MANIFEST_FILE}. Copy or write "
                "them again; `python -m datasets.validate` tells which records are touched.\n" + "\n".join(faults)
            )

    def explain_read_error(self, error: Exception) -> DatasetError | None:
        """What a TensorFlow error raised while reading means for the data set; None when the data is not to blame.

        TensorFlow's errors about a record or an image name neither shard nor clip, so for those the shards are gone
        through again: hashed, and the changed ones, or if none is, all of them, read up to the first fault.
        """
        import tensorflow as tf

        message = str(error)
        if DATASET_FAULT_MARK in message:
            # The assertion prints its parts as "[a] [b]", then the node of the graph.
            parts = message[message.index(DATASET_FAULT_MARK) + len(DATASET_FAULT_MARK) :].split("\n")[0]
            return DatasetError(re.sub(r"\] \[", " ", parts).strip().rstrip("]"))
        is_about_content = isinstance(error, (tf.errors.DataLossError, tf.errors.NotFoundError)) or (
            isinstance(error, tf.errors.OpError) and _CONTENT_OPS.search(message)
        )
        if not is_about_content:
            return None
        fault = first_fault(self.folder, self.manifest)
        return DatasetError(f"{self.folder}: {fault}") if fault else None
