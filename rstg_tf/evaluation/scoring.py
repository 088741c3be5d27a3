"""Exact evaluation: every clip counts once, whatever the batch, the number of replicas and the number of views.

The last batch is padded to the size of the others and the padding's logits are dropped; a clip's logits travel with its
index, so neither the order of the replicas nor that of the batches matters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from rstg_tf.common.devices import has_gpu
from rstg_tf.common.progress_bar import Bar
from rstg_tf.evaluation.metrics import Evaluation


class EvaluationError(RuntimeError):
    """The data set did not deliver every clip as often as it should, or the model gave NaN or Inf."""


class ClipScorer:
    """[rows, T, H, W, C] -> the logits of each replica's share of the rows, in order; float32 whatever the policy.

    `strategy`: by default the one in which the model was built; the rows must divide among its `replicas`. Traced once
    per shape of the video: keep the scorer to evaluate again without a new trace.

    `halves`: each replica's rows go through the model in two halves side by side: small ops of one half run on cores
    that the other leaves idle. None: where it helps, on a CPU with one replica. For the demo's model a forward pass
    then takes 0.8 of the time, for the larger ones 0.94 to 1.
    """

    def __init__(self, model, strategy: tf.distribute.Strategy | None = None, *, halves: bool | None = None):
        self.model = model
        self._strategy = strategy or getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
        self.replicas = self._strategy.num_replicas_in_sync
        self._halves = self.replicas == 1 and not has_gpu() if halves is None else halves

    def __call__(self, video) -> list[tf.Tensor]:
        parts = tf.split(video, self.replicas)
        spread = self._strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )
        return list(self._strategy.experimental_local_results(self._run(spread)))

    @tf.function
    def _run(self, video):
        return self._strategy.run(self._logits, args=(video,))

    def _logits(self, video):
        """In a replica, whose number of rows is known when traced."""
        rows = video.shape[0]
        parts = tf.split(video, [rows // 2, rows - rows // 2]) if self._halves and rows > 1 else [video]
        logits = [self.model(part, training=False) for part in parts]
        return tf.cast(tf.concat(logits, axis=0), tf.float32)


def evaluate_clips(
    model,
    dataset: tf.data.Dataset,
    *,
    num_clips: int,
    views: int = 1,
    scorer: ClipScorer | None = None,
    progress: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """The logits of every clip of a data set, each clip exactly once; None if `stopped()` after some batch.

    Args:
      dataset: batches {"video" [b, T, H, W, C] pixels 0…255, "label" [b], "media_id" [b], "index" [b]}, the index from
        0 to num_clips - 1. b is any size; batches smaller than the first are padded to it.
      views: how often each index comes, once per view (crop or sampling) of the clip; their logits are averaged. The
        views may spread over batches, so memory is that of a batch however many views there are.
      scorer: an earlier `ClipScorer(model)`, to reuse its trace.
      progress: show a bar on a terminal.

    Raises:
      EvaluationError: naming the clip, if one came too often, not often enough, or has NaN or Inf in its logits.
    """
    totals = _Totals(num_clips=num_clips, views=views)
    bar = Bar(
        total=num_clips * views,
        desc="evaluating",
        unit="clip" if views == 1 else "view",
        dynamic_ncols=True,
        disable=not (progress and sys.stderr.isatty()),
    )
    with bar:
        for batch, logits in _scored_batches(scorer or ClipScorer(model), dataset):
            totals.add(batch, logits)
            bar.update(len(logits))
            if stopped():
                return None
    return totals.evaluation()


def _scored_batches(scorer: ClipScorer, dataset: tf.data.Dataset) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Each batch without its video, and its logits; a batch behind, so that the devices don't wait for the host."""
    rows, waiting = 0, None
    for batch in dataset:
        clips = int(batch["video"].shape[0])
        rows = max(rows, -(-clips // scorer.replicas) * scorer.replicas)
        # The last clip again, not zeros: padding must not meet numbers that no clip has.
        video = tf.gather(batch["video"], tf.minimum(tf.range(rows), clips - 1))
        facts = {key: batch[key].numpy() for key in ("label", "media_id", "index")}
        started = facts, scorer(video)
        if waiting:
            yield _collect(*waiting)
        waiting = started
    if waiting:
        yield _collect(*waiting)


def _collect(facts: dict[str, np.ndarray], parts: Sequence[tf.Tensor]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return facts, np.concatenate([part.numpy() for part in parts])[: len(facts["index"])]


class _Totals:
    """Adds up logits by the clips' indices, and counts."""

    def __init__(self, *, num_clips: int, views: int):
        self._views = views
        self._sums: np.ndarray | None = None
        self._seen = np.zeros(num_clips, np.int64)
        self._labels = np.zeros(num_clips, np.int64)
        self._media_ids = [""] * num_clips

    def add(self, batch: dict[str, np.ndarray], logits: np.ndarray) -> None:
        index = batch["index"]
        strange = [int(value) for value in index if not 0 <= value < len(self._seen)]
        if strange:
            raise EvaluationError(f"the data set delivered clip {strange[0]}, expected 0 to {len(self._seen) - 1}.")
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in batch["media_id"]]
        if not np.isfinite(logits).all():
            row = int(np.argmax(~np.isfinite(logits).all(axis=1)))
            raise EvaluationError(
                f"the model's logits of clip {index[row]} ({names[row]}) hold NaN or Inf: {logits[row]}."
            )
        outside = (batch["label"] < 0) | (batch["label"] >= logits.shape[1])
        if outside.any():
            row = int(np.argmax(outside))
            raise EvaluationError(
                f"clip {index[row]} ({names[row]}) has label {batch['label'][row]}, but the model "
                f"has {logits.shape[1]} classes."
            )
        if self._sums is None:
            self._sums = np.zeros((len(self._seen), logits.shape[1]))
        np.add.at(self._sums, index, logits)
        np.add.at(self._seen, index, 1)
        self._labels[index] = batch["label"]
        for position, name in zip(index, names):
            self._media_ids[position] = name

    def evaluation(self) -> Evaluation:
        wrong = np.flatnonzero(self._seen != self._views)
        if len(wrong):
            raise EvaluationError(
                f"{len(wrong)} of {len(self._seen)} clips did not come {self._views} time(s); the "
                f"first is clip {wrong[0]}, which came {self._seen[wrong[0]]} time(s)."
            )
        if self._sums is None:
            raise EvaluationError("the data set holds no clip.")
        return Evaluation(
            logits=(self._sums / self._views).astype(np.float32),
            labels=self._labels,
            media_ids=tuple(self._media_ids),
            views=self._views,
        )
