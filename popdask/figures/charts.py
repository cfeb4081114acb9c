"""Charts of the analysis: how the encoder learned, what it remembers, how the classes part.

Each draws a table or the values of :mod:`popdask.tracking.analysis`. What is empty, because nothing
moves or there is one class only, is drawn as empty axes that say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from popdask.figures._sheets import COUNT, say, sheet
from popdask.figures.colours import ACCENT, CLASSES, INK, MAIN, PEOPLE, STYLE


def loss_figure(histories: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the training loss of one or more encoders.

    Parameters
    ----------
    histories
        The loss of every epoch (mean squared error of scaled windows), by the encoder's name.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> loss_figure({"shared": [0.1, 0.01, 0.008]}).axes[0].get_ylabel()
    'mean squared error, scaled'
    """
    with rc_context(STYLE):
        figure, (ax,) = sheet("Training of the encoder")
        shades = PEOPLE(np.linspace(0.9, 0.3, len(histories))) if len(histories) > 1 else [MAIN]
        told = list(histories) if len(histories) <= 6 else [*histories][:: len(histories) - 1]
        for shade, (name, losses) in zip(shades, histories.items(), strict=True):
            epochs = np.arange(1, len(losses) + 1)
            smooth = pd.Series(losses).rolling(10, min_periods=1, center=True).median()
            ax.plot(epochs, losses, color=shade, alpha=0.3, linewidth=0.8)
            label = name if name in told else None
            ax.plot(epochs, smooth, color=shade, linewidth=1.6, label=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if any(loss > 0 for losses in histories.values() for loss in losses):
            ax.set_yscale("log")
        if len(histories) > 1:
            ax.legend(frameon=False, ncols=2, title="encoder of")
        ax.set(xlabel="epoch (bold: the median of ten)", ylabel="mean squared error, scaled")
    return figure


def sse_figure(curve: pd.Series, chosen: int | None = None, *, cells: int | None = None) -> Figure:
    """Draw the SSE curve of k-means over the number of classes.

    Parameters
    ----------
    curve
        As from :func:`popdask.tracking.clustering.sse_curve`.
    chosen
        The number of classes that was used, to be marked.
    cells
        On how many cells the curve was measured, to be told.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = sse_figure(pd.Series([9.0, 4.0, 3.0], index=[2, 3, 4]), chosen=3)
    >>> figure.axes[0].get_xlabel()
    'number of classes k'
    """
    with rc_context(STYLE):
        of = "" if cells is None else f" of {cells:,} cells"
        figure, (ax,) = sheet(f"Spread within k classes{of}")
        ax.plot(curve.index, curve, color=MAIN, marker="o", markersize=4, linewidth=1.6)
        if chosen is not None:
            ax.axvline(chosen, color=ACCENT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            note = f"k = {chosen}, used"
            ax.annotate(note, (chosen, 1), (4, 0), **place, va="top", color=INK)
        ax.set_ylim(bottom=0)
        ax.set_xticks(list(curve.index)[::2])
        ax.yaxis.set_major_formatter(COUNT)
        ax.set(xlabel="number of classes k", ylabel="sum of squared distances, standardised")
    return figure


def silhouette_figure(
    values: ArrayLike, classes: ArrayLike, *, cells: Mapping[int, int] | None = None
) -> Figure:
    """Draw the silhouette plot: every cell a line, sorted within its class.

    Parameters
    ----------
    values
        Silhouettes (n,), as from :func:`popdask.tracking.analysis.silhouettes`.
    classes
        The classes of the same cells, (n,). Each is drawn at the same height: rare ones matter.
    cells
        How common each class is, where these are not the shares of the classes among `classes`;
        the mean is weighted by it.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = silhouette_figure([0.8, 0.7, -0.1], [0, 0, 1])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['0', '1']
    """
    values, classes = np.asarray(values, float), np.asarray(classes)
    numbers, counts = np.unique(classes, return_counts=True)
    with rc_context(STYLE):
        figure, (ax,) = sheet("Silhouettes of the classes", height=1.4 + 0.34 * len(numbers))
        if not len(values) or np.isnan(values).all():
            say(ax, "silhouettes need two classes")
            return figure
        lines = [np.sort(values[classes == number])[::-1] for number in numbers]
        weights = [cells[int(number)] for number in numbers] if cells else counts
        mean = np.average([line.mean() for line in lines], weights=weights)
        for row, (number, line, weight) in enumerate(zip(numbers, lines, weights, strict=True)):
            heights = row + np.linspace(-0.4, 0.4, len(line) + 1)
            colour = CLASSES[number % len(CLASSES)]
            ax.fill_betweenx(heights, 0, [*line, line[-1]], step="post", color=colour, linewidth=0)
            share = weight / np.sum(weights)
            often = f"{share:.1%}" if share >= 0.001 else "under 0.1%"
            note = f"{line.mean():+.2f},  {often} of cells"
            place: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 7}
            ax.annotate(note, (1.02, row), **place)
        ax.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        ax.axvline(0, color=INK, linewidth=0.6)
        ax.set_yticks(range(len(numbers)), [str(number) for number in numbers])
        ax.set(ylim=(len(numbers) - 0.5, -0.5), xlim=(min(values.min(), -0.2), 1), ylabel="class")
        ax.set_xlabel(f"silhouette of {len(values):,} cells (dashed: the mean, {mean:.2f})")
    return figure


def error_figure(table: pd.DataFrame) -> Figure:
    """Draw the squared error of reconstructed people by population, beside that of a constant.

    Parameters
    ----------
    table
        As from :func:`popdask.tracking.analysis.error_by_population`.

    Returns
    -------
    matplotlib.figure.Figure
        Errors above, their ratio below.

    Examples
    --------
    >>> from popdask.tracking.analysis import error_by_population
    >>> figure = error_figure(error_by_population([0, 0, 9], [0, 1, 7]))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['squared error, people²', 'ratio', 'cells']
    """
    with rc_context(STYLE):
        title = "Error of the reconstructed people"
        figure, (above, middle, below) = sheet(title, (3, 1.2, 1.2), height=5.2)
        middles = (table["low"] + table["high"]) / 2
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3}
        above.plot(
            middles, table["median_error"], color=ACCENT, label="median of all cells", **dots
        )
        above.plot(middles, table["error"], color=MAIN, label="encoder", **dots)
        above.legend(frameon=False)
        middle.plot(middles, table["ratio"], color=MAIN, **dots)
        middle.axhline(1, color=ACCENT, linewidth=1, linestyle=(0, (4, 3)))
        below.bar(
            table["low"], table["cells"], table["high"] - table["low"], align="edge", color=MAIN
        )
        for ax, label in ((above, "squared error, people²"), (middle, "ratio"), (below, "cells")):
            ax.set_ylabel(label)
            if ax.dataLim.ymax > 0:
                ax.set_yscale("log")
        below.set_xlabel("people per cell")
        below.set_xlim(left=0)
    return figure


