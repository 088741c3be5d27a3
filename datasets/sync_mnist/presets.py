"""SyncMNIST data sets that others refer to by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from datasets.sync_mnist.plans import SyncMnistSettings


@dataclasses.dataclass(frozen=True)
class Preset:
    """A data set that others refer to by name: `write_dataset(out_dir=…, **PRESETS[name].arguments("train"))`."""

    digits: str
    num_clips: Mapping[str, int]
    settings: SyncMnistSettings

    def arguments(self, split: str) -> dict[str, Any]:
        """The arguments of `write_dataset` for this split, but for where to write."""
        return {"split": split, "digits": self.digits, "num_clips": self.num_clips[split], "settings": self.settings}


PRESETS = {
    "release": Preset(digits="mnist", num_clips={"train": 600_000, "test": 10_000}, settings=SyncMnistSettings()),
    "demo": Preset(
        digits="sklearn",
        num_clips={"train": 40_000, "test": 2_000},
        settings=SyncMnistSettings(
            num_digits=3,
            digit_classes=4,
            canvas=64,
            frame_size=32,
            max_move=18,
            out_of_step_share=0.25,
            twin_clips=True,
        ),
    ),
}
