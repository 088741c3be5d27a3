"""The models that the benchmarks measure, and the flags that choose among them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from absl import flags as absl_flags

from rstg_tf import flag_table
from rstg_tf import flags as experiment_flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig, ModelConfig

PRECISIONS = ("float32", "mixed_bfloat16")
# Name -> flags on top of which a benchmark sets the batch. The files lie in the working directory.
MODELS = {
    "full": ("--flagfile=syncmnist.flags",),
    "narrow": ("--flagfile=syncmnist.flags", "--num_filters=64", "--node_feat_dim=64", "--message_dims=64"),
    "demo": ("--flagfile=configs/demo.flags",),
    "i3d": ("--flagfile=configs/smt_i3d_rstg_final.flags",),
}
GIVEN = "given"  # the name of a model that the command line describes


def define_flags(values: absl_flags.FlagValues) -> None:
    """The experiment's flags, which describe a model other than those of MODELS, and --precisions."""
    experiment_flags.define_flags(values)
    absl_flags.DEFINE_list("precisions", list(PRECISIONS), "number formats to measure", flag_values=values)


def precisions(values: absl_flags.FlagValues) -> list[str]:
    for precision in values.precisions:
        if precision not in PRECISIONS:
            raise ConfigError(f"--precisions={precision}: expected some of {', '.join(PRECISIONS)}.")
    return list(dict.fromkeys(values.precisions))


def given(values: absl_flags.FlagValues) -> ExperimentConfig | None:
    """The experiment that the command line describes; None if it has none of an experiment's flags."""
    names = [*(field.flag for field in flag_table.FIELDS), *flag_table.SWITCHES]
    if all(values[name].value is None for name in names):
        return None
    return experiment_flags.config_from_flags(values)


def named(name: str, flag: str) -> ExperimentConfig:
    """A row of MODELS. Raises ConfigError naming `flag` for any other name."""
    if name not in MODELS:
        raise ConfigError(f"--{flag}={name}: expected some of {', '.join(MODELS)}.")
    return experiment_flags.config_from_flags(experiment_flags.parse(MODELS[name]))


def with_batch(config: ExperimentConfig, clips: int) -> ExperimentConfig:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=clips)).check()


def build_as_defined(config: ModelConfig):
    """`build_model`, but every convolution is traced as one Conv2D or Conv3D op, so that a graph tells them all."""
    from rstg_tf.backbones.small_convnet import SmallConvnet
    from rstg_tf.model import build_model

    model = build_model(config)
    if isinstance(model.backbone, SmallConvnet):
        model.backbone.fewer_products = False
    return model


def positive(texts: Sequence[str], flag: str) -> list[int]:
    """Whole numbers above 0, each once, in their order. Raises ConfigError naming `flag` for anything else."""
    if not texts or not all(re.fullmatch("[0-9]+", text) and int(text) for text in texts):
        raise ConfigError(f"--{flag}={','.join(texts)}: expected numbers above 0, such as 1,8.")
    return list(dict.fromkeys(map(int, texts)))


def read_sizes(text: str, flag: str) -> tuple[int, int, int, int]:
    """'2x10x512x3' -> (clips B, steps T, channels C, scales S). Raises ConfigError naming `flag` for anything else."""
    found = re.fullmatch(r"([0-9]+)x([0-9]+)x([0-9]+)x([0-9]+)", text)
    if not found or "0" in found.groups():
        raise ConfigError(f"--{flag}={text}: expected BxTxCxS, such as 2x10x512x3.")
    clips, steps, channels, scales = map(int, found.groups())
    return clips, steps, channels, scales


def random_clips(config: ExperimentConfig, clips: int):
    """uint8 videos [B, T, H, W, C] and int32 labels [B]; the same ones at every call."""
    import numpy as np
    import tensorflow as tf

    model, generator = config.model, np.random.default_rng(0)
    shape = (clips, model.num_frames, model.height, model.width, model.channels)
    return (
        tf.constant(generator.integers(0, 256, shape, np.uint8)),
        tf.constant(generator.integers(0, model.num_classes, clips).astype(np.int32)),
    )
