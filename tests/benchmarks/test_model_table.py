"""The counts behind benchmarks.model_table against sums by hand, TensorFlow's profiler and the release's lists."""

from __future__ import annotations

import json
import math
import pathlib
import re

import pytest
import tensorflow as tf

from benchmarks import graph_costs, model_table
from rstg_tf import flags
from rstg_tf.layers.temporal_stage import TemporalStage
from rstg_tf.model import build_model

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = {
    "smt.flags": "smt_i3d_rstg_res3_res4",
    "syncmnist.flags": "syncmnist_full",
    "configs/smt_c2d.flags": "smt_c2d",
    "configs/smt_i3d.flags": "smt_i3d",
    "configs/smt_nonlocal.flags": "smt_nonlocal",
    "configs/smt_c2d_rstg_final.flags": "smt_c2d_rstg_final",
    "configs/smt_i3d_rstg_final.flags": "smt_i3d_rstg_final",
    "configs/smt_dense_i3d_rstg_final.flags": "smt_dense_i3d_rstg_final",
}
CONSTANTS = ("resize_filters__", "positional_emb")  # listed by the release among its variables, but no weights


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return model_table.measure_files(model_table.flag_files())


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def model_of(file):
    return build_model(flags.config_from_flags(flags.parse([f"--flagfile={file}"])).model)


def trace(function, *shapes, dtype=tf.float32):
    """The graph of `function` on tensors of these shapes."""
    specs = [tf.TensorSpec(shape, dtype) for shape in shapes]
    return tf.function(function, autograph=False).get_concrete_function(*specs).graph


def counts(function, *shapes):
    return [product.multiply_adds for product in graph_costs.products(trace(function, *shapes))]


def is_in(layer: str, product) -> bool:
    """Whether it is computed within a layer of this name; Keras 3 numbers the scopes of calls: 'spatial_1'."""
    return re.search(rf"/{layer}(_\d+)?/", product.name) is not None


def lstm(**settings):
    stage = TemporalStage(units=6, **settings)
    stage.build((None, None, 3, 5))
    return stage


def test_the_first_convolution_of_c2d_is_counted_as_by_hand(in_root):
    products = graph_costs.products(model_table.trace_forward(model_of("configs/smt_c2d.flags")))
    # 32 frames of 224×224, stride 2: 112×112 positions of 64 channels, each the sum over 7×7 pixels of 3 channels.
    assert products[0].multiply_adds == 32 * 112 * 112 * 64 * (7 * 7 * 3) == 3_776_446_464
    assert "conv1" in products[0].name
    # res5's middle convolutions: 16 steps, 14×14 positions, 3×3 kernels from 512 to 512 channels.
    assert [
        product.multiply_adds for product in products if "/res5_" in product.name and is_in("spatial", product)
    ] == 3 * [16 * 14 * 14 * 512 * (3 * 3 * 512)]


def test_the_graph_s_messages_are_counted_as_by_hand(in_root):
    products = graph_costs.products(model_table.trace_forward(model_of("syncmnist.flags")))
    # In each of K = 3 rounds and 10 steps, 14 nodes tell 14 nodes something, through 512 -> 512 channels.
    second = [product.multiply_adds for product in products if is_in("messages", product) and is_in("second", product)]
    assert second == 3 * [10 * 14 * 14 * 512 * 512]
    # The first layer: for each of 14 nodes a sender's and a receiver's half, 512 -> 512 each; and both halves of the
    # 14 positional maps of 6×6 = 36 values, which are the same in every step.
    first = [product.multiply_adds for product in products if re.search(r"/messages(_\d+)?/(?!second)", product.name)]
    assert first == 3 * [10 * 14 * 512 * 512, 10 * 14 * 512 * 512, 14 * 36 * 512, 14 * 36 * 512]


@pytest.mark.parametrize(("steps", "loops", "from_zeros"), [(10, 0, 1), (70, 1, 0)], ids=["unrolled", "while loop"])
def test_an_lstm_is_counted_for_every_step(steps, loops, from_zeros):
    graph = trace(lstm(), [2, steps, 3, 5])
    assert sum(op.type in ("While", "StatelessWhile") for op in graph.get_operations()) == loops
    # 2 clips × 3 nodes: in every step (5 inputs + 6 of the state) × 4 gates × 6 units. Unrolled, the first step has no
    # product with a state of zeros.
    assert graph_costs.multiply_adds(graph) == 2 * 3 * (steps * 5 + (steps - from_zeros) * 6) * 4 * 6


