"""The folder `report/` of a run: what an evaluation found, for people (index.html) and for programs (CSV, JSON).

    index.html         everything below on one page
    confusion.csv/png  clips by true and predicted class
    per_class.csv      clips, accuracy and precision of each class
    confused_pairs.csv which class is taken for which, most often first
    clips/*.gif        the most confident mistakes with the graph's attention drawn over them; clips.json: their numbers
    attention.json/png how much attention each scale gives to each scale
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rstg_tf import drawing, regions
from rstg_tf.evaluation import Evaluation
from rstg_tf.report_page import page
from rstg_tf.runs import sync_folder

PER_CLASS_COLUMNS = ("class", "name", "clips", "predicted", "right", "accuracy", "precision")
PAIR_COLUMNS = ("true", "predicted", "clips", "share_of_true")
MESSAGES_IN_JSON = 10


@dataclasses.dataclass(frozen=True)
class Example:
    """A clip to show. `kind` is 'mistake' (most confident first) or 'unsure' (right, least confident first)."""

    kind: str
    index: int
    media_id: str
    label: int
    prediction: int
    probability: float

    @property
    def file(self) -> str:
        return f"clips/{self.kind}-clip{self.index}.gif"


def write_report(directory: str, *, model, evaluation: Evaluation, class_names: Sequence[str],
                 result: Mapping[str, Any], load_clips: Callable[[Iterable[int]], Mapping[int, np.ndarray]],
                 num_examples: int = 6, num_described: int = 64) -> None:
    """Writes the folder anew; the old one stays until the new one is whole.

    Args:
      model: asked `describe(video)["attention"]`, place -> α [B, K, T, N, N]; without a graph clips are shown plain.
      result: the evaluation's result.json, shown at the top.
      load_clips: indices -> {index: uint8 [T, H, W, C]}, as they were evaluated.
      num_examples: clips to animate. num_described: clips, spread evenly over the data set, in the mean attention.
    """
    building = f"{directory}.tmp-{os.getpid()}"
    for stale in glob.glob(f"{glob.escape(directory)}.tmp-*"):
        shutil.rmtree(stale)
    os.makedirs(os.path.join(building, "clips"))
    try:
        _fill(building, model=model, evaluation=evaluation, class_names=class_names, result=result,
              load_clips=load_clips, num_examples=num_examples, num_described=num_described)
        sync_folder(building)
        _put_in_place(building, directory)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _fill(folder: str, *, model, evaluation: Evaluation, class_names: Sequence[str], result: Mapping[str, Any],
          load_clips: Callable, num_examples: int, num_described: int) -> None:
    examples = choose_examples(evaluation, num_examples)
    spread = np.unique(np.linspace(0, evaluation.num_clips - 1, min(num_described, evaluation.num_clips)).astype(int))
    clips = load_clips(sorted({*(example.index for example in examples), *spread.tolist()}))
    attention = _attention_of(model, clips)
    _write_confusion(folder, evaluation, class_names, result)
    _write_examples(folder, examples, clips, attention, class_names)
    summary = attention_summary([attention[index] for index in spread.tolist()])
    _write_attention(folder, summary)
    with open(os.path.join(folder, "index.html"), "w", encoding="utf-8") as file:
        file.write(page(result=result, examples=examples, attention=summary["places"],
                        per_class=(PER_CLASS_COLUMNS, per_class_rows(evaluation, class_names)),
                        pairs=(PAIR_COLUMNS, confused_pairs(evaluation, class_names))))


def choose_examples(evaluation: Evaluation, count: int) -> list[Example]:
    """The most confident mistakes; where there are fewer than `count`, then the least confident right answers."""
    predictions = evaluation.predictions
    clips = np.arange(evaluation.num_clips)
    confidence = evaluation.probabilities[clips, predictions]
    wrong = predictions != evaluation.labels
    mistakes = clips[wrong][np.argsort(-confidence[wrong], kind="stable")][:count]
    unsure = clips[~wrong][np.argsort(confidence[~wrong], kind="stable")][:count - len(mistakes)]
    return [Example(kind=kind, index=int(index), media_id=evaluation.media_ids[index],
                    label=int(evaluation.labels[index]), prediction=int(predictions[index]),
                    probability=float(confidence[index]))
            for kind, chosen in (("mistake", mistakes), ("unsure", unsure)) for index in chosen]


def per_class_rows(evaluation: Evaluation, class_names: Sequence[str]) -> list[tuple]:
    """Rows of PER_CLASS_COLUMNS; accuracy = right / clips, precision = right / predicted, '' where that is 0 / 0."""
    confusion = evaluation.confusion()
    rows = []
    for label, name in enumerate(class_names):
        clips, predicted = int(confusion[label].sum()), int(confusion[:, label].sum())
        right = int(confusion[label, label])
        rows.append((label, name, clips, predicted, right, round(right / clips, 4) if clips else "",
                     round(right / predicted, 4) if predicted else ""))
    return rows


def confused_pairs(evaluation: Evaluation, class_names: Sequence[str]) -> list[tuple]:
    """Rows of PAIR_COLUMNS for every pair of different classes that was confused, most clips first."""
    confusion = evaluation.confusion()
    clips = confusion.sum(axis=1)
    pairs = [(true, predicted) for true, predicted in zip(*np.nonzero(confusion)) if true != predicted]
    pairs.sort(key=lambda pair: (-confusion[pair], pair))
    return [(class_names[true], class_names[predicted], int(confusion[true, predicted]),
             round(float(confusion[true, predicted] / clips[true]), 4)) for true, predicted in pairs]


def attention_by_scale(attention: np.ndarray) -> np.ndarray:
    """What share of its attention a node of scale r gives to the nodes of scale s together, on average.

    mean over the nodes i of r of Σ_(j in s) α_ij: [..., N, N] -> [..., S, S], finest scale first; its rows sum to 1.
    """
    scale = _scale_of_nodes(attention)
    member = (scale[None, :] == np.unique(scale)[::-1][:, None]).astype(np.float64)  # [S, N]
    return (member / member.sum(axis=1, keepdims=True)) @ attention @ member.T


def attention_summary(attention: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Means over clips (each place -> α [K, T, N, N]) and time of attention by scale, per space stage, as for JSON.

    `share[k][r][s]`: see `attention_by_scale`. `share_if_all_alike[s]`: the part of the nodes that are of scale s.
    `share_to_itself[k][r]`: mean of α_ii. `mean_attention[k][i][j]`: α itself.
    """
    places = {}
    for place in attention[0]:
        mean = np.mean([clip[place].astype(np.float64).mean(axis=1) for clip in attention], axis=0)  # [K, N, N]
        scale = _scale_of_nodes(mean)
        sizes = np.unique(scale)[::-1]
        own = np.diagonal(mean, axis1=1, axis2=2)  # [K, N]
        places[place] = {
            "scales": [f"{size}×{size}" for size in sizes],
            "share": attention_by_scale(mean).tolist(),
            "share_if_all_alike": [float(np.mean(scale == size)) for size in sizes],
            "share_to_itself": [[float(stage[scale == size].mean()) for size in sizes] for stage in own],
            "nodes": drawing.node_names(len(sizes)),
            "mean_attention": mean.tolist()}
    return {"clips": len(attention), "places": places}


