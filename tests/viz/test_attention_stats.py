"""Numbers about attention that a reader can redo by hand: five nodes, 0…3 the 2×2 regions, 4 the whole frame."""

import json

import numpy as np
import pytest

from rstg_tf.evaluation.metrics import attention_entropy
from rstg_tf.layers import regions
from rstg_tf.viz import attention_stats

ALPHA = np.array(
    [
        [0.1, 0.1, 0.1, 0.1, 0.6],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [0.3, 0.0, 0.0, 0.4, 0.3],
    ]
)
ALIKE = np.full((5, 5), 0.2)


def test_attention_by_scale():
    # 2×2 to 1×1: (0.6 + 0.2 + 1 + 0) / 4 = 0.45; 1×1 to 2×2: 0.3 + 0.4 = 0.7.
    np.testing.assert_allclose(attention_stats.attention_by_scale(ALPHA), [[0.55, 0.45], [0.7, 0.3]])


def test_shares_of_all_alike_are_the_scales_parts_of_the_nodes():
    np.testing.assert_allclose(
        attention_stats.attention_by_scale(np.full((2, 14, 14), 1 / 14)),
        np.broadcast_to([9 / 14, 4 / 14, 1 / 14], (2, 3, 3)),
    )


def test_change_is_the_share_of_the_attention_that_went_elsewhere():
    to_first, to_fourth = (np.tile(np.eye(5)[node], (5, 1)) for node in (0, 3))
    steps = np.stack([ALIKE, to_first, to_first, to_fourth])
    # From all alike to node 0 alone each of the five rows moves 4 · 0.2 of its attention; then none; then all of it.
    np.testing.assert_allclose(attention_stats.change(steps), [0.8, 0.0, 1.0])
    assert attention_stats.change(steps[:1]).shape == (0,)


def test_means_by_scale():
    np.testing.assert_allclose(attention_stats.mean_by_scale(np.array([1, 2, 3, 6, 10]), 2), [3, 10])


def test_summary_of_two_clips_by_hand():
    clips = [{"final": ALPHA[None, None]}, {"final": np.broadcast_to(ALIKE, (1, 3, 5, 5))}]
    summary = attention_stats.attention_summary(clips)
    final = summary["places"]["final"]
    assert (summary["clips"], final["scales"], final["nodes"][-1]) == (2, ["2×2", "1×1"], "1×1")
    # The clips' own shares: [[0.55, 0.45], [0.7, 0.3]] and [[0.8, 0.2], [0.8, 0.2]].
    np.testing.assert_allclose(final["share"], [[[0.675, 0.325], [0.75, 0.25]]])
    np.testing.assert_allclose(final["share_spread"], [[[0.125, 0.125], [0.05, 0.05]]])
    np.testing.assert_allclose(final["share_if_all_alike"], [0.8, 0.2])
    np.testing.assert_allclose(final["share_to_itself"], [[(0.3 / 4 + 0.2) / 2, 0.25]])  # α_ii: 0.1, 0.2, 0, 0 and 0.3
    np.testing.assert_allclose(final["mean_attention"], [(ALPHA + ALIKE) / 2])
    entropies = attention_entropy(ALPHA)
    np.testing.assert_allclose(final["entropy"], [[(entropies[:4].mean() + 1) / 2, (entropies[4] + 1) / 2]])


def test_a_clips_numbers_are_all_that_is_drawn_and_survive_json():
    attention = np.stack([[ALIKE, ALPHA, ALPHA], [ALPHA, ALPHA, ALIKE]])  # [K 2, T 3, N, N]
    found = json.loads(json.dumps(attention_stats.clip_in_json(attention, height=12, width=20)))
    np.testing.assert_allclose(found["attention"], attention, atol=1e-5)
    np.testing.assert_allclose(found["received"][1][0], [1.6, 0.3, 0.3, 0.7, 2.1])  # columns of ALPHA
    assert found["strongest_messages"][0][1][:2] == [
        {"from": "1×1", "to": "2×2 (2,1)", "weight": 1.0},
        {"from": "2×2 (1,1)", "to": "2×2 (2,2)", "weight": 1.0},
    ]
    assert [region["box"] for region in found["regions"]] == regions.boxes(2, 12, 20).tolist()
    assert found["regions"][3] == {"node": 3, "name": "2×2 (2,2)", "box": [6, 10, 12, 20]}
    # ALIKE against ALPHA, half of the absolute differences by row: 0.4, 0, 0.8, 0.8, 0.4; their mean is 0.48.
    np.testing.assert_allclose(found["change"], [[0.48, 0.0], [0.0, 0.48]])
    np.testing.assert_allclose(found["change_of_stage"], [[0.48, 0.0, 0.48]])
    np.testing.assert_allclose(found["entropy"][0][0], [1, 1])
    # Twice [[0.55, 0.45], [0.7, 0.3]] and once [[0.8, 0.2], [0.8, 0.2]].
    np.testing.assert_allclose(found["share"][1], [[1.9 / 3, 1.1 / 3], [2.2 / 3, 0.8 / 3]], atol=1e-5)


def test_attention_of_nodes_that_fit_no_grids_is_refused():
    with pytest.raises(ValueError, match="attention of 6 nodes: expected 1, 5, 14"):
        attention_stats.attention_by_scale(np.zeros((6, 6)))