def test_a_function_counts_as_often_as_it_is_called():
    square = tf.function(lambda x: tf.matmul(x, x), autograph=False)
    assert counts(lambda x: square(square(x)), [3, 3]) == [27, 27]


def test_every_kind_of_product_is_counted_as_by_hand():
    assert counts(tf.matmul, [2, 3], [3, 5]) == [2 * 3 * 5]
    assert counts(lambda a, b: tf.matmul(a, b, transpose_a=True), [3, 2], [3, 5]) == [2 * 3 * 5]
    assert counts(lambda a, b: tf.matmul(a, b, transpose_b=True), [7, 2, 3], [7, 5, 3]) == [7 * 2 * 3 * 5]
    assert counts(lambda a, b: tf.matmul(a, b, transpose_a=True), [7, 3, 2], [7, 3, 5]) == [7 * 2 * 3 * 5]
    assert counts(lambda a, b: tf.einsum("btic,jc->btij", a, b), [2, 4, 3, 5], [6, 5]) == [2 * 4 * 3 * 6 * 5]
    assert counts(lambda a, b: tf.nn.depthwise_conv2d(a, b, [1] * 4, "VALID"), [1, 5, 5, 2], [3, 3, 2, 4]) == [
        3 * 3 * 8 * 9
    ]
    # Two groups: each of the 6 channels sees 2 of the 4.
    assert counts(lambda a, b: tf.nn.conv2d(a, b, 1, "VALID"), [1, 5, 5, 4], [3, 3, 2, 6]) == [3 * 3 * 6 * 9 * 2]


def test_what_cannot_be_counted_is_refused_by_name():
    with pytest.raises(graph_costs.GraphCostError, match="type Cholesky"):
        counts(tf.linalg.cholesky, [3, 3])
    with pytest.raises(graph_costs.GraphCostError, match="without a constant limit"):
        counts(lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: [tf.matmul(y, y)], [x]), [3, 3])
    with pytest.raises(graph_costs.GraphCostError, match="without a constant limit"):
        counts(lstm(fused=True), [2, 70, 3, 5])  # Keras' own LSTM
    with pytest.raises(graph_costs.GraphCostError, match=r"MatMul:0: its shape \(None, 5\)"):
        counts(tf.matmul, [None, 3], [3, 5])
    with pytest.raises(graph_costs.GraphCostError, match="ellipsis"):
        counts(lambda a, b: tf.einsum("...c,cd->...d", a, b), [2, 3], [3, 5])
    with pytest.raises(graph_costs.GraphCostError, match="holds can't be read"):
        graph = trace(lambda x: tf.scan(lambda a, b: a + b, x), [70, 3])
        graph_costs.peak_bytes(graph, graph.outputs)


