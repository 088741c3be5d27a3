"""What a setting may be, named in one place for flags, configs and layers."""

from __future__ import annotations

BACKBONES = ("simple_c2d", "c2d", "i3d", "non-local")
RESNET_STAGES = ("res2", "res3", "res4", "res5")
HEADS = ("graph", "mean_lstm", "conv_lstm")
TIME_SCHEDULES = ("all", "every", "final", "none")
ATTENTIONS = ("simple", "dot")
NEIGHBOURHOODS = ("soft", "masked")
NORMALIZATIONS = ("none", "LN", "LN_per_step", "BN")
OPTIMIZERS = ("nesterov", "adam", "adamw", "sgdw")
RATE_SCHEDULES = ("constant", "cosine", "step")
LOSS_REDUCTIONS = ("sum", "mean")
# No mixed_float16: its gradients would need loss scaling, bfloat16's don't.
PRECISIONS = ("float32", "mixed_bfloat16")
PIXEL_SCALINGS = ("none", "centred")
RESTORE_SCOPES = ("all", "backbone", "except_head")


def require_choice(name: str, value: str, choices: tuple[str, ...], *, error: type[ValueError] = ValueError) -> None:
    """Raises `error` that names the argument or the flag, what it was and what it may be."""
    if value not in choices:
        raise error(f"{name}={value}: expected one of {', '.join(choices)}.")
