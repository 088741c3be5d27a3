"""The table of ResNet-50 on clips: its stages, and how many frames each block sees. Wang et al., CVPR 2018, table 1."""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """Blocks of one resolution: channels inside and out, stride of the first block."""

    name: str
    blocks: int
    inner: int
    outer: int
    stride: int


STAGES = (
    Stage("res2", blocks=3, inner=64, outer=256, stride=1),
    Stage("res3", blocks=4, inner=128, outer=512, stride=2),
    Stage("res4", blocks=6, inner=256, outer=1024, stride=2),
    Stage("res5", blocks=3, inner=512, outer=2048, stride=1),
)
# How many frames the first convolution sees, and the first one of every block.
TEMPORAL_KERNELS = {
    "c2d": {"conv1": 1, "res2": (1, 1, 1), "res3": (1, 1, 1, 1), "res4": (1, 1, 1, 1, 1, 1), "res5": (1, 1, 1)},
    "i3d": {"conv1": 5, "res2": (3, 3, 3), "res3": (3, 1, 3, 1), "res4": (3, 1, 3, 1, 3, 1), "res5": (1, 3, 1)},
}
