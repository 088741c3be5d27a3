import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from rstg_tf.common import devices
from rstg_tf.common.graph_config import GraphConfig
from rstg_tf.config import ModelConfig
from rstg_tf.evaluation.metrics import Evaluation, attention_entropy, ranking, wilson_interval, write_scores
from rstg_tf.evaluation.scoring import ClipScorer, EvaluationError, evaluate_clips
from rstg_tf.model import build_model

CLASSES = 5


class ReadsFirstPixel(keras.Model):
    """Logit of class c: -(p - c)² for the first pixel p, so each clip's logits tell which clip they belong to."""

    def call(self, video, training=False):
        assert not training
        pixel = tf.cast(video[:, 0, 0, 0, :], self.compute_dtype)  # [B, 1]
        return -tf.square(pixel - tf.cast(tf.range(CLASSES), self.compute_dtype))


def logits_of_pixel(pixel):
    return -np.square(np.float32(pixel) - np.arange(CLASSES, dtype=np.float32))


def clips_with_pixels(pixels, *, batch_size, index=None):
    """Clip i has all pixels equal to pixels[i], label pixels[i] % 5 and the name clip-i."""
    pixels = np.array(pixels, np.uint8)
    index = np.arange(len(pixels)) if index is None else np.array(index)
    return tf.data.Dataset.from_tensor_slices(
        {
            "video": np.broadcast_to(pixels[:, None, None, None, None], (len(pixels), 2, 3, 3, 1)).copy(),
            "label": (pixels % CLASSES).astype(np.int32),
            "media_id": [f"clip-{number}" for number in index],
            "index": index.astype(np.int64),
        }
    ).batch(batch_size)


def replicated(replicas):
    return devices.cpu_strategy(replicas)


def hand_made(logits, labels):
    return Evaluation(
        logits=np.array(logits, np.float32),
        labels=np.array(labels),
        media_ids=tuple(f"clip-{number}" for number in range(len(labels))),
    )


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("num_clips", [1, 4, 7, 13])
def test_every_clip_counts_once_for_any_number_of_clips_and_replicas(num_clips, replicas):
    pixels = np.arange(num_clips) * 3 % 11
    with replicated(replicas).scope():
        model = ReadsFirstPixel()
    evaluation = evaluate_clips(model, clips_with_pixels(pixels, batch_size=4), num_clips=num_clips)
    np.testing.assert_array_equal(evaluation.logits, [logits_of_pixel(pixel) for pixel in pixels])
    np.testing.assert_array_equal(evaluation.labels, pixels % CLASSES)
    assert evaluation.media_ids == tuple(f"clip-{number}" for number in range(num_clips))
    assert evaluation.confusion().sum() == num_clips


def test_the_order_of_the_batches_does_not_matter():
    pixels = np.array([3, 1, 4, 1, 0, 2, 4])
    order = np.array([6, 2, 0, 5, 1, 4, 3])
    straight = evaluate_clips(ReadsFirstPixel(), clips_with_pixels(pixels, batch_size=3), num_clips=7)
    shuffled = evaluate_clips(
        ReadsFirstPixel(), clips_with_pixels(pixels[order], batch_size=2, index=order), num_clips=7
    )
    np.testing.assert_array_equal(straight.logits, shuffled.logits)
    np.testing.assert_array_equal(straight.labels, shuffled.labels)
    assert straight.media_ids == shuffled.media_ids


