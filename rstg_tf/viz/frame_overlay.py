"""Pictures for people: frames and clips with the graph drawn over them.

Everything that a colour says is also said by a number or by a width, so that a grey print or a colour-blind reader
loses nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rstg_tf.layers import regions
from rstg_tf.viz.attention_stats import count_scales, node_names, received_attention, strongest_messages

PANEL_PIXELS = 224  # about how large a frame is drawn
GAP, LINE_HEIGHT = 8, 20
BACKGROUND, INK, FAINT_INK = (18, 20, 26), (240, 240, 240), (150, 155, 165)
TINT, MESSAGE = (255, 150, 30), (90, 205, 255)
FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 400, 1200
PLATE_PIXELS = 160  # the short side from which numbers can be read in the regions
FINER = 2  # sub-pixels along each side of a pixel of an overlay


def clip_frames(
    video: np.ndarray, attention: Mapping[str, np.ndarray], *, heading: Sequence[str], num_lines: int = 6
) -> list[Image.Image]:
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
    return [
        _draw_frame(
            video[time],
            {place: weights[time * len(weights) // len(video)] for place, weights in attention.items()},
            heading=[*heading, f"frame {time + 1} of {len(video)}"],
            num_lines=num_lines,
        )
        for time in range(len(video))
    ]


def overlay(
    frame: np.ndarray, attention: np.ndarray, *, window: tuple[int, int, int, int] | None = None, num_lines: int = 6
) -> np.ndarray:
    """One frame with the graph of one step drawn over it, at the frame's own size: uint8 [H, W, 3].

    Every region is tinted by the attention it receives (see `received_attention`; where regions of several scales lie
    over each other, by their mean) and, on frames of at least PLATE_PIXELS, carries it as a number on a plate: square
    for the finest scale, light for the whole frame, round for those between. Region borders are drawn for the finest
    scale, dashed for the others. Arrows run from sender to receiver for the strongest messages, as far as they weigh
    more than 1/N, the weight if all listened to all alike; their width grows with the weight.

    Args:
      frame: uint8 [H, W, C], C 1 or 3, of any size; enlarge small ones first (`enlarged`), lines are at least a pixel.
      attention: α [N, N] of one step of one space stage, rows receive, columns send.
      window: (top, left, height, width) in pixels, the part of the frame that the network saw; None: all of it.
      num_lines: arrows at the most.
    """
    image = as_image(frame)
    top, left, height, width = window or (0, 0, image.height, image.width)
    num_scales = count_scales(attention)
    received = received_attention(attention)
    layer = Image.new("RGBA", (FINER * width, FINER * height))  # drawn finer, so that lines come out smooth
    layer.paste(_tint(received, num_scales, height, width).resize(layer.size))
    draw = ImageDraw.Draw(layer)
    unit = FINER * min(height, width) / PANEL_PIXELS  # what is a pixel wide on a panel
    _draw_borders(draw, num_scales, layer.size, unit)
    anchors = _anchors(num_scales) * layer.size
    plates = min(height, width) >= PLATE_PIXELS
    for sender, receiver, weight in reversed(strongest_messages(attention, num_lines)):
        if weight > 1 / len(attention):
            _arrow(
                draw,
                anchors[sender],
                anchors[receiver],
                width=max(1, round(unit * (1 + 8 * weight))),
                unit=unit,
                gap=8 * unit if plates else 0,
            )
    for anchor, value, scale in zip(anchors, received, regions.scale_of_nodes(num_scales)):
        if plates:
            draw_plate(draw, anchor, f"{value:.1f}", scale=scale, num_scales=num_scales, size=round(11 * unit))
    layer = layer.resize((width, height), Image.Resampling.BOX)
    image.paste(layer, (left, top), layer)
    return np.asarray(image)


def _tint(received: np.ndarray, num_scales: int, height: int, width: int) -> Image.Image:
    """TINT, the less transparent the more attention a pixel's regions receive: none at 0, half at 3 and above."""
    heat = np.zeros((height, width))
    for (top, left, bottom, right), value in zip(regions.boxes(num_scales, height, width), received):
        heat[top:bottom, left:right] += value / num_scales
    colour = np.broadcast_to(np.array(TINT, np.uint8), (height, width, 3))
    return Image.fromarray(np.dstack([colour, (128 * np.minimum(heat / 3, 1)).astype(np.uint8)]))


