"""A folder of pictures that show a model's graph at work, with the numbers beside them.

index.html            all pictures on one page
scales.png/json       how much attention each scale gives to each, mean and spread over many clips
CLIP/regions.png      which node is which region
CLIP/PLACE-*.png/gif  one graph (PLACE: final, res3, …) on one clip: see PICTURES
CLIP/clip.json        classes, probabilities, regions, attention: everything that is drawn of the clip
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rstg_tf.common.files import folder_name, write_json
from rstg_tf.common.spacing import evenly_spaced_indices
from rstg_tf.evaluation.metrics import ranking
from rstg_tf.viz import attention_plots, attention_stats, frame_overlay, html_page, overlay_panels

MOST_STEPS = 6  # side by side in small multiples; JSON and animation have all
# Name of a picture of one graph on one clip -> what the page says above it.
PICTURES = {
    "animation.gif": "The clip, and the graph over it, space stage by space stage",
    "overlays.png": "The strongest messages, by space stage (down) and frame (across)",
    "matrices.png": "Who listens to whom, by space stage (down) and frame (across)",
    "mean.png": "Who listens to whom, mean over the frames",
    "curves.png": "How attention changes over the frames",
}


@dataclasses.dataclass(frozen=True)
class SeenClip:
    """A clip as a model saw it: `video` uint8 [T, H, W, C], `logits` [classes], and by the graph's place its attention.

    `attention`: place -> α [K, T', N, N], step t' covering T / T' frames. `label`: None where it is not known.
    """

    name: str
    video: np.ndarray
    logits: np.ndarray
    attention: Mapping[str, np.ndarray]
    label: int | None = None


def see_clips(model, clips: Mapping[str, np.ndarray], labels: Mapping[str, int]) -> list[SeenClip]:
    """Asks `model.describe` about every clip, one at a time. Graphs without a space stage (K = 0) are left out."""
    describe = tf.function(lambda video: {key: model.describe(video)[key] for key in ("logits", "attention")})
    seen = []
    for name, video in clips.items():
        found = describe(tf.constant(video[None]))
        attention = {place: alpha[0].numpy() for place, alpha in found["attention"].items() if alpha.shape[1]}
        seen.append(
            SeenClip(
                name=name, video=video, logits=found["logits"][0].numpy(), attention=attention, label=labels.get(name)
            )
        )
    return seen


def write_graph_pictures(
    directory: str | os.PathLike,
    *,
    model,
    clips: Mapping[str, np.ndarray],
    drawn: Sequence[str],
    class_names: Sequence[str],
    labels: Mapping[str, int] | None = None,
    averaged: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Writes the folder's files and returns what scales.json holds; without a graph it has no places, and no file.

    Not atomic: give a folder that is itself put in place as a whole, see `files.whole_folder`.

    Args:
      model: asked `describe(video)`: 'logits' [B, classes] and 'attention', place -> α [B, K, T', N, N].
      clips: name -> uint8 [T, H, W, C], as the model takes them; no two of one `files.folder_name`.
      drawn: names of those to draw one by one.
      labels: name -> true class, of the clips for which it is known.
      averaged: names of those that scales.png and scales.json are about; None: all.
    """
    seen = see_clips(model, clips, labels or {})
    summary = attention_stats.attention_summary(
        [clip.attention for clip in seen if averaged is None or clip.name in averaged]
    )
    if not summary["places"]:
        return summary
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "scales.json", summary, ensure_ascii=False)
    attention_plots.save_scale_pairs(
        directory / "scales.png",
        summary["places"],
        title="\n".join(
            [
                "Does the coarse node listen to the fine ones? "
                f"Mean over {summary['clips']} clip{'s' if summary['clips'] > 1 else ''} and their frames",
                *map(attention_stats.coarse_to_fine, summary["places"], summary["places"].values()),
            ]
        ),
    )
    sections = [("Attention between the scales", {"scales.png": "", "scales.json": ""})]
    for clip in seen:
        if clip.name in drawn:
            sections.append((f"{clip.name}: {_verdict(clip, class_names)}", _write_clip(directory, clip, class_names)))
    text = html_page.page("The graph at work", _page_parts(sections))
    (directory / "index.html").write_text(text, encoding="utf-8")
    return summary


