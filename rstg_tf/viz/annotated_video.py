"""A video that shows what the model makes of it: regions, attention, messages, and the running prediction."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.progress_bar import Bar
from rstg_tf.evaluation.metrics import ranking
from rstg_tf.inference.sliding_windows import Prediction
from rstg_tf.layers import regions
from rstg_tf.video.encoding import write_video
from rstg_tf.video.sources import FrameSource
from rstg_tf.viz.attention_stats import count_scales
from rstg_tf.viz.frame_overlay import BACKGROUND, FAINT_INK, INK, as_image, font, overlay

SMALLEST_SIDE, LARGEST_SIDE = 448, 720  # of the drawn frame's shorter side, pixels
LARGEST_WIDTH = 1280
SMALLEST_WINDOW = 240  # pixels of the drawn frame: in a smaller part of it the regions' numbers would not fit
LARGEST_TINY = 100  # frames up to this size are enlarged in hard pixels
LEAST_CANVAS = 640  # below it the names would not fit
MARGIN, LINE = 12, 26
UNSEEN_BRIGHTNESS = 0.55  # of what the model does not see
BAR, BAR_GROUND = (235, 235, 235), (58, 62, 72)


def write_annotated(
    path: str,
    source: FrameSource,
    prediction: Prediction,
    *,
    class_names: Sequence[str],
    top: int = 3,
    place: str = "",
    num_lines: int = 6,
) -> str | None:
    """Writes the source again as a video with as many frames at the same times, and its sound; whole or not at all.

    On each frame the part that the model saw is framed, with its regions, tinted by the attention they receive, and
    the strongest messages (`drawing.overlay`), of the window whose middle is nearest and its nearest step; below, that
    window's `top` classes with their probabilities, and those of the whole video.

    Args:
      path: ends in .mp4. source: read once more from its first frame.
      prediction: what `sliding_windows.predict_windows` found in it.
      place: which graph to draw; '' for the last. Without any graph frames are shown plain.
      num_lines: messages drawn per frame, at the most.

    Returns why the sound is missing or not whole, or None.

    Raises ConfigError for a place without a graph, and what reading the source and `write_video` raise.
    """
    place = _graph_place(prediction.answers[0].attention, place)
    canvas = _Canvas(prediction, class_names=class_names, top=top, place=place, num_lines=num_lines)
    frames = Bar(
        source.read(canvas.short_side),
        total=prediction.num_frames,
        desc="drawing",
        unit="frame",
        leave=False,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    )
    with frames:
        return write_video(
            path,
            (canvas.draw(number, frame) for number, frame in enumerate(frames)),
            frames_per_second=prediction.frames_per_second,
            num_frames=prediction.num_frames,
            seconds=prediction.seconds,
            sound_of=source.sound_of,
        )


def _graph_place(attention: Mapping[str, np.ndarray], place: str) -> str:
    if place and place not in attention:
        raise ConfigError(f"--place={place}: the model shows attention at {', '.join(attention) or 'no place'}.")
    return place or (list(attention)[-1] if attention else "")


class _Canvas:
    """Draws one frame after another: the frame with its graph, the running prediction below it.

    Where the model saw too small a part of the frame for numbers, that part is shown once more, large, beside it.
    """

    def __init__(self, prediction: Prediction, *, class_names: Sequence[str], top: int, place: str, num_lines: int):
        self._prediction, self._place, self._num_lines = prediction, place, num_lines
        self._names, self._top = class_names, min(top, len(class_names))
        self._centres = np.array([(answer.start + answer.end - 1) / 2 for answer in prediction.answers])
        height, width = prediction.frame_size
        self.frame_size = _drawn_size(height, width)
        # Frames that are reduced may come small from the decoder; those that are enlarged must come as they are.
        self.short_side = min(self.frame_size) if self.frame_size[0] < height else None
        self.window = _part(prediction.seen, *self.frame_size)  # top, left, height, width
        smaller = min(self.window[2:])
        self.panel_size = (
            (0, 0)
            if smaller >= SMALLEST_WINDOW or not place
            else tuple(round(side * SMALLEST_SIDE / smaller) for side in self.window[2:])
        )
        self._whole = ranking(prediction.logits, class_names, 1)[0]
        self._rows = [ranking(answer.logits, class_names, self._top) for answer in prediction.answers]

    def draw(self, number: int, frame: np.ndarray) -> np.ndarray:
        """Frame `number` of the source -> uint8 [H, W, 3], sides even."""
        canvas = Image.new("RGB", self._size(), BACKGROUND)
        (height, width), image = self.frame_size, as_image(frame)
        shown = self._dimmed(np.asarray(_enlarged(image, height, width)))
        pictures = [shown]
        if self.panel_size[0]:
            top, left, part_height, part_width = _part(self._prediction.seen, image.height, image.width)
            part = image.crop((left, top, left + part_width, top + part_height))
            pictures.append(self._with_graph(np.asarray(_enlarged(part, *self.panel_size)), None, number))
        elif self._place:
            pictures = [self._with_graph(shown, self.window, number)]
        left = (canvas.width - sum(picture.shape[1] for picture in pictures) - MARGIN * (len(pictures) - 1)) // 2
        for picture in pictures:
            canvas.paste(Image.fromarray(picture), (left, (self._pictures_height() - picture.shape[0]) // 2))
            left += picture.shape[1] + MARGIN
        self._draw_footer(ImageDraw.Draw(canvas), canvas.width, number)
        return np.asarray(canvas)

    def shown_attention(self, number: int) -> np.ndarray:
        """α [N, N] for frame `number`: of the step in whose share of the window it lies."""
        answer = self._prediction.answers[self._shown_window(number)]
        attention = answer.attention[self._place]  # [T', N, N]
        share = (number - answer.start) / (answer.end - answer.start)
        return attention[min(max(int(share * len(attention)), 0), len(attention) - 1)]

    def _shown_window(self, number: int) -> int:
        return int(np.abs(self._centres - number).argmin())

    def _with_graph(self, picture: np.ndarray, window: tuple | None, number: int) -> np.ndarray:
        return overlay(picture, self.shown_attention(number), window=window, num_lines=self._num_lines)

    def _pictures_height(self) -> int:
        return max(self.frame_size[0], self.panel_size[0])

    def _size(self) -> tuple[int, int]:
        """(width, height): even, as yuv420p needs."""
        width = self.frame_size[1] + (MARGIN + self.panel_size[1] if self.panel_size[0] else 0)
        height = self._pictures_height() + 2 * MARGIN + LINE * (self._top + 2 + bool(self._place))
        return (max(width, LEAST_CANVAS) + 1) // 2 * 2, (height + 1) // 2 * 2

    def _dimmed(self, frame: np.ndarray) -> np.ndarray:
        top, left, height, width = self.window
        dimmed = (frame * UNSEEN_BRIGHTNESS).astype(np.uint8)
        dimmed[top : top + height, left : left + width] = frame[top : top + height, left : left + width]
        return dimmed

    def _draw_footer(self, draw: ImageDraw.ImageDraw, width: int, number: int) -> None:
        prediction, index = self._prediction, self._shown_window(number)
        answer = prediction.answers[index]
        line = self._pictures_height() + MARGIN
        caption = f"{prediction.seconds[number]:.1f} s, frame {number + 1} of {prediction.num_frames}"
        if len(prediction.answers) > 1:
            caption += f"; window {index + 1}, {answer.start_seconds:.1f} to {answer.end_seconds:.1f} s:"
        draw.text((MARGIN, line), caption, FAINT_INK, font(15))
        for row in self._rows[index]:
            line += LINE
            _draw_bar(draw, row, top=line, width=width, strong=row is self._rows[index][0])
        whole = f"whole video: {self._whole['name']}"
        line += LINE
        draw.text((MARGIN, line), _fitted(draw, whole, width - 110), FAINT_INK, font(15))
        draw.text((width - MARGIN, line), f"{self._whole['probability']:.3f}", FAINT_INK, font(15), anchor="ra")
        if self._place:
            draw.text((MARGIN, line + LINE), _legend(count_scales(answer.attention[self._place])), FAINT_INK, font(13))


def _part(seen: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels of what the model saw of a frame; see `Prediction.seen`."""
    top, left, bottom, right = (round(share * side) for share, side in zip(seen, (height, width, height, width)))
    return top, left, max(1, bottom - top), max(1, right - left)


