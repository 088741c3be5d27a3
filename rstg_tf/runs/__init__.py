"""Trained runs on the disk: `open_run("runs/demo")` gives config, class names and the model with its weights."""

from rstg_tf.runs.run import Run, newest_run, open_run

__all__ = ["Run", "newest_run", "open_run"]
