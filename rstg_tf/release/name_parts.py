"""What the names in a checkpoint of the release tell: what kind of variable it is, and of which part of the model.

Needs no TensorFlow. Source: docs/release.md, 'Variable names in checkpoints'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LSTM_CELL = "cudnn_lstm/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell"
# What a checkpoint of the release holds beside the weights.
BESIDE = {
    "optimiser slots": re.compile(r"/(Momentum|Adam|Adam_1)$"),
    "cuDNN buffers": re.compile(r"/opaque_kernel$"),
    "constants": re.compile(r"(^|/)(resize_filters__\w+|positional_emb)$"),
    "counters": re.compile(r"^(global_step|beta1_power|beta2_power)$"),
}


def kind_of(name: str) -> str:
    """'weights', or the row of BESIDE that a checkpoint's variable belongs to."""
    return next((kind for kind, pattern in BESIDE.items() if pattern.search(name)), "weights")


# A name's part of the model, as messages tell it; the first row that matches.
_PARTS = (
    (r"/whole_graph_model_(\w+?)/", "graph {}"),
    (r"/(res\d|final)_after_graph_", "graph {}"),
    (r"/nonlocal_conv(\d_\d)_", "non-local {}"),
    (r"/(conv1)/|/res_(conv1)_bn/", "{}"),
    (r"/(res\d)_\d+_branch", "{}"),
    (r"^tower/(conv\d+)/", "{}"),
    (r"^tower/(mean_lstm|conv_lstm)/", "{}"),
    (r"/pred/(?:kernel|bias)$", "classifier"),
)


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """The part of the model that each variable of one checkpoint or model belongs to.

    conv1, res2 … res5 (conv0, conv1, … of the small convnet), 'non-local 3_1', 'graph res3' with the norm behind it,
    mean_lstm, conv_lstm, classifier; 'unknown' for a name that is none of the release's.
    """
    names = list(names)
    inside = re.search(r"/backbone/whole_graph_model_(\w+?)/", "\n".join(names))
    # The release's C2D leaves the place out of the name behind a graph.
    short = (
        (r"/backbone/after_graph_", f"graph {inside.group(1) if inside else 'inside'}"),
        (r"/after_graph_", "graph final"),
    )
    found = {}
    for name in names:
        matches = ((re.search(pattern, name), part) for pattern, part in (*_PARTS, *short))
        match, part = next(((match, part) for match, part in matches if match), (None, "unknown"))
        found[name] = part.format(*filter(None, match.groups())) if match else part
    return found
