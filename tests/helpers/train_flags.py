"""What the tests that start train.py share."""

from __future__ import annotations

import pathlib

SECONDS = 240  # far above what any of these runs takes; a hang fails instead of blocking


def write_flag_file(directory: pathlib.Path, toy_records: pathlib.Path) -> pathlib.Path:
    """A small run with everything that has state: slots, batch norm, averages, dropout, augmentation."""
    path = directory / "toy.flags"
    path.write_text(
        "\n".join(
            [
                f"--train_dataset={toy_records / 'train'}",
                f"--test_dataset={toy_records / 'test'}",
                "--num_conv_layers=1",
                "--num_filters=4",
                "--num_scales=2",
                "--num_process_iter=1",
                "--node_feat_dim=4",
                "--message_dims=4",
                "--dim_h=12",
                "--dim_w=12",
                "--video_num_frames=4",
                "--num_classes=2",
                "--batch_size=8",
                "--pixel_scaling=centred",
                "--input_batch_norm",
                "--optimizer=adam",
                "--learning_rate=1e-3",
                "--ema_momentum=0.9",
                "--classification_dropout=0.2",
                "--brightness=0.1",
                "--horizontal_flip",
            ]
        )
    )
    return path
