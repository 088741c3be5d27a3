"""Plots of attention: matrices by stage and step, curves over the steps, shares between the scales.

Every colour is also a number, a mark or a line style, and the colour map's luminance rises with the value, so that a
grey print or a colour-blind reader loses nothing. matplotlib's object interface, no global state.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rstg_tf.common.shown import printable
from rstg_tf.common.spacing import evenly_spaced_indices
from rstg_tf.evaluation.metrics import attention_entropy
from rstg_tf.viz.attention_stats import change, count_scales, mean_by_scale, node_names, scale_names

COLOURS = "cividis"  # darker for less, in grey too
LINES, MARKERS = ("-", "--", ":", "-."), ("o", "s", "^", "D")
LARGEST_NUMBERED_NODES = 14
CHARACTER_INCHES = 0.0078  # about, per point of the font's size


def save_matrices(
    path: str | os.PathLike, attention: np.ndarray, *, steps: Sequence[int], step_names: Sequence[str], title: str
) -> None:
    """Small multiples of α [K, T, N, N]: a row per space stage, a column per step of `steps`; a dot in each row of a
    matrix on the node it listens to most."""
    stages, num_scales = len(attention), count_scales(attention)
    names = node_names(num_scales)
    figure = _figure(2.2 + 2.0 * len(steps), 1.5 + 2.0 * stages, title)
    grid = figure.subplots(stages, len(steps), squeeze=False, sharex=True, sharey=True)
    largest = float(attention[:, list(steps)].max())
    for stage, row in enumerate(grid):
        for column, (axes, step) in enumerate(zip(row, steps)):
            image = _draw_matrix(axes, attention[stage, step], names, num_scales, largest, fontsize=6)
            strongest = attention[stage, step].argmax(axis=1)
            axes.plot(
                strongest,
                range(len(names)),
                "o",
                markersize=3,
                color="white",
                markeredgecolor="black",
                markeredgewidth=0.7,
            )
            if stage == 0:
                axes.set_title(step_names[column], fontsize=10)
            if column == 0:
                axes.set_ylabel(f"space stage {stage + 1}\nthis node …", fontsize=9)
            if stage == stages - 1:
                axes.set_xlabel("… listens to this node", fontsize=9)
    _add_colour_bar(figure, image, grid, len(names), "weight of the attention\n(a row sums to 1; ○: its largest)")
    figure.savefig(path)


def save_mean_matrices(path: str | os.PathLike, attention: np.ndarray, *, title: str) -> None:
    """A matrix per space stage, the mean of α [K, T, N, N] over the steps, with its numbers in percent."""
    mean = attention.astype(np.float64).mean(axis=1)  # [K, N, N]
    num_scales = count_scales(mean)
    names = node_names(num_scales)
    figure = _figure(1.8 + 4.5 * len(mean), 6.4, title)
    grid = figure.subplots(1, len(mean), squeeze=False, sharey=True)
    for stage, (axes, weights) in enumerate(zip(grid[0], mean)):
        image = _draw_matrix(axes, weights, names, num_scales, float(mean.max()), fontsize=8)
        axes.set_title(f"space stage {stage + 1}", fontsize=11)
        axes.set_xlabel("… listens to this node", fontsize=10)
        if len(names) <= LARGEST_NUMBERED_NODES:
            _write_numbers(axes, 100 * weights, "{:.0f}", dark=weights < mean.max() / 2, fontsize=7)
    grid[0, 0].set_ylabel("this node …", fontsize=10)
    _add_colour_bar(
        figure, image, grid, len(names), "weight of the attention\n(in the cells in percent; a row sums to 100)"
    )
    figure.savefig(path)


def save_curves(path: str | os.PathLike, attention: np.ndarray, *, step_names: Sequence[str], title: str) -> None:
    """Over the steps, a column per space stage of α [K, T, N, N]: entropy of each scale's nodes, and change."""
    stages, num_scales = len(attention), count_scales(attention)
    entropies = mean_by_scale(attention_entropy(attention), num_scales)  # [K, T, S]
    changes = change(attention)  # [K, T - 1]
    figure = _figure(1.4 + 3.6 * stages, 6.4, title, square=False)
    grid = figure.subplots(2, stages, squeeze=False, sharex=True, sharey="row")
    steps = np.arange(len(step_names))
    for stage, (upper, lower) in enumerate(grid.T):
        upper.axhline(1, color="black", linewidth=0.8)
        for scale, name in enumerate(scale_names(num_scales)):
            label = f"{name} nodes" if name != "1×1" else "1×1, the whole frame"
            upper.plot(steps, entropies[stage, :, scale], _style(scale), color=_shade(scale, num_scales), label=label)
        lower.bar(steps[1:], changes[stage], color="0.55", edgecolor="black", width=0.7)
        for step, value in zip(steps[1:], changes[stage]) if len(steps) <= 12 else ():
            lower.text(step, value, f"{100 * value:.0f}", ha="center", va="bottom", fontsize=7)
        upper.set_title(f"space stage {stage + 1}", fontsize=11)
        _name_steps(lower, step_names)
    grid[0, 0].set_ylim(0, 1.08)
    grid[0, 0].set_ylabel("entropy of the attention\n0: one node · 1: all alike", fontsize=10)
    grid[1, 0].set_ylim(0, max(0.05, 1.15 * float(changes.max(initial=0.0))))
    grid[1, 0].set_ylabel("change since the step before\n(share of the attention, in %)", fontsize=10)
    grid[1, 0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=num_scales, fontsize=10)
    figure.savefig(path)


