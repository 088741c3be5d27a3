"""Random bytes against the gates for bytes of others: `benchmarks.faults.gates`.

    python -m benchmarks.fuzz --target=pickle [--seconds=600] [--corpus=FOLDER]

libFuzzer, through atheris (Linux, Python 3.11 to 3.13; `make fuzz` installs it), changes the seeds so that ever more of
the Python code runs; of what lies in C or in a graph it sees nothing, so half of the inputs begin from a seed. It ends
at the first find with its traceback, and keeps the bytes as crash-… in the folder --corpus.
`make fuzz` does it with every target.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags as absl_flags

from benchmarks.faults.gates import Target, gates
from rstg_tf.common.command_line import failed, parse_flags
from rstg_tf.common.errors import ConfigError
from rstg_tf.common.flag_files import FlagValues

MORE_MEMORY = 1024  # MiB beyond what the process has when it begins
SLOWEST = 10  # seconds for one input
LONGEST = 4096  # bytes of one
INSTRUMENTED = ("rstg_tf.", "datasets.", "model_servers", "PIL.", "pickletools", "yaml.")


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
        raise ConfigError("atheris is missing: pip install -r benchmarks/faults/requirements.txt.") from None
    folder.mkdir(parents=True, exist_ok=True)
    seeds = target.seeds()
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(seed)
        take(target, seed)  # imports what it needs, before memory is looked at
    for name, module in list(sys.modules.items()):
        if name.startswith(INSTRUMENTED):
            for function in functions_of(module):
                atheris.instrument_func(function)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={_resident_mebibytes() + MORE_MEMORY}",
        f"-artifact_prefix={folder}/",
        f"-max_len={LONGEST}",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [sys.argv[0], *options, str(folder)],
        lambda content: take(target, content),
        custom_mutator=lambda content, size, number: changed(content, size, seeds, number, atheris.Mutate),
    )
    atheris.Fuzz()


def changed(content: bytes, size: int, seeds: Sequence[bytes], number: int, change: Callable) -> bytes:
    """An input of at most `size` bytes, made from `content` or a seed by one to four of libFuzzer's changes."""
    draw = random.Random(number)
    content = draw.choice(seeds)[:size] if draw.random() < 0.5 else content
    for _ in range(draw.randint(1, 4)):
        content = change(content, size)
    return content


def functions_of(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """The functions of a module and the methods of its classes, without what wraps them."""
    for value in vars(module).values():
        held = vars(value).values() if inspect.isclass(value) and value.__module__ == module.__name__ else [value]
        for wrapped in held:
            inner = getattr(wrapped, "fget", getattr(wrapped, "__func__", wrapped))  # of properties, class methods
            function = inspect.unwrap(inner) if callable(inner) else inner
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                yield function


def take(target: Target, content: bytes) -> None:
    """One input; a refusal is right."""
    with contextlib.suppress(*target.refusals):
        target.take(content)


def _resident_mebibytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
