"""The table of flags: which setting each one sets, what it means, and without which other it changes nothing.

A flag has the name of the release's YAML key wherever the release reads that key; the rest are new. Types and defaults
are those of the config's dataclasses, so a setting is described once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.config import DataConfig, ModelConfig, TrainConfig

SECTIONS = {"model": ModelConfig, "graph": GraphConfig, "data": DataConfig, "train": TrainConfig}
MULTI_HEADS = 8  # what the release's `multihead_att` stands for
POSITIONAL_MAP_SIZE = 6  # the release's `dim_map`
NONLOCAL_PLACES = ("res3", "res4")  # where the release's Non-Local model has its blocks


@dataclasses.dataclass(frozen=True)
class Field:
    """One flag: the section and the field of the config that it sets, and what it means."""

    flag: str
    section: str
    field: str
    help: str

    @property
    def default(self) -> Any:
        return next(field.default for field in dataclasses.fields(SECTIONS[self.section]) if field.name == self.field)

    def parse(self, value: Any) -> Any:
        """The value as the config holds it; tuples are written 'res3-res4' (places) or '0.5,0.75' (numbers)."""
        if not isinstance(self.default, tuple) or isinstance(value, tuple):
            return value
        if self.field == "decay_at":
            return _shares(self.flag, value)
        return () if value in ("none", "") else tuple(value.split("-"))


def _shares(flag: str, text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(",") if part)
    except ValueError as error:
        raise ConfigError(f"--{flag}={text}: expected numbers such as 0.5,0.75.") from error
    if not all(0.0 < share < 1.0 for share in shares) or list(shares) != sorted(shares):
        raise ConfigError(f"--{flag}={text}: expected rising shares of the run between 0 and 1, such as 0.5,0.75.")
    return shares


FIELDS = (
    # Model
    Field("backbone_model", "model", "backbone", "simple_c2d (SyncMNIST), c2d, i3d or non-local (ResNet-50)"),
    Field("num_filters", "model", "backbone_filters", "channels of simple_c2d"),
    Field("num_conv_layers", "model", "backbone_layers", "conv + pool layers of simple_c2d"),
    Field("video_num_frames", "model", "num_frames", "frames of a clip"),
    Field(
        "used_num_frames",
        "model",
        "graph_frames",
        "steps that the graph sees, as the release's files say it; follows from the frames (ResNets: half of them)",
    ),
    Field("dim_h", "model", "height", "height of a frame, pixels"),
    Field("dim_w", "model", "width", "width of a frame, pixels"),
    Field("num_chan", "model", "channels", "1 (grey) or 3 (RGB)"),
    Field("pixel_scaling", "model", "pixel_scaling", "none: raw 0…255; centred: (x - 114.75) / 57.375"),
    Field("num_classes", "model", "num_classes", "classes"),
    Field(
        "head",
        "model",
        "head",
        "graph, or a baseline: mean_lstm, conv_lstm (of the graph's flags these use node_feat_dim and forget_bias)",
    ),
    Field("place_graph", "model", "graph_places", "where graphs sit: final, res3-res4, …, none"),
    Field("place_nonlocal", "model", "nonlocal_places", "stages with non-local blocks: res3-res4, …, none"),
    Field(
        "comb_type",
        "model",
        "combination",
        "the final graph's vector is added to the backbone's (plus) or replaces it (serial)",
    ),
    Field("final_norm", "model", "final_norm", "norm after a graph in a ResNet, as --use_norm"),
    Field("classification_dropout", "model", "dropout", "share of values dropped before the classifier"),
    Field("remat", "model", "remat", "recompute the stages' activations in the backward pass: slower, less memory"),
    # Graph
    Field("num_scales", "graph", "num_scales", "grids of regions, S×S … 1×1"),
    Field("num_process_iter", "graph", "space_iterations", "space stages"),
    Field(
        "time_stages",
        "graph",
        "time_stages",
        "all (before the first three space stages, and last), every (no cap at three), final (last only), none",
    ),
    Field(
        "share_stages",
        "graph",
        "share_stages",
        "no LSTM: time passes through the space stage's weights (the paper's homogeneous ablation)",
    ),
    Field("node_feat_dim", "graph", "node_width", "channels of a node"),
    Field("message_dims", "graph", "message_width", "channels of a message"),
    Field("use_att", "graph", "attention", "simple or dot"),
    Field("attention_heads", "graph", "attention_heads", "heads of dot attention"),
    Field("neighbourhood", "graph", "neighbourhood", "soft (as the release: others keep weight exp(0)) or masked"),
    Field(
        "use_norm",
        "graph",
        "normalization",
        "norm in the graph: LN (over all steps of a clip), LN_per_step (over "
        "each step, so that frames can be streamed; not in the release), BN or none",
    ),
    Field("input_batch_norm", "graph", "input_batch_norm", "batch norm at the graph's entrance (release: SyncMNIST)"),
    Field("dim_map", "graph", "positional_map_size", "side of the positional maps, with --use_positional_emb"),
    Field("update_layers", "graph", "update_layers", "dense layers of a node's update"),
    Field("scalewise_update", "graph", "scalewise_update", "an update of its own for every scale"),
    Field("stage_norm", "graph", "stage_norm", "layer norm of each node before each stage (release: off)"),
    Field("residual_stages", "graph", "residual_stages", "add each stage's input to its output (release: off)"),
    Field("forget_bias", "graph", "forget_bias", "initial bias of the LSTMs' forget gates (release: 0)"),
    Field("node_reduction", "graph", "node_reduction", "nodes -> vector: sum (release) or mean"),
    # Data
    Field("train_dataset", "data", "train_dataset", "folder of the training records"),
    Field("test_dataset", "data", "test_dataset", "folder of the records to evaluate on"),
    Field("write_missing", "data", "write_missing", "demo: write the demo's records into data/demo if missing"),
    Field("brightness", "data", "brightness", "±share of full scale added to a training clip (release: 0.1)"),
    Field(
        "horizontal_flip",
        "data",
        "horizontal_flip",
        "mirror half of the training clips; classes named "
        "with left and right take each other's label, or are never mirrored where the other is missing",
    ),
    Field(
        "short_side",
        "data",
        "short_side",
        "shorter side, in pixels, to which frames of differing sizes are resized "
        "before the crop of dim_h × dim_w (SyncMNIST's, all of one size, are not)",
    ),
    Field("shuffle_buffer", "data", "shuffle_buffer", "clips among which the next one is drawn"),
    Field(
        "num_eval_spatial_clips",
        "data",
        "num_eval_spatial_clips",
        "crops of a video in eval.py, which averages their logits; while training the centre alone is evaluated",
    ),
    Field("num_eval_temporal_clips", "data", "num_eval_temporal_clips", "samplings of a video's frames in eval.py"),
    # Training
    Field("batch_size", "train", "batch_size", "clips of a step over all replicas"),
    Field("num_steps", "train", "num_steps", "steps to train; 0: --num_epochs decides"),
    Field("num_epochs", "train", "num_epochs", "passes over the training clips"),
    Field("learning_rate", "train", "learning_rate", "rate at the peak; for --loss_reduction=sum, per clip"),
    Field("loss_reduction", "train", "loss_reduction", "the clips' cross-entropies: sum (the release's) or mean"),
    Field("optimizer", "train", "optimizer", "nesterov (the release's), adam, adamw or sgdw"),
    Field("momentum", "train", "momentum", "of nesterov and sgdw"),
    Field("weight_decay", "train", "weight_decay", "of adamw and sgdw, times the rate; not on biases and norms"),
    Field("schedule", "train", "schedule", "rate over the run: constant, cosine (to 0) or step"),
    Field("warmup_steps", "train", "warmup_steps", "steps in which the rate rises to --learning_rate"),
    Field("decay_at", "train", "decay_at", "shares of the run after which --schedule=step lowers the rate: 0.5,0.75"),
    Field("decay_factor", "train", "decay_factor", "by how much --schedule=step lowers it each time"),
    Field("clip_norm", "train", "clip_norm", "largest global norm of the summed gradient; 0: no limit"),
    Field("ema_momentum", "train", "ema_momentum", "keep and evaluate an average of the weights, e.g. 0.999; 0: no"),
    Field("precision", "train", "precision", "float32 or mixed_bfloat16"),
    Field("jit_compile", "train", "jit_compile", "compile the forward and backward pass with XLA"),
    Field("steps_per_call", "train", "steps_per_call", "steps in TensorFlow between two looks of Python"),
    Field("seed", "train", "seed", "of initial weights, data order, augmentation and dropout"),
    Field("num_virtual_devices", "train", "num_virtual_devices", "split the CPU into this many replicas; 0: don't"),
    Field("print_every", "train", "print_every", "steps between two reports"),
    Field("save_every", "train", "save_every", "steps between two checkpoints"),
    Field("save_minutes", "train", "save_minutes", "minutes between two checkpoints; 0: steps alone decide"),
    Field("keep_checkpoints", "train", "keep_checkpoints", "newest checkpoints kept, beside the best"),
    Field(
        "eval_every",
        "train",
        "eval_every",
        "steps between two evaluations, which also choose the best checkpoint; 0: none",
    ),
    Field(
        "restore_dir",
        "train",
        "restore_dir",
        "start from these weights: a run's folder, a checkpoint in one, or a checkpoint of the release",
    ),
    Field(
        "restore_scope",
        "train",
        "restore_scope",
        "which of them: all, backbone (no graphs), except_head (another number of classes)",
    ),
)
# Two of the release's switches that act through another field.
SWITCHES = {
    "multihead_att": f"{MULTI_HEADS} attention heads, as the release has them; --attention_heads gives any number",
    "use_positional_emb": "give each node a map of its place, --dim_map pixels wide",
}
# A flag that changes nothing unless another has one of these values.
NEEDS = {
    "decay_at": ("schedule", ("step",)),
    "decay_factor": ("schedule", ("step",)),
    "momentum": ("optimizer", ("nesterov", "sgdw")),
    "attention_heads": ("use_att", ("dot",)),
}
