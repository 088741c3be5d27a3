"""SyncMNIST: which two digits move in step. `python -m datasets.sync_mnist` writes it; so does `write_dataset`."""

from datasets.sync_mnist.plans import SyncMnistSettings
from datasets.sync_mnist.presets import PRESETS
from datasets.sync_mnist.writing import write_dataset

__all__ = ["PRESETS", "SyncMnistSettings", "write_dataset"]
