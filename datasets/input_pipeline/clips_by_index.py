"""Clips of a data set by their numbers, for a program that shows some of them."""

from __future__ import annotations

from rstg_tf.common.errors import ConfigError


def _clip_name(index: int) -> str:
    return f"clip-{index}"


def _read_records(dataset, options, wanted: set[int]) -> tuple[dict, dict]:
    """Name -> video and name -> label of the wanted clips; reads no further than the last of them."""
    import tensorflow as tf

    from datasets.input_pipeline.pipeline import evaluation_clips

    videos, labels = {}, {}
    try:
        for clip in evaluation_clips(dataset=dataset, options=options, batch_size=1):
            index = int(clip["index"][0])
            if index in wanted:
                name = _clip_name(index)
                videos[name], labels[name] = clip["video"][0].numpy(), int(clip["label"][0])
            if len(videos) == len(wanted):
                break
    except tf.errors.OpError as error:
        fault = dataset.explain_read_error(error)
        raise (ConfigError(str(fault)) if fault else error) from error
    return videos, labels
