"""Pictures for people: clips with the graph drawn over them, confusion matrices, attention between the scales.

Everything that a colour says is also said by a number or by a width, so that a grey print or a colour-blind reader
loses nothing. Pillow draws on frames, matplotlib (its object interface, no global state) draws plots.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from rstg_tf import regions

PANEL_PIXELS = 224  # about how large a frame is drawn
GAP, LINE_HEIGHT = 8, 20
BACKGROUND, INK, FAINT_INK = (18, 20, 26), (240, 240, 240), (150, 155, 165)
TINT, MESSAGE = (255, 150, 30), (90, 205, 255)
FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 400, 1200
LARGEST_NUMBERED_CLASSES = 60


def node_names(num_scales: int) -> list[str]:
    """Names of the N nodes: '3×3 (1,2)' is row 1, column 2, counted from 1, of the 3×3 grid; '1×1' the whole frame."""
    return [f"{size}×{size} ({row + 1},{column + 1})" if size > 1 else "1×1"
            for size in regions.grid_sizes(num_scales) for row in range(size) for column in range(size)]


def received_attention(attention: np.ndarray) -> np.ndarray:
    """How much the nodes listen to each node, 1 being the share it would have if all listened to all alike.

    Σ_i α_ij of weights [..., N, N] whose rows sum to 1: [..., N], with mean 1.
    """
    return attention.sum(axis=-2)


def strongest_messages(attention: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The `count` largest weights between two different nodes of α [N, N], as (sender j, receiver i, α_ij)."""
    weights = attention.astype(np.float64)  # a copy, since the diagonal is struck out
    np.fill_diagonal(weights, -1.0)
    order = np.argsort(-weights, axis=None, kind="stable")[:min(count, weights.size - len(weights))]
    receivers, senders = np.unravel_index(order, weights.shape)
    return [(int(sender), int(receiver), float(weights[receiver, sender]))
            for sender, receiver in zip(senders, receivers)]


def clip_frames(video: np.ndarray, attention: Mapping[str, np.ndarray], *, heading: Sequence[str],
                num_lines: int = 6) -> list[Image.Image]:
    """The frames of a clip, enlarged, under their heading; beside each the graph's regions, scale by scale.

    A row per graph: the boxes of each scale, tinted by and numbered with the attention that they receive (see
    `received_attention`), arrows from sender to receiver for the strongest messages, wider for larger weights, and the
    three largest weights in words.

    Args:
      video: uint8 [T, H, W, C], C 1 or 3.
      attention: place of a graph -> weights [T', N, N] of one space stage; step t' covers T / T' frames. May be empty.
      heading: lines above every frame.
      num_lines: arrows per frame.
    """
    return [_draw_frame(video[time], {place: weights[time * len(weights) // len(video)]
                                      for place, weights in attention.items()},
                        heading=[*heading, f"frame {time + 1} of {len(video)}"], num_lines=num_lines)
            for time in range(len(video))]


def save_gif(path: str | os.PathLike, frames: Sequence[Image.Image]) -> None:
    """An endless animation, resting on its last frame."""
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_FRAME_MILLISECONDS]
    frames[0].save(path, save_all=True, append_images=list(frames[1:]), duration=durations, loop=0)