@pytest.mark.parametrize("file", ["configs/demo.flags", "configs/smt_nonlocal.flags"])
def test_the_counts_are_half_of_the_operations_that_tensorflow_s_profiler_finds(file, in_root):
    graph = model_table.trace_forward(model_of(file))
    ours = {}
    for product in graph_costs.products(graph):
        ours[product.kind] = ours.get(product.kind, 0) + product.multiply_adds
    profiler = tf.compat.v1.profiler
    options = {**profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    report = profiler.profile(graph, cmd="op", options=options)
    theirs, waiting = {}, [report]
    while waiting:
        node = waiting.pop()
        theirs[node.name] = node.float_ops
        waiting += node.children
    assert set(ours) >= {"MatMul", "BatchMatMulV2"}
    assert {kind: 2 * count for kind, count in ours.items()} == {kind: theirs[kind] for kind in ours}


def test_held_bytes_follow_the_trace_as_by_hand():
    def function(x):
        doubled = 2.0 * x
        shifted = tf.reshape(doubled, [10, 10]) + 1.0
        both = tf.concat([shifted, shifted], 0)
        return tf.reduce_sum(both * both)

    graph = trace(function, [100])
    # In floats of 4 bytes: doubled 100; + shifted 200, doubled goes (a reshaped tensor is the same buffer); + both 300,
    # shifted goes; + both² 400, both goes; the sum is the output and not counted.
    assert graph_costs.peak_bytes(graph, graph.outputs) == 400 * 4


def test_held_bytes_of_a_gradient_keep_what_the_backward_pass_reads():
    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.sin(tf.sin(tf.sin(x)))
        return tape.gradient(loss, x)

    graph = trace(function, [100])
    # Forward: s₁ = sin x and s₂ = sin s₁ stay for the backward pass, 200; the loss itself is not needed. Backward:
    # + cos s₂ 300, s₂ goes; + gradient 300, cos s₂ goes; + cos s₁ 300, s₁ goes; + gradient 300, both factors go;
    # + cos x 200; the last product is the output.
    assert graph_costs.peak_bytes(graph, graph.outputs) == 300 * 4


@pytest.mark.slow
@pytest.mark.parametrize("file", GOLDEN)
def test_parameters_are_those_of_the_release_s_list(file, rows):
    listed = json.loads((ROOT / "tests" / "golden" / f"{GOLDEN[file]}.json").read_text())["variables"]
    weights = [
        (math.prod(shape), trained)
        for name, shape, trained in listed
        if not any(constant in name for constant in CONSTANTS)
    ]
    assert rows[file]["parameters"] == sum(size for size, _ in weights)
    assert rows[file]["trainable_parameters"] == sum(size for size, trained in weights if trained)


@pytest.mark.slow
def test_recomputing_the_stages_holds_less(rows):
    resnets = [row for row in rows.values() if row["clip"][1] == 224]
    assert len(resnets) == 10
    for row in resnets:
        assert row["activation_bytes_with_remat"] < 0.75 * row["activation_bytes"]


@pytest.mark.slow
def test_the_heads_of_the_flag_files_state_the_memory_that_is_measured(rows):
    for file, row in rows.items():
        figure, unit, remat = re.search(
            r"Memory: ([\d.]+) ([GM]iB) a clip(?:, ([\d.]+) with --remat)?", (ROOT / file).read_text()
        ).groups()
        unit = {"GiB": 2**30, "MiB": 2**20}[unit]
        assert row["activation_bytes"] / unit == pytest.approx(float(figure), rel=0.05), file
        if remat or row["activation_bytes_with_remat"]:
            assert row["activation_bytes_with_remat"] / unit == pytest.approx(float(remat), rel=0.05), file


@pytest.mark.slow
def test_the_gpu_that_a_flag_file_names_has_room_for_its_batch(rows, in_root):
    for file, row in rows.items():
        found = re.search(r"the batch of (\d+) fits 1 GPU of (\d+) GB", (ROOT / file).read_text())
        assert found or file in ("configs/demo.flags", "configs/real_video.flags")
        if found:
            clips, gigabytes = map(int, found.groups())
            weights = 4 * 4 * row["parameters"]  # with their gradients, slots and a copy under way, in float32
            assert clips * row["activation_bytes"] + weights < 0.85 * gigabytes * 1e9, file


@pytest.mark.slow
def test_the_page_of_flags_shows_the_table_that_the_command_prints(rows):
    page = (ROOT / "docs" / "flags.md").read_text().splitlines()
    assert [line for line in model_table.table(rows) if line not in page] == []


def test_the_command_prints_a_table_and_writes_the_same_numbers(in_root, tmp_path, capsys):
    assert model_table.main([f"--json={tmp_path / 'table.json'}", "configs/demo.flags"]) == 0
    result = json.loads((tmp_path / "table.json").read_text())
    row = result["rows"]["configs/demo.flags"]
    assert row["clip"] == [10, 32, 32, 1]
    # conv0: 30×30 positions from 3×3 pixels to 32 channels; conv1: 13×13 from 3×3×32 to 32. The graph comes on top.
    assert row["multiply_adds"] > 10 * (30 * 30 * 9 * 32 + 13 * 13 * 9 * 32 * 32)
    assert row["activation_bytes_with_remat"] is None
    printed = capsys.readouterr().out.splitlines()
    assert printed[:-1] == model_table.table(result["rows"])
    assert printed[2].startswith("| `configs/demo.flags` | 10×32×32×1 | 0.04 M (0.04 M) | ")
    assert printed[-1] == ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    assert result["versions"]["TensorFlow"] == tf.__version__


def test_wrong_use_ends_with_exit_code_2_and_one_sentence(tmp_path, capsys):
    for arguments in (["--jsn=x"], [f"--json={tmp_path}/no/table.json"], [str(tmp_path / "none.flags")]):
        assert model_table.main(arguments) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
