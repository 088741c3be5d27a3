"""Messages, attention and update, against numbers that a reader can redo by hand."""

from __future__ import annotations

import numpy as np
import pytest
from layer_checks import check_layer

from rstg_tf import SpatialStage
from rstg_tf.layers.attention import NeighbourAttention
from rstg_tf.layers.messages import PairwiseMessages
from rstg_tf.layers.spatial_stage import NodeUpdate

# Three nodes in a row: 0 - 1 - 2.
CHAIN = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)


def one_channel_nodes(*values):
    return np.array(values, np.float32).reshape(1, 1, len(values), 1)


def set_weights(*pairs):
    for variable, value in pairs:
        variable.assign(np.asarray(value, np.float32).reshape(variable.shape))


def test_a_message_knows_who_sends_and_who_receives():
    layer = PairwiseMessages(width=1)
    nodes = one_channel_nodes(1, 2)
    layer(nodes)
    # relu(10·x_j + x_i - 11.5), then doubled, plus 1: sender weighs ten times the receiver.
    set_weights(
        (layer.first_kernel, [10, 1]), (layer.first_bias, -11.5), (layer.second.kernel, 2), (layer.second.bias, 1)
    )
    messages = layer(nodes)[0, 0, :, :, 0]
    np.testing.assert_allclose(
        messages, [[1, 2 * (20 + 1 - 11.5) + 1], [2 * (10 + 2 - 11.5) + 1, 2 * (20 + 2 - 11.5) + 1]]
    )


def test_positions_reach_the_first_layer_of_both_sides():
    layer = PairwiseMessages(width=1, positions_width=1)
    positions = np.array([[0.0], [100.0]], np.float32)
    nodes = one_channel_nodes(1, 2)
    layer.build(nodes.shape)
    # Rows of the kernel: sender's x, sender's p, receiver's x, receiver's p.
    set_weights((layer.first_kernel, [0, 1, 0, 3]), (layer.second.kernel, 1))
    np.testing.assert_allclose(layer(nodes, positions)[0, 0, :, :, 0], [[0, 100], [300, 400]])


def attention(kind="simple", neighbourhood="soft", **arguments):
    layer = NeighbourAttention(width=1, query_width=1, kind=kind, neighbourhood=neighbourhood, **arguments)
    layer.build((None, None, 3, 1))
    set_weights((layer.receiver.kernel, 1), (layer.sender.kernel, 1), (layer.bias, 0))
    return layer


def messages_equal_to_the_sender(*values):
    return np.broadcast_to(np.array(values, np.float32)[None, None, None, :, None], (1, 1, 3, 3, 1))


def test_soft_attention_leaves_strangers_the_weight_of_exp_zero():
    # Node 0 hears 1 (a neighbour): e = leaky(0 + log 2) + 1; itself and 2: e = 0.
    layer = attention()
    nodes = one_channel_nodes(0, np.log(2), 0)
    heard, weights = layer(nodes, messages_equal_to_the_sender(0, 6, 0), CHAIN)
    share = 2 * np.e / (2 * np.e + 2)
    np.testing.assert_allclose(weights[0, 0, 0], [(1 - share) / 2, share, (1 - share) / 2], rtol=1e-6)
    assert heard.numpy()[0, 0, 0, 0] == pytest.approx(6 * share, rel=1e-6)


