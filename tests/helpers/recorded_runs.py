"""Two runs of three steps that were recorded, one on each stack, for the tests of what crosses between the stacks.

tests/golden/stacks/old/   Python 3.11, TensorFlow 2.15.1, Keras 2.15; from before runs had a stack.json
tests/golden/stacks/new/   Python 3.13, TensorFlow 2.21.0, Keras 3.15.1
    config.json  checkpoints/ckpt-3.*  expected.npz: 'weights', what `all_weights` gives of the averaged ones, and
    'logits' of `clips(seed=9)` by them

python tests/helpers/recorded_runs.py FOLDER      records one with the Python that runs it
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNS = ROOT / "tests" / "golden" / "stacks"
STEP = 3
# Every kind of weight that a small model can have: kernels of convolutions and dense layers, norms in all places.
SETTINGS = {
    "num_conv_layers": 1,
    "num_filters": 4,
    "num_scales": 2,
    "num_process_iter": 2,
    "node_feat_dim": 4,
    "message_dims": 6,
    "dim_h": 8,
    "dim_w": 8,
    "num_chan": 1,
    "video_num_frames": 3,
    "num_classes": 3,
    "batch_size": 4,
    "pixel_scaling": "centred",
    "input_batch_norm": True,
    "use_norm": "LN",
    "stage_norm": True,
    "residual_stages": True,
    "use_positional_emb": True,
    "dim_map": 2,
    "scalewise_update": True,
    "use_att": "simple",
    "classification_dropout": 0.2,
    "loss_reduction": "mean",
    "optimizer": "adamw",
    "learning_rate": 1e-2,
    "weight_decay": 0.01,
    "warmup_steps": 2,
    "ema_momentum": 0.5,
    "num_steps": STEP,
    "save_every": STEP,
    "print_every": STEP,
}


def clips(seed: int, count: int = 4) -> dict[str, np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(seed))
    return {
        "video": generator.integers(0, 256, (count, 3, 8, 8, 1)).astype(np.uint8),
        "label": generator.integers(0, 3, count),
    }


class Data:
    """What the runs learnt from: the batch of step s is `clips(seed=s)`. No test clips."""

    num_clips, manifests = 40, {}

    def batches(self, start_step: int) -> tf.data.Dataset:
        drawn = [clips(seed) for seed in range(start_step, start_step + 20)]
        return tf.data.Dataset.from_tensor_slices(
            {name: np.stack([part[name] for part in drawn]) for name in ("video", "label")}
        )

    def evaluate(self, model, stopped) -> None:
        return None

    def sample(self) -> None:
        return None


def all_weights(model) -> np.ndarray:
    """All values of a model, in the order of the weights' names in the release."""
    from rstg_tf import release
    from rstg_tf.release.names import weight_entries

    tensors = release.entry_tensors(weight_entries(model))
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


def record(folder: str) -> None:
    from rstg_tf import flags, runs
    from rstg_tf.training import loop

    config = flags.config_from_settings(SETTINGS)
    loop.train(config, folder, Data())
    model, _ = runs.open_run(folder).load_model()
    logits = model(clips(seed=9)["video"], training=False)
    np.savez(pathlib.Path(folder, "expected.npz"), logits=np.asarray(logits), weights=all_weights(model))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    record(sys.argv[1])
