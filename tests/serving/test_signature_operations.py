"""What converters for other runtimes need of a signature."""

from __future__ import annotations

import served_models
from served_models import GREY

from rstg_tf.layers import temporal_stage
from rstg_tf.runs import clip_spec_of_run
from rstg_tf.serving import signatures


def operations(function):
    """Types of all operations in the function and in the functions it calls."""
    graph = function.get_concrete_function().graph.as_graph_def()
    return {node.op for node in [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]}


def test_the_clips_signature_has_no_string_and_no_control_flow_even_with_a_gpu(monkeypatch):
    monkeypatch.setattr(temporal_stage, "has_gpu", lambda: True)  # Keras' LSTM, a loop, would run in training
    model = served_models.build_grey()
    functions, _ = signatures.build_signatures(
        model, clip_spec_of_run.served_clip_spec(GREY), served_models.class_names(GREY)
    )
    found = operations(functions["serving_default"])
    assert "EnsureShape" in found and "Softmax" in found
    assert not [name for name in found if "While" in name or name in ("If", "StatelessIf") or "String" in name]
