"""The ResNet-50 backbones: shapes, the order of their parts, memory and precision."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer
from small_resnet import SMALL, SMALL_GRAPH, VIDEO, build_with_recipe_weights, random_inputs
from tensorflow import keras

from rstg_tf import build_model
from rstg_tf.backbones.bottleneck import Bottleneck
from rstg_tf.backbones.resnet50 import ResNet50
from rstg_tf.backbones.resnet50_stages import STAGES
from rstg_tf.common.errors import ConfigError
from rstg_tf.layers.recurrent_graph import RecurrentSpaceTimeGraph
from rstg_tf.layers.residual_graph import ResidualGraph


@pytest.mark.parametrize(
    ("inner", "stride", "output_shape", "weights"), [(2, 1, (2, 3, 5, 5, 8), 15), (2, 2, (2, 3, 3, 3, 8), 20)]
)
def test_a_block_is_a_sound_layer(inner, stride, output_shape, weights):
    arguments = {"inner": inner, "outer": 8, "temporal_kernel": 3, "stride": stride}
    check_layer(Bottleneck, arguments, random_inputs(2, 3, 5, 5, 8), output_shape=output_shape, weights=weights)


@pytest.mark.parametrize(("side", "sides"), [(224, 14), (256, 16), (64, 4), (32, 2)])
def test_the_map_is_a_sixteenth_of_the_frame(side, sides):
    assert ResNet50().map_shape((None, 8, side, side, 3)) == (None, 4, sides, sides, 2048)


@pytest.mark.parametrize(
    ("shape", "variant"), [((1, 2, 32, 32, 1), "c2d"), ((1, 6, 33, 47, 3), "i3d"), ((2, 4, 50, 32, 3), "i3d")]
)
def test_clips_of_any_size_of_at_least_32_and_any_even_length_pass(shape, variant):
    backbone = ResNet50(variant=variant)
    assert backbone(random_inputs(*shape)).shape == backbone.map_shape(shape)


def test_parameters_are_those_of_the_published_networks():
    def count(variant):
        backbone = ResNet50(variant=variant)
        backbone.build((None, 4, 32, 32, 3))
        return sum(int(np.prod(weight.shape)) for weight in backbone.trainable_weights)

    assert count("c2d") == 23_508_032  # torchvision's ResNet-50: 25,557,032 without its 2048·1000 + 1000 classifier's
    # I3D inflates conv1 from 1 to 5 frames and eight 1×1 convolutions from 1 to 3.
    inflated = [64 * 64, 256 * 64, 256 * 64, 256 * 128, 512 * 128, 512 * 256, 1024 * 256, 1024 * 256, 2048 * 512]
    assert count("i3d") == 23_508_032 + 4 * 49 * 3 * 64 + 2 * sum(inflated)


def test_c2d_sees_frames_one_by_one_and_i3d_does_not():
    clip = random_inputs(1, 4, 32, 32, 3)
    swapped = clip[:, [2, 3, 0, 1]]
    for variant, independent in (("c2d", True), ("i3d", False)):
        backbone = ResNet50(variant=variant)
        one, other = backbone(clip).numpy(), backbone(swapped).numpy()[:, ::-1]
        assert np.allclose(one, other, atol=1e-4 * np.abs(one).max()) == independent, variant


def test_graphs_follow_the_last_block_but_one_and_non_local_blocks_every_second_one():
    graph = ResidualGraph(graph=RecurrentSpaceTimeGraph(output="map", project_features=True, **SMALL_GRAPH))
    backbone = ResNet50(graphs={"res4": graph}, nonlocal_places=("res2", "res3", "res5"))
    backbone.build((None, 4, 32, 32, 3))
    order = {stage.name: "".join(type(part).__name__[0] for part in backbone.parts(stage)) for stage in STAGES}
    assert order == {"res2": "BBNB", "res3": "BBNBBN", "res4": "BBBBBRB", "res5": "BBNB"}


def test_the_backbone_is_rebuilt_from_its_configuration():
    graph = ResidualGraph(
        graph=RecurrentSpaceTimeGraph(output="map", project_features=True, **SMALL_GRAPH), final_norm="none"
    )
    backbone = ResNet50(variant="c2d", graphs={"res4": graph}, nonlocal_places=("res3",))
    rebuilt = ResNet50.from_config(backbone.get_config())
    clip = random_inputs(1, 2, 32, 32, 3)
    expected = backbone(clip)
    rebuilt(clip)
    rebuilt.set_weights(backbone.get_weights())
    np.testing.assert_array_equal(rebuilt(clip), expected)


def test_training_moves_no_statistics_of_the_backbone():
    model = build_with_recipe_weights(nonlocal_places=("res2",))
    before = [weight.numpy() for weight in model.backbone.non_trainable_weights]
    in_training = model(VIDEO, training=True)
    for weight, value in zip(model.backbone.non_trainable_weights, before):
        np.testing.assert_array_equal(weight, value)
    np.testing.assert_array_equal(in_training, model(VIDEO, training=False))


@pytest.mark.slow
def test_recomputing_activations_changes_neither_logits_nor_gradients():
    kept = build_with_recipe_weights(nonlocal_places=("res4",), graph_places=("res3",))
    recomputed = build_with_recipe_weights(nonlocal_places=("res4",), graph_places=("res3",), remat=True)
    for one, other in zip(_logits_and_gradients(kept), _logits_and_gradients(recomputed)):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5 * np.abs(one).max())


@tf.function
def _logits_and_gradients(model):
    with tf.GradientTape() as tape:
        logits = model(VIDEO, training=True)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits([1, 2], logits))
    return [logits, *tape.gradient(loss, model.trainable_variables)]


@pytest.mark.slow
def test_recomputed_gradients_of_two_replicas_add_up_to_those_of_one():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    config = dataclasses.replace(SMALL, graph_places=(), remat=True)
    with strategy.scope():
        model = build_model(config)
    single = build_model(config)
    single.set_weights(model.get_weights())
    halves = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(VIDEO[context.replica_id_in_sync_group :][:1])
    )

    def gradients(network, video):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(network(video, training=True)))
        return tape.gradient(loss, network.backbone.conv1.kernel)

    summed = strategy.reduce("SUM", strategy.run(gradients, args=(model, halves)), axis=None)
    expected = gradients(single, tf.constant(VIDEO))
    np.testing.assert_allclose(summed, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_bfloat16_stays_close_to_float32_with_float32_logits():
    exact = build_with_recipe_weights(nonlocal_places=("res2",))
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    rounded = build_with_recipe_weights(nonlocal_places=("res2",))
    logits, expected = rounded(VIDEO), exact(VIDEO)
    assert logits.dtype == tf.float32
    assert {weight.dtype for weight in rounded.weights} <= {tf.float32, "float32"}
    assert np.linalg.norm(logits - expected) <= 3e-2 * np.linalg.norm(expected)


def test_a_checkpoint_holds_every_weight(tmp_path):
    model = build_with_recipe_weights(backbone="non-local", nonlocal_places=("res4",))
    fresh = build_model(dataclasses.replace(SMALL, backbone="non-local", nonlocal_places=("res4",)))
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "weights"))
    tf.train.Checkpoint(model=fresh).restore(path).assert_existing_objects_matched()
    np.testing.assert_array_equal(fresh(VIDEO), model(VIDEO))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 5}, "--video_num_frames=5: i3d pools frames in pairs"),
        ({"width": 31}, "--dim_w=31: i3d needs frames of at least 32"),
        ({"head": "mean_lstm"}, "--head=mean_lstm is a baseline on simple_c2d"),
        ({"nonlocal_places": ("res3",)}, "both name res3"),
    ],
)
def test_settings_that_a_resnet_cannot_have_are_refused_by_their_flag(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_model(dataclasses.replace(SMALL, **changes))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, 32, 32, 3), "clips of 3 frames; expected an even number"), ((1, 2, 32, 20, 3), "frames of 32×20 pixels")],
)
def test_clips_that_a_resnet_cannot_take_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        ResNet50()(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"), [({"variant": "c3d"}, "variant=c3d"), ({"nonlocal_places": ("res6",)}, "place=res6")]
)
def test_unknown_variants_and_stages_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNet50(**arguments)
