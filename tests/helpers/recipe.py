"""The rule by which the weights and clips of the golden vectors are drawn.

No golden file stores a weight or a clip: each value follows from a name or a seed through NumPy's PCG64, so both sides
of a comparison draw the same numbers. Only the draws' order and shapes matter; `numpy.random.Generator` keeps its
streams stable for `standard_normal` and `uniform`.
"""

from __future__ import annotations

import zlib

import numpy as np

CONSTANTS = ("positional_emb", "resize_filters")


def _named_generator(text: str) -> np.random.Generator:
    return _seeded_generator(zlib.crc32(text.encode()))


def _seeded_generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 value of the variable `name` (the release's name, without ':0').

    Kernels are normal with He scale; what scales (gamma, moving_variance, ln_scale) is uniform around 1, or around 0.2
    where it ends a residual branch, so that deep networks stay finite; everything else is normal with deviation 0.1.
    """
    generator = _named_generator(name)
    leaf = name.rsplit("/", 1)[-1]
    ends_a_branch = "branch2c" in name or "nonlocal" in name
    if leaf == "gamma" and ends_a_branch:
        drawn = generator.uniform(0.1, 0.3, shape)
    elif leaf in ("gamma", "moving_variance") or leaf.endswith("ln_scale"):
        drawn = generator.uniform(0.5, 1.5, shape)
    elif leaf == "kernel":
        fan_in = int(np.prod(shape[:-1]))
        drawn = generator.standard_normal(shape) * np.sqrt(2.0 / fan_in)
    else:
        drawn = generator.standard_normal(shape) * 0.1
    return drawn.astype(np.float32)


def weights(variables: list) -> dict[str, np.ndarray]:
    """Name -> value for the rows [name, shape, trained] of a golden file; constants of the model are left out."""
    return {
        name: weight(name, tuple(shape))
        for name, shape, _ in variables
        if not any(constant in name for constant in CONSTANTS)
    }


def video(seed: int, shape: tuple[int, int, int, int, int]) -> np.ndarray:
    """uint8 clips [B, T, H, W, C] in 0…255: a 4×4 grid of random colours per frame, plus noise of deviation 10."""
    generator = _seeded_generator(seed)
    num_clips, num_steps, height, width, channels = shape
    colours = generator.uniform(0, 255, (num_clips, num_steps, 4, 4, channels))
    cell_of_row = np.arange(height) * 4 // height
    cell_of_column = np.arange(width) * 4 // width
    clean = colours[:, :, cell_of_row[:, None], cell_of_column[None, :]]  # [B, T, H, W, C]
    noisy = clean + 10.0 * generator.standard_normal(shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def labels(seed: int, num_clips: int, num_classes: int) -> np.ndarray:
    """int64 [B] labels of a golden training step."""
    return _seeded_generator(seed).integers(0, num_classes, num_clips)


def probe(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float64 direction on which `grad_probes` projects the gradient of `name`."""
    return _named_generator(name + "/probe").standard_normal(shape)


def graph_shapes(
    *,
    width: int,
    message_width: int,
    num_scales: int = 3,
    space_iterations: int = 3,
    time_stages: str = "all",
    attention: str = "simple",
    heads: int = 1,
    normalization: str = "none",
    positional_map_size: int = 0,
    update_layers: int = 2,
    scalewise_update: bool = False,
    input_width: int | None = None,
    input_batch_norm: bool = False,
    input_projection: bool = False,
    node_projection: bool = False,
    output_projection: bool = False,
    stage_norm: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Name below the graph's prefix -> shape, of just the variables that a graph with these options has.

    `input_width` (default: the width the stages work at) is the width of the pooled nodes, and of the nodes after
    `project_back_to_i3d`. With `node_projection` the nodes have `message_width` channels before it, `width` after it.
    """
    entry_width = message_width if node_projection else width
    input_width = entry_width if input_width is None else input_width
    shapes = {}
    if input_projection:
        shapes.update(_dense("project_i3d", input_width, entry_width))
    if input_batch_norm:
        shapes.update(_norm("batch_normalization", "BN", entry_width))
    shapes.update(_norm("before_graf", normalization, entry_width))
    if node_projection:
        shapes.update({**_dense("conv2d", entry_width, width, 2), **_norm("before_graf2", normalization, width)})
    intern = space_iterations > 0 and time_stages in ("all", "every")
    stages = {"intern": intern, "space": space_iterations > 0, "extern": time_stages != "none"}
    for stage in (stage for stage, exists in stages.items() if exists):
        if stage_norm:
            shapes.update({f"{stage}_stage_norm/{leaf}": (width,) for leaf in ("gamma", "beta")})
        if stage != "space":
            scope = "time_update_extern/" if stage == "extern" else ""
            name = f"{scope}cudnn_lstm/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell"
            shapes.update({f"{name}/kernel": (2 * width, 4 * width), f"{name}/bias": (4 * width,)})
    if space_iterations:
        shapes.update(_message_shapes(width + positional_map_size**2, message_width, normalization))
        shapes.update(_attention_shapes(width, message_width, attention, heads, normalization))
        types = [f"_type{scale}" for scale in range(1, num_scales + 1)] if scalewise_update else [""]
        shapes.update(_update_shapes(width, message_width, update_layers, types, normalization))
    if output_projection:
        shapes.update(_dense("project_back_to_i3d", width, input_width))
    return shapes


def graph_weights(prefix: str, *, seed: int, **options) -> dict[str, np.ndarray]:
    """Random float32 weights for `graph_shapes(**options)` under `prefix` (with its slash); a name's value is a pure
    function of the seed and the name, so that two option sets share what they have in common."""
    return {prefix + name: weight(f"{seed}/{name}", shape) for name, shape in graph_shapes(**options).items()}


def _dense(name: str, inputs: int, outputs: int, spatial_axes: int = 0) -> dict[str, tuple[int, ...]]:
    return {f"{name}/kernel": (1,) * spatial_axes + (inputs, outputs), f"{name}/bias": (outputs,)}


def _norm(name: str, kind: str, width: int) -> dict[str, tuple[int, ...]]:
    leaves = {"none": (), "LN": ("beta", "gamma"), "BN": ("gamma", "beta", "moving_mean", "moving_variance")}[kind]
    suffix = "" if name == "batch_normalization" else f"_{kind.lower()}"
    return {f"{name}{suffix}/{leaf}": (width,) for leaf in leaves}


def _message_shapes(input_width: int, message_width: int, normalization: str) -> dict[str, tuple[int, ...]]:
    return {
        **_dense("send_messages_mlp/send_conv1", 2 * input_width, message_width, 2),
        **_dense("send_messages_mlp/send_conv2", message_width, message_width, 2),
        **_norm("send_messages_mlp/message", normalization, message_width),
    }


def _attention_shapes(
    width: int, message_width: int, attention: str, heads: int, normalization: str
) -> dict[str, tuple[int, ...]]:
    if attention == "simple":
        return {
            **_dense("my_attn/att_conv1", width, 1, 1),
            **_dense("my_attn/att_conv2", width, 1, 1),
            "my_attn/att_bias/biases": (message_width,),
            **_norm("my_attn/att", normalization, message_width),
        }
    shapes = {}
    for head in range(heads):
        scope = f"attention_head{head}/" if heads > 1 else ""
        if heads > 1:
            shapes.update(_dense(f"{scope}messages_proj", message_width, message_width // heads, 2))
        shapes.update(_dense(f"{scope}dot_product_attn/att_conv1", width, width // heads, 1))
        shapes.update(_dense(f"{scope}dot_product_attn/att_conv2", width, width // heads, 1))
        shapes[f"{scope}dot_product_attn/att_bias/biases"] = (message_width // heads,)
    return shapes


def _update_shapes(
    width: int, message_width: int, layers: int, types: list, normalization: str
) -> dict[str, tuple[int, ...]]:
    scope = "update_node_mlp" if types == [""] else "update_node_mlp_"
    shapes = {}
    for suffix in types:
        for layer in range(1, layers + 1):
            inputs = width + message_width if layer == 1 else width
            shapes.update(_dense(f"{scope}/update_conv{layer}{suffix}", inputs, width, 1))
    return {**shapes, **_norm(f"{scope}/update", normalization, width)}
