"""The largest settings that make sense: a foreign config must not ask for all memory, nor for numbers that wrap."""

from __future__ import annotations

from typing import Any

from rstg_tf.common.settings import require, require_at_most

LARGEST_SIDE = 16_384  # pixels, or frames, of a clip that a model takes
LARGEST_CLIP = 1 << 28  # pixels of all frames
LARGEST_WEIGHTS = 1 << 30  # numbers, 4 GiB in float32: roughly what a config may ask for
LARGEST_COUNT = 2**31 - 1  # of clips, steps between two actions, …
_RESNET_CHANNELS = 2048


def require_clip(num_frames: int, height: int, width: int) -> None:
    """Raises ConfigError for a clip of more pixels than a model can sensibly take."""
    require(
        num_frames * height * width <= LARGEST_CLIP,
        f"clips of {num_frames} frames of {height}×{width} pixels: expected at most {LARGEST_CLIP} pixels in all.",
    )


def check_graph_limits(graph: Any) -> None:
    """Raises ConfigError naming the first flag of a `GraphConfig` that is absurdly large."""
    require_at_most(1000, attention_heads=graph.attention_heads, num_process_iter=graph.space_iterations)
    require_at_most(64, num_scales=graph.num_scales, update_layers=graph.update_layers)
    require_at_most(1024, dim_map=graph.positional_map_size)


def check_model_limits(model: Any) -> None:
    """Raises ConfigError naming the flags of a `ModelConfig` that ask for absurd sizes."""
    sides = {"video_num_frames": model.num_frames, "used_num_frames": model.graph_frames}
    require_at_most(LARGEST_SIDE, **sides, dim_h=model.height, dim_w=model.width)
    require_at_most(64, num_conv_layers=model.backbone_layers)
    require_clip(model.num_frames, model.height, model.width)
    is_small = model.backbone == "simple_c2d"
    channels = model.backbone_filters if is_small else _RESNET_CHANNELS
    graphs = len(model.graph_places) if model.head == "graph" else 0
    weights = graphs * _graph_weights(model.graph, channels) + model.num_classes * max(channels, model.graph.node_width)
    weights += 9 * model.backbone_layers * channels**2 if is_small else 0
    require(
        weights <= LARGEST_WEIGHTS,
        f"--num_filters={model.backbone_filters}, --node_feat_dim={model.graph.node_width}, --message_dims="
        f"{model.graph.message_width}, --num_classes={model.num_classes} and the numbers of layers ask for about "
        f"{weights:.2g} weights; expected at most {LARGEST_WEIGHTS:.2g}.",
    )


def _graph_weights(graph: Any, channels: int) -> int:
    nodes, messages = graph.node_width, graph.message_width
    space = 2 * nodes * messages + messages**2 + (nodes + messages) * nodes * graph.update_layers
    stages = 1 if graph.share_stages else graph.space_iterations
    return channels * nodes + (stages + 1) * (space + 8 * nodes**2)


def check_data_limits(data: Any) -> None:
    """Raises ConfigError naming the first flag of a `DataConfig` that is absurdly large."""
    require_at_most(LARGEST_COUNT, shuffle_buffer=data.shuffle_buffer)
    require_at_most(LARGEST_SIDE, short_side=data.short_side)
    views = {name: getattr(data, name) for name in ("num_eval_spatial_clips", "num_eval_temporal_clips")}
    require_at_most(1000, **views)


def check_training_limits(train: Any) -> None:
    """Raises ConfigError naming the first flag of a `TrainConfig` that is absurdly large."""
    counts = "batch_size steps_per_call print_every save_every keep_checkpoints eval_every num_epochs".split()
    require_at_most(LARGEST_COUNT, **{name: getattr(train, name) for name in counts})
    require_at_most(2**63 - 1, seed=train.seed, num_steps=train.num_steps, warmup_steps=train.warmup_steps)
    require_at_most(1024, num_virtual_devices=train.num_virtual_devices)