def _enlarged(image: Image.Image, height: int, width: int) -> Image.Image:
    """In hard pixels where there are few, so that what the network saw is seen."""
    kept = Image.Resampling.NEAREST if max(image.size) <= LARGEST_TINY else Image.Resampling.BICUBIC
    return image.resize((width, height), kept)


def _legend(num_scales: int) -> str:
    """What the plates of `drawing.overlay` mean: '□ 3×3  ○ 2×2  ■ 1×1'."""
    sizes = regions.grid_sizes(num_scales)
    shapes = ["□", *"○" * (num_scales - 2), "■"][:num_scales]
    plates = "  ".join(f"{shape} {size}×{size}" for shape, size in zip(shapes, sizes))
    return f"attention received: {plates}  (1.0: all alike)   arrows: strongest messages"


def _drawn_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) in even pixels: small frames enlarged by a whole factor, large ones reduced to fit."""
    shorter = min(height, width)
    if shorter < SMALLEST_SIDE:
        factor = max(1, round(SMALLEST_SIDE / shorter))
    else:
        factor = min(1.0, LARGEST_SIDE / shorter)
    factor = min(factor, LARGEST_WIDTH / width)
    return tuple(max(2, round(side * factor / 2) * 2) for side in (height, width))


def _draw_bar(draw: ImageDraw.ImageDraw, row: Mapping, *, top: int, width: int, strong: bool) -> None:
    """A class's name, its probability as a bar of a third of the width, and in digits."""
    ink, size = (INK, 17) if strong else (FAINT_INK, 16)
    left, right = 2 * width // 3 - 80, width - MARGIN - 62
    draw.text((MARGIN, top), _fitted(draw, row["name"], left - 2 * MARGIN, size), ink, font(size))
    draw.rectangle((left, top + 5, right, top + 16), BAR_GROUND)
    end = left + round((right - left) * row["probability"])
    if end > left:
        draw.rectangle((left, top + 5, end, top + 16), BAR if strong else FAINT_INK)
    draw.text((width - MARGIN, top), f"{row['probability']:.3f}", ink, font(size), anchor="ra")


def _fitted(draw: ImageDraw.ImageDraw, text: str, width: int, size: int = 15) -> str:
    """The text, or as much of its beginning as the width in pixels holds, and '…'."""
    if draw.textlength(text, font(size)) <= width:
        return text
    while text and draw.textlength(text + "…", font(size)) > width:
        text = text[:-1]
    return text + "…"