def _draw_borders(draw: ImageDraw.ImageDraw, num_scales: int, size: tuple[int, int], unit: float) -> None:
    width, height = size
    thin = max(1, round(unit))
    draw.rectangle((0, 0, width - 1, height - 1), outline=(*TINT, 255), width=2 * thin)
    for scale in regions.grid_sizes(num_scales):
        dash = 0 if scale == num_scales else round(5 * unit)
        for cut in range(1, scale):
            _line(draw, (width * cut / scale, 0), (width * cut / scale, height), thin, dash)
            _line(draw, (0, height * cut / scale), (width, height * cut / scale), thin, dash)


def _line(draw: ImageDraw.ImageDraw, start: Sequence[float], end: Sequence[float], width: int, dash: int) -> None:
    """Solid with dash 0, else dashes and gaps of `dash` pixels."""
    start, end = np.array(start, float), np.array(end, float)
    length = float(np.abs(end - start).max())
    along = (end - start) / length
    for begin in np.arange(0, length, 2 * dash) if dash else [0.0]:
        stop = min(begin + dash, length) if dash else length
        draw.line((*(start + begin * along), *(start + stop * along)), (*TINT, 170), width)


def _anchors(num_scales: int) -> np.ndarray:
    """Where a node's number and arrows sit: float [N, 2], shares (across, down) of the frame.

    The middle of its region; for the whole frame a third down where a 3×3 grid has its central cell in the middle.
    """
    centres = [
        ((column + 0.5) / size, (row + 0.5) / size)
        for size in regions.grid_sizes(num_scales)
        for row in range(size)
        for column in range(size)
    ]
    if num_scales > 2:
        centres[-1] = (1 / 2, 1 / 3)
    return np.array(centres)


def draw_plate(
    draw: ImageDraw.ImageDraw, centre: Sequence[float], text: str, *, scale: int, num_scales: int, size: int
) -> None:
    """A number on a plate whose shape tells the scale of its node, see `overlay`; `size` in pixels is the font's."""
    half = np.array([draw.textlength(text, font(size)) / 2 + 0.25 * size, 0.62 * size])
    box = (*(np.array(centre) - half), *(np.array(centre) + half))
    whole = scale == 1 and num_scales > 1
    ground, ink = ((*INK, 255), (0, 0, 0, 255)) if whole else ((0, 0, 0, 200), (*INK, 255))
    radius = 0 if scale == num_scales or whole else half[1]
    draw.rounded_rectangle(box, radius, fill=ground, outline=(*INK, 255), width=max(1, size // 12))
    draw.text(tuple(centre), text, ink, font(size), anchor="mm")


def save_gif(path: str | os.PathLike, frames: Sequence[Image.Image]) -> None:
    """An endless animation, resting on its last frame."""
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_FRAME_MILLISECONDS]
    # With one palette for all, what stays the same from frame to frame is stored once: the file is a third smaller.
    montage = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
    palette = montage.quantize(256, dither=Image.Dither.NONE)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)


