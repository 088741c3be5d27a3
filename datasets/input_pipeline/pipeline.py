"""Shards -> `tf.data` batches of clips: order, frames, crops, augmentation.

    shards of an epoch, shuffled -> interleaved records -> shuffle buffer -> skip to start_step     serialized
      -> parse -> sample frames -> decode only those -> resize, crop -> flip, brightness -> batch   pixels

Everything random is a pure function: the order of (seed, epoch), a clip's augmentation of (seed, epoch, media id). So
training resumes by skipping serialized records, without stored buffers, and the number of threads changes nothing.
All of it is `tf.data`; no Python runs per clip.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import tensorflow as tf

from datasets.input_pipeline.augmentation import change_brightness, flip_horizontally, mirrored_labels
from datasets.input_pipeline.clip_reader import ClipReader, fold_in
from datasets.input_pipeline.reading_options import ReadingOptions
from datasets.records.dataset import DATASET_FAULT_MARK, RecordedDataset
from datasets.records.manifest import DatasetError
from datasets.records.sequence_examples import parse_clip
from rstg_tf.video.clip_spec import ClipSpec

# The order of the records depends on it, so it is no setting, and is not taken from the machine.
SHARDS_READ_TOGETHER = 16
# For several views videos are decoded whole, tens of megabytes each.
VIDEOS_DECODED_AHEAD = 2
# The two independent random streams of a seed.
_ORDER, _AUGMENTATION = 0, 1


def training_clips(
    *,
    dataset: RecordedDataset,
    clip: ClipSpec,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    brightness: float = 0.0,
    horizontal_flip: bool = False,
    shuffle_buffer: int = 4096,
    parallel_calls: int | None = None,
) -> tf.data.Dataset:
    """The endless stream of training batches, from step `start_step` on.

    Clip p of the stream belongs to epoch p // num_clips, and batch s holds the clips s * batch_size and following, so a
    batch may join the end of an epoch with the start of the next; no clip is left out, each comes once per epoch.

    Args:
      dataset: call its `check` first.
      clip: what is cut out of the records. Of videos (JPEG) of another length T frames at even distances are taken, see
        `transforms.frame_indices`; a clip that differs from the length in the manifest is an error that names it.
        Frames that are larger than the clip's, resized or not, are cropped at random, once per clip.
      batch_size: clips of one step over all replicas.
      seed: of order and augmentation.
      start_step: the first batch to give; the records before it are read and skipped, not decoded.
      brightness: one value per clip, uniform in ±brightness of full scale (255), is added and the sum clipped to
        0…255, in float32.
      horizontal_flip: mirrors every frame of a clip with probability 1/2, and its label: see `mirrored_labels`.
      shuffle_buffer: records, held serialized in memory, among which the next one is drawn. The order depends on it
        (and on the shards) and is uniform when it holds the whole data set; 0 shuffles the shards alone.
      parallel_calls: clips decoded at a time; None lets tf.data decide.

    Returns:
      Dataset of {"video": [B, T, H, W, C] uint8, or float32 with brightness, in 0…255; "label": int32 [B]}.

    Raises:
      DatasetError: for arguments that the data set cannot serve. While reading, TensorFlow raises its own errors;
        `RecordedDataset.explain_read_error` turns them into a DatasetError that names shard and record or clip.
    """
    _require(dataset.num_clips > 0, f"{dataset.folder} holds no clip.")
    _require(
        batch_size > 0 and start_step >= 0 and shuffle_buffer >= 0,
        f"batch_size={batch_size}, start_step={start_step}, shuffle_buffer={shuffle_buffer}: expected at least "
        "1, 0 and 0.",
    )
    parallel_calls = parallel_calls or tf.data.AUTOTUNE
    reader = ClipReader(dataset.manifest, clip)
    partners = mirrored_labels(dataset.manifest.classes)
    position = start_step * batch_size
    first_epoch, already_seen = divmod(position, dataset.num_clips)
    read_epoch = _epoch_reader(dataset, seed, shuffle_buffer, parallel_calls)

    def draw_clip(epoch: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = parse_clip(serialized)
        # Clips are told apart by their ids, not by their places, so that a clip's augmentation outlives a new sharding.
        fingerprint = tf.strings.to_hash_bucket_fast(parsed["media_id"], 2**62)
        clip_seed = fold_in(fold_in(_stream(seed, _AUGMENTATION), epoch), fingerprint)
        video, label = reader.read_clip(parsed, clip_seed)
        if horizontal_flip:
            video, label = flip_horizontally(video, label, seed=clip_seed, partners=partners)
        if brightness:
            video = change_brightness(video, seed=clip_seed, brightness=brightness)
        return {"video": video, "label": label}

    clips = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(read_epoch).skip(already_seen)
    clips = clips.map(draw_clip, num_parallel_calls=parallel_calls)
    return _finish(clips.batch(batch_size, drop_remainder=True))


def evaluation_clips(
    *,
    dataset: RecordedDataset,
    options: ReadingOptions,
    batch_size: int,
    indices: Collection[int] | None = None,
    parallel_calls: int | None = None,
) -> tf.data.Dataset:
    """Every clip of the data set once, in the order of the shards, or as often as it has views, one after the other.

    A clip's views are its crops (`transforms.view_windows`: the centre, or several at even distances) of each of its
    samplings (`transforms.frame_indices`). Its frames are decoded and resized once; only the views of a batch are cut
    out at a time, so that memory does not grow with their number.

    Args: as those of `training_clips`, and
      options: what a view is, and how many there are of a clip.
      batch_size: views in a batch, the last one what is left.
      indices: numbers of the clips to give, others are not decoded; None: all.

    Returns:
      Dataset of {"video": uint8 [B, T, H, W, C], "label": int32 [B], "media_id": string [B], "index": int64 [B]};
      `index` numbers the clips of the data set from 0 and is the same for all views of a clip.
    """
    crops, samplings = options.spatial_views, options.temporal_views
    _require(
        batch_size > 0 and crops > 0 and samplings > 0,
        f"batch_size={batch_size}, spatial_views={crops}, temporal_views={samplings}: expected at least 1 each.",
    )
    parallel_calls = parallel_calls or tf.data.AUTOTUNE
    reader = ClipReader(dataset.manifest, options.clip)

    def read(index: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = parse_clip(serialized)
        video, label = reader.read_clip(parsed, None)
        return {"video": video, "label": label, "media_id": parsed["media_id"], "index": index}

    records = tf.data.Dataset.range(len(dataset.manifest.shards)).flat_map(_shard_reader(dataset)).enumerate()
    if indices is not None:
        wanted = tf.constant(sorted(set(indices)), tf.int64)
        records = records.filter(lambda index, _: tf.reduce_any(tf.equal(index, wanted))).take(len(wanted))
    if options.num_views > 1:
        clips = _views(records, reader, crops=crops, samplings=samplings)
    else:
        clips = records.prefetch(2 * batch_size).map(read, num_parallel_calls=parallel_calls)
    return _finish(clips.batch(batch_size))


def _views(records: tf.data.Dataset, reader: ClipReader, *, crops: int, samplings: int) -> tf.data.Dataset:
    """Numbered records -> the views of each, one by one."""

    def decode(index: tf.Tensor, serialized: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        parsed = parse_clip(serialized)
        frames, corners, label = reader.read_views(parsed, samplings=samplings, crops=crops)
        return {"label": label, "media_id": parsed["media_id"], "index": index}, frames, corners

    def cut(facts: dict[str, tf.Tensor], frames: tf.Tensor, corners: tf.Tensor) -> tf.data.Dataset:
        views = tf.data.Dataset.range(crops * samplings)
        return views.map(lambda view: {"video": reader.cut_view(frames, corners, view), **facts})

    return records.map(decode, num_parallel_calls=VIDEOS_DECODED_AHEAD).flat_map(cut)


def _epoch_reader(
    dataset: RecordedDataset, seed: int, shuffle_buffer: int, parallel_calls: int
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Function epoch -> dataset of (epoch, serialized clip), in the order of that epoch."""
    read_shard, num_shards = _shard_reader(dataset), len(dataset.manifest.shards)
    shards_together = min(SHARDS_READ_TOGETHER, num_shards)
    # tf.data's own choice is -1, so the smaller number is right for it too.
    parallel_reads = min(parallel_calls, shards_together)

    def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order_seed = fold_in(_stream(seed, _ORDER), epoch)
        shards = tf.random.experimental.stateless_shuffle(tf.range(num_shards, dtype=tf.int64), order_seed)
        records = tf.data.Dataset.from_tensor_slices(shards).interleave(
            read_shard, cycle_length=shards_together, num_parallel_calls=parallel_reads, deterministic=True
        )
        if shuffle_buffer:
            records = _shuffle(records, shuffle_buffer, fold_in(order_seed, 1))
        return records.map(lambda serialized: (epoch, serialized))

    return read_epoch


