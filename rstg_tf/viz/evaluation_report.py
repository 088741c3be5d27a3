"""The folder `report/` of a run: what an evaluation found, for people (index.html) and for programs (CSV, JSON).

index.html         everything below on one page
confusion.csv/png  clips by true and predicted class
per_class.csv      clips, accuracy and precision of each class
confused_pairs.csv which class is taken for which, most often first
clips/*.gif        the most confident mistakes with the graph's attention drawn over them; clips.json: their numbers
graph/             who listens to whom: scales.png/json, and the surest mistakes in detail, see `graph_report`
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rstg_tf.common.files import whole_folder, write_json, write_text
from rstg_tf.common.shown import csv_text
from rstg_tf.common.spacing import evenly_spaced_indices
from rstg_tf.evaluation.metrics import Evaluation
from rstg_tf.viz import frame_overlay
from rstg_tf.viz.attention_stats import coarse_to_fine, steps_in_json
from rstg_tf.viz.confusion_plot import save_confusion
from rstg_tf.viz.graph_report import write_graph_pictures
from rstg_tf.viz.html_page import heading, image, link, page, paragraph, table

PER_CLASS_COLUMNS = ("class", "name", "clips", "predicted", "right", "accuracy", "precision")
EXAMPLE_KINDS = {"mistake": "Most confident mistakes", "unsure": "Right answers that it was least sure of"}
HOW_TO_READ = (
    "Left the clip; beside it, if the model has a graph, its regions scale by scale. Tint and number: the attention "
    "that a region receives from all, 1.0 being its share if all were alike. Arrows: the strongest messages, from "
    "sender to receiver, wider for larger weights."
)
PAIR_COLUMNS = ("true", "predicted", "clips", "share_of_true")


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


def write_report(
    directory: str | os.PathLike,
    *,
    model,
    evaluation: Evaluation,
    class_names: Sequence[str],
    result: Mapping[str, Any],
    load_clips: Callable[[Iterable[int]], Mapping[int, np.ndarray]],
    num_examples: int = 6,
    num_detailed: int = 2,
    num_described: int = 64,
) -> None:
    """Writes the folder anew; the old one stays until the new one is whole.

    Args:
      model: asked `describe(video)`: 'logits' [B, classes] and 'attention', place -> α [B, K, T, N, N]; without a graph
        clips are shown plain.
      result: the evaluation's result.json, shown at the top.
      load_clips: indices -> {index: uint8 [T, H, W, C]}, as they were evaluated (of several views the centre one).
      num_examples: clips to animate; num_detailed: of these, the first, in every detail.
      num_described: clips, spread evenly over the data set, in the mean attention.
    """
    with whole_folder(directory) as building:
        (building / "clips").mkdir()
        _fill(
            building,
            model=model,
            evaluation=evaluation,
            class_names=class_names,
            result=result,
            load_clips=load_clips,
            num_examples=num_examples,
            num_detailed=num_detailed,
            num_described=num_described,
        )


def _fill(
    folder: Path,
    *,
    model,
    evaluation: Evaluation,
    class_names: Sequence[str],
    result: Mapping[str, Any],
    load_clips: Callable,
    num_examples: int,
    num_detailed: int,
    num_described: int,
) -> None:
    examples = choose_examples(evaluation, num_examples)
    described = evenly_spaced_indices(evaluation.num_clips, min(num_described, evaluation.num_clips))
    clips = load_clips(sorted({*(example.index for example in examples), *described}))
    attention = _attention_of(model, {example.index: clips[example.index] for example in examples})
    _write_confusion(folder, evaluation, class_names, result)
    _write_examples(folder, examples, clips, attention, class_names)
    summary = {"places": {}}
    if hasattr(model, "describe"):
        summary = write_graph_pictures(
            folder / "graph",
            model=model,
            class_names=class_names,
            clips={_clip_name(index): video for index, video in clips.items()},
            labels={_clip_name(index): int(evaluation.labels[index]) for index in clips},
            drawn=[_clip_name(example.index) for example in examples[:num_detailed]],
            averaged=[_clip_name(index) for index in described],
        )
    text = page("Evaluation", _page_parts(evaluation, class_names, result, examples, summary["places"]))
    (folder / "index.html").write_text(text, encoding="utf-8")


def _page_parts(
    evaluation: Evaluation,
    class_names: Sequence[str],
    result: Mapping[str, Any],
    examples: Sequence[Example],
    attention: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """The tables, pictures and links of index.html; `attention`: the places of `attention_summary`."""
    # The confused pairs have a table of their own.
    figures = [(key, _shown(value)) for key, value in result.items() if key != "confused_pairs"]
    accuracy = PER_CLASS_COLUMNS.index("accuracy")
    worst = sorted(per_class_rows(evaluation, class_names), key=lambda row: (row[accuracy] == "", row[accuracy], row))
    parts = [
        table((), figures),
        heading("Confusion matrix"),
        image("confusion.png"),
        link("confusion.csv"),
        heading("Most confused classes"),
        table(PAIR_COLUMNS, confused_pairs(evaluation, class_names)),
        link("confused_pairs.csv"),
        heading("Classes, worst first"),
        table(PER_CLASS_COLUMNS, worst),
        link("per_class.csv"),
    ]
    for kind, title in EXAMPLE_KINDS.items():
        files = [example.file for example in examples if example.kind == kind]
        if files:
            parts += [heading(title), paragraph(HOW_TO_READ), *map(image, files)]
    parts.append(link("clips.json"))
    if attention:
        parts += [
            heading("Who listens to whom"),
            *map(paragraph, map(coarse_to_fine, attention, attention.values())),
            image("graph/scales.png"),
            link("graph/scales.json"),
            link("graph/index.html"),
        ]
    return parts


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return " – ".join(map(_shown, value)) if isinstance(value, list) else str(value)


def _clip_name(index: int) -> str:
    return f"clip-{index}"


def choose_examples(evaluation: Evaluation, count: int) -> list[Example]:
    """The most confident mistakes; where there are fewer than `count`, then the least confident right answers."""
    predictions = evaluation.predictions
    clips = np.arange(evaluation.num_clips)
    confidence = evaluation.probabilities[clips, predictions]
    wrong = predictions != evaluation.labels
    mistakes = clips[wrong][np.argsort(-confidence[wrong], kind="stable")][:count]
    unsure = clips[~wrong][np.argsort(confidence[~wrong], kind="stable")][: count - len(mistakes)]
    return [
        Example(
            kind=kind,
            index=int(index),
            media_id=evaluation.media_ids[index],
            label=int(evaluation.labels[index]),
            prediction=int(predictions[index]),
            probability=float(confidence[index]),
        )
        for kind, chosen in (("mistake", mistakes), ("unsure", unsure))
        for index in chosen
    ]


def per_class_rows(evaluation: Evaluation, class_names: Sequence[str]) -> list[tuple]:
    """Rows of PER_CLASS_COLUMNS; accuracy = right / clips, precision = right / predicted, '' where that is 0 / 0."""
    confusion = evaluation.confusion()
    rows = []
    for label, name in enumerate(class_names):
        clips, predicted = int(confusion[label].sum()), int(confusion[:, label].sum())
        right = int(confusion[label, label])
        rows.append(
            (
                label,
                name,
                clips,
                predicted,
                right,
                round(right / clips, 4) if clips else "",
                round(right / predicted, 4) if predicted else "",
            )
        )
    return rows


def confused_pairs(evaluation: Evaluation, class_names: Sequence[str]) -> list[tuple]:
    """Rows of PAIR_COLUMNS for every pair of different classes that was confused, most clips first."""
    return [
        (class_names[true], class_names[predicted], clips, round(share, 4))
        for true, predicted, clips, share in evaluation.confused_pairs()
    ]


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


def _write_confusion(
    folder: Path, evaluation: Evaluation, class_names: Sequence[str], result: Mapping[str, Any]
) -> None:
    confusion = evaluation.confusion()
    _write_csv(
        folder / "confusion.csv",
        ("true \\ predicted", *class_names),
        [(name, *row) for name, row in zip(class_names, confusion.tolist())],
    )
    _write_csv(folder / "per_class.csv", PER_CLASS_COLUMNS, per_class_rows(evaluation, class_names))
    _write_csv(folder / "confused_pairs.csv", PAIR_COLUMNS, confused_pairs(evaluation, class_names))
    title = f"{result.get('dataset', 'clips')}: {evaluation.num_clips} clips, top-1 {evaluation.top1:.3f}"
    save_confusion(folder / "confusion.png", confusion, class_names, title=title)


def _write_examples(
    folder: Path,
    examples: Sequence[Example],
    clips: Mapping[int, np.ndarray],
    attention: Mapping[int, Mapping[str, np.ndarray]],
    class_names: Sequence[str],
) -> None:
    records = []
    for example in examples:
        weights = attention[example.index]
        last_stage = {place: alpha[-1] for place, alpha in weights.items()}
        heading = [
            f"true: {class_names[example.label]}",
            f"predicted: {class_names[example.prediction]}   (probability {example.probability:.3f})",
            f"{example.media_id}{_stage_text(weights)}",
        ]
        frame_overlay.save_gif(
            folder / example.file, frame_overlay.clip_frames(clips[example.index], last_stage, heading=heading)
        )
        records.append(
            {
                **dataclasses.asdict(example),
                "file": example.file,
                "true": class_names[example.label],
                "predicted": class_names[example.prediction],
                "attention": {place: steps_in_json(alpha) for place, alpha in last_stage.items()},
            }
        )
    write_json(folder / "clips.json", records, indent=1, ensure_ascii=False)


def _stage_text(weights: Mapping[str, np.ndarray]) -> str:
    counts = sorted({len(alpha) for alpha in weights.values()})
    return f"   attention of the last of {' and '.join(map(str, counts))} space stages" if counts else ""


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    write_text(path, csv_text([columns, *rows], line_end="\r\n"))
