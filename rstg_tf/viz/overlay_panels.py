"""Frames with the graph drawn over them, as small multiples and as animations: rows or columns are the space stages.

Pillow alone; what is drawn on a single frame is `drawing.overlay`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from rstg_tf.layers import regions
from rstg_tf.viz import attention_stats, frame_overlay
from rstg_tf.viz.frame_overlay import BACKGROUND, FAINT_INK, GAP, INK, LINE_HEIGHT, PANEL_PIXELS, font

TEXT, SMALL = 15, 13
LEFT_MARGIN = 92


def frame_of_step(step: int, *, num_steps: int, num_frames: int) -> int:
    """The frame in the middle of those that step t of T covers, of D frames: floor((t + 1/2) · D / T)."""
    return (2 * step + 1) * num_frames // (2 * num_steps)


def step_name(step: int, *, num_steps: int, num_frames: int) -> str:
    """'3', the frame that a step is, counted from 1, or '5-6', the frames that it covers."""
    first, last = step * num_frames // num_steps + 1, max((step + 1) * num_frames // num_steps, 1)
    return f"{first}-{last}" if last > first else str(first)


def save_region_key(path: str, frame: np.ndarray, num_scales: int, *, heading: Sequence[str]) -> None:
    """Which node is which: a panel per scale; in the regions the names that matrices and JSON use."""
    panel = frame_overlay.enlarged(frame)
    sizes = regions.grid_sizes(num_scales)
    names = iter(attention_stats.node_names(num_scales))
    canvas, top = _canvas(heading, len(sizes) * (panel.width + GAP), LINE_HEIGHT + panel.height)
    draw = ImageDraw.Draw(canvas)
    for column, size in enumerate(sizes):
        left = GAP + column * (panel.width + GAP)
        _write(
            draw,
            (left, top),
            f"scale {size}×{size}: {size * size} regions" if size > 1 else "scale 1×1: the whole",
            FAINT_INK,
            SMALL,
        )
        canvas.paste(panel, (left, top + LINE_HEIGHT))
        for cell in range(size * size):
            row, across = divmod(cell, size)
            corners = [
                left + across * panel.width // size,
                top + LINE_HEIGHT + row * panel.height // size,
                left + (across + 1) * panel.width // size - 2,
                top + LINE_HEIGHT + (row + 1) * panel.height // size - 2,
            ]
            draw.rectangle(corners, outline=frame_overlay.TINT, width=2)
            centre = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
            frame_overlay.draw_plate(draw, centre, next(names), scale=size, num_scales=num_scales, size=12)
    canvas.save(path)


def save_overlays(
    path: str,
    video: np.ndarray,
    attention: np.ndarray,
    *,
    steps: Sequence[int],
    heading: Sequence[str],
    num_lines: int = 6,
) -> None:
    """Small multiples for α [K, T, N, N]: a row per space stage, a column per step of `steps`, the legend below."""
    stages, num_steps = attention.shape[:2]
    panels = [[_panel(video, attention[stage], step, num_lines) for step in steps] for stage in range(stages)]
    width, height = panels[0][0].size
    canvas, top = _canvas(
        heading,
        LEFT_MARGIN - GAP + len(steps) * (width + GAP),
        LINE_HEIGHT + stages * (height + GAP) + _legend_height(),
    )
    draw = ImageDraw.Draw(canvas)
    for column, step in enumerate(steps):
        _write(
            draw,
            (LEFT_MARGIN + column * (width + GAP), top),
            f"frame {step_name(step, num_steps=num_steps, num_frames=len(video))}",
            FAINT_INK,
            SMALL,
        )
    for stage, row in enumerate(panels):
        below = top + LINE_HEIGHT + stage * (height + GAP)
        _write(draw, (GAP, below + height // 2 - LINE_HEIGHT), f"space\nstage {stage + 1}", INK, TEXT)
        for column, panel in enumerate(row):
            canvas.paste(panel, (LEFT_MARGIN + column * (width + GAP), below))
    _draw_legend(draw, top + LINE_HEIGHT + stages * (height + GAP), attention_stats.count_scales(attention))
    canvas.quantize(256, dither=Image.Dither.NONE).save(path)


def animation(
    video: np.ndarray,
    attention: np.ndarray,
    *,
    heading: Sequence[str],
    num_lines: int = 6,
    panel_pixels: int = PANEL_PIXELS,
) -> list[Image.Image]:
    """A picture per step of α [K, T, N, N]: the plain frame, and beside it the graph of every space stage over it."""
    return [
        _animation_frame(video, attention, step, heading, num_lines, panel_pixels) for step in range(attention.shape[1])
    ]


def _animation_frame(
    video: np.ndarray, attention: np.ndarray, step: int, heading: Sequence[str], num_lines: int, panel_pixels: int
) -> Image.Image:
    stages, num_steps = attention.shape[:2]
    plain = frame_overlay.enlarged(video[frame_of_step(step, num_steps=num_steps, num_frames=len(video))], panel_pixels)
    titles = [
        f"frame {step_name(step, num_steps=num_steps, num_frames=len(video))} of {len(video)}",
        *(f"space stage {stage + 1}" for stage in range(stages)),
    ]
    panels = [plain, *(_panel(video, attention[stage], step, num_lines, panel_pixels) for stage in range(stages))]
    canvas, top = _canvas(
        heading, len(panels) * (plain.width + GAP) - GAP, LINE_HEIGHT + plain.height + GAP + _legend_height()
    )
    draw = ImageDraw.Draw(canvas)
    for column, (panel, title) in enumerate(zip(panels, titles)):
        left = GAP + column * (plain.width + GAP)
        _write(draw, (left, top), title, FAINT_INK, SMALL)
        canvas.paste(panel, (left, top + LINE_HEIGHT))
    _draw_legend(draw, top + LINE_HEIGHT + plain.height + GAP, attention_stats.count_scales(attention))
    return canvas


def _panel(
    video: np.ndarray, attention: np.ndarray, step: int, num_lines: int, pixels: int = PANEL_PIXELS
) -> Image.Image:
    frame = video[frame_of_step(step, num_steps=len(attention), num_frames=len(video))]
    return Image.fromarray(
        frame_overlay.overlay(np.asarray(frame_overlay.enlarged(frame, pixels)), attention[step], num_lines=num_lines)
    )


def _canvas(heading: Sequence[str], width: int, height: int) -> tuple[Image.Image, int]:
    """A canvas with the heading written, wide enough for heading and legend, and where to go on below it."""
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text_width = max((int(measure.textlength(line, font(TEXT))) for line in heading), default=0)
    legend_width = max(int(measure.textlength(line, font(SMALL))) for line in _LEGEND) + 60
    top = GAP + LINE_HEIGHT * len(heading) + GAP
    canvas = Image.new("RGB", (max(width, text_width, legend_width) + 2 * GAP, top + height + GAP), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for line, text in enumerate(heading):
        _write(draw, (GAP, GAP + line * LINE_HEIGHT), text, INK, TEXT)
    return canvas, top


_LEGEND = (
    "number and tint: attention that a region receives from all; 1.0 is its share if all listened to all alike",
    "arrow: one of the strongest messages, from the region listened to, to the listener; wider for more weight",
)


def _legend_height() -> int:
    return 3 * LINE_HEIGHT


def _draw_legend(draw: ImageDraw.ImageDraw, top: int, num_scales: int) -> None:
    left = GAP + 14
    for size in regions.grid_sizes(num_scales):
        frame_overlay.draw_plate(
            draw, (left, top + LINE_HEIGHT // 2), "1.0", scale=size, num_scales=num_scales, size=11
        )
        text = f"a {size}×{size} region" if size > 1 or num_scales == 1 else "the whole frame"
        _write(draw, (left + 18, top + 2), text, FAINT_INK, SMALL)
        left += round(draw.textlength(text, font(SMALL))) + 60
    for line, text in enumerate(_LEGEND):
        _write(draw, (GAP, top + (line + 1) * LINE_HEIGHT + 2), text, FAINT_INK, SMALL)


def _write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, ink: tuple, size: int) -> None:
    draw.text(place, text, ink, font(size))