def test_masked_attention_hears_neighbours_only():
    layer = attention(neighbourhood="masked")
    nodes = one_channel_nodes(np.log(3), 0, 0)
    heard, weights = layer(nodes, messages_equal_to_the_sender(8, 0, 4), CHAIN)
    np.testing.assert_allclose(weights[0, 0], [[0, 1, 0], [0.75, 0, 0.25], [0, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(heard[0, 0, :, 0], [0, 0.75 * 8 + 0.25 * 4, 0], atol=1e-6)


def test_a_masked_node_without_neighbours_hears_the_bias_alone():
    layer = attention(neighbourhood="masked")
    layer.bias.assign([5.0])
    heard, weights = layer(one_channel_nodes(1, 2, 3), messages_equal_to_the_sender(1, 1, 1), np.zeros((3, 3)))
    np.testing.assert_array_equal(weights[0, 0], np.zeros((3, 3)))
    np.testing.assert_array_equal(heard[0, 0, :, 0], [5, 5, 5])


def test_a_negative_simple_score_leaks_a_fifth():
    layer = attention()
    _, weights = layer(one_channel_nodes(0, -5, 0), messages_equal_to_the_sender(1, 1, 1), CHAIN)
    # e_01 = 0.2 · (-5) + 1 = 0: as much as the strangers.
    np.testing.assert_allclose(weights[0, 0, 0], [1 / 3] * 3, rtol=1e-6)


def test_dot_attention_multiplies_receiver_and_sender_unscaled():
    layer = attention("dot")
    _, weights = layer(one_channel_nodes(2, 3, 1), messages_equal_to_the_sender(1, 1, 1), CHAIN)
    expected = np.exp([3 * 2.0, 0, 3 * 1.0])
    np.testing.assert_allclose(weights[0, 0, 1], expected / expected.sum(), rtol=1e-6)


def test_heads_have_queries_keys_and_projections_of_their_own():
    layer = NeighbourAttention(width=2, query_width=2, kind="dot", heads=2)
    nodes = np.array([[1, 0], [0, 1]], np.float32).reshape(1, 1, 2, 2)
    layer.build(nodes.shape)
    set_weights(
        (layer.receiver.kernel, np.eye(2)),
        (layer.sender.kernel, np.ones((2, 2))),
        (layer.head_kernels[0], [1, 0]),
        (layer.head_kernels[1], [0, 2]),
        (layer.head_bias, [0, 3]),
    )
    messages = np.array([[[1, 10], [2, 20]], [[3, 30], [4, 40]]], np.float32).reshape(1, 1, 2, 2, 2)
    heard, weights = layer(nodes, messages, np.array([[0, 1], [1, 0]]))
    # Node 0, head 0: query 1, key 1 -> scores (0, 1). Head 1: query 0 -> (0, 0). Messages' channel 0 / twice channel 1.
    strong = np.e / (1 + np.e)
    assert heard.numpy()[0, 0, 0, 0] == pytest.approx(1 * (1 - strong) + 2 * strong, rel=1e-6)
    assert heard.numpy()[0, 0, 0, 1] == pytest.approx(2 * 15 + 3, rel=1e-6)
    np.testing.assert_allclose(weights[0, 0, 0], [(1 - strong + 0.5) / 2, (strong + 0.5) / 2], rtol=1e-6)


def test_scalewise_update_gives_every_scale_its_own_layers():
    layer = NodeUpdate(width=1, message_width=1, layers=1, scale_sizes=[2, 1])
    nodes, heard = one_channel_nodes(1, 2, 3), one_channel_nodes(10, 20, 30)
    layer(nodes, heard)
    set_weights((layer.branches[0][0].kernel, [1, 1]), (layer.branches[1][0].kernel, [0, 2]))
    np.testing.assert_array_equal(layer(nodes, heard)[0, 0, :, 0], [11, 22, 60])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"attention": "dot", "normalization": "LN", "update_layers": 1, "neighbourhood": "masked"},
        {"attention": "dot", "attention_heads": 2, "scale_sizes": [4, 1]},
    ],
)
def test_the_stage_keeps_the_rules_of_layers(arguments):
    nodes = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)
    arguments = {"node_width": 4, "message_width": 8, **arguments}
    number = (
        4
        + 4
        + 1  # messages, scores, bias
        + (3 if arguments.get("attention_heads") else 0)
        + 2 * arguments.get("update_layers", 2) * len(arguments.get("scale_sizes", [5]))
        + (4 if arguments.get("normalization") else 0)
    )  # LN on messages and update; dot attention has none
    check_layer(
        SpatialStage,
        arguments,
        nodes,
        output_shape=(2, 3, 5, 4),
        weights=number,
        call_arguments={"adjacency": np.ones((5, 5), np.float32)},
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": "cosine"}, "kind=cosine: expected one of simple, dot"),
        ({"neighbourhood": "hard"}, "neighbourhood=hard"),
        ({"normalization": "GN"}, "normalization='GN'"),
        ({"attention": "dot", "attention_heads": 3}, "heads=3: expected a divisor of the message width 8"),
        ({"update_layers": 0}, "layers=0"),
    ],
)
def test_wrong_arguments_are_refused_with_their_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpatialStage(node_width=4, message_width=8, **arguments)
