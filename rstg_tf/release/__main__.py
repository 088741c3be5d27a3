"""The command `python -m rstg_tf.release`; see `tool`."""

from rstg_tf.common.command_line import run_program
from rstg_tf.release.tool import main

run_program(main, name="release", interrupted="nothing was written.")