def _draw_frame(frame: np.ndarray, attention: Mapping[str, np.ndarray], *, heading: Sequence[str],
                num_lines: int) -> Image.Image:
    panel = _enlarged(frame)
    rows = max(1, len(attention))
    footer = 4 * LINE_HEIGHT if attention else 0
    columns = 1 + max((count_scales(weights) for weights in attention.values()), default=0)
    width = max(columns * (panel.width + GAP) + GAP, 3 * PANEL_PIXELS)
    top = LINE_HEIGHT * len(heading) + 2 * GAP
    row_height = LINE_HEIGHT + panel.height + footer + GAP
    canvas = Image.new("RGB", (width, top + rows * row_height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for line, text in enumerate(heading):
        draw.text((GAP, GAP + line * LINE_HEIGHT), text, INK, _font(15))
    draw.text((GAP, top), "the clip", FAINT_INK, _font(13))
    canvas.paste(panel, (GAP, top + LINE_HEIGHT))
    for row, (place, weights) in enumerate(attention.items()):
        _draw_graph(canvas, panel, place, weights, top=top + row * row_height, num_lines=num_lines)
    return canvas


def _draw_graph(canvas: Image.Image, panel: Image.Image, place: str, weights: np.ndarray, *, top: int,
                num_lines: int) -> None:
    """A row of panels, one per scale, right of the plain frame; the messages' arrows run between them."""
    num_scales = count_scales(weights)
    scales = regions.scale_of_nodes(num_scales)
    boxes = regions.boxes(num_scales, panel.height, panel.width)  # [N, 4]: top, left, bottom, right
    received = received_attention(weights)
    draw = ImageDraw.Draw(canvas)
    offsets = np.zeros((len(scales), 2), int)
    for column, size in enumerate(regions.grid_sizes(num_scales)):
        left = GAP + (column + 1) * (panel.width + GAP)
        draw.text((left, top), f"{size}×{size} regions" if size > 1 else "whole frame", FAINT_INK, _font(13))
        offsets[scales == size] = top + LINE_HEIGHT, left
        of_scale = scales == size
        canvas.paste(_tinted(panel, boxes[of_scale], received[of_scale]), (left, top + LINE_HEIGHT))
    messages = strongest_messages(weights, num_lines)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + offsets  # [N, 2]: row, column
    for sender, receiver, weight in reversed(messages):  # the strongest last, on top
        _arrow(draw, centres[sender, ::-1], centres[receiver, ::-1], width=max(1, round(5 * weight / messages[0][2])))
    names = node_names(num_scales)
    lines = [f"{place}: strongest messages", *(f"{names[sender]} → {names[receiver]}   weight {weight:.2f}"
                                               for sender, receiver, weight in messages[:3])]
    for line, text in enumerate(lines):
        place_of_line = (GAP, top + LINE_HEIGHT + panel.height + GAP // 2 + line * LINE_HEIGHT)
        draw.text(place_of_line, text, INK if line else FAINT_INK, _font(13))
    draw.text((GAP + 2 * (panel.width + GAP), top + LINE_HEIGHT + panel.height + GAP // 2),
              f"numbers: attention received; 1.0 = all alike ({1 / len(scales):.2f} of each listener)", FAINT_INK,
              _font(13))


def _tinted(panel: Image.Image, boxes: np.ndarray, received: np.ndarray) -> Image.Image:
    """The panel with its boxes drawn; more tint for more attention, none at 0, half at 3 and above."""
    layer = Image.new("RGBA", panel.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    for (top, left, bottom, right), value in zip(boxes, received):
        draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), (*TINT, round(128 * min(value / 3, 1))),
                       (*TINT, 255))
        text = f"{value:.1f}"
        draw.rectangle((left + 2, top + 2, left + 6 + draw.textlength(text, _font(13)), top + 19), (0, 0, 0, 210))
        draw.text((left + 4, top + 2), text, (*INK, 255), _font(13))
    return Image.alpha_composite(panel.convert("RGBA"), layer).convert("RGB")


def _arrow(draw: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, *, width: int) -> None:
    direction = end - start
    length = float(np.hypot(*direction))
    if length == 0:
        return
    along = direction / length
    across = np.array([-along[1], along[0]])
    start, end = start + 5 * across, end + 5 * across  # beside the way back, which would lie on it
    head = 7 + 2 * width
    base = end - head * along
    draw.line((*start, *base), (0, 0, 0), width + 2)  # a dark rim keeps it visible on bright frames
    draw.line((*start, *base), MESSAGE, width)
    tip = [tuple(point) for point in (end, base + head / 2 * across, base - head / 2 * across)]
    draw.polygon(tip, MESSAGE, (0, 0, 0))
    draw.ellipse((*(start - 3), *(start + 3)), MESSAGE, (0, 0, 0))


def _enlarged(frame: np.ndarray) -> Image.Image:
    """A whole multiple in hard pixels for small frames, so that what the network saw is seen; else scaled to fit."""
    image = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).convert("RGB")
    factor = PANEL_PIXELS / max(image.size)
    if factor >= 2:
        return image.resize((image.width * round(factor), image.height * round(factor)), Image.Resampling.NEAREST)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC)


def count_scales(weights: np.ndarray) -> int:
    """The number of scales S whose grids have the N nodes of weights [..., N, N]: N = 1 + 4 + … + S²."""
    nodes, scales = weights.shape[-1], 1
    while regions.num_nodes(scales) < nodes:
        scales += 1
    if regions.num_nodes(scales) != nodes:
        raise ValueError(f"attention of {nodes} nodes: expected 1, 5, 14, 30, …, the nodes of whole scales.")
    return scales


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's DejaVu Sans: always installed with it, and it knows ×, → and most alphabets."""
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def save_confusion(path: str | os.PathLike, confusion: np.ndarray, class_names: Sequence[str], *, title: str) -> None:
    """A confusion matrix [classes, classes] of counts, rows the true classes; darker for a larger share of its row.

    Up to 60 classes every cell with a clip shows its count; with more, the CSV beside it has them.
    """
    classes = len(class_names)
    numbered = classes <= LARGEST_NUMBERED_CLASSES
    inches = max(5.0, (0.36 if numbered else 0.12) * classes + 2.5)
    figure = Figure(figsize=(inches, inches), dpi=100, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greys", vmin=0.0, vmax=1.0)
    names = [_shortened(name) for name in class_names]
    size = 9 if numbered else 5
    axes.set_xticks(range(classes), names, rotation=90, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.set_xlabel("predicted class", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    axes.set_title(f"{title}\nshade: share of the true class, white 0, black 1", fontsize=11)
    if numbered:
        for row, column in zip(*np.nonzero(confusion)):
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center",
                      fontsize=8 if classes > 12 else 11, color="white" if shares[row, column] > 0.5 else "black")
    figure.savefig(path)


def save_scale_attention(path: str | os.PathLike, shares: Mapping[str, np.ndarray], uniform: Mapping[str, np.ndarray],
                         *, title: str) -> None:
    """Per graph (row) and space stage (column) a matrix: what share of its attention scale r gives to scale s.

    `shares`: place -> [K, S, S]; `uniform`: place -> [S], the shares if every node listened to all alike. Each cell
    has the share and, as ×, its ratio to that.
    """
    columns = max(len(stages) for stages in shares.values())
    figure = Figure(figsize=(3.4 * columns + 0.8, 3.5 * len(shares) + 0.9), dpi=100, layout="constrained")
    grid = figure.subplots(len(shares), columns, squeeze=False)
    figure.suptitle(title)
    for row, (place, stages) in enumerate(shares.items()):
        sizes = range(stages.shape[-1], 0, -1)
        for column, axes in enumerate(grid[row]):
            axes.set_visible(column < len(stages))
            if column < len(stages):
                _draw_shares(axes, stages[column], uniform[place], [f"{size}×{size}" for size in sizes])
                axes.set_title(f"{place}, space stage {column + 1}", fontsize=11)
    figure.savefig(path)


def _draw_shares(axes, shares: np.ndarray, uniform: np.ndarray, names: Sequence[str]) -> None:
    axes.imshow(shares, cmap="Greys", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(names)), names, fontsize=10)
    axes.set_yticks(range(len(names)), names, fontsize=10)
    axes.set_xlabel("listens to nodes of scale")
    axes.set_ylabel("node of scale")
    for row in range(len(names)):
        for column in range(len(names)):
            axes.text(column, row, f"{shares[row, column]:.2f}\n×{shares[row, column] / uniform[column]:.2f}",
                      ha="center", va="center", fontsize=10, color="white" if shares[row, column] > 0.5 else "black")


def _shortened(name: str, length: int = 40) -> str:
    return name if len(name) <= length else f"{name[:length - 1]}…"