def _draw_frame(
    frame: np.ndarray, attention: Mapping[str, np.ndarray], *, heading: Sequence[str], num_lines: int
) -> Image.Image:
    panel = enlarged(frame)
    rows = max(1, len(attention))
    footer = 4 * LINE_HEIGHT if attention else 0
    columns = 1 + max((count_scales(weights) for weights in attention.values()), default=0)
    width = max(columns * (panel.width + GAP) + GAP, 3 * PANEL_PIXELS)
    top = LINE_HEIGHT * len(heading) + 2 * GAP
    row_height = LINE_HEIGHT + panel.height + footer + GAP
    canvas = Image.new("RGB", (width, top + rows * row_height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for line, text in enumerate(heading):
        draw.text((GAP, GAP + line * LINE_HEIGHT), text, INK, font(15))
    draw.text((GAP, top), "the clip", FAINT_INK, font(13))
    canvas.paste(panel, (GAP, top + LINE_HEIGHT))
    for row, (place, weights) in enumerate(attention.items()):
        _draw_graph(canvas, panel, place, weights, top=top + row * row_height, num_lines=num_lines)
    return canvas


def _draw_graph(
    canvas: Image.Image, panel: Image.Image, place: str, weights: np.ndarray, *, top: int, num_lines: int
) -> None:
    """A row of panels, one per scale, right of the plain frame; the messages' arrows run between them."""
    num_scales = count_scales(weights)
    scales = regions.scale_of_nodes(num_scales)
    boxes = regions.boxes(num_scales, panel.height, panel.width)  # [N, 4]: top, left, bottom, right
    received = received_attention(weights)
    draw = ImageDraw.Draw(canvas)
    offsets = np.zeros((len(scales), 2), int)
    for column, size in enumerate(regions.grid_sizes(num_scales)):
        left = GAP + (column + 1) * (panel.width + GAP)
        draw.text((left, top), f"{size}×{size} regions" if size > 1 else "whole frame", FAINT_INK, font(13))
        offsets[scales == size] = top + LINE_HEIGHT, left
        of_scale = scales == size
        canvas.paste(_tinted(panel, boxes[of_scale], received[of_scale]), (left, top + LINE_HEIGHT))
    messages = strongest_messages(weights, num_lines)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + offsets  # [N, 2]: row, column
    for sender, receiver, weight in reversed(messages):  # the strongest last, on top
        _arrow(draw, centres[sender, ::-1], centres[receiver, ::-1], width=max(1, round(5 * weight / messages[0][2])))
    names = node_names(num_scales)
    lines = [
        f"{place}: strongest messages",
        *(f"{names[sender]} → {names[receiver]}   weight {weight:.2f}" for sender, receiver, weight in messages[:3]),
    ]
    for line, text in enumerate(lines):
        place_of_line = (GAP, top + LINE_HEIGHT + panel.height + GAP // 2 + line * LINE_HEIGHT)
        draw.text(place_of_line, text, INK if line else FAINT_INK, font(13))
    draw.text(
        (GAP + 2 * (panel.width + GAP), top + LINE_HEIGHT + panel.height + GAP // 2),
        f"numbers: attention received; 1.0 = all alike ({1 / len(scales):.2f} of each listener)",
        FAINT_INK,
        font(13),
    )


def _tinted(panel: Image.Image, boxes: np.ndarray, received: np.ndarray) -> Image.Image:
    """The panel with its boxes drawn; more tint for more attention, none at 0, half at 3 and above."""
    layer = Image.new("RGBA", panel.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    for (top, left, bottom, right), value in zip(boxes, received):
        draw.rectangle(
            (left + 1, top + 1, right - 2, bottom - 2), (*TINT, round(128 * min(value / 3, 1))), (*TINT, 255)
        )
        text = f"{value:.1f}"
        draw.rectangle((left + 2, top + 2, left + 6 + draw.textlength(text, font(13)), top + 19), (0, 0, 0, 210))
        draw.text((left + 4, top + 2), text, (*INK, 255), font(13))
    return Image.alpha_composite(panel.convert("RGBA"), layer).convert("RGB")


def _arrow(
    draw: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, *, width: int, unit: float = 1.0, gap: float = 0.0
) -> None:
    """`unit`: pixels that count as one. `gap`: pixels left free at both ends."""
    direction = end - start
    length = float(np.hypot(*direction))
    if length <= 2 * gap:
        return
    along = direction / length
    across = np.array([-along[1], along[0]])
    beside = 5 * unit * across  # beside the way back, which would lie on it
    start, end = start + gap * along + beside, end - gap * along + beside
    head = min(7 * unit + 1.5 * width, 0.6 * (length - 2 * gap))
    base = end - head * along
    draw.line((*start, *base), (0, 0, 0), width + 2 * max(1, round(unit)))  # a dark rim shows it on bright frames
    draw.line((*start, *base), MESSAGE, width)
    tip = [tuple(point) for point in (end, base + head / 2 * across, base - head / 2 * across)]
    draw.polygon(tip, MESSAGE, (0, 0, 0))
    draw.ellipse((*(start - 3 * unit), *(start + 3 * unit)), MESSAGE, (0, 0, 0))


def as_image(frame: np.ndarray) -> Image.Image:
    """uint8 [H, W, C], C 1 or 3, as an RGB image. Raises ValueError for anything else."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] not in (1, 3):
        raise ValueError(f"a frame is {frame.dtype} {list(frame.shape)}: expected uint8 [H, W, C], C 1 or 3.")
    return Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).convert("RGB")


def enlarged(frame: np.ndarray, pixels: int = PANEL_PIXELS) -> Image.Image:
    """A frame about `pixels` large: small ones by a whole factor in hard pixels, so that what the network saw is seen.

    Frames of more than half of `pixels` are scaled to fit (bicubic).
    """
    image = as_image(frame)
    factor = pixels / max(image.size)
    if factor >= 2:
        return image.resize((image.width * round(factor), image.height * round(factor)), Image.Resampling.NEAREST)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC)


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's DejaVu Sans: always installed with it, and it knows ×, → and most alphabets."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
