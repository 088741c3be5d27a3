"""Shards of records -> batches of clips."""