def _scale_of_nodes(attention: np.ndarray) -> np.ndarray:
    return regions.scale_of_nodes(drawing.count_scales(attention))


def _attention_of(model, clips: Mapping[int, np.ndarray]) -> dict[int, dict[str, np.ndarray]]:
    """Clip -> place of a graph -> α [K, T, N, N]; places without a space stage (K = 0) are left out."""
    if not hasattr(model, "describe"):
        return {index: {} for index in clips}
    describe = tf.function(lambda video: model.describe(video)["attention"])
    described = {}
    for index, video in clips.items():
        weights = {place: alpha[0].numpy() for place, alpha in describe(video[None]).items()}
        described[index] = {place: alpha for place, alpha in weights.items() if len(alpha)}
    return described


def _write_confusion(folder: str, evaluation: Evaluation, class_names: Sequence[str],
                     result: Mapping[str, Any]) -> None:
    confusion = evaluation.confusion()
    _write_csv(os.path.join(folder, "confusion.csv"), ("true \\ predicted", *class_names),
               [(name, *row) for name, row in zip(class_names, confusion.tolist())])
    _write_csv(os.path.join(folder, "per_class.csv"), PER_CLASS_COLUMNS, per_class_rows(evaluation, class_names))
    _write_csv(os.path.join(folder, "confused_pairs.csv"), PAIR_COLUMNS, confused_pairs(evaluation, class_names))
    title = f"{result.get('dataset', 'clips')}: {evaluation.num_clips} clips, top-1 {evaluation.top1:.3f}"
    drawing.save_confusion(os.path.join(folder, "confusion.png"), confusion, class_names, title=title)


