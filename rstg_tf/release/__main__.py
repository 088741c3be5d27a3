"""The command `python -m rstg_tf.release`; see `tool`."""

import sys

from rstg_tf.release.tool import main

sys.exit(main(sys.argv[1:]))
