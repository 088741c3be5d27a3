"""`rstg_tf.streaming.stream_clip`: one clip, frame by frame."""

from rstg_tf.inference.streaming import stream_clip

__all__ = ["stream_clip"]