def _shard_reader(dataset: RecordedDataset) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Function shard number -> dataset of its serialized clips, which fails unless there are as many as promised.

    TensorFlow's reader is silent when a shard ends between two records. So here an empty string stands for the end of
    every shard, and reaching it too early or too late is an error that names the shard.
    """
    paths = tf.constant(dataset.shard_paths, tf.string)
    promised = tf.constant([shard.records for shard in dataset.manifest.shards], tf.int64)

    def read_shard(shard: tf.Tensor) -> tf.data.Dataset:
        path = tf.gather(paths, shard)
        num_records = tf.gather(promised, shard)
        message = tf.strings.join(
            [
                DATASET_FAULT_MARK + " ",
                path,
                " should hold ",
                tf.strings.as_string(num_records),
                " records, but has changed since it was written: missing or surplus is record",
            ]
        )

        def check(number: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
            is_end = tf.equal(tf.strings.length(serialized), 0)
            as_promised = tf.where(is_end, tf.equal(number, num_records), number < num_records)
            with tf.control_dependencies([tf.debugging.Assert(as_promised, [message, tf.cast(number, tf.int32)])]):
                return tf.identity(serialized)

        # No `ignore_errors` here: it would lose the rest of the shard, and spins for ever on one that cannot be opened.
        records = tf.data.TFRecordDataset(path).concatenate(tf.data.Dataset.from_tensors(""))
        return records.enumerate().map(check).filter(lambda serialized: tf.strings.length(serialized) > 0)

    return read_shard


def _shuffle(records: tf.data.Dataset, buffer_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    # `Dataset.shuffle` mixes the program's global seed into its own, the order would not be a function of ours alone.
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=buffer_size,
        seed=seed[0],
        seed2=seed[1],
        output_types=[tf.string],
        output_shapes=[[]],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(shuffled, records.element_spec)


def _stream(seed: int, stream: int) -> tf.Tensor:
    return tf.constant([seed, stream], tf.int64)


def _finish(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Several workers share the elements: there may be fewer shards than workers.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DatasetError(message)