def _page_parts(sections: Sequence[tuple[str, Mapping[str, str]]]) -> list[str]:
    """Headings, and under each its files with their captions."""
    parts = []
    for title, files in sections:
        parts.append(html_page.heading(title))
        for file, caption in files.items():
            show = html_page.link if file.endswith(".json") else html_page.image
            parts += [html_page.paragraph(caption), show(file)]
    return parts


def clip_facts(clip: SeenClip, class_names: Sequence[str]) -> dict[str, Any]:
    """What clip.json holds: the classes, likeliest first, and each graph's numbers, see `attention_stats`."""
    frames, height, width, channels = clip.video.shape
    return {
        "clip": clip.name,
        "frames": frames,
        "height": height,
        "width": width,
        "channels": channels,
        "true": None if clip.label is None else class_names[clip.label],
        "ranking": ranking(clip.logits, class_names, len(class_names)),
        "places": {
            place: attention_stats.clip_in_json(alpha, height=height, width=width)
            for place, alpha in clip.attention.items()
        },
    }


def _verdict(clip: SeenClip, class_names: Sequence[str]) -> str:
    best = ranking(clip.logits, class_names, 1)[0]
    answer = f"predicted: {best['name']} (probability {best['probability']:.3f})"
    return answer if clip.label is None else f"true: {class_names[clip.label]}   {answer}"


def _write_clip(directory: Path, clip: SeenClip, class_names: Sequence[str]) -> dict[str, str]:
    """Writes the folder of one clip and returns file -> caption, paths relative to `directory`."""
    folder = folder_name(clip.name)
    (directory / folder).mkdir()
    files = {f"{folder}/regions.png": "Which node is which region"}
    places = list(clip.attention)
    middle = clip.video[len(clip.video) // 2]
    overlay_panels.save_region_key(
        directory / folder / "regions.png",
        middle,
        max(map(attention_stats.count_scales, clip.attention.values())),
        heading=["The regions, and the names of their nodes: scale (row, column)"],
    )
    for place in places:
        where = f", graph at {place}" if len(places) > 1 else ""
        _write_place(
            directory / folder / place, clip, place, heading=f"{clip.name}{where}:   {_verdict(clip, class_names)}"
        )
        files.update({f"{folder}/{place}-{name}": f"{caption}{where}" for name, caption in PICTURES.items()})
    write_json(directory / folder / "clip.json", clip_facts(clip, class_names), ensure_ascii=False)
    return {**files, f"{folder}/clip.json": "All of it in numbers"}


def _write_place(prefix: Path, clip: SeenClip, place: str, *, heading: str) -> None:
    attention, video = clip.attention[place], clip.video
    num_steps = attention.shape[1]
    steps = evenly_spaced_indices(num_steps, min(MOST_STEPS, num_steps))
    names = [overlay_panels.step_name(step, num_steps=num_steps, num_frames=len(video)) for step in range(num_steps)]
    headings = {name: (caption, heading) for name, caption in PICTURES.items()}
    titles = {name: "\n".join(lines) for name, lines in headings.items()}
    frame_overlay.save_gif(
        f"{prefix}-animation.gif", overlay_panels.animation(video, attention, heading=headings["animation.gif"])
    )
    overlay_panels.save_overlays(
        f"{prefix}-overlays.png", video, attention, steps=steps, heading=headings["overlays.png"]
    )
    attention_plots.save_matrices(
        f"{prefix}-matrices.png",
        attention,
        steps=steps,
        step_names=[f"frame {names[step]}" for step in steps],
        title=titles["matrices.png"],
    )
    attention_plots.save_mean_matrices(f"{prefix}-mean.png", attention, title=titles["mean.png"])
    attention_plots.save_curves(f"{prefix}-curves.png", attention, step_names=names, title=titles["curves.png"])
