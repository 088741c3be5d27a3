"""The parts of `reference` in plain NumPy: dense layers, norms, and the stages of time and space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]


# ------------------------------------------------------------------------------------------------------------ parts
def below(prefix: str, weights: Weights) -> dict[str, np.ndarray]:
    """The weights under `prefix`, named without it."""
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def as_dtype(weights: Weights, dtype: type) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, dtype) for name, value in weights.items()}


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # equals 1 / (1 + exp(-x)), which overflows for very negative x


def dense(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    """x @ kernel + bias; a 1×1 convolution's kernel is the same matrix behind axes of length 1."""
    kernel = weights[f"{name}/kernel"]
    return x @ kernel.reshape(kernel.shape[-2:]) + weights[f"{name}/bias"]


def layer_norm(x: np.ndarray, weights: Weights, name: str, *, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """(x - mean) / sqrt(variance + epsilon) over `axes` jointly, then gamma and beta per channel."""
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def batch_norm(x: np.ndarray, weights: dict[str, np.ndarray], name: str, *, training: bool) -> np.ndarray:
    """TF1's default batch norm per channel (momentum 0.99, epsilon 1e-3); training replaces the averages in `weights`.

    The batch is normalised by its biased variance. Rank 4 takes TF's fused kernel, which moves the average by the
    unbiased variance (× n/(n-1)); rank 3 takes the plain one, which moves it by the biased variance.
    """
    mean, variance = weights[f"{name}/moving_mean"], weights[f"{name}/moving_variance"]
    if training:
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        correction = count / (count - 1) if x.ndim == 4 else 1.0
        moving_mean, moving_variance = mean, variance
        mean, variance = x.mean(axes), x.var(axes)
        weights[f"{name}/moving_mean"] = 0.99 * moving_mean + 0.01 * mean
        weights[f"{name}/moving_variance"] = 0.99 * moving_variance + 0.01 * correction * variance
    return (x - mean) / np.sqrt(variance + 1e-3) * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def normalize(x: np.ndarray, weights: dict[str, np.ndarray], name: str, *, kind: str, training: bool) -> np.ndarray:
    """`LN` (over every axis but the batch, as tf.contrib's), `BN` or `none`; `name` without its _ln / _bn."""
    if kind == "LN":
        return layer_norm(x, weights, f"{name}_ln", axes=tuple(range(1, x.ndim)), epsilon=1e-12)
    return batch_norm(x, weights, f"{name}_bn", training=training) if kind == "BN" else x


# ------------------------------------------------------------------------------------------------------- time stage
def lstm(nodes: np.ndarray, weights: Weights, name: str, *, forget_bias: float = 0.0) -> np.ndarray:
    """One LSTM over the steps of [B, T, N, C], each node alone, from zero state; gates i, j, f, o -> [B, T, N, C'].

    c ← σ(f + forget_bias) c + σ(i) tanh(j), h = σ(o) tanh(c).
    """
    kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
    batch, num_steps, num_nodes, _ = nodes.shape
    hidden = cell = np.zeros((batch, num_nodes, len(bias) // 4), nodes.dtype)
    outputs = []
    for step in range(num_steps):
        gates = np.concatenate([nodes[:, step], hidden], axis=-1) @ kernel + bias
        entry, candidate, forget, exit_gate = np.split(gates, 4, axis=-1)
        cell = sigmoid(forget + forget_bias) * cell + sigmoid(entry) * np.tanh(candidate)
        hidden = sigmoid(exit_gate) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs, axis=1)


# ------------------------------------------------------------------------------------------------------ space stage
def pairwise_messages(
    x: np.ndarray, weights: dict[str, np.ndarray], *, positions: np.ndarray | None, normalization: str, training: bool
) -> np.ndarray:
    """m_ij = relu(W2 relu(W1 [x_j, p_j ; x_i, p_i])), normalised: x [B, N, C] -> [B, receiver i, sender j, C']."""
    batch, num_nodes, _ = x.shape
    if positions is not None:
        x = np.concatenate([x, np.broadcast_to(positions, (batch,) + positions.shape)], axis=-1)  # [B, N, C + P]
    full = (batch, num_nodes, num_nodes, x.shape[-1])
    sender, receiver = np.broadcast_to(x[:, None, :], full), np.broadcast_to(x[:, :, None], full)
    pairs = np.concatenate([sender, receiver], axis=-1)  # [B, N, N, 2 (C + P)]
    hidden = relu(dense(pairs, weights, "send_messages_mlp/send_conv1"))
    messages = relu(dense(hidden, weights, "send_messages_mlp/send_conv2"))
    return normalize(messages, weights, "send_messages_mlp/message", kind=normalization, training=training)


def attention_weights(logits: np.ndarray, neighbours: np.ndarray, neighbourhood: str) -> np.ndarray:
    """Softmax over the senders j of [B, i, j]: `soft` over all, `masked` over neighbours (none: a row of zeros)."""
    takes_part = np.ones_like(neighbours) if neighbourhood == "soft" else neighbours
    largest = np.where(takes_part > 0, logits, -np.inf).max(axis=-1, keepdims=True)
    raised = np.exp(np.where(takes_part > 0, logits - np.where(np.isfinite(largest), largest, 0.0), -np.inf))
    total = raised.sum(axis=-1, keepdims=True)
    return raised / np.where(total > 0, total, 1.0)


def simple_logits(x: np.ndarray, weights: Weights, neighbours: np.ndarray) -> np.ndarray:
    """e_ij = leaky_relu(A_ij (a1·x_i + c1) + A_ij (a2·x_j + c2), 0.2) + A_ij."""
    received = dense(x, weights, "my_attn/att_conv1")  # [B, N, 1], of i
    sent = np.swapaxes(dense(x, weights, "my_attn/att_conv2"), 1, 2)  # [B, 1, N], of j
    score = neighbours * (received + sent)
    return np.where(score > 0, score, 0.2 * score) + neighbours


def dot_logits(x: np.ndarray, weights: Weights, neighbours: np.ndarray, name: str) -> np.ndarray:
    """e_ij = A_ij (q_i · k_j), not scaled."""
    query, key = dense(x, weights, f"{name}/att_conv1"), dense(x, weights, f"{name}/att_conv2")
    return neighbours * (query @ np.swapaxes(key, 1, 2))


def weighted_sum(alpha: np.ndarray, messages: np.ndarray) -> np.ndarray:
    """Σ_j α_ij m_ij: [B, N, N], [B, N, N, C] -> [B, N, C]."""
    return (alpha[..., None] * messages).sum(axis=2)


def aggregate(
    x: np.ndarray,
    messages: np.ndarray,
    weights: dict[str, np.ndarray],
    *,
    neighbours: np.ndarray,
    attention: str,
    heads: int,
    neighbourhood: str,
    normalization: str,
    training: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Messages [B, N, N, C] -> what every node receives, g [B, N, C], and the attention [B, heads, N, N].

    `simple` has one head whatever `heads` says, and normalises before its relu; `dot` does not normalise.
    """
    if attention == "simple":
        alpha = attention_weights(simple_logits(x, weights, neighbours), neighbours, neighbourhood)
        received = weighted_sum(alpha, messages) + weights["my_attn/att_bias/biases"]
        received = normalize(received, weights, "my_attn/att", kind=normalization, training=training)
        return relu(received), alpha[:, None]
    received, alphas = [], []
    for head in range(heads):
        scope = f"attention_head{head}/" if heads > 1 else ""
        part = dense(messages, weights, f"{scope}messages_proj") if heads > 1 else messages
        logits = dot_logits(x, weights, neighbours, f"{scope}dot_product_attn")
        alphas.append(attention_weights(logits, neighbours, neighbourhood))
        received.append(relu(weighted_sum(alphas[-1], part) + weights[f"{scope}dot_product_attn/att_bias/biases"]))
    return np.concatenate(received, axis=-1), np.stack(alphas, axis=1)


def update(
    x: np.ndarray,
    received: np.ndarray,
    weights: dict[str, np.ndarray],
    *,
    num_scales: int,
    layers: int,
    scalewise: bool,
    normalization: str,
    training: bool,
) -> np.ndarray:
    """[x_i ; g_i] through dense + relu layers, one set for all or one per scale (finest: type1); then the norm."""
    scope = "update_node_mlp_" if scalewise else "update_node_mlp"
    states, updated, start = np.concatenate([x, received], axis=-1), [], 0
    counts = [s * s for s in range(num_scales, 0, -1)] if scalewise else [x.shape[1]]
    for scale, count in enumerate(counts, start=1):
        state, start = states[:, start : start + count], start + count
        for layer in range(1, layers + 1):
            name = f"{scope}/update_conv{layer}" + (f"_type{scale}" if scalewise else "")
            state = relu(dense(state, weights, name))
        updated.append(state)
    return normalize(np.concatenate(updated, axis=1), weights, f"{scope}/update", kind=normalization, training=training)


def space_stage(
    x: np.ndarray,
    weights: dict[str, np.ndarray],
    *,
    adjacency: np.ndarray,
    positions: np.ndarray | None,
    num_scales: int,
    attention: str,
    heads: int,
    neighbourhood: str,
    normalization: str,
    update_layers: int,
    scalewise_update: bool,
    training: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """One step's nodes [B, N, C] -> updated nodes [B, N, C] and attention [B, heads, N, N]."""
    norm = {"normalization": normalization, "training": training}
    messages = pairwise_messages(x, weights, positions=positions, **norm)
    received, alpha = aggregate(
        x,
        messages,
        weights,
        neighbours=adjacency,
        attention=attention,
        heads=heads,
        neighbourhood=neighbourhood,
        **norm,
    )
    return update(
        x, received, weights, num_scales=num_scales, layers=update_layers, scalewise=scalewise_update, **norm
    ), alpha


def space_stage_at_every_step(
    x: np.ndarray, weights: dict[str, np.ndarray], **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """`space_stage` for t = 0, …, T-1 in turn: [B, T, N, C] -> [B, T, N, C] and attention [B, T, heads, N, N]."""
    steps = [space_stage(x[:, t], weights, **options) for t in range(x.shape[1])]
    return np.stack([nodes for nodes, _ in steps], axis=1), np.stack([alpha for _, alpha in steps], axis=1)
