"""The plots say in grey and in numbers what they say in colour."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from rstg_tf.evaluation.metrics import attention_entropy
from rstg_tf.viz import attention_plots, attention_stats

STAGES, STEPS, NODES = 2, 4, 5


@pytest.fixture
def attention():
    """α [2, 4, 5, 5]"""
    return np.random.default_rng(0).dirichlet(np.ones(NODES), size=(STAGES, STEPS, NODES))


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, so that a test reads their texts and images."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: saved.append(figure))
    return saved


def panels(figure):
    """The axes that show a matrix: not the colour bar."""
    return [axes for axes in figure.axes if axes.images and axes.get_visible()]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def in_grey(colours):
    """uint8 [n, 4] -> luminance [n]"""
    return np.asarray(Image.fromarray(np.ascontiguousarray(colours[None, :, :3])).convert("L"))[0].astype(int)


def test_the_colour_map_rises_in_luminance_at_every_step():
    grey = in_grey(matplotlib.colormaps[attention_plots.COLOURS](np.arange(256), bytes=True))
    assert (np.diff(grey) >= 0).all() and grey[-1] - grey[0] > 150


def test_a_matrix_printed_in_grey_orders_its_cells_by_weight(tmp_path):
    alpha = np.full((1, 1, NODES, NODES), 0.05)
    alpha[0, 0, 2] = [0.02, 0.1, 0.2, 0.3, 0.38]
    attention_plots.save_mean_matrices(tmp_path / "mean.png", alpha, title="one stage")
    with Image.open(tmp_path / "mean.png") as picture:
        grey = np.asarray(picture.convert("L")).astype(int)
    levels = in_grey(matplotlib.colormaps[attention_plots.COLOURS](alpha[0, 0, 2] / 0.38, bytes=True))
    assert (np.diff(levels) > 8).all()
    for level in levels:  # each of them covers a cell's worth of the picture
        assert (np.abs(grey - level) <= 1).sum() > 500


def test_small_multiples_have_a_panel_per_stage_and_chosen_step_and_mark_each_rows_largest(attention, figures):
    attention_plots.save_matrices("unused.png", attention, steps=[0, 3], step_names=["frame 1", "frame 4"], title="two")
    [figure] = figures
    found = panels(figure)
    assert len(found) == 4
    np.testing.assert_array_equal(found[3].images[0].get_array(), attention[1, 3])
    np.testing.assert_array_equal(found[3].lines[-1].get_xdata(), attention[1, 3].argmax(axis=1))
    assert [axes.get_title() for axes in found[:2]] == ["frame 1", "frame 4"]
    assert len({axes.images[0].get_clim() for axes in found}) == 1  # one scale of colours for all


def test_mean_matrices_carry_their_numbers_in_percent(attention, figures):
    attention_plots.save_mean_matrices("unused.png", attention, title="means")
    shown = texts(panels(figures[0])[1])
    assert shown == [f"{100 * value:.0f}" for value in attention[1].mean(axis=0).ravel()]


def test_curves_are_entropies_by_scale_in_different_line_styles_and_changes_as_numbered_bars(attention, figures):
    attention_plots.save_curves("unused.png", attention, step_names=list("1234"), title="curves")
    upper, lower = figures[0].axes[1], figures[0].axes[1 + STAGES]
    fine, coarse = (line for line in upper.lines if len(line.get_xdata()) == STEPS)
    entropies = attention_entropy(attention[1])
    np.testing.assert_allclose(fine.get_ydata(), entropies[:, :4].mean(axis=1))
    np.testing.assert_allclose(coarse.get_ydata(), entropies[:, 4])
    assert fine.get_linestyle() != coarse.get_linestyle() and fine.get_marker() != coarse.get_marker()
    changes = attention_stats.change(attention[1])
    np.testing.assert_allclose([bar.get_height() for bar in lower.patches], changes)
    assert texts(lower) == [f"{100 * value:.0f}" for value in changes]


def test_scale_pairs_carry_share_spread_and_ratio_for_every_place_and_stage(figures):
    alike = np.full((1, 2, 5, 5), 0.2)
    listens = np.tile(np.eye(5)[4], (1, 2, 5, 1))  # all listen to the whole frame
    both = {"res3": np.concatenate([alike, listens]), "final": alike}
    other = {"res3": np.concatenate([alike, alike]), "final": alike}
    summary = attention_stats.attention_summary([both, other])
    attention_plots.save_scale_pairs("unused.png", summary["places"], title="pairs")
    found = panels(figures[0])
    titles = [axes.get_title() for axes in found]
    assert titles == ["res3, space stage 1", "res3, space stage 2", "final, space stage 1"]
    assert texts(found[0]) == ["0.80\n±0.00\n×1.00", "0.20\n±0.00\n×1.00"] * 2
    # One clip gives all (1.0) to the 1×1 node, the other 0.2: mean 0.6, spread 0.4, three times 0.2.
    assert texts(found[1]) == ["0.40\n±0.40\n×0.50", "0.60\n±0.40\n×3.00"] * 2


@pytest.mark.parametrize("stages, steps, nodes", [(1, 1, 1), (1, 1, 5), (4, 16, 30)])
def test_every_plot_is_drawn_for_any_number_of_stages_steps_and_nodes(tmp_path, stages, steps, nodes):
    alpha = np.full((stages, steps, nodes, nodes), 1 / nodes)
    names = [str(step) for step in range(steps)]
    attention_plots.save_matrices(tmp_path / "a.png", alpha, steps=[0], step_names=["frame 1"], title="a")
    attention_plots.save_mean_matrices(tmp_path / "b.png", alpha, title="b")
    attention_plots.save_curves(tmp_path / "c.png", alpha, step_names=names, title="c")
    summary = attention_stats.attention_summary([{"final": alpha}])
    attention_plots.save_scale_pairs(tmp_path / "d.png", summary["places"], title="d")
    for name in "abcd":
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
