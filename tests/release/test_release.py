"""What the release wrote: configurations, tensors, checkpoints."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import recipe
from weights_on_disk import save_tf1

from rstg_tf import build_model, release
from rstg_tf.common.errors import ConfigError
from rstg_tf.config import ExperimentConfig
from rstg_tf.release.name_parts import LSTM_CELL

CASE = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "syncmnist_small.json").read_text())
TINY = {
    **CASE["config"],
    "num_filters": 8,
    "node_feat_dim": 8,
    "message_dims": 8,
    "dim_h": 32,
    "dim_w": 32,
    "num_classes": 5,
}
VIDEO = recipe.video(3, (2, 10, 32, 32, 1))
EXTERN = f"tower/whole_graph_model_final/time_update_extern/{LSTM_CELL}/kernel"


def tiny_model(**changes):
    return build_model(release.config_from_release({**TINY, **changes}).model)


def tensors_of(model):
    return {name: recipe.weight(name, value.shape) for name, value in release.release_tensors(model).items()}


def test_the_syncmnist_yaml_says_raw_pixels_input_norm_and_summed_loss():
    config = release.config_from_release(CASE["config"])
    assert config.model.pixel_scaling == "none" and config.model.graph.input_batch_norm
    assert config.model.graph.positional_map_size == 6 and config.model.graph.attention_heads == 1
    assert (config.train.loss_reduction, config.train.optimizer) == ("sum", "nesterov")
    assert config.train.learning_rate == 1e-6
    assert ExperimentConfig.from_json(config.to_json()) == config


def test_a_yaml_file_reads_like_its_keys(tmp_path):
    path = tmp_path / "mnist_config.yaml"
    path.write_text(
        "".join(f"{key}: {json.dumps(value)}\n" for key, value in CASE["config"].items()).replace(
            "learning_rate: 1e-06", "learning_rate: 1e-6"
        )
    )  # which YAML reads as text
    assert release.config_from_release(path) == release.config_from_release(CASE["config"])


def test_multi_head_means_eight_heads_of_dot_attention_only():
    assert release.config_from_release({**TINY, "multihead_att": True}).model.graph.attention_heads == 1
    dot = release.config_from_release({**TINY, "multihead_att": True, "use_att": "dot"})
    assert dot.model.graph.attention_heads == 8


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"backbone_model": "non-local", "place_nonlocal": "res5"}, ("res3", "res4", "res5")),
        ({"backbone_model": "non-local", "place_nonlocal": "none"}, ("res3", "res4")),
        ({"backbone_model": "i3d", "place_nonlocal": "res4"}, ("res4",)),
        ({"backbone_model": "c2d", "place_nonlocal": "res4"}, ()),
    ],
)
def test_non_local_blocks_lie_where_the_release_puts_them(changes, places):
    values = {**TINY, "dataset": "smt-smt", "place_graph": "none", "comb_type": "plus", "num_chan": 3, **changes}
    assert release.config_from_release(values).model.nonlocal_places == places


def test_only_c2d_reads_use_norm_as_its_final_norm():
    values = {**TINY, "num_chan": 3, "use_norm": "BN", "final_norm": "LN", "comb_type": "plus"}
    assert release.config_from_release({**values, "backbone_model": "c2d"}).model.final_norm == "BN"
    assert release.config_from_release({**values, "backbone_model": "i3d"}).model.final_norm == "LN"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_atention": "dot"}, "unknown key use_atention"),
        ({"use_att": "none"}, "use_att=none: expected one of simple, dot"),
        ({"scalewise_update": "yes"}, "scalewise_update: 'yes' is neither true nor false"),
        ({"num_scales": "three"}, "num_scales: 'three' is no int"),
        ({"comb_type": "plus"}, "comb_type=plus needs a ResNet"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_its_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        release.config_from_release({**TINY, **changes})


def test_a_missing_yaml_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nothing.yaml"):
        release.config_from_release(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_att": "dot", "multihead_att": True, "use_norm": "LN", "scalewise_update": True},
        {"use_norm": "BN", "use_positional_emb": False, "dataset": "smt-smt"},
        {"num_process_iter": 0},
        {"message_dims": 16, "use_norm": "LN"},
    ],
    ids=str,
)
def test_tensors_come_back_exactly_after_a_round_trip(changes):
    model = tiny_model(**changes)
    tensors = tensors_of(model)
    release.assign_weights(model, {f"{name}:0": value for name, value in tensors.items()})
    written = release.release_tensors(model)
    assert written.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)


def test_heads_are_numbered_from_zero_and_keep_their_own_columns():
    model = tiny_model(use_att="dot", multihead_att=True)
    tensors = tensors_of(model)
    release.assign_weights(model, tensors)
    prefix = "tower/whole_graph_model_final/attention_head3/"
    attention = model.head.space_stage.attention
    np.testing.assert_array_equal(
        attention.receiver.kernel[:, 3:4], tensors[f"{prefix}dot_product_attn/att_conv1/kernel"][0]
    )
    np.testing.assert_array_equal(attention.head_kernels[3], tensors[f"{prefix}messages_proj/kernel"][0, 0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: tensors.pop("tower/pred/bias"), r"tower/pred/bias \[5\] is missing"),
        (lambda tensors: tensors.update({"tower/pred/bias": np.zeros(6)}), r"has shape \[6\], expected \[5\]"),
        (lambda tensors: tensors.update({"tower/pred/extra": np.zeros(6)}), "tower/pred/extra fits no weight"),
    ],
)
def test_tensors_that_do_not_fit_change_nothing(damage, message):
    model = tiny_model()
    before = model(VIDEO).numpy()
    tensors = tensors_of(model)
    damage(tensors)
    with pytest.raises(ValueError, match=message):
        release.assign_weights(model, tensors)
    np.testing.assert_array_equal(model(VIDEO), before)


def test_slots_step_and_constants_may_stand_beside_the_weights():
    model = tiny_model()
    tensors = tensors_of(model)
    beside = {
        "global_step": np.int64(7),
        "tower/pred/bias/Momentum": np.zeros(5),
        "tower/positional_emb": np.zeros((14, 36)),
        "tower/graph_input/resize/resize_filters__2_2_3x3": np.zeros((3, 3, 2, 2)),
        "tower/whole_graph_model_final/cudnn_lstm/opaque_kernel": np.zeros(3),
    }
    release.assign_weights(model, {**tensors, **beside})
    np.testing.assert_array_equal(model.classifier.dense.bias, tensors["tower/pred/bias"])


def test_cudnn_s_buffer_alone_restores_the_lstm():
    model, other = tiny_model(), tiny_model()
    tensors = tensors_of(model)
    release.assign_weights(model, tensors)
    kernel, bias = tensors.pop(EXTERN), tensors.pop(EXTERN.replace("kernel", "bias"))
    gates = [kernel[:, 8 * gate : 8 * gate + 8] for gate in (0, 2, 1, 3)]  # i, f, c, o
    biases = [bias[8 * gate : 8 * gate + 8] for gate in (0, 2, 1, 3)]
    flat = (
        [gate[:8].T.ravel() for gate in gates]
        + [gate[8:].T.ravel() for gate in gates]
        + [0.25 * part for part in biases]
        + [0.75 * part for part in biases]
    )
    opaque = "tower/whole_graph_model_final/time_update_extern/cudnn_lstm/opaque_kernel"
    release.assign_weights(other, {**tensors, opaque: np.concatenate(flat)})
    np.testing.assert_allclose(other(VIDEO), model(VIDEO), atol=1e-6)
    with pytest.raises(ValueError, match="opaque_kernel: 9 values, expected 576"):
        release.assign_weights(other, {**tensors, opaque: np.zeros(9)})


def test_a_tf1_checkpoint_restores_with_its_step(tmp_path):
    model, other = tiny_model(), tiny_model()
    tensors = tensors_of(model)
    release.assign_weights(model, tensors)
    prefix = save_tf1(tmp_path, tensors, step=12)
    assert release.load_checkpoint(other, tmp_path) == 12
    np.testing.assert_array_equal(other(VIDEO), model(VIDEO))
    assert release.load_checkpoint(other, prefix) == 12


def test_a_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint there"):
        release.load_checkpoint(tiny_model(), tmp_path)


def test_a_baseline_that_the_release_does_not_have_is_refused():
    config = dataclasses.replace(release.config_from_release(TINY).model, head="mean_lstm")
    with pytest.raises(ValueError, match="the release has no such model"):
        release.assign_weights(build_model(config), {})