def test_a_real_model_on_three_replicas_gives_the_logits_of_one_plain_call():
    config = ModelConfig(
        backbone_filters=4,
        backbone_layers=1,
        num_frames=2,
        graph_frames=2,
        height=8,
        width=8,
        num_classes=CLASSES,
        graph=GraphConfig(num_scales=2, space_iterations=1, node_width=4, message_width=4),
    )
    video = np.random.default_rng(0).integers(0, 256, (7, 2, 8, 8, 1), np.uint8)
    batches = tf.data.Dataset.from_tensor_slices(
        {"video": video, "label": np.zeros(7, np.int32), "media_id": ["clip"] * 7, "index": np.arange(7)}
    ).batch(4)
    single = build_model(config)
    with replicated(3).scope():
        several = build_model(config)
    several.set_weights(single.get_weights())
    found = evaluate_clips(several, batches, num_clips=7).logits
    np.testing.assert_allclose(found, single(video).numpy(), atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_in_two_halves_have_the_logits_of_the_rows_as_one(rows):
    taken = []

    class Counts(ReadsFirstPixel):
        def call(self, video, training=False):
            taken.append(video.shape[0])
            return super().call(video)

    video = np.arange(rows, dtype=np.uint8)[:, None, None, None, None] * np.ones((2, 3, 3, 1), np.uint8)
    logits = {halves: ClipScorer(Counts(), halves=halves)(video)[0].numpy() for halves in (False, True)}
    assert taken[0] == rows and taken[1:] == ([rows // 2, rows - rows // 2] if rows > 1 else [1])
    np.testing.assert_array_equal(logits[True], logits_of_pixel(np.arange(rows)[:, None]))
    np.testing.assert_array_equal(logits[True], logits[False])


def test_a_shorter_last_batch_needs_no_second_trace():
    model = ReadsFirstPixel()
    scorer = ClipScorer(model)
    for _ in range(2):
        evaluate_clips(model, clips_with_pixels(range(7), batch_size=4), num_clips=7, scorer=scorer)
    assert scorer._run.experimental_get_tracing_count() == 1


def test_an_evaluation_that_is_stopped_ends_after_the_batch_that_it_is_in_without_a_result():
    scored = []

    def batches():
        for number in range(100):
            scored.append(number)
            yield next(iter(clips_with_pixels([number], batch_size=1, index=[number])))

    assert evaluate_clips(ReadsFirstPixel(), batches(), num_clips=100, stopped=lambda: len(scored) >= 5) is None
    assert len(scored) == 5


def test_the_views_of_a_clip_are_averaged_also_when_they_lie_in_different_batches():
    # Clip 0 has the views 0, 1, 2 and clip 1 the views 2, 2, 5; for class 0 the logits are 0, -1, -4 and -4, -4, -25.
    views = clips_with_pixels([0, 1, 2, 2, 2, 5], batch_size=2, index=[0, 0, 0, 1, 1, 1])
    evaluation = evaluate_clips(ReadsFirstPixel(), views, num_clips=2, views=3)
    np.testing.assert_allclose(evaluation.logits[:, 0], [-5 / 3, -33 / 3])
    assert (evaluation.views, evaluation.num_clips) == (3, 2)


@pytest.mark.parametrize(
    "index, message",
    [
        ([0, 1, 1], "clip 1, which came 2 time"),
        ([0, 2, 3], "clip 1, which came 0"),
        ([0, 1, 4], "delivered clip 4, expected 0 to"),
    ],
)
def test_a_clip_that_comes_twice_or_never_is_an_error(index, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate_clips(
            ReadsFirstPixel(), clips_with_pixels([1, 2, 3], batch_size=2, index=index), num_clips=4 if 3 in index else 3
        )


def test_logits_that_are_not_finite_are_an_error_that_names_the_clip():
    class Diverged(ReadsFirstPixel):
        def call(self, video, training=False):
            logits = super().call(video)
            return tf.where(video[:, 0, 0, 0, :] == 2, np.nan, logits)

    with pytest.raises(EvaluationError, match=r"clip 3 \(clip-3\) hold NaN"):
        evaluate_clips(Diverged(), clips_with_pixels([0, 1, 3, 2], batch_size=2), num_clips=4)


def test_a_label_that_the_model_does_not_have_is_an_error_that_names_the_clip():
    batches = clips_with_pixels([0, 1], batch_size=2).map(lambda clips: {**clips, "label": clips["label"] + 4})
    with pytest.raises(EvaluationError, match=r"clip 1 \(clip-1\) has label 5, but the model has 5 classes"):
        evaluate_clips(ReadsFirstPixel(), batches, num_clips=2)


def test_logits_are_float32_under_a_bfloat16_policy():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = ReadsFirstPixel()
    assert model(np.zeros((1, 2, 3, 3, 1), np.uint8)).dtype == tf.bfloat16
    assert all(part.dtype == tf.float32 for part in ClipScorer(model)(np.zeros((1, 2, 3, 3, 1), np.uint8)))


def test_accuracies_and_confusion_of_three_clips_by_hand():
    #                       best class first:  0,1,…      2,6,…   (0 is 6th)           1
    evaluation = hand_made([[9, 1, 0, 0, 0, 0, 0], [0, 1, 9, 3, 4, 5, 6], [0, 9, 0, 0, 0, 0, 0]], [0, 1, 1])
    # Clip 1 has five classes (2, 6, 5, 4, 3) before its label 1.
    assert (evaluation.top1, evaluation.top5) == (2 / 3, 2 / 3)
    expected = np.zeros((7, 7), int)
    expected[0, 0], expected[1, 2], expected[1, 1] = 1, 1, 1
    np.testing.assert_array_equal(evaluation.confusion(), expected)
    np.testing.assert_array_equal(evaluation.class_accuracies(), [1.0, 0.5] + [np.nan] * 5)
    assert evaluation.figures()["class_mean_accuracy"] == 0.75  # over the two classes that have clips


def test_confused_pairs_by_hand():
    # True 0: 0, 1, 1, 2; true 1: 0; true 2: 2. So 0 is taken for 1 twice of four times, for 2 once, 1 for 0 always.
    predictions = np.eye(3)[[0, 1, 1, 2, 0, 2]]
    evaluation = hand_made(predictions, [0, 0, 0, 0, 1, 2])
    assert evaluation.confused_pairs() == [(0, 1, 2, 0.5), (0, 2, 1, 0.25), (1, 0, 1, 1.0)]


def test_a_label_in_fifth_place_is_in_the_top_five_and_one_in_sixth_is_not():
    logits = [[6, 5, 4, 3, 2, 1]]
    assert [hand_made(logits, [label]).right_within(5) for label in (4, 5)] == [1, 0]


def test_equal_logits_rank_by_class_number_so_that_a_constant_model_is_right_only_about_class_0():
    evaluation = hand_made(np.zeros((3, 7)), [0, 4, 5])
    assert (evaluation.top1, evaluation.top5) == (1 / 3, 2 / 3)
    assert evaluation.top1 == np.mean(evaluation.predictions == evaluation.labels)


def test_the_entropy_of_attention_is_0_for_one_node_and_1_for_all_alike():
    weights = np.array([[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0.2] * 5, [0] * 5, [0.3, 0.4, 0.3, 0, 0]])
    by_hand = -(0.3 * np.log(0.3) + 0.4 * np.log(0.4) + 0.3 * np.log(0.3)) / np.log(5)
    np.testing.assert_allclose(attention_entropy(weights), [0, np.log(2) / np.log(5), 1, 0, by_hand], atol=1e-12)
    np.testing.assert_array_equal(attention_entropy(np.ones((3, 1, 1), np.float32)), np.zeros((3, 1)))


def test_the_loss_is_the_mean_cross_entropy():
    # softmax of (ln 3, 0) is (3/4, 1/4)
    evaluation = hand_made([[np.log(3), 0], [np.log(3), 0]], [0, 1])
    assert evaluation.loss == pytest.approx((np.log(4 / 3) + np.log(4)) / 2, rel=1e-6)
    np.testing.assert_allclose(evaluation.probabilities[0], [0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize(
    "right, total, expected",
    [
        (8, 10, (0.4902, 0.9433)),  # the textbook case
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (500, 1000, (0.4691, 0.5309)),
    ],
)
def test_the_interval_is_wilsons(right, total, expected):
    assert wilson_interval(right, total) == pytest.approx(expected, abs=5e-5)


def test_the_interval_is_the_formula_with_the_quantile_of_two_and_a_half_percent_on_either_side():
    square = 1.959963984540054**2 / 24776
    half = np.sqrt(square * (0.25 * (1 - 0.25) + square / 4))
    expected = [(0.25 + square / 2 + sign * half) / (1 + square) for sign in (-1, 1)]
    np.testing.assert_allclose(wilson_interval(6194, 24776), expected, rtol=0, atol=1e-12)


def test_scores_come_back_from_their_file_as_they_were(tmp_path):
    evaluation = hand_made([[1, 2], [4, 3]], [1, 0])
    write_scores(tmp_path / "scores.npz", evaluation)
    with np.load(tmp_path / "scores.npz") as scores:
        np.testing.assert_array_equal(scores["logits"], evaluation.logits)
        np.testing.assert_array_equal(scores["labels"], [1, 0])
        assert scores["media_ids"].tolist() == ["clip-0", "clip-1"]
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_the_ranking_is_by_probability_and_then_by_number():
    # e^0 : e^ln2 : e^0 : e^ln4 = 1 : 2 : 1 : 4
    assert ranking(np.log([1.0, 2.0, 1.0, 4.0]), "abcd", 3) == [
        {"class": 3, "name": "d", "probability": pytest.approx(0.5)},
        {"class": 1, "name": "b", "probability": pytest.approx(0.25)},
        {"class": 0, "name": "a", "probability": pytest.approx(0.125)},
    ]
