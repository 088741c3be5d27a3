"""Weights in the two forms that other models start from: TF1 checkpoints, and runs of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from rstg_tf import build_model, release
from rstg_tf.config import ExperimentConfig
from rstg_tf.release.names import weight_entries
from rstg_tf.runs.checkpoints import Checkpoints
from rstg_tf.runs.run_folder import RunFolder
from rstg_tf.runs.weight_average import WeightAverage
from rstg_tf.training.optimizers import build_optimizer


def entry_values(model) -> dict[str, np.ndarray]:
    """A model's weights under the release's names."""
    return release.entry_tensors(weight_entries(model))


def save_tf1(folder: os.PathLike, tensors: Mapping[str, np.ndarray], *, step: int | None = 12) -> str:
    """Written by TensorFlow 1's own Saver, with the file `checkpoint`; returns the prefix."""
    counters = {} if step is None else {"global_step": np.int64(step)}
    os.makedirs(folder, exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in {**tensors, **counters}.items():
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        return tf.compat.v1.train.Saver().save(session, os.path.join(folder, f"model_{step or 0}.ckpt"))


def load_tf1(prefix: str) -> dict[str, np.ndarray]:
    """Read by TensorFlow 1's own Saver into variables of the names and shapes found."""
    shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    types = tf.train.load_checkpoint(prefix).get_variable_to_dtype_map()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, shape, types[name], use_resource=False)
            for name, shape in shapes.items()
        }
        tf.compat.v1.train.Saver().restore(session, prefix)
        return session.run(variables)


def save_run(folder: os.PathLike, config: ExperimentConfig, *, averaged: bool = False):
    """A run of ours whose only checkpoint, ckpt-0, is also its best; returns the model, and the average or None."""
    model = build_model(config.model)
    for weight in model.trainable_variables:  # biases and new gammas too, which start at one value
        weight.assign_add(tf.random.normal(weight.shape, stddev=0.1))
    optimizer = build_optimizer(config.train, total_steps=1, variables=model.trainable_variables)
    average = None
    if averaged:
        average = WeightAverage(model.trainable_variables, 0.9)
        for value in average.values:
            value.assign(2.0 * value)
    with RunFolder(str(folder), config) as run:
        checkpoints = Checkpoints(run, model=model, optimizer=optimizer, average=average, keep=1)
        checkpoints.save()
        checkpoints.save_best(0.5)
    return model, average
