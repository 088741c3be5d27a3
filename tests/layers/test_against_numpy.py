"""The NumPy reference's parts: equal to cases small enough to redo by hand."""

from __future__ import annotations

import numpy as np
import pytest
import recipe
import reference
import reference_backbone
import reference_regions
import reference_stages

TWO_CHANNELS = np.array([[[1.0, 2.0], [3.0, 6.0]]])  # [B=1, N=2, C=2]
CHAIN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # 0 - 1 - 2


# ---------------------------------------------------------------------------------------------------------- regions
def test_cells_share_the_pixels_they_cut():
    np.testing.assert_allclose(reference_regions.overlap_weights(2, 3), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(reference_regions.overlap_weights(3, 2), [[1, 0], [0.5, 0.5], [0, 1]], atol=1e-15)


def test_nodes_come_finest_scale_first_and_row_major():
    maps = np.arange(4.0).reshape(1, 1, 2, 2, 1)
    np.testing.assert_allclose(reference_regions.pool_nodes(maps, 2).ravel(), [0, 1, 2, 3, 1.5])


def test_a_map_of_nodes_sums_the_scales():
    nodes = np.array([0.0, 1.0, 2.0, 3.0, 10.0]).reshape(1, 1, 5, 1)
    np.testing.assert_allclose(reference_regions.nodes_to_map(nodes, 2, 2, 2).reshape(2, 2), [[10, 11], [12, 13]])
    np.testing.assert_allclose(reference_regions.nodes_to_map(nodes, 2, 3, 2)[0, 0, 1, :, 0], [11, 12])


def test_regions_with_a_common_edge_are_neighbours_and_those_with_a_common_corner_are_not():
    matrix = reference_regions.adjacency(2, 4, 6)
    np.testing.assert_array_equal(
        matrix, [[0, 1, 1, 0, 1], [1, 0, 0, 1, 1], [1, 0, 0, 1, 1], [0, 1, 1, 0, 1], [1, 1, 1, 1, 0]]
    )
    finest_cell, quarter = 5, 16 + 9 + 3  # S=4 on 64: rows and columns 16…32 against rows and columns 32…64
    assert reference_regions.adjacency(4, 64, 64)[finest_cell, quarter] == 0
    assert reference_regions.adjacency(4, 64, 64)[finest_cell - 4, quarter - 2] == 1  # column 32 is a common edge


def test_positional_maps_are_gaussian_bumps_at_the_places_of_their_regions():
    maps = reference_regions.positional_maps(2, 3)  # patches of 3 // 2 = 1 entry, then of 3
    np.testing.assert_array_equal(maps[:4].argmax(axis=1), [0, 1, 3, 4])
    np.testing.assert_array_equal(maps[:4].sum(axis=1), [1, 1, 1, 1])
    edge = np.exp(-1 / 8)
    np.testing.assert_allclose(maps[4].reshape(3, 3), np.outer([edge, 1, edge], [edge, 1, edge]))


# ------------------------------------------------------------------------------------------------------------ norms
def test_layer_norm_takes_its_statistics_over_every_axis_but_the_batch():
    weights = {"x_ln/gamma": np.array([1.0, 2.0]), "x_ln/beta": np.array([0.0, 5.0])}
    normalized = reference_stages.normalize(TWO_CHANNELS, weights, "x", kind="LN", training=False)
    deviation = np.sqrt(3.5)  # of 1, 2, 3, 6: mean 3, squares 4, 1, 0, 9
    np.testing.assert_allclose(normalized, [[[-2 / deviation, 5 - 2 / deviation], [0, 5 + 6 / deviation]]])


@pytest.mark.parametrize("shape, variance", [((1, 2, 2), [1.0, 4.0]), ((1, 1, 2, 2), [2.0, 8.0])])
def test_batch_norm_moves_its_variance_unbiased_for_rank_4_alone(shape, variance):
    weights = {
        "x_bn/gamma": np.ones(2),
        "x_bn/beta": np.zeros(2),
        "x_bn/moving_mean": np.zeros(2),
        "x_bn/moving_variance": np.ones(2),
    }
    stored = reference_stages.normalize(TWO_CHANNELS.reshape(shape), weights, "x", kind="BN", training=False)
    np.testing.assert_allclose(stored.ravel(), np.array([1, 2, 3, 6]) / np.sqrt(1.001))
    batch = reference_stages.normalize(TWO_CHANNELS.reshape(shape), weights, "x", kind="BN", training=True)
    np.testing.assert_allclose(batch.ravel(), np.array([-1, -2, 1, 2]) / np.sqrt([1.001, 4.001, 1.001, 4.001]))
    np.testing.assert_allclose(weights["x_bn/moving_mean"], [0.02, 0.04])
    np.testing.assert_allclose(weights["x_bn/moving_variance"], 0.99 + 0.01 * np.array(variance))


def test_space_stage_batch_norms_move_their_averages_step_after_step():
    options = {
        "width": 2,
        "message_width": 2,
        "normalization": "BN",
        "space_iterations": 1,
        "time_stages": "none",
        "num_scales": 1,
    }
    weights = recipe.graph_weights("", seed=3, **options)
    weights["update_node_mlp/update_conv2/kernel"][:] = 0.0  # so the updates are relu(bias), whatever the input
    weights["update_node_mlp/update_conv2/bias"][:] = [2.0, 3.0]
    weights["update_node_mlp/update_bn/moving_mean"][:] = [0.0, 100.0]
    output = reference.graph(
        np.ones((2, 3, 1, 2)),
        weights,
        adjacency=np.zeros((1, 1)),
        num_scales=1,
        training=True,
        space_iterations=1,
        time_stages="none",
        normalization="BN",
    )
    kept = 0.99**3  # T = 3 updates
    np.testing.assert_allclose(
        output.moving["update_node_mlp/update_bn/moving_mean"], [2 * (1 - kept), 100 * kept + 3 * (1 - kept)]
    )
    np.testing.assert_array_equal(weights["update_node_mlp/update_bn/moving_mean"], [0, 100])  # the caller's stay


# ------------------------------------------------------------------------------------------------------------ parts
def test_the_lstm_orders_its_gates_i_j_f_o_and_adds_the_forget_bias_inside_the_sigmoid():
    weights = {"cell/kernel": np.zeros((2, 4)), "cell/bias": np.array([0.0, 1.0, 0.0, 0.0])}
    entering = 0.5 * np.tanh(1.0)  # σ(0) tanh(1); every gate is σ(0) = 1/2
    outputs = reference_stages.lstm(np.zeros((1, 2, 1, 1)), weights, "cell").ravel()
    np.testing.assert_allclose(outputs, [0.5 * np.tanh(entering), 0.5 * np.tanh(1.5 * entering)])
    biased = reference_stages.lstm(np.zeros((1, 2, 1, 1)), weights, "cell", forget_bias=np.log(3.0)).ravel()
    np.testing.assert_allclose(biased[1], 0.5 * np.tanh(1.75 * entering))  # σ(log 3) = 3/4


def test_the_message_layer_sees_the_sender_first_and_then_the_receiver():
    kernel = np.array([10.0, 7.0, 1.0, 5.0]).reshape(1, 1, 4, 1)  # x_j, p_j, x_i, p_i
    weights = {
        "send_messages_mlp/send_conv1/kernel": kernel,
        "send_messages_mlp/send_conv1/bias": np.array([0.0]),
        "send_messages_mlp/send_conv2/kernel": np.ones((1, 1, 1, 1)),
        "send_messages_mlp/send_conv2/bias": np.array([-0.5]),
    }
    messages = reference_stages.pairwise_messages(
        np.array([[[1.0], [2.0]]]), weights, positions=np.array([[1.0], [0.0]]), normalization="none", training=False
    )
    np.testing.assert_allclose(messages[0, :, :, 0], [[22.5, 25.5], [18.5, 21.5]])  # e.g. to 0 from 1: 20 + 1 + 5 - 0.5


def test_soft_attention_leaves_non_neighbours_a_weight_and_masked_attention_does_not():
    logits = np.array([[[0.0, np.log(3.0), 0.0], [np.log(2.0), 0.0, np.log(4.0)], [0.0, 0.0, 0.0]]])
    without_last = CHAIN * [[1], [1], [0]]
    np.testing.assert_allclose(
        reference_stages.attention_weights(logits, without_last, "soft")[0],
        [[0.2, 0.6, 0.2], [2 / 7, 1 / 7, 4 / 7], [1 / 3, 1 / 3, 1 / 3]],
    )
    np.testing.assert_allclose(
        reference_stages.attention_weights(logits, without_last, "masked")[0], [[0, 1, 0], [1 / 3, 0, 2 / 3], [0, 0, 0]]
    )


def test_simple_logits_add_receiver_and_sender_leak_below_zero_and_add_the_adjacency():
    weights = {
        "my_attn/att_conv1/kernel": np.ones((1, 1, 1)),
        "my_attn/att_conv1/bias": np.array([0.5]),
        "my_attn/att_conv2/kernel": np.full((1, 1, 1), -10.0),
        "my_attn/att_conv2/bias": np.array([0.0]),
    }
    logits = reference_stages.simple_logits(np.array([[[1.0], [2.0], [-3.0]]]), weights, CHAIN)[0]
    np.testing.assert_allclose(
        logits, [[0, 0.2 * (1.5 - 20) + 1, 0], [0.2 * (2.5 - 10) + 1, 0, 2.5 + 30 + 1], [0, 0.2 * (-2.5 - 20) + 1, 0]]
    )


def test_dot_logits_are_unscaled_products_of_the_receivers_query_and_the_senders_key():
    weights = {
        "att/att_conv1/kernel": np.array([[[2.0, 0.0]]]),
        "att/att_conv1/bias": np.array([0.0, 1.0]),
        "att/att_conv2/kernel": np.array([[[1.0, 1.0]]]),
        "att/att_conv2/bias": np.zeros(2),
    }
    logits = reference_stages.dot_logits(np.array([[[1.0], [2.0], [3.0]]]), weights, CHAIN, "att")[0]
    np.testing.assert_allclose(logits, [[0, 2 * 2 + 2, 0], [4 * 1 + 1, 0, 4 * 3 + 3], [0, 6 * 2 + 2, 0]])


def test_each_of_two_heads_adds_its_own_bias_and_keeps_its_channels():
    weights = {}
    for head, bias in enumerate((1.0, -100.0)):
        scope = f"attention_head{head}/"
        kernel = np.eye(2)[:, head].reshape(1, 1, 2, 1)
        weights.update(
            {
                f"{scope}messages_proj/kernel": kernel,
                f"{scope}messages_proj/bias": np.array([0.25]),
                f"{scope}dot_product_attn/att_bias/biases": np.array([bias]),
            }
        )
        for part in ("att_conv1", "att_conv2"):
            weights.update(
                {
                    f"{scope}dot_product_attn/{part}/kernel": np.zeros((1, 1, 1)),
                    f"{scope}dot_product_attn/{part}/bias": np.zeros(1),
                }
            )
    messages = np.array([[[[4.0, 8.0], [6.0, 2.0]], [[0.0, 2.0], [2.0, 2.0]]]])  # [B=1, N=2, N=2, C=2]
    received, alpha = reference_stages.aggregate(
        np.zeros((1, 2, 1)),
        messages,
        weights,
        neighbours=np.zeros((2, 2)),
        heads=2,
        attention="dot",
        neighbourhood="soft",
        normalization="LN",
        training=False,
    )
    np.testing.assert_allclose(received, [[[6.25, 0], [2.25, 0]]])  # means 5 and 1, + 0.25 + 1; relu of 5 - 100
    np.testing.assert_allclose(alpha, np.full((1, 2, 2, 2), 0.5))


def test_a_region_without_a_neighbour_receives_the_bias_alone_under_masked_attention():
    weights = recipe.graph_weights("", seed=0, width=1, message_width=2)
    weights["my_attn/att_bias/biases"] = np.array([0.5, -0.5])
    received, _ = reference_stages.aggregate(
        np.ones((1, 1, 1)),
        np.ones((1, 1, 1, 2)),
        weights,
        neighbours=np.zeros((1, 1)),
        attention="simple",
        heads=1,
        neighbourhood="masked",
        normalization="none",
        training=False,
    )
    np.testing.assert_allclose(received, [[[0.5, 0.0]]])


def test_scale_wise_updates_give_the_finest_scale_the_first_parameters():
    weights = {}
    for scale, bias in ((1, 1.0), (2, 20.0)):
        weights[f"update_node_mlp_/update_conv1_type{scale}/kernel"] = np.array([[[1.0], [2.0]]])  # x_i, g_i
        weights[f"update_node_mlp_/update_conv1_type{scale}/bias"] = np.array([bias])
    updated = reference_stages.update(
        np.arange(5.0).reshape(1, 5, 1),
        np.ones((1, 5, 1)),
        weights,
        num_scales=2,
        layers=1,
        scalewise=True,
        normalization="none",
        training=False,
    )
    np.testing.assert_allclose(updated.ravel(), [3, 4, 5, 6, 26])


# ---------------------------------------------------------------------------------------------------------- convnet
def test_the_convnet_correlates_without_padding_and_pools_what_fits():
    frame = np.arange(9.0).reshape(3, 3, 1)
    kernel = np.array([[1.0, 0.0], [0.0, 10.0]]).reshape(2, 2, 1, 1)
    np.testing.assert_array_equal(
        reference_backbone.convolve_valid(frame, kernel, np.array([0.5]))[..., 0], [[40.5, 51.5], [73.5, 84.5]]
    )
    np.testing.assert_array_equal(reference_backbone.max_pool_2x2(frame)[..., 0], [[4]])


def test_cross_entropy_is_minus_the_log_of_the_labels_share():
    loss = reference_backbone.cross_entropy(np.log([[1.0, 3.0], [2.0, 2.0]]), np.array([1, 0]))
    np.testing.assert_allclose(loss, [np.log(4 / 3), np.log(2)])
