"""The space stage: messages between regions, attention over them, update of the nodes. Paper, section 3.2.

All layers take nodes [B, T, N, C] and work on the B·T frames at once; i is the receiving node, j the sending one.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from rstg_tf.common.keras_layer import Layer, input_spec
from rstg_tf.layers.attention import NeighbourAttention
from rstg_tf.layers.messages import PairwiseMessages
from rstg_tf.layers.normalization import apply_norm, normalization_layer
from rstg_tf.ops.dense import FlatDense
from rstg_tf.ops.edge_list import EdgeList


@keras.utils.register_keras_serializable("rstg")
class NodeUpdate(Layer):
    """x_i ← norm(MLP([x_i ; g_i])): `layers` dense + relu layers of `width`, one MLP or one per scale.

    `scale_sizes` (e.g. [9, 4, 1]) gives every scale an MLP of its own; the norm then sees all nodes together.
    Source: paper, equation 4; docs/release.md, 'Update'.

    Example:

    >>> update = NodeUpdate(width=4, message_width=6)
    >>> tuple(update(tf.zeros([2, 3, 5, 4]), tf.zeros([2, 3, 5, 6])).shape)
    (2, 3, 5, 4)
    """

    def __init__(
        self,
        *,
        width: int,
        message_width: int,
        layers: int = 2,
        scale_sizes: list[int] | None = None,
        normalization: str = "none",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if layers < 1:
            raise ValueError(f"layers={layers}: the update needs at least 1.")
        self.width, self.message_width, self.layers, self.normalization = width, message_width, layers, normalization
        self.scale_sizes = None if scale_sizes is None else list(scale_sizes)
        self.branches = [
            [
                FlatDense(width, activation="relu", name=f"layer_{layer}_scale_{scale}", dtype=self.dtype_policy)
                for layer in range(layers)
            ]
            for scale in range(len(scale_sizes or [0]))
        ]
        for layer in sum(self.branches, []):
            setattr(self, layer.name, layer)  # Keras 3: a checkpoint does not find layers in lists
        self.norm = normalization_layer(normalization, trailing_axes=2, per_step=True, unbiased=False, name="norm")

    def build(self, input_shape):
        self.input_spec = input_spec(4, input_shape[-1])
        for branch in self.branches:
            inputs = input_shape[-1] + self.message_width
            for layer in branch:
                layer.build((None, inputs))
                inputs = self.width
        if self.norm is not None:
            self.norm.build((None, None, None, self.width))
        super().build(input_shape)

    def call(self, nodes, aggregated, training=False, region_axis: int = 2):
        """`region_axis`: the axis that holds the regions, 2 in space rounds, 1 where the steps take their place."""
        values = tf.concat([nodes, aggregated], axis=-1)
        parts = [values] if self.scale_sizes is None else tf.split(values, self.scale_sizes, axis=region_axis)
        updated = []
        for part, branch in zip(parts, self.branches):
            for layer in branch:
                part = layer(part)
            updated.append(part)
        updated = updated[0] if len(updated) == 1 else tf.concat(updated, axis=region_axis)
        return apply_norm(self.norm, updated, training)

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "message_width": self.message_width,
            "layers": self.layers,
            "scale_sizes": self.scale_sizes,
            "normalization": self.normalization,
        }


@keras.utils.register_keras_serializable("rstg")
class SpatialStage(Layer):
    """One round of message passing within each frame: messages -> attention -> update, [B, T, N, C] -> [B, T, N, C].

    Example:

    >>> stage = SpatialStage(node_width=4, message_width=6)
    >>> nodes, attention = stage(tf.zeros([2, 3, 5, 4]), adjacency=tf.ones([5, 5]) - tf.eye(5))
    >>> tuple(nodes.shape), tuple(attention.shape)
    ((2, 3, 5, 4), (2, 3, 5, 5))
    """

    def __init__(
        self,
        *,
        node_width: int,
        message_width: int,
        attention: str = "simple",
        attention_heads: int = 1,
        neighbourhood: str = "soft",
        normalization: str = "none",
        update_layers: int = 2,
        scale_sizes: list[int] | None = None,
        positions_width: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.node_width, self.message_width = node_width, message_width
        self.attention_kind, self.attention_heads, self.neighbourhood = attention, attention_heads, neighbourhood
        self.normalization, self.update_layers, self.scale_sizes = normalization, update_layers, scale_sizes
        self.positions_width = positions_width
        self.messages = PairwiseMessages(
            width=message_width,
            positions_width=positions_width,
            normalization=normalization,
            name="messages",
            dtype=self.dtype_policy,
        )
        self.attention = NeighbourAttention(
            width=message_width,
            query_width=node_width,
            kind=attention,
            heads=attention_heads,
            neighbourhood=neighbourhood,
            normalization=normalization,
            name="attention",
            dtype=self.dtype_policy,
        )
        self.update = NodeUpdate(
            width=node_width,
            message_width=message_width,
            layers=update_layers,
            scale_sizes=scale_sizes,
            normalization=normalization,
            name="update",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        self.input_spec = input_spec(4, input_shape[-1])
        for part in (self.messages, self.attention, self.update):
            part.build(input_shape)
        super().build(input_shape)

    def call(self, nodes, adjacency, positions=None, training=False, over_time: bool = False):
        """Returns (nodes, α [B, T, N, N]). `positions` broadcasts against [B, T, N, P].

        `over_time`: nodes [B, N, T, C] and adjacency [T, T] instead, the steps of a region in the place of the regions
        of a step, always masked.
        """
        pairs = None
        if self.neighbourhood == "masked" and self.messages.norm is None and not over_time:
            pairs = EdgeList.of_neighbours(adjacency)
        messages = self.messages(nodes, positions, pairs=pairs)
        aggregated, weights = self.attention(
            nodes,
            messages,
            adjacency,
            training=training,
            masked=over_time,
            pairs=pairs,
            message_norm=self.messages.norm_of(messages, training),
        )
        return self.update(nodes, aggregated, training=training, region_axis=1 if over_time else 2), weights

    def get_config(self):
        return {
            **super().get_config(),
            "node_width": self.node_width,
            "message_width": self.message_width,
            "attention": self.attention_kind,
            "attention_heads": self.attention_heads,
            "neighbourhood": self.neighbourhood,
            "normalization": self.normalization,
            "update_layers": self.update_layers,
            "scale_sizes": self.scale_sizes,
            "positions_width": self.positions_width,
        }
