"""The gate for SavedModels: our exports pass, and nothing that reads, writes or starts something is loaded."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import served_models
import tensorflow as tf
from served_models import GREY
from tensorflow.core.protobuf import saved_model_pb2

from rstg_tf.common.errors import ConfigError
from rstg_tf.inference.classifier import SavedModelPredictor
from rstg_tf.serving.foreign_models import check_saved_model
from rstg_tf.serving.model_versions import load_signatures


class Foreign(tf.Module):
    """A model whose signature does something more than computing."""

    def __init__(self, action):
        super().__init__()
        self.weight = tf.Variable([1.0])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="video")])
        def call(video):
            @tf.function
            def inner(values):
                return action(values)

            return {"logits": self.weight * inner(video)}

        self.call = call


def write(folder, action):
    module = Foreign(action)
    tf.saved_model.save(module, str(folder), signatures=module.call)
    return folder


def reads_a_file(path):
    return lambda values: values + tf.cast(tf.strings.length(tf.io.read_file(str(path))), tf.float32)


def writes_a_file(path):
    def action(values):
        with tf.control_dependencies([tf.io.write_file(str(path), "owned")]):
            return tf.identity(values)

    return action


ACTIONS = {
    "ReadFile": reads_a_file,
    "WriteFile": writes_a_file,
    "EagerPyFunc": lambda path: lambda values: tf.py_function(lambda v: v, [values], tf.float32),
    "RestoreV2": lambda path: (
        lambda values: (
            values
            + tf.raw_ops.RestoreV2(prefix=str(path), tensor_names=["v"], shape_and_slices=[""], dtypes=[tf.float32])[0]
        )
    ),
    "MatchingFiles": lambda path: lambda values: values + tf.cast(tf.size(tf.io.matching_files("/*")), tf.float32),
    "PrintV2": lambda path: lambda values: (tf.print(values, output_stream=f"file://{path}"), values)[1],
}


def test_our_exports_pass(grey, colour):
    for served in (grey, colour):
        assert check_saved_model(served.path) == []


@pytest.mark.parametrize("head", ["mean_lstm", "conv_lstm"])
def test_exports_of_the_baselines_pass(tmp_path, head):
    config = dataclasses.replace(GREY, model=dataclasses.replace(GREY.model, head=head))
    served = served_models.serve(served_models.build_model(config.model), config, tmp_path / head)
    assert check_saved_model(served.path) == []


@pytest.mark.parametrize("op", ACTIONS)
def test_an_op_that_does_more_than_compute_is_named_with_its_place_and_never_run(tmp_path, op):
    target = tmp_path / "written"
    folder = write(tmp_path / "model", ACTIONS[op](target))
    with pytest.raises(ConfigError, match=rf"the op '{op}' \('.*' in the function .*--trust"):
        load_signatures(str(folder))
    assert not target.exists()


def test_a_trusted_model_is_loaded_and_what_was_found_is_told(tmp_path, capsys):
    target = tmp_path / "written"
    folder = write(tmp_path / "model", writes_a_file(target))
    load_signatures(str(folder), trust=True)["serving_default"](video=tf.constant([1.0]))
    assert target.read_text() == "owned"
    assert "is trusted although it holds the op 'WriteFile'" in capsys.readouterr().err


def change(folder, copy, edit):
    """A copy of a SavedModel whose only graph has gone through `edit`."""
    shutil.copytree(folder, copy)
    path = copy / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    edit(model, model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())
    return copy


def _huge_constant(model, graph):
    node = graph.graph_def.library.function[0].node_def.add(name="huge", op="Const")
    node.attr["value"].tensor.dtype = 1
    node.attr["value"].tensor.tensor_shape.dim.add().size = 2**40


def _recursion(model, graph):
    function = graph.graph_def.library.function[0]
    function.node_def.add(name="again", op="PartitionedCall").attr["f"].func.name = function.signature.name


def _blow_up(model, graph):
    function, previous = graph.graph_def.library.function, ""
    for number in range(40):
        added = function.add()
        added.signature.name = f"twice_{number}"
        for name in ("one", "two"):
            node = added.node_def.add(name=name, op="PartitionedCall" if previous else "NoOp")
            if previous:
                node.attr["f"].func.name = previous
        previous = added.signature.name


def _saving_in_a_signature(model, graph):
    name = next(name for name in graph.object_graph_def.concrete_functions)
    [function] = [entry for entry in graph.graph_def.library.function if entry.signature.name == name]
    function.node_def.add(name="sly", op="SaveV2")


EDITS = {
    "a constant": (_huge_constant, "constants of"),
    "recursion": (_recursion, "call themselves"),
    "blow-up": (_blow_up, "amount to"),
    "saving": (_saving_in_a_signature, "'SaveV2'"),
    "main graph": (
        lambda model, graph: graph.graph_def.node.add(name="n", op="ReadFile"),
        "'ReadFile' .'n' in the graph",
    ),
    "TF1": (lambda model, graph: graph.ClearField("object_graph_def"), "without the objects"),
    "two graphs": (lambda model, graph: model.meta_graphs.add(), "2 graph"),
    "asset": (lambda model, graph: graph.asset_file_def.add(filename="../../x"), "the asset '../../x'"),
    "resource": (lambda model, graph: graph.object_graph_def.nodes.add().resource.SetInParent(), "kind 'resource'"),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_no_export_of_ours_has_is_refused(grey, tmp_path, name):
    edit, told = EDITS[name]
    with pytest.raises(ConfigError, match=told):
        check_saved_model(change(grey.path, tmp_path / "copy", edit))


def test_links_out_of_the_folder_and_damaged_files_are_refused_even_if_trusted(grey, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(grey.path, copy)
    (copy / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(ConfigError, match="cannot be loaded as a SavedModel"):
        check_saved_model(copy, trust=True)
    (copy / "assets" / "class_names.txt").unlink()
    (copy / "assets" / "class_names.txt").symlink_to("/etc/hostname")
    for act in (lambda: check_saved_model(copy, trust=True), lambda: SavedModelPredictor(str(copy))):
        with pytest.raises(ConfigError, match="outside of the folder"):
            act()


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("export.json", "[" * 10_000, "nested too deeply"),
        ("export.json", "[]", "expected an object"),
        ("export.json", '{"video": {"frames": 1e9}}', "the clip's frames"),
        (
            "export.json",
            '{"video": {"frames": 4294967300, "height": 1, "width": 1, "channels": 1}}',
            "frames is 4294967300",
        ),
        ("experiment.json", '{"model": []}', "expected settings by name"),
        ("experiment.json", '{"model": {"num_frames": "4"}}', "expected whole numbers"),
        ("experiment.json", '{"model": {"graph": {"node_width": 1000000}}}', "weights; expected at most"),
        ("class_names.txt", "one\n", "1 names; expected 7"),
    ],
)
def test_assets_of_other_shapes_end_in_a_sentence_that_names_the_file(grey, tmp_path, name, text, told):
    copy = tmp_path / "copy"
    shutil.copytree(grey.path, copy)
    Path(copy, "assets", name).write_text(text)
    with pytest.raises(ConfigError, match=told) as refusal:
        SavedModelPredictor(str(copy))
    assert "assets" in str(refusal.value)
