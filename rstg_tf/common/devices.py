"""What a run computes on: replicas, number format, and the promise of equal bits."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.errors import ConfigError


def prepare(
    *, num_virtual_devices: int = 0, precision: str = "float32", seed: int = 0
) -> tf.distribute.MirroredStrategy:
    """Sets precision and seeds of this process and returns its strategy: call it before building a model.

    Replicas: the GPUs if there are any, else the CPU; with `num_virtual_devices` that many parts of the CPU, for trying
    several replicas without a GPU. The same inputs then give the same bits on the same machine with the same number of
    replicas; on others they agree up to rounding.

    TensorFlow's switch for deterministic kernels is for GPUs alone. The CPU's kernels give the same bits without it,
    and it costs: bias additions are no longer fused, some 5 % of a step of the SyncMNIST model.
    """
    set_precision(precision)
    keras.utils.set_random_seed(seed)
    if num_virtual_devices:
        _split_cpu(num_virtual_devices)
        return cpu_strategy(num_virtual_devices)
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return cpu_strategy(1)
    tf.config.experimental.enable_op_determinism()
    return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])


def has_gpu() -> bool:
    """Whether this process sees a GPU (`tf.config.set_visible_devices` may hide it)."""
    return bool(tf.config.get_visible_devices("GPU"))


def cpu_strategy(replicas: int) -> tf.distribute.MirroredStrategy:
    """Replicas on the first logical CPUs.

    They exchange by plain copies: the collective operations that TensorFlow would take remember, as long as the process
    lives, how many replicas the first strategy had.
    """
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(replicas)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def set_precision(precision: str) -> None:
    """'float32', or 'mixed_bfloat16': weights in float32, most arithmetic in bfloat16."""
    keras.mixed_precision.set_global_policy(precision)


def check_batch_divides(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raises ConfigError if the replicas would get different shares of a batch."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ConfigError(
            f"--batch_size={batch_size} (global) does not divide among {replicas} replicas: give a "
            f"multiple of {replicas}."
        )


def _split_cpu(count: int) -> None:
    try:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:  # TensorFlow has started: the split of an earlier call stays
        found = len(tf.config.list_logical_devices("CPU"))
        if found < count:
            raise ConfigError(
                f"--num_virtual_devices={count}: TensorFlow has started with {found} part(s) of the CPU "
                "in this process and cannot split it again."
            ) from error
