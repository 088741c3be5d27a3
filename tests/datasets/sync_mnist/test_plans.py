"""What SyncMNIST's clips show: labels, paths, and that nothing but the movement gives the label away."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from datasets.sync_mnist.plans import (
    ClipPlans,
    RandomPlans,
    SyncMnistSettings,
    best_guess_from_digits,
    class_names,
    pair_label,
    pairs_in_step,
    random_walks,
)
from rstg_tf.common.errors import ConfigError

IMAGE_LABELS = np.arange(400) * 7 % 10  # 40 images of each digit, no two neighbours alike
CLIPS = 4096
DEMO = SyncMnistSettings(
    num_digits=2, digit_classes=4, canvas=64, frame_size=32, out_of_step_share=0.5, twin_clips=True
)
SETTINGS = {
    "release": SyncMnistSettings(),
    "noise": SyncMnistSettings(no_noise_parts=3, noise_parts_size=6, num_frames=4),
    "demo": DEMO,
    "three twins": dataclasses.replace(DEMO, num_digits=3, out_of_step_share=0.25),
    "tiny moves": SyncMnistSettings(
        num_digits=3, digit_classes=5, canvas=40, num_frames=3, max_move=2, out_of_step_share=0.3
    ),
}


def make_plans(settings: SyncMnistSettings, *, seed: int = 3, split: str = "train") -> RandomPlans:
    return RandomPlans(settings=settings, image_labels=IMAGE_LABELS, split=split, seed=seed)


def assert_equal_plans(first: ClipPlans, second: ClipPlans) -> None:
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)


def within_four_sigma(counts: np.ndarray, shares: np.ndarray) -> bool:
    total = counts.sum()
    return bool((np.abs(counts - total * shares) <= 4 * np.sqrt(total * shares * (1 - shares))).all())


def test_pairs_are_numbered_row_by_row_and_none_comes_last():
    assert class_names(4) == (
        "1 & 0 in step",
        "2 & 0 in step",
        "2 & 1 in step",
        "3 & 0 in step",
        "3 & 1 in step",
        "3 & 2 in step",
        "none in step",
    )
    assert len(class_names(10)) == 46
    for high in range(10):
        for low in range(high):
            for label in (pair_label(np.array(high), np.array(low)), pair_label(np.array(low), np.array(high))):
                assert class_names(10)[label] == f"{high} & {low} in step"


def test_digits_are_in_step_when_all_their_moves_agree_on_both_axes():
    still = [(0, 0), (0, 0), (0, 0)]
    first = [(5, 5), (6, 3), (6, 9)]
    shifted = [(1, 7), (2, 5), (2, 11)]
    other_column = [(5, 5), (6, 3), (6, 8)]
    positions = np.array([first, shifted, other_column, still]).transpose(1, 0, 2)[None]  # [1,T,D,2]
    expected = np.eye(4, dtype=bool)
    expected[0, 1] = expected[1, 0] = True
    np.testing.assert_array_equal(pairs_in_step(positions)[0], expected)


def test_walks_without_room_are_as_computed_by_hand():
    # On [0, 1] with moves below 1, an object at 0 can only stay and one at 1 must move to 0. A pair at 0 and 1 has no
    # move in common, so it stays; a pair at 1 and 1 moves to 0 together.
    pairs = np.array([(0, 1)] * 500 + [(-1, -1)] * 100)
    paths = random_walks(np.random.default_rng(0), clips=600, steps=3, objects=3, limit=1, max_move=1, pairs=pairs)
    pair = paths[:500, :, :2]
    apart = pair[:, 0, 0] != pair[:, 0, 1]
    assert 0.4 < apart.mean() < 0.6
    assert (pair == pair[:, :1]).all()
    assert (pair.transpose(0, 3, 1, 2)[~apart] == 0).all()
    assert not paths[:500, :, 2].any() and not paths[500:].any()


def test_free_moves_are_uniform_from_minus_the_range_to_one_below_it():
    walks = random_walks(
        np.random.default_rng(1),
        clips=4000,
        steps=2,
        objects=2,
        limit=10_000,
        max_move=10,
        pairs=np.tile((1, 0), (4000, 1)),
    )
    first, second = np.moveaxis(np.diff(walks, axis=1)[:, 0], 1, 0)  # [B,2] each
    np.testing.assert_array_equal(first, second)
    # Objects nearer to the border than one move are 1 in 500: they don't show in counts.
    counts = np.bincount(first.ravel() + 10, minlength=20)
    assert counts.size == 20 and within_four_sigma(counts, np.full(20, 0.05))


def test_walks_stay_inside_and_start_everywhere():
    walks = random_walks(
        np.random.default_rng(2),
        clips=4000,
        steps=10,
        objects=2,
        limit=71,
        max_move=10,
        pairs=np.tile((0, 1), (4000, 1)),
    )
    assert (walks.min(), walks.max()) == (0, 71)  # 71 only where a digit starts there and its pair never moves
    moves = np.diff(walks, axis=1)
    assert (moves.min(), moves.max()) == (-10, 9)
    assert len(np.unique(walks[:, 0])) == 72


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_labelled_pair_moves_in_step_and_no_other(settings):
    plans = make_plans(settings).clips(0, CLIPS)
    names = settings.class_names
    clip, first, second = np.nonzero(np.triu(pairs_in_step(plans.positions), 1))
    found = np.full(CLIPS, "none in step", dtype=object)
    assert len(np.unique(clip)) == len(clip)
    for index, i, j in zip(clip, first, second):
        high, low = sorted(plans.digit_labels[index, [i, j]], reverse=True)
        found[index] = f"{high} & {low} in step"
    assert found.tolist() == [names[label] for label in plans.labels]
    if not settings.twin_clips:
        assert set(first) == {0} and set(second) == {1}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_clips_show_different_digits_inside_the_canvas(settings):
    plans = make_plans(settings).clips(0, CLIPS)
    np.testing.assert_array_equal(plans.digit_labels, IMAGE_LABELS[plans.digit_indices])
    assert plans.digit_labels.max() == settings.digit_classes - 1
    assert (np.diff(np.sort(plans.digit_labels, axis=1), axis=1) > 0).all()
    assert plans.positions.shape == (CLIPS, settings.num_frames, settings.num_digits, 2)
    # The last position, canvas - 29, can only be started from: a move ends before it.
    assert plans.positions.min() == 0 and settings.canvas - 30 <= plans.positions.max() <= settings.canvas - 29
    moves = np.diff(plans.positions, axis=1)
    assert -settings.max_move <= moves.min() and moves.max() < settings.max_move
    parts = settings.no_noise_parts
    assert plans.noise_positions.shape == (CLIPS, settings.num_frames, parts, 2)
    if parts:
        assert 0 <= plans.noise_positions.min()
        assert plans.noise_positions.max() <= settings.canvas - settings.noise_parts_size - 1
        assert 0.45 < plans.digits_in_front.mean() < 0.55
    else:
        assert plans.digits_in_front.all()


def test_label_shares_are_those_of_the_release():
    shares = np.full(46, (1 - 1 / 92) / 45)
    shares[45] = 1 / 92
    labels = make_plans(SETTINGS["release"]).clips(0, 20 * CLIPS).labels
    assert within_four_sigma(np.bincount(labels, minlength=46), shares)


def test_the_first_digit_goes_through_the_images_in_order():
    plans = make_plans(SETTINGS["release"]).clips(0, 1000)
    np.testing.assert_array_equal(plans.digit_indices[:, 0], np.arange(1000) % 400)
    small = np.flatnonzero(IMAGE_LABELS < 4)
    twins = make_plans(DEMO).clips(0, 1000)
    np.testing.assert_array_equal(twins.digit_indices[:, 0], small[np.arange(1000) // 2 % len(small)])


def test_every_image_of_a_class_is_used():
    plans = make_plans(SETTINGS["release"]).clips(0, CLIPS)
    for column in range(5):
        assert len(np.unique(plans.digit_indices[:, column])) == 400


@pytest.mark.parametrize("name", ["demo", "three twins"])
def test_knowing_the_digits_of_twins_is_worth_half_of_the_clips_at_most(name):
    settings = SETTINGS[name]
    plans = make_plans(settings).clips(0, CLIPS)
    # Whatever is drawn is equal in both twins, the order in which digits cover each other included ...
    np.testing.assert_array_equal(plans.digit_indices[::2], plans.digit_indices[1::2])
    # ... and their labels differ, so no rule that maps digits to a label is right on both.
    assert (plans.labels[::2] != plans.labels[1::2]).all()
    assert best_guess_from_digits(plans.digit_labels, plans.labels) <= 0.5
    pairs = settings.num_digits * (settings.num_digits - 1) // 2
    out_of_step = (plans.labels == len(settings.class_names) - 1).mean()
    assert abs(out_of_step - settings.out_of_step_share) < 4 * np.sqrt(0.25 / CLIPS)
    # Each pair of places in the drawing order is in step equally often.
    in_step = pairs_in_step(plans.positions)
    counts = np.array([in_step[:, i, j].sum() for i in range(settings.num_digits) for j in range(i)])
    assert counts.size == pairs and within_four_sigma(counts, np.full(pairs, 1 / pairs))


def test_the_best_guess_names_each_sets_most_frequent_label():
    digit_labels = np.array([(0, 1), (1, 0), (0, 1), (2, 0), (2, 0), (1, 2)])
    labels = np.array([0, 0, 9, 1, 9, 9])
    # {0,1}: 2 of 3; {0,2}: 1 of 2; {1,2}: 1 of 1
    assert best_guess_from_digits(digit_labels, labels) == pytest.approx(4 / 6)


def test_a_clip_depends_on_seed_split_and_its_number_alone():
    for settings in (SETTINGS["noise"], DEMO):
        plans = make_plans(settings)
        whole = plans.clips(0, 1000)
        assert_equal_plans(plans.clips(250, 790), whole.select(slice(250, 790)))
        assert_equal_plans(make_plans(settings).clips(999, 1000), whole.select(slice(999, 1000)))
        for changed in (make_plans(settings, seed=4), make_plans(settings, split="test")):
            assert (changed.clips(0, 1000).positions != whole.positions).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_digits": 1}, "--num_digits=1: expected 2 to 10"),
        ({"digit_classes": 4}, "--num_digits=5: expected 2 to 4: the digits of a clip are of different"),
        ({"digit_classes": 11}, "--digit_classes=11: expected 2 to 10"),
        ({"canvas": 30}, "--canvas=30: expected 32 to 1024"),
        ({"frame_size": 0}, "--frame_size=0"),
        ({"num_frames": 1}, "one frame shows no movement"),
        ({"max_move": 0}, "--max_move=0"),
        ({"out_of_step_share": 1.5}, "--out_of_step_share=1.5: expected 0 to 1"),
        ({"noise_parts_size": 29}, "--noise_parts_size=29: expected 1 to 28"),
        ({"twin_clips": True, "out_of_step_share": 0.6}, "--out_of_step_share=0.6: expected 0 to 0.5"),
        ({"twin_clips": True, "num_digits": 2, "out_of_step_share": 0.0}, "expected 0.5 to 0.5"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_flag(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SyncMnistSettings(), **changes).check()


def test_too_little_movement_to_tell_pairs_apart_is_refused():
    settings = SyncMnistSettings(canvas=32, num_frames=2, max_move=1)
    with pytest.raises(ConfigError, match="--max_move=1, --num_frames=2, --canvas=32: with so little movement"):
        make_plans(settings).clips(0, 1)


def test_a_digit_class_without_images_is_refused():
    with pytest.raises(ConfigError, match="no image of the digit 7"):
        RandomPlans(settings=SyncMnistSettings(), image_labels=np.arange(7), split="train", seed=0)
