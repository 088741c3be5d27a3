"""What users of Keras expect of any layer: every way of saving, frozen parts, names, masks."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras_options import GRAPH, RICH
from keras_stack import old_keras
from tensorflow import keras

from rstg_tf import NodesFromMap, RecurrentSpaceTimeGraph, TemporalStage
from rstg_tf.backbones.bottleneck import Bottleneck
from rstg_tf.backbones.nonlocal_block import NonLocalBlock
from rstg_tf.backbones.small_convnet import SmallConvnet
from rstg_tf.layers.heads import FrameLSTMHead, PoolingHead
from rstg_tf.layers.readout import Classifier
from rstg_tf.layers.residual_graph import ResidualGraph


@pytest.fixture
def features():
    return np.random.default_rng(0).standard_normal((2, 3, 4, 6, 5)).astype(np.float32)


def graph_model(options, wrapped=lambda graph: graph):
    inputs = keras.Input((3, 4, 6, 5))
    graph = RecurrentSpaceTimeGraph(**options, name="mine")
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(wrapped(graph)(inputs)))
    for index, weight in enumerate(model.weights):
        weight.assign(np.abs(np.random.default_rng(index).standard_normal(weight.shape)) * 0.2 + 0.1)
    return model


def name_of(weight):
    return getattr(weight, "path", weight.name)


def same(model, other, features):
    np.testing.assert_array_equal(other.predict(features, verbose=0), model.predict(features, verbose=0))


SAVED = [".keras", ".h5", pytest.param("", marks=old_keras)]


@pytest.mark.parametrize("options", [GRAPH, RICH], ids=["few weights", "all weights"])
@pytest.mark.parametrize("suffix", SAVED)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_saved_model_comes_back_with_its_numbers(tmp_path, features, options, suffix):
    model = graph_model(options)
    model.save(str(tmp_path / f"model{suffix}"))
    same(model, keras.models.load_model(str(tmp_path / f"model{suffix}")), features)


@pytest.mark.parametrize(
    "suffix", [".weights.h5", pytest.param(".h5", marks=old_keras), pytest.param("", marks=old_keras)]
)
def test_saved_weights_come_back(tmp_path, features, suffix):
    model, other = graph_model(RICH), graph_model(RICH)
    other.set_weights([weight * 0 for weight in other.get_weights()])
    model.save_weights(str(tmp_path / f"model{suffix}"))
    other.load_weights(str(tmp_path / f"model{suffix}"))
    same(model, other, features)


def test_models_are_cloned_and_pickled(features):
    model = graph_model(RICH)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    same(model, clone, features)
    same(model, pickle.loads(pickle.dumps(model)), features)


@pytest.mark.parametrize("options", [GRAPH, {**GRAPH, "output": "map"}], ids=["vector", "map"])
def test_a_graph_inside_time_distributed_sees_each_clip_by_itself(features, options):
    graph = RecurrentSpaceTimeGraph(**options)
    inputs = keras.Input((2, 3, 4, 6, 5))
    model = keras.Model(inputs, keras.layers.TimeDistributed(graph)(inputs))
    both = model.predict(np.stack([features, 2 * features], axis=1), verbose=0)
    np.testing.assert_allclose(both[:, 1], graph(2 * features), atol=1e-6)
    assert model.output_shape == (None, *both.shape[1:])


@old_keras
@pytest.mark.slow
def test_a_program_without_this_package_loads_the_saved_model(tmp_path, features):
    model = graph_model(GRAPH)
    model.save(str(tmp_path / "model"))
    np.save(tmp_path / "features.npy", features)
    program = (
        "import numpy as np, sys; from tensorflow import keras; model = keras.models.load_model('model'); "
        "np.save('logits.npy', model(np.load('features.npy'))); assert 'rstg_tf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model(features), atol=1e-6)


@pytest.mark.parametrize("built", ["called", "built"])
@pytest.mark.parametrize(
    "layer_and_shape",
    [
        (lambda: RecurrentSpaceTimeGraph(**RICH, name="mine"), (2, 3, 4, 6, 5)),
        (
            lambda: PoolingHead(graph=RecurrentSpaceTimeGraph(**GRAPH, project_features=True), name="mine"),
            (2, 3, 4, 6, 5),
        ),
        (
            lambda: ResidualGraph(
                graph=RecurrentSpaceTimeGraph(**GRAPH, output="map", project_features=True), name="mine"
            ),
            (2, 3, 4, 6, 5),
        ),
        (lambda: FrameLSTMHead(units=3, pooling="conv", name="mine"), (2, 3, 4, 6, 5)),
        (lambda: SmallConvnet(filters=3, layers=2, name="mine"), (2, 3, 12, 12, 1)),
        (lambda: NonLocalBlock(name="mine"), (2, 3, 4, 6, 4)),
        (lambda: Bottleneck(inner=2, outer=6, name="mine"), (2, 3, 4, 6, 4)),
    ],
    ids=["graph", "head", "residual", "lstm", "convnet", "nonlocal", "bottleneck"],
)
def test_every_weight_has_a_name_of_its_own_under_its_layer_s(layer_and_shape, built):
    make, shape = layer_and_shape
    layer = make()
    if built == "called":
        layer(np.zeros(shape, np.float32))
    else:
        layer.build((None, None, *shape[2:]))
    names = [name_of(weight) for weight in layer.weights]
    assert len(set(names)) == len(names)
    assert all(name.startswith("mine/") for name in names), names


@pytest.mark.parametrize("part", ["all", "input_norm", "space_stage"])
def test_what_is_frozen_keeps_its_stored_statistics_in_training(features, part):
    graph = RecurrentSpaceTimeGraph(**RICH)
    graph(features)
    for weight in graph.weights:
        weight.assign(np.abs(np.random.default_rng(1).standard_normal(weight.shape)) * 0.2 + 0.1)
    frozen = graph if part == "all" else getattr(graph, part)
    frozen.trainable = False
    weights = frozen.weights
    before = [weight.numpy() for weight in weights]
    assert any("moving" in name_of(weight) for weight in weights)
    output = graph(features, training=True)
    for weight, value in zip(weights, before):
        np.testing.assert_array_equal(weight, value)
    if part == "all":
        np.testing.assert_array_equal(output, graph(features, training=False))
    else:
        assert any(np.any(weight != 0) for weight in [graph.before_norm.moving_mean - 0.1])
    frozen.trainable = True
    graph(features, training=True)
    assert any(np.any(weight.numpy() != value) for weight, value in zip(weights, before))


def test_a_frozen_graph_in_a_model_that_is_fitted_keeps_every_weight(features):
    model = graph_model(RICH)
    graph = model.get_layer("mine")
    graph.trainable = False
    model.compile("sgd", "mse")
    before = graph.get_weights()
    model.fit(features, np.ones((2, 3), np.float32), epochs=2, verbose=0)
    for one, other in zip(graph.get_weights(), before):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (TemporalStage(units=3), (2, 4, 5, 8)),
        (NodesFromMap(num_scales=1), (2, 3, 4, 6, 5)),
        (RecurrentSpaceTimeGraph(**GRAPH), (2, 3, 4, 6, 5)),
        (FrameLSTMHead(units=3), (2, 3, 4, 6, 5)),
        (Classifier(num_classes=2), (2, 3, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_masks_are_refused_in_eager_mode_and_in_functional_models(layer, shape):
    for inputs in (np.ones(shape, np.float32), keras.Input(shape[1:])):
        with pytest.raises(ValueError, match="masks are not supported"):
            layer(keras.layers.Masking()(inputs))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (TemporalStage(units=3), (2, 4, 5, 8)),
        (RecurrentSpaceTimeGraph(**GRAPH), (2, 3, 4, 6, 5)),
        (FrameLSTMHead(units=3), (2, 3, 4, 6, 5)),
        (SmallConvnet(filters=2, layers=1), (2, 3, 8, 8, 3)),
        (Classifier(num_classes=2), (2, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_another_number_of_channels_is_refused_by_keras(layer, shape):
    layer(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=rf"expected axis -1 of input shape to have value {shape[-1]}"):
        layer(np.zeros((*shape[:-1], shape[-1] + 1), np.float32))


def test_states_are_inputs_and_outputs_of_a_functional_model(features):
    graph = RecurrentSpaceTimeGraph(**GRAPH)
    graph(features)
    states = {name: keras.Input(shape) for name, shape in graph.state_shapes().items()}
    chunk = keras.Input((None, 4, 6, 5))
    model = keras.Model([chunk, states], graph(chunk, states=states))
    after = graph.initial_state(2)
    for begin, end in ((0, 2), (2, 3)):
        output, after = model([tf.constant(features[:, begin:end]), after])
    np.testing.assert_allclose(output, graph(features), atol=2e-6)
