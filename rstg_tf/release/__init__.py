"""What the authors' 2019 release wrote, read and written: its YAML configurations and its TF1 checkpoints.

    config = release.config_from_release("config_smt_i3d.yaml")
    model = build_model(config.model)
    release.load_checkpoint(model, "checkpoints/")

    configs   its YAML -> ExperimentConfig                 names, parts   which variable there is which weight here
    weights   its arrays and checkpoints -> a model        fitting        which configuration a checkpoint is of
    writer    a model -> its checkpoint                    tool           `python -m rstg_tf.release`

Needs no TensorFlow until it meets a model or a checkpoint.
"""

from rstg_tf.release.configs import config_from_release
from rstg_tf.release.weights import (
    assign_entries,
    assign_weights,
    entry_tensors,
    load_checkpoint,
    lstm_from_opaque_kernel,
    opaque_kernel_from_lstm,
    opaque_kernels,
    opaque_name,
    release_tensors,
    with_unpacked_lstms,
)

__all__ = [
    "assign_entries",
    "assign_weights",
    "config_from_release",
    "entry_tensors",
    "load_checkpoint",
    "lstm_from_opaque_kernel",
    "opaque_kernel_from_lstm",
    "opaque_kernels",
    "opaque_name",
    "release_tensors",
    "with_unpacked_lstms",
]
