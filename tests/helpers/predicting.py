"""Small runs for predict, and what it says."""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf

from rstg_tf import flags, predict
from rstg_tf.model import build_model

COLOUR = {
    "num_conv_layers": 2,
    "num_filters": 6,
    "num_scales": 2,
    "num_process_iter": 2,
    "node_feat_dim": 6,
    "message_dims": 6,
    "dim_h": 32,
    "dim_w": 32,
    "num_chan": 3,
    "video_num_frames": 6,
    "num_classes": 3,
    "pixel_scaling": "centred",
    "short_side": 40,
}
COLOUR_CLASSES = ("driving", "talking", "größer werden")


def write_run(folder, settings, *, manifests):
    """A run folder with one checkpoint, step 5, of random weights; `manifests`: train and test dataset.json."""
    config = flags.config_from_settings(settings)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    for split, manifest in manifests.items():
        (folder / f"{split}_dataset.json").write_text(manifest, encoding="utf-8")
    tf.keras.utils.set_random_seed(3)
    model = build_model(config.model)
    for weight in model.classifier.trainable_weights:
        weight.assign(3 * weight)  # answers that differ
    tf.train.Checkpoint(model=model).write(str(folder / "checkpoints" / "ckpt-5"))
    return folder


def printed(capsys, *arguments, code=0):
    """What predict.main prints with these arguments: (standard output, standard error)."""
    assert predict.main([str(argument) for argument in arguments]) == code
    return capsys.readouterr()


def answered(capsys, *arguments):
    return json.loads(printed(capsys, *arguments, "--json").out)


def refused(capsys, *arguments, code=2):
    error = printed(capsys, *arguments, code=code).err
    assert error.startswith("predict: ") and error.count("\n") == 1
    return error


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum()


def probabilities(found):
    """The probabilities of a complete ranking by class."""
    return [row["probability"] for row in sorted(found["top"], key=lambda row: row["class"])]