def cosine_figure(table: pd.DataFrame) -> Figure:
    """Draw how well the direction of the flow is reconstructed, by its speed.

    Parameters
    ----------
    table
        As from :func:`popdask.tracking.analysis.cosine_by_speed`.

    Returns
    -------
    matplotlib.figure.Figure
        The cosine above, the number of cells below.

    Examples
    --------
    >>> from popdask.tracking.analysis import cosine_by_speed
    >>> figure = cosine_figure(cosine_by_speed([[1.0, 0.0]], [[0.0, 1.0]]))
    >>> figure.axes[1].get_xlabel()
    'speed of the true flow, cells per frame'
    """
    with rc_context(STYLE):
        title = "Direction of the reconstructed flow"
        figure, (above, below) = sheet(title, (3, 1.2), height=4.4)
        if table.empty:
            say(above, "nothing moves")
            say(below, "")
            return figure
        middles = np.sqrt(table["low"] * table["high"])
        span: Any = {"color": MAIN, "alpha": 0.18, "linewidth": 0}
        above.fill_between(middles, table["lower"], table["upper"], label="middle half", **span)
        above.plot(middles, table["cosine"], color=MAIN, marker="o", markersize=3, label="mean")
        above.axhline(0, color=INK, linewidth=0.6)
        above.legend(frameon=False, loc="lower right")
        above.set(ylim=(-1.05, 1.05), ylabel="cosine with the true flow")
        below.bar(
            table["low"], table["cells"], table["high"] - table["low"], align="edge", color=MAIN
        )
        below.set(xscale="log", ylabel="cells", xlabel="speed of the true flow, cells per frame")
    return figure


def _bars(ax: Axes, table: pd.DataFrame) -> None:
    """Draw how many cells each level has."""
    ax.bar(table["low"], table["cells"], table["high"] - table["low"], align="edge", color=MAIN)
