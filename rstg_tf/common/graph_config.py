"""The settings of the graph that an experiment may vary, with their checks; `config.ModelConfig` holds them."""

from __future__ import annotations

import dataclasses

from rstg_tf.common import choices
from rstg_tf.common.limits import check_graph_limits
from rstg_tf.common.settings import require, require_at_least, require_flag_choice


@dataclasses.dataclass(frozen=True)
class GraphConfig:
    """The arguments of `RecurrentSpaceTimeGraph` that an experiment may vary, under the same names and defaults."""

    num_scales: int = 3
    space_iterations: int = 3
    time_stages: str = "all"
    share_stages: bool = False
    node_width: int = 512
    message_width: int = 512
    attention: str = "simple"
    attention_heads: int = 1
    neighbourhood: str = "soft"
    normalization: str = "none"
    input_batch_norm: bool = False
    positional_map_size: int = 0
    update_layers: int = 2
    scalewise_update: bool = False
    stage_norm: bool = False
    residual_stages: bool = False
    forget_bias: float = 0.0
    node_reduction: str = "sum"

    def check(self) -> None:
        """Raises ConfigError with the flag, the value found and what was expected."""
        require_at_least(
            1,
            num_scales=self.num_scales,
            node_feat_dim=self.node_width,
            message_dims=self.message_width,
            attention_heads=self.attention_heads,
            update_layers=self.update_layers,
        )
        require_at_least(0, num_process_iter=self.space_iterations, dim_map=self.positional_map_size)
        check_graph_limits(self)
        require_flag_choice("time_stages", self.time_stages, choices.TIME_SCHEDULES)
        require_flag_choice("use_att", self.attention, choices.ATTENTIONS)
        require_flag_choice("neighbourhood", self.neighbourhood, choices.NEIGHBOURHOODS)
        require_flag_choice("use_norm", self.normalization, choices.NORMALIZATIONS)
        require_flag_choice("node_reduction", self.node_reduction, ("sum", "mean"))
        require(
            self.space_iterations > 0 or self.time_stages != "none",
            "--num_process_iter=0 with --time_stages=none leaves a graph without any stage.",
        )
        require(
            not (self.share_stages and self.space_iterations == 0),
            "--share_stages needs --num_process_iter of at least 1: there is no space stage to share.",
        )
        if self.attention == "dot":
            for flag, width in (("message_dims", self.message_width), ("node_feat_dim", self.node_width)):
                require(
                    width % self.attention_heads == 0,
                    f"--{flag}={width} is not divisible by the {self.attention_heads} attention heads.",
                )