def save_scale_pairs(path: str | os.PathLike, places: Mapping[str, Mapping[str, Any]], *, title: str) -> None:
    """Per graph (row) and space stage (column) a matrix: what share of its attention scale r gives to scale s.

    `places`: those of `attention_numbers.attention_summary`. Each cell has the share, its standard deviation between
    the clips, and as × its ratio to the share if all listened to all alike, which the shade repeats.
    """
    columns = max(len(found["share"]) for found in places.values())
    figure = _figure(3.3 * columns + 1.3, 3.1 * len(places) + 1.7, title)
    grid = figure.subplots(len(places), columns, squeeze=False)
    for row, (place, found) in enumerate(places.items()):
        for stage, axes in enumerate(grid[row]):
            axes.set_visible(stage < len(found["share"]))
            if stage < len(found["share"]):
                image = _draw_scale_pairs(axes, found, stage)
                axes.set_title(
                    f"{place}, space stage {stage + 1}" if len(places) > 1 else f"space stage {stage + 1}", fontsize=11
                )
    bar = figure.colorbar(image, ax=grid, shrink=0.8, extend="max")
    bar.set_label("times the share if all listened to all alike", fontsize=10)
    legend = (
        "in a cell: share of its attention · ± standard deviation between the clips · × how many times the share "
        "if to all alike"
    )
    figure.supxlabel(_wrapped(legend, figure.get_figwidth(), 9), fontsize=9)
    figure.savefig(path)


def _draw_scale_pairs(axes, found: Mapping[str, Any], stage: int):
    shares, spread = np.array(found["share"][stage]), np.array(found["share_spread"][stage])
    alike, names = np.array(found["share_if_all_alike"]), found["scales"]
    ratios = shares / alike
    image = axes.imshow(ratios, cmap=COLOURS, vmin=0.0, vmax=3.0)
    axes.set_xticks(range(len(names)), [f"{name}\n({share:.2f})" for name, share in zip(names, alike)], fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=10)
    axes.set_xlabel("… listens to the nodes of scale\n(share if to all alike)", fontsize=10)
    axes.set_ylabel("a node of scale …", fontsize=10)
    for row, column in np.ndindex(*shares.shape):
        axes.text(
            column,
            row,
            f"{shares[row, column]:.2f}\n±{spread[row, column]:.2f}\n×{ratios[row, column]:.2f}",
            ha="center",
            va="center",
            fontsize=10,
            color="white" if ratios[row, column] < 1.5 else "black",
        )
    return image


def _figure(width: float, height: float, title: str, *, square: bool = True) -> Figure:
    width = max(width, 6.5)
    figure = Figure(figsize=(width, height), dpi=100, layout="compressed" if square else "constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    lines = (_wrapped(printable(line), width, 11) for line in title.split("\n"))
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)  # a name in it may hold a $
    return figure


def _wrapped(text: str, width: float, font_size: int) -> str:
    """In lines that fit into `width` inches."""
    return textwrap.fill(text, int(width / (CHARACTER_INCHES * font_size)))


def _draw_matrix(axes, weights: np.ndarray, names: Sequence[str], num_scales: int, largest: float, *, fontsize: int):
    image = axes.imshow(weights, cmap=COLOURS, vmin=0.0, vmax=largest)
    axes.set_xticks(range(len(names)), names, fontsize=fontsize, rotation=90)
    axes.set_yticks(range(len(names)), names, fontsize=fontsize)
    border = -0.5
    for size in range(num_scales, 1, -1):
        border += size * size
        axes.axhline(border, color="white", linewidth=1.2)
        axes.axvline(border, color="white", linewidth=1.2)
    return image


def _write_numbers(axes, values: np.ndarray, pattern: str, *, dark: np.ndarray, fontsize: int) -> None:
    for row, column in np.ndindex(*values.shape):
        axes.text(
            column,
            row,
            pattern.format(values[row, column]),
            ha="center",
            va="center",
            fontsize=fontsize,
            color="white" if dark[row, column] else "black",
        )


def _add_colour_bar(figure: Figure, image, grid, num_nodes: int, label: str) -> None:
    bar = figure.colorbar(image, ax=grid, shrink=0.9, aspect=30)
    bar.set_label(label, fontsize=9)
    bar.ax.axhline(1 / num_nodes, color="white", linewidth=2)
    bar.ax.text(
        -0.4, 1 / num_nodes, "all\nalike", ha="right", va="center", fontsize=7, transform=bar.ax.get_yaxis_transform()
    )


def _name_steps(axes, names: Sequence[str]) -> None:
    shown = evenly_spaced_indices(len(names), min(len(names), 10))
    axes.set_xticks(shown, [names[step] for step in shown], fontsize=9)
    axes.set_xlabel("frame", fontsize=10)


def _style(scale: int) -> str:
    return LINES[scale % len(LINES)] + MARKERS[scale % len(MARKERS)]


def _shade(scale: int, num_scales: int) -> str:
    """Grey levels, coarser scales lighter: line style and marker tell them apart as well."""
    return str(round(0.55 * scale / max(num_scales - 1, 1), 2))
