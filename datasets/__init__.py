"""Everything before a batch exists: digits, SyncMNIST, video in, TFRecord shards, the input pipeline and its checks."""
