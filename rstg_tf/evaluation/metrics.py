"""What an evaluation found: logits and labels of every clip -> accuracies, intervals, confusions. No TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import entr, logsumexp, softmax
from scipy.stats import binomtest
from sklearn import metrics

from rstg_tf.common.files import whole_file

RESULT_FILE = "result.json"
SCORES_FILE = "scores.npz"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of a data set of n clips, in the order of its records.

    `logits` float32 [n, classes], the mean over a clip's views; `labels` int64 [n]; `media_ids`, n names; `views`, how
    many were averaged. Classes with equal logits rank by their number, the lower one first, as in argmax.
    """

    logits: np.ndarray
    labels: np.ndarray
    media_ids: tuple[str, ...]
    views: int = 1

    @property
    def num_clips(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]

    @property
    def predictions(self) -> np.ndarray:
        """The class with the largest logit: int64 [n]."""
        return self.logits.argmax(axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """softmax(logits): float64 [n, classes]."""
        return softmax(self.logits.astype(np.float64), axis=1)

    @property
    def loss(self) -> float:
        """Mean cross-entropy per clip: log Σ exp(logits) - logit of the label, in nats."""
        logits = self.logits.astype(np.float64)
        return float(np.mean(logsumexp(logits, axis=1) - logits[np.arange(self.num_clips), self.labels]))

    def right_within(self, k: int) -> int:
        """Clips whose label is among their k best classes. For k ≥ classes: all of them."""
        own = self.logits[np.arange(self.num_clips), self.labels][:, None]  # [n, 1]
        lower_number = np.arange(self.num_classes) < self.labels[:, None]  # [n, classes]
        ahead = (self.logits > own) | ((self.logits == own) & lower_number)
        return int(np.sum(ahead.sum(axis=1) < k))

    @property
    def top1(self) -> float:
        return self.right_within(1) / self.num_clips

    @property
    def top5(self) -> float:
        return self.right_within(5) / self.num_clips

    def confusion(self) -> np.ndarray:
        """Clips by true class (rows) and predicted class (columns): int64 [classes, classes]; its sum is n."""
        return metrics.confusion_matrix(self.labels, self.predictions, labels=np.arange(self.num_classes))

    def confused_pairs(self) -> list[tuple[int, int, int, float]]:
        """(true class, predicted class, clips, their share of the true class's clips), most clips first."""
        confusion = self.confusion()
        clips = confusion.sum(axis=1)
        pairs = [(int(true), int(predicted)) for true, predicted in zip(*np.nonzero(confusion)) if true != predicted]
        pairs.sort(key=lambda pair: (-confusion[pair], pair))
        return [(*pair, int(confusion[pair]), float(confusion[pair] / clips[pair[0]])) for pair in pairs]

    def class_accuracies(self) -> np.ndarray:
        """Share of each class's clips that were named right: float64 [classes], NaN for a class without clips."""
        confusion = self.confusion()
        clips = confusion.sum(axis=1)
        return np.where(clips > 0, np.diag(confusion) / np.maximum(clips, 1), np.nan)

    def figures(self) -> dict[str, Any]:
        """The numbers of result.json that follow from the scores; accuracies are shares, 0…1."""
        low, high = wilson_interval(self.right_within(1), self.num_clips)
        low5, high5 = wilson_interval(self.right_within(5), self.num_clips)
        return {
            "clips": self.num_clips,
            "views": self.views,
            "top1": self.top1,
            "top5": self.top5,
            "top1_interval": [low, high],
            "top5_interval": [low5, high5],
            "class_mean_accuracy": float(np.nanmean(self.class_accuracies())),
            "loss": self.loss,
        }


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a share right/total (Wilson, JASA 1927), which holds near 0 and 1 too.

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = right/total, n = total, z the 97.5 % quantile, 1.96.
    """
    interval = binomtest(right, total).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def attention_entropy(attention: np.ndarray) -> np.ndarray:
    """-Σ_j α_ij ln α_ij / ln N: float64 [..., N], from 0 (i listens to one node) to 1 (to all alike).

    `attention`: weights α [..., N, N] whose rows sum to 1, or to 0 for a node without neighbours, whose entropy is 0.
    """
    return entr(attention.astype(np.float64)).sum(axis=-1) / np.log(max(attention.shape[-1], 2))


def write_scores(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """An .npz of `logits`, `labels` and `media_ids` (strings), for ensembles; whole or not at all."""
    with whole_file(path, "wb") as file:
        np.savez_compressed(
            file,
            logits=evaluation.logits,
            labels=evaluation.labels,
            media_ids=np.array(evaluation.media_ids, dtype=np.str_),
        )


def ranking(logits: np.ndarray, class_names: Sequence[str], top: int) -> list[dict]:
    """The `top` likeliest classes, likeliest first (equals by number); probability = softmax(logits)."""
    shares = softmax(logits.astype(np.float64))
    order = np.argsort(-shares, kind="stable")[:top]
    return [{"class": int(label), "name": class_names[label], "probability": float(shares[label])} for label in order]
