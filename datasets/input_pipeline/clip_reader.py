"""A parsed clip -> pixels: checks, choice of frames, crop, decoding; a part of the pipeline's graph.

The checks are assertions whose message begins with DATASET_FAULT_MARK and names the clip;
`RecordedDataset.explain_read_error` reads it.
"""

from __future__ import annotations

import tensorflow as tf

from datasets.records.dataset import DATASET_FAULT_MARK
from datasets.records.manifest import DatasetError, Manifest
from rstg_tf.common.limits import LARGEST_SIDE
from rstg_tf.video.clip_spec import ClipSpec
from rstg_tf.video.transforms import (
    centre_crop_window,
    decode_each,
    frame_indices,
    resize_and_crop,
    short_side_size,
    view_windows,
)


class ClipReader:
    """Parsed clips of a data set -> pixels.

    Args:
      manifest: of the data set.
      clip: what they become. Of longer or shorter videos (JPEG) T frames are sampled at even distances; drawn clips
        (PNG) must have as many. Frames are cropped where they are larger than the clip's.

    Raises:
      DatasetError: where clip and manifest contradict each other.
    """

    def __init__(self, manifest: Manifest, clip: ClipSpec):
        self.manifest = manifest
        self.clip = clip
        self.samples_in_time = manifest.num_frames is None or manifest.image_format == "JPEG"
        if clip.channels != manifest.channels:
            raise DatasetError(
                f"clips of {clip.channels} channels are asked for, but those of {manifest.name} have "
                f"{manifest.channels}."
            )
        if clip.short_side and clip.short_side < min(clip.frame_size):
            raise DatasetError(f"short_side={clip.short_side} is less than a crop of {_by(clip.frame_size)} pixels.")
        self.is_whole = not clip.short_side and (manifest.height, manifest.width) == clip.frame_size

    def read_clip(self, parsed: dict[str, tf.Tensor], seed: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """(video uint8 [T, H, W, C], label int32): one sampling, one crop, drawn with a seed or else the centre."""
        encoded = self._choose_frames(parsed, samplings=1)
        if self.is_whole:
            video = self._decode(parsed, encoded, window=None)
        else:
            video = self._crop(parsed, encoded, self._corner(parsed, seed), self.clip.frame_size)
        return tf.ensure_shape(video, self.clip.shape[1:]), tf.cast(parsed["label"], tf.int32)

    def read_views(
        self, parsed: dict[str, tf.Tensor], *, samplings: int, crops: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(frames uint8 [samplings, T, H, W, C], corners int32 [crops, 2], label int32): what `cut_view` needs.

        Every frame is decoded and resized once for all crops; H and W are those of the whole resized picture.
        """
        encoded = self._choose_frames(parsed, samplings=samplings)
        height, width = self._resized(parsed)
        if self.is_whole:
            frames, corners = self._decode(parsed, encoded, window=None), tf.zeros([crops, 2], tf.int32)
        else:
            frames = self._crop(parsed, encoded, tf.constant([0, 0]), (height, width))
            corners = view_windows(height, width, crop_size=self.clip.frame_size, num_views=crops)
        # [samplings·T, H, W, C] -> [samplings, T, H, W, C]
        frames = tf.reshape(frames, [samplings, self.clip.num_frames, height, width, self.clip.channels])
        return frames, corners, tf.cast(parsed["label"], tf.int32)

    def cut_view(self, frames: tf.Tensor, corners: tf.Tensor, view: tf.Tensor) -> tf.Tensor:
        """uint8 [T, H, W, C]: crop `view` % crops of sampling `view` // crops."""
        crops = corners.shape[0]
        top, left = tf.unstack(tf.gather(corners, view % crops))
        video = tf.slice(frames[view // crops], [0, top, left, 0], [-1, *self.clip.frame_size, -1])
        return tf.ensure_shape(video, self.clip.shape[1:])

    def _choose_frames(self, parsed: dict[str, tf.Tensor], *, samplings: int) -> tf.Tensor:
        """The encoded frames [samplings·T] that make the clip, sampling after sampling, once the clip is checked."""
        with tf.control_dependencies(self._clip_assertions(parsed)):
            encoded = tf.identity(parsed["encoded"])
        num_frames = self.clip.num_frames
        if samplings > 1 or (self.samples_in_time and num_frames != self.manifest.num_frames):
            indices = [
                frame_indices(tf.size(encoded), num_frames=num_frames, view=view, num_views=samplings)
                for view in range(samplings)
            ]
            encoded = tf.gather(encoded, tf.concat(indices, axis=0))
        return tf.ensure_shape(encoded, [samplings * num_frames])

    def _resized(self, parsed: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Height and width of the clip's frames before the crop, int32."""
        height, width = tf.cast(parsed["height"], tf.int32), tf.cast(parsed["width"], tf.int32)
        return short_side_size(height, width, self.clip.short_side) if self.clip.short_side else (height, width)

    def _corner(self, parsed: dict[str, tf.Tensor], seed: tf.Tensor | None) -> tf.Tensor:
        """int32 [2]: top and left of the crop in pixels of the resized picture; one for the whole clip."""
        height, width = self._resized(parsed)
        if seed is None:
            return centre_crop_window(height, width, crop_height=self.clip.height, crop_width=self.clip.width)
        room = tf.stack([height, width]) - self.clip.frame_size
        # Float32 is exact far beyond the width of any video, so that each corner is as likely as the others.
        share = tf.random.stateless_uniform([2], fold_in(seed, 0))
        return tf.minimum(tf.cast(share * tf.cast(room + 1, tf.float32), tf.int32), room)

    def _crop(
        self,
        parsed: dict[str, tf.Tensor],
        encoded: tf.Tensor,
        corner: tf.Tensor,
        size: tuple[int | tf.Tensor, int | tf.Tensor],
    ) -> tf.Tensor:
        """The window of `size` at `corner` of the resized frames, uint8 [N, *size, C]."""

        def decode_window() -> tf.Tensor:
            return self._decode(parsed, encoded, window=tf.concat([corner, tf.stack(size)], axis=0))

        if not self.clip.short_side:
            return decode_window()

        def decode_and_resize() -> tf.Tensor:
            return resize_and_crop(
                self._decode(parsed, encoded, window=None),
                short_side=self.clip.short_side,
                top=corner[0],
                left=corner[1],
                crop_height=size[0],
                crop_width=size[1],
            )

        # Frames that have the size need no resize, and then only the crop is decoded.
        shorter = tf.cast(tf.minimum(parsed["height"], parsed["width"]), tf.int32)
        return tf.cond(tf.equal(shorter, self.clip.short_side), decode_window, decode_and_resize)

    def _decode(self, parsed: dict[str, tf.Tensor], encoded: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
        """uint8 [N, H, W, C]: the frames, or a window (top, left, height, width) of them."""
        frames = decode_each(
            encoded, image_format=self.manifest.image_format, channels=self.clip.channels, window=window
        )
        if window is not None:
            size = window[2:]
        elif self.is_whole:
            size = tf.constant(self.clip.frame_size)
        else:
            size = tf.cast(tf.stack([parsed["height"], parsed["width"]]), tf.int32)
        shape = tf.concat([size, [self.clip.channels]], axis=0)
        with tf.control_dependencies([_frames_assertion(frames, parsed, shape)]):
            return tf.stack(frames)

    def _clip_assertions(self, parsed: dict[str, tf.Tensor]) -> list[tf.Operation]:
        found = tf.size(parsed["encoded"])
        label, num_classes = parsed["label"], len(self.manifest.classes)  # int64: as int32 it could wrap into the range
        sides = tf.stack([parsed["height"], parsed["width"]])
        height, width = self._resized(parsed)
        if self.manifest.num_frames is None:
            enough, expected = found > 0, "frames, expected at least 1"
        else:
            length = self.manifest.num_frames if self.samples_in_time else self.clip.num_frames
            enough, expected = tf.equal(found, length), f"frames, expected {length}"
        resized = f"with a short side of {self.clip.short_side}, " if self.clip.short_side else ""
        return [
            _clip_assertion(
                tf.reduce_all((sides > 0) & (sides <= LARGEST_SIDE)),
                parsed,
                "is declared as",
                tf.strings.as_string(sides),
                f"pixels of height and width, expected 1 to {LARGEST_SIDE}",
            ),
            _clip_assertion(enough, parsed, "has", found, expected),
            _clip_assertion(
                (label >= 0) & (label < num_classes),
                parsed,
                "has label",
                tf.strings.as_string(label),
                f"but the manifest names {num_classes} classes",
            ),
            _clip_assertion(
                (height >= self.clip.height) & (width >= self.clip.width),
                parsed,
                "is",
                height,
                "x",
                width,
                f"pixels large, {resized}expected at least {_by(self.clip.frame_size)}",
            ),
        ]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _frames_assertion(frames: list[tf.Tensor], parsed: dict[str, tf.Tensor], shape: tf.Tensor) -> tf.Operation:
    shapes = tf.stack([tf.shape(frame) for frame in frames])  # [T, 3]
    as_expected = tf.reduce_all(tf.equal(shapes, shape), axis=1)  # [T]
    first_wrong = tf.argmin(tf.cast(as_expected, tf.int32), output_type=tf.int32)
    return _clip_assertion(
        tf.reduce_all(as_expected),
        parsed,
        "has a frame, number",
        first_wrong,
        "of height, width, channels",
        tf.gather(shapes, first_wrong),
        "expected",
        shape,
    )


def _clip_assertion(condition: tf.Tensor, parsed: dict[str, tf.Tensor], *message: object) -> tf.Operation:
    # Assert runs without a conditional around it, which would cost more than the check, for string and int32 data only.
    return tf.debugging.Assert(condition, [DATASET_FAULT_MARK + " clip", parsed["media_id"], *message])


def fold_in(seed: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """int64 [2]: the seed of a child of `seed`, by number."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64), alg="philox")
