"""Random bytes against the gates for bytes of others: `benchmarks.faults.gates`.

    python -m benchmarks.fuzz --target=pickle [--seconds=600] [--corpus=FOLDER]

libFuzzer, through atheris (Linux, Python 3.11 to 3.13; `pip install atheris`), changes the seeds so that ever more of
the code runs. It ends at the first find with its traceback, and keeps the bytes as crash-… in the folder --corpus.
`make fuzz` does it with every target.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from benchmarks.faults.gates import Target, gates
from rstg_tf.common.command_line import failed, parse_flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.flag_files import FlagValues

MORE_MEMORY = 1024  # MiB beyond what the process has when it begins
SLOWEST = 10  # seconds for one input
LONGEST = 4096  # bytes of one
INSTRUMENTED = ("rstg_tf.", "datasets.", "model_servers")


def main(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`, the program's name excluded. libFuzzer ends the process itself: with 0 when
    the time is over, with another code at a find. Wrong use returns 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    values = FlagValues()
    absl_flags.DEFINE_boolean("help", False, "show the flags", short_name="h", flag_values=values)
    absl_flags.DEFINE_enum("target", None, sorted(gates()), "what takes the bytes", flag_values=values)
    absl_flags.DEFINE_integer("seconds", 600, "how long", lower_bound=1, flag_values=values)
    absl_flags.DEFINE_string("corpus", "build/fuzz", "folder for inputs found on the way", flag_values=values)
    try:
        parse_flags(values, arguments)
        if values.help:
            print(__doc__ + values.get_help())
            return 0
        if values.target is None:
            raise ConfigError(f"--target is missing: one of {', '.join(sorted(gates()))}.")
        fuzz(gates()[values.target], Path(values.corpus, values.target), values.seconds)
    except ConfigError as error:
        return failed("benchmarks.fuzz", error, code=2)
    return 0


def fuzz(target: Target, folder: Path, seconds: int) -> None:
    """Does not return."""
    try:
        import atheris
    except ImportError:
        raise ConfigError("atheris is missing: pip install atheris (Linux, Python 3.11 to 3.13).") from None
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
        take(target, seed)  # imports what it needs, before memory is looked at
    for name, module in list(sys.modules.items()):
        if name.startswith(INSTRUMENTED):
            for value in vars(module).values():
                if isinstance(value, types.FunctionType) and value.__module__ == name:
                    atheris.instrument_func(value)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={_resident_mebibytes() + MORE_MEMORY}",
        f"-artifact_prefix={folder}/",
        f"-max_len={LONGEST}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], lambda content: take(target, content))
    atheris.Fuzz()


def take(target: Target, content: bytes) -> None:
    """One input; a refusal is right."""
    with contextlib.suppress(*target.refusals):
        target.take(content)


def _resident_mebibytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
