"""What an experiment is: frozen dataclasses with their checks.

`flags.py` makes an `ExperimentConfig` from the command line and `release` from a YAML of the authors' release.
`model.build_model` and `training.loop.train` read it and hand plain arguments on: no layer ever sees a config.
"""

from __future__ import annotations

import dataclasses
import json
import math

from rstg_tf.common import choices
from rstg_tf.common.data_text import parse_json
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.common.limits import check_data_limits, check_model_limits, check_training_limits
from rstg_tf.common.settings import dataclass_from_json, require, require_at_least, require_flag_choice
from rstg_tf.video.clip_spec import ClipSpec

LARGEST_WEIGHTS = 1 << 30  # numbers, 4 GiB in float32: roughly what a config may ask for
LARGEST_COUNT = 2**31 - 1  # of clips, steps between two actions, …


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Clip -> logits. Sizes are those of the training clips; the built model takes others as its backbone allows."""

    backbone: str = "simple_c2d"
    backbone_filters: int = 512
    backbone_layers: int = 3
    num_frames: int = 10
    graph_frames: int = 10
    height: int = 64
    width: int = 64
    channels: int = 1
    pixel_scaling: str = "none"
    num_classes: int = 46
    head: str = "graph"
    graph_places: tuple[str, ...] = ("final",)
    nonlocal_places: tuple[str, ...] = ()
    combination: str = "serial"
    final_norm: str = "LN"
    dropout: float = 0.0
    remat: bool = False
    graph: GraphConfig = dataclasses.field(default_factory=GraphConfig)

    def check(self) -> None:
        """Raises ConfigError with the flag, the value found and what was expected."""
        require_flag_choice("backbone_model", self.backbone, choices.BACKBONES)
        require_flag_choice("head", self.head, choices.HEADS)
        require_flag_choice("comb_type", self.combination, ("plus", "serial"))
        require_flag_choice("final_norm", self.final_norm, choices.NORMALIZATIONS)
        require_flag_choice("pixel_scaling", self.pixel_scaling, choices.PIXEL_SCALINGS)
        require_at_least(
            1,
            num_filters=self.backbone_filters,
            num_conv_layers=self.backbone_layers,
            video_num_frames=self.num_frames,
            used_num_frames=self.graph_frames,
            dim_h=self.height,
            dim_w=self.width,
        )
        require_at_least(2, num_classes=self.num_classes)
        require(self.channels in (1, 3), f"--num_chan={self.channels}: expected 1 (grey) or 3 (RGB).")
        require(0.0 <= self.dropout < 1.0, f"--classification_dropout={self.dropout}: expected a share in [0, 1).")
        for flag, places, allowed in (
            ("place_graph", self.graph_places, choices.RESNET_STAGES + ("final",)),
            ("place_nonlocal", self.nonlocal_places, choices.RESNET_STAGES),
        ):
            for place in places:
                require_flag_choice(flag, place, allowed)
            require(len(set(places)) == len(places), f"--{flag}={'-'.join(places)} names a place twice.")
        both = sorted(set(self.graph_places) & set(self.nonlocal_places))
        require(
            not both,
            f"--place_graph and --place_nonlocal both name {', '.join(both)}: a stage takes a graph or "
            "non-local blocks, not both.",
        )
        if self.backbone == "simple_c2d":
            self._check_small_convnet()
        else:
            self._check_resnet()
        self.graph.check()
        check_model_limits(self)

    def _check_small_convnet(self) -> None:
        require(
            self.graph_frames == self.num_frames,
            f"--used_num_frames={self.graph_frames}: simple_c2d keeps every frame, so it must equal "
            f"--video_num_frames={self.num_frames}.",
        )
        if self.head == "graph":
            require(
                self.graph_places == ("final",),
                f"--place_graph={'-'.join(self.graph_places) or 'none'}: simple_c2d has one place for the graph, "
                "final (for a baseline without it give --head=mean_lstm or --head=conv_lstm).",
            )
        require(
            self.combination == "serial",
            "--comb_type=plus needs a ResNet: simple_c2d has no logits of its own "
            "to add the graph's vector to. Use --comb_type=serial.",
        )
        require(not self.nonlocal_places, "--place_nonlocal needs a ResNet backbone, not simple_c2d.")

    def _check_resnet(self) -> None:
        require(
            self.head == "graph",
            f"--head={self.head} is a baseline on simple_c2d; for {self.backbone} without a "
            "graph give --place_graph=none.",
        )
        require(
            self.num_frames % 2 == 0,
            f"--video_num_frames={self.num_frames}: {self.backbone} pools frames in pairs, so it must be even.",
        )
        for flag, side in (("dim_h", self.height), ("dim_w", self.width)):
            require(side >= 32, f"--{flag}={side}: {self.backbone} needs frames of at least 32 pixels.")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which records are read and how a training clip is drawn from them."""

    train_dataset: str = ""
    test_dataset: str = ""
    write_missing: str = "none"
    brightness: float = 0.0
    horizontal_flip: bool = False
    short_side: int = 256
    shuffle_buffer: int = 4096
    num_eval_spatial_clips: int = 1
    num_eval_temporal_clips: int = 1

    def check(self) -> None:
        """Raises ConfigError with the flag, the value found and what was expected."""
        require_flag_choice("write_missing", self.write_missing, ("none", "demo"))
        require_at_least(0, brightness=self.brightness, shuffle_buffer=self.shuffle_buffer)
        check_data_limits(self)
        require(self.brightness <= 1, f"--brightness={self.brightness}: expected a share of full scale, at most 1.")
        require_at_least(
            1,
            short_side=self.short_side,
            num_eval_spatial_clips=self.num_eval_spatial_clips,
            num_eval_temporal_clips=self.num_eval_temporal_clips,
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The optimisation. `batch_size` is global: the clips of one step over all replicas."""

    batch_size: int = 2
    num_steps: int = 0
    num_epochs: float = 100.0
    learning_rate: float = 1e-6
    loss_reduction: str = "sum"
    optimizer: str = "nesterov"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_steps: int = 0
    decay_at: tuple[float, ...] = (0.5, 0.75)
    decay_factor: float = 0.1
    clip_norm: float = 0.0
    ema_momentum: float = 0.0
    precision: str = "float32"
    jit_compile: bool = False
    steps_per_call: int = 10
    seed: int = 0
    num_virtual_devices: int = 0
    print_every: int = 50
    save_every: int = 5000
    save_minutes: float = 10.0
    keep_checkpoints: int = 3
    eval_every: int = 0
    restore_dir: str = ""
    restore_scope: str = "all"

    def total_steps(self, num_clips: int) -> int:
        """The steps of the whole training on so many clips: `num_steps`, or those of `num_epochs`."""
        return self.num_steps or math.ceil(self.num_epochs * num_clips / self.batch_size)

    def check(self) -> None:
        """Raises ConfigError with the flag, the value found and what was expected."""
        require_flag_choice("loss_reduction", self.loss_reduction, choices.LOSS_REDUCTIONS)
        require_flag_choice("optimizer", self.optimizer, choices.OPTIMIZERS)
        require_flag_choice("schedule", self.schedule, choices.RATE_SCHEDULES)
        require_flag_choice("precision", self.precision, choices.PRECISIONS)
        require_flag_choice("restore_scope", self.restore_scope, choices.RESTORE_SCOPES)
        require(
            self.restore_scope == "all" or bool(self.restore_dir),
            f"--restore_scope={self.restore_scope} has no effect without --restore_dir.",
        )
        require_at_least(
            1,
            batch_size=self.batch_size,
            steps_per_call=self.steps_per_call,
            print_every=self.print_every,
            save_every=self.save_every,
            keep_checkpoints=self.keep_checkpoints,
        )
        require_at_least(
            0,
            num_steps=self.num_steps,
            num_epochs=self.num_epochs,
            warmup_steps=self.warmup_steps,
            clip_norm=self.clip_norm,
            weight_decay=self.weight_decay,
            save_minutes=self.save_minutes,
            num_virtual_devices=self.num_virtual_devices,
            eval_every=self.eval_every,
            seed=self.seed,
        )
        check_training_limits(self)
        require(self.learning_rate > 0, f"--learning_rate={self.learning_rate}: expected a positive number.")
        require(self.num_steps > 0 or self.num_epochs > 0, "give --num_steps or --num_epochs: both are 0.")
        for flag, value in (("momentum", self.momentum), ("ema_momentum", self.ema_momentum)):
            require(0.0 <= value < 1.0, f"--{flag}={value}: expected a number in [0, 1).")
        require(
            self.weight_decay == 0.0 or self.optimizer in ("adamw", "sgdw"),
            f"--weight_decay={self.weight_decay} has no effect with --optimizer={self.optimizer}: "
            "use adamw or sgdw, which decay the weights apart from the gradient.",
        )
        if self.num_virtual_devices:
            require(
                self.batch_size % self.num_virtual_devices == 0,
                f"--batch_size={self.batch_size} (global) does not divide among "
                f"--num_virtual_devices={self.num_virtual_devices}.",
            )


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that was decided; saved as `config.json` in the folder of the run."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def check(self) -> ExperimentConfig:
        """Returns itself. Raises ConfigError with the flag, the value found and what was expected."""
        self.model.check()
        self.data.check()
        self.train.check()
        return self

    @property
    def clip_spec(self) -> ClipSpec:
        """The clips that the model takes, cut out of video that is resized to `data.short_side`."""
        model = self.model
        return ClipSpec(
            num_frames=model.num_frames,
            height=model.height,
            width=model.width,
            channels=model.channels,
            short_side=self.data.short_side,
        )

    def to_json(self) -> str:
        """All settings, as a run's config.json holds them."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ExperimentConfig:
        """Inverse of `to_json`. Raises ConfigError for keys that no field has: they would be silently lost."""
        values = parse_json(text, named="config")
        try:
            return dataclass_from_json(cls, values, "config").check()
        except ConfigError:
            raise
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise ConfigError(f"config: a value is of another kind than its setting ({error}).") from error
