"""The flags of every command on a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from rstg_tf.common.command_line import parse_flags
from rstg_tf.common.flag_files import FlagValues


def parse_run_flags(
    arguments: Sequence[str], define: Callable[[absl_flags.FlagValues], None], *, description: str
) -> absl_flags.FlagValues | None:
    """The flags of a command on a run: --model_dir, --checkpoint, --precision, --help, and those that `define` adds.

    With --help prints the `description` and the flags, and returns None: there is nothing to do.

    Raises ConfigError naming the flag for unknown flags, values of another type and arguments that are no flag.
    """
    flags = FlagValues()
    absl_flags.DEFINE_string(
        "model_dir", "", "folder of the run; unless given, the newest under runs/", flag_values=flags
    )
    absl_flags.DEFINE_string(
        "checkpoint",
        "",
        "a step, 'best', or a path RUN/checkpoints/ckpt-STEP; unless given, the newest",
        flag_values=flags,
    )
    absl_flags.DEFINE_enum(
        "precision", "float32", ["float32", "run"], "compute in float32, or as the run was trained", flag_values=flags
    )
    absl_flags.DEFINE_boolean("help", False, "show the flags", short_name="h", flag_values=flags)
    define(flags)
    parse_flags(flags, arguments)
    if flags.help:
        print(description, flags.get_help(), sep="\n")
        return None
    return flags