def _write_examples(folder: str, examples: Sequence[Example], clips: Mapping[int, np.ndarray],
                    attention: Mapping[int, Mapping[str, np.ndarray]], class_names: Sequence[str]) -> None:
    records = []
    for example in examples:
        weights = attention[example.index]
        last_stage = {place: alpha[-1] for place, alpha in weights.items()}
        heading = [f"true: {class_names[example.label]}",
                   f"predicted: {class_names[example.prediction]}   (probability {example.probability:.3f})",
                   f"{example.media_id}{_stage_text(weights)}"]
        drawing.save_gif(os.path.join(folder, example.file),
                         drawing.clip_frames(clips[example.index], last_stage, heading=heading))
        records.append({**dataclasses.asdict(example), "file": example.file, "true": class_names[example.label],
                        "predicted": class_names[example.prediction],
                        "attention": {place: _numbers_beside(alpha) for place, alpha in last_stage.items()}})
    _write_json(os.path.join(folder, "clips.json"), records)


def _stage_text(weights: Mapping[str, np.ndarray]) -> str:
    counts = sorted({len(alpha) for alpha in weights.values()})
    return f"   attention of the last of {' and '.join(map(str, counts))} space stages" if counts else ""


def _numbers_beside(attention: np.ndarray) -> dict[str, Any]:
    """What is drawn over a clip, as numbers: α [T, N, N] -> by step, attention received and the strongest messages."""
    names = drawing.node_names(drawing.count_scales(attention))
    return {"nodes": names,
            "received": np.round(drawing.received_attention(attention), 4).tolist(),
            "strongest_messages": [[{"from": names[sender], "to": names[receiver], "weight": round(weight, 4)}
                                    for sender, receiver, weight in drawing.strongest_messages(step, MESSAGES_IN_JSON)]
                                   for step in attention]}


def _write_attention(folder: str, summary: Mapping[str, Any]) -> None:
    if not summary["places"]:
        return
    _write_json(os.path.join(folder, "attention.json"), summary)
    drawing.save_scale_attention(
        os.path.join(folder, "attention.png"),
        {place: np.array(found["share"]) for place, found in summary["places"].items()},
        {place: np.array(found["share_if_all_alike"]) for place, found in summary["places"].items()},
        title=f"Attention between the scales, mean over {summary['clips']} clips (×1: as if all nodes were alike)")


def _write_csv(path: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def _write_json(path: str, values: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=1, ensure_ascii=False)
        file.write("\n")


def _put_in_place(building: str, directory: str) -> None:
    old = f"{building}-old"
    if os.path.exists(directory):
        os.rename(directory, old)
    os.rename(building, directory)
    shutil.rmtree(old, ignore_errors=True)
