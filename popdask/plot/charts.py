"""Charts of the analysis and of scores, and maps and matrices side by side that compare.

How models learned, what they keep, how classes part; class by class, which communities a class has;
frame by frame, how much every community of one has to do with every one of the next.

Each draws a table or the values of :mod:`popdask.tracking.diagnostics` or
:mod:`popdask.imagery.evaluation`. What is empty, because nothing moves or there is one class only,
is drawn as empty axes that say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from popdask.errors import InputError
from popdask.plot import style
from popdask.plot.style import (
    ACCENT_COLOUR,
    CLASSES,
    COUNT,
    INK,
    MAIN_COLOUR,
    NO_DATA,
    NOBODY,
    PEOPLE,
    PLAIN,
    STYLE,
    Grid,
    ShownFigure,
    panels,
    say,
    sheet,
    shrink,
    when,
    year,
)
from popdask.validate import check_array, check_table

SCORES = {
    "accuracy": "accuracy",
    "matthews": "Matthews correlation",
    "r2": "R²",
    "mae": "mean abs. error",
    "mse": "mean sq. error",
    "relative_error": "error of the total",
}

COLUMNS = 5  # panels beside one another
ASSIGNED = ("people", "overlap", "similarity")


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
        shades = (
            PEOPLE(np.linspace(0.9, 0.3, len(histories))) if len(histories) > 1 else [MAIN_COLOUR]
        )
        labelled = list(histories) if len(histories) <= 6 else [*histories][:: len(histories) - 1]
        for shade, (name, losses) in zip(shades, histories.items(), strict=True):
            epochs = np.arange(1, len(losses) + 1)
            smooth = pd.Series(losses).rolling(10, min_periods=1, center=True).median()
            ax.plot(epochs, losses, color=shade, alpha=0.3, linewidth=0.8)
            label = name if name in labelled else None
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
        As from :func:`popdask.tracking.classify.sse_curve`.
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
        ax.plot(curve.index, curve, color=MAIN_COLOUR, marker="o", markersize=4, linewidth=1.6)
        if chosen is not None:
            ax.axvline(chosen, color=ACCENT_COLOUR, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            note = f"k = {chosen}, used"
            ax.annotate(note, (chosen, 1), (4, 0), **place, va="top", color=INK)
        ax.set_ylim(bottom=0)
        ax.set_xticks(list(curve.index)[::2])
        ax.yaxis.set_major_formatter(COUNT)
        ax.set(xlabel="number of classes k", ylabel="sum of squared distances")
    return figure


def silhouette_figure(
    values: ArrayLike, classes: ArrayLike, *, cells: Mapping[int, int] | None = None
) -> Figure:
    """Draw the silhouette plot: every cell a line, sorted within its class.

    Parameters
    ----------
    values
        Silhouettes (n,), as from :func:`popdask.tracking.diagnostics.silhouettes`.
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


def error_figure(table: pd.DataFrame, *, measure: str = "squared error, people²") -> Figure:
    """Draw the error of reconstructed people by population, beside that of a constant.

    Parameters
    ----------
    table
        As from :func:`popdask.tracking.diagnostics.error_by_population`.
    measure
        What the error is.

    Returns
    -------
    matplotlib.figure.Figure
        Errors above, their ratio below.

    Examples
    --------
    >>> from popdask.tracking.diagnostics import error_by_population
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
            middles, table["median_error"], color=ACCENT_COLOUR, label="median of all cells", **dots
        )
        above.plot(middles, table["error"], color=MAIN_COLOUR, label="encoder", **dots)
        above.legend(frameon=False)
        middle.plot(middles, table["ratio"], color=MAIN_COLOUR, **dots)
        middle.axhline(1, color=ACCENT_COLOUR, linewidth=1, linestyle=(0, (4, 3)))
        _bars(below, table)
        for ax, label in ((above, measure), (middle, "ratio"), (below, "cells")):
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
        As from :func:`popdask.tracking.diagnostics.cosine_by_speed`.

    Returns
    -------
    matplotlib.figure.Figure
        The cosine above, the number of cells below.

    Examples
    --------
    >>> from popdask.tracking.diagnostics import cosine_by_speed
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
        span: Any = {"color": MAIN_COLOUR, "alpha": 0.18, "linewidth": 0}
        above.fill_between(middles, table["lower"], table["upper"], label="middle half", **span)
        above.plot(
            middles, table["cosine"], color=MAIN_COLOUR, marker="o", markersize=3, label="mean"
        )
        above.axhline(0, color=INK, linewidth=0.6)
        above.legend(frameon=False, loc="lower right")
        above.set(ylim=(-1.05, 1.05), ylabel="cosine with the true flow")
        _bars(below, table)
        below.set(xscale="log", ylabel="cells", xlabel="speed of the true flow, cells per frame")
    return figure


def _bars(ax: Axes, table: pd.DataFrame) -> None:
    """Draw how many cells each level has."""
    ax.bar(
        table["low"], table["cells"], table["high"] - table["low"], align="edge", color=MAIN_COLOUR
    )


def history_figure(
    history: pd.DataFrame | Sequence[Mapping[str, float]],
    *,
    title: str = "training",
    losses: Sequence[str] = ("training", "validation"),
) -> ShownFigure:
    """Draw the loss curves of a training.

    Parameters
    ----------
    history
        One row per epoch, with the columns of `losses`, and ``epoch`` if they do not count from 1.
    title
        What was trained.
    losses
        The columns to draw; the best epoch of the last one is marked, as its weights are kept.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If a column is missing.

    Examples
    --------
    >>> rows = [{"training": 0.9, "validation": 0.8}, {"training": 0.5, "validation": 0.6}]
    >>> [text.get_text() for text in history_figure(rows).axes[0].texts]
    ['0.6 in epoch 2']
    """
    table = pd.DataFrame(history)
    with rc_context(STYLE):
        figure, (ax,) = sheet(title)
        if not len(table):
            say(ax, "not trained")
            return figure
        if lacking := [name for name in losses if name not in table]:
            raise InputError(
                f"the history has no column {' and no '.join(lacking)} but "
                f"{', '.join(map(str, table))}; name the losses to draw"
            )
        epochs = table["epoch"] if "epoch" in table else np.arange(1, len(table) + 1)
        for colour, name in zip((ACCENT_COLOUR, MAIN_COLOUR, *CLASSES[2:]), losses, strict=False):
            label = name.replace("_", " ")
            ax.plot(epochs, table[name], color=colour, linewidth=1.6, marker=".", label=label)
        best = int(np.nanargmin(table[losses[-1]]))
        epoch, loss = np.asarray(epochs)[best], table[losses[-1]].iloc[best]
        ax.axvline(epoch, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        ax.annotate(
            f"{loss:.3g} in epoch {epoch:g}", (epoch, loss), textcoords="offset points",
            xytext=(4, -10), color=INK, fontsize=7,
        )  # fmt: skip
        if (table[list(losses)] > 0).all(axis=None):
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(PLAIN)
            ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            ax.yaxis.set_minor_formatter(PLAIN)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False)
        ax.set(xlabel="epoch", ylabel="loss")
    return figure


def confusion_figure(scores: pd.DataFrame, *, size: float = 2.4) -> ShownFigure:
    r"""Draw which cells are called inhabited and which are, one matrix for each model.

    Parameters
    ----------
    scores
        As from :func:`popdask.imagery.evaluation.evaluate`.
    size
        Width of a matrix in inches.

    Returns
    -------
    matplotlib.figure.Figure
        Shares are those of the truly empty and of the truly inhabited cells.

    Examples
    --------
    >>> from popdask.imagery.evaluation import evaluate
    >>> table = pd.DataFrame({"cell": [1, 2, 3], "prediction": [0, 4, 9], "truth": [0, 5, 0]})
    >>> [text.get_text() for text in confusion_figure(evaluate(table)).axes[0].texts]
    ['1\n50.0%', '1\n50.0%', '0\n0.0%', '1\n100.0%']
    """
    with rc_context(STYLE):
        width, count = size * len(scores) + 0.5, len(scores)
        figure, (axes,) = panels(width, size + 0.7, 1, count, sharey=True, squeeze=False)
        for ax, (name, row) in zip(axes, scores.iterrows(), strict=True):
            _matrix(ax, row)
            ax.set_title(str(name), loc="left", fontweight="bold")
            ax.set_xlabel(f"called (Matthews correlation {row['matthews']:.2f})")
        axes[0].set_ylabel("truly")
        axes[0].set_yticklabels(axes[0].get_yticklabels(), rotation=90, va="center")
    return figure


def _matrix(ax: Axes, row: pd.Series) -> None:
    counts = row[["true_negative", "false_positive", "false_negative", "true_positive"]]
    matrix = counts.to_numpy(float).reshape(2, 2)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap=PEOPLE, vmin=0, vmax=1, alpha=0.85)
    for (line, column), number in np.ndenumerate(matrix):
        share = shares[line, column]
        colour = NOBODY if share > 0.5 else INK
        text = f"{number:,.0f}\n{share:.1%}"
        ax.text(column, line, text, ha="center", va="center", color=colour, fontweight="bold")
    kinds = ("empty", "inhabited")
    ax.set_xticks((0, 1), kinds)
    ax.set_yticks((0, 1), kinds)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def scores_figure(scores: pd.DataFrame, *, columns: Mapping[str, str] = SCORES) -> ShownFigure:
    """Draw the scores of models side by side.

    Parameters
    ----------
    scores
        As from :func:`popdask.imagery.evaluation.evaluate`, the first model at the top.
    columns
        What to call which score, in the order of the panels.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each score, a bar for each model.

    Examples
    --------
    >>> from popdask.imagery.evaluation import evaluate
    >>> table = pd.DataFrame({"cell": [1, 2, 3], "prediction": [0, 4, 9], "truth": [0, 5, 7]})
    >>> [axes.get_title() for axes in scores_figure(evaluate(table)).axes][:3]
    ['accuracy', 'Matthews correlation', 'R²']
    """
    places = np.arange(len(scores))
    with rc_context(STYLE):
        width, height = 1.2 + 1.5 * len(columns), 0.7 + 0.28 * len(scores)
        figure, (axes,) = panels(width, height, 1, len(columns), sharey=True, squeeze=False)
        for ax, (name, label) in zip(axes, columns.items(), strict=True):
            values = scores[name].to_numpy(float)
            ax.barh(places, np.nan_to_num(values), height=0.62, color=_colours(len(scores)))
            _write_values(ax, values, "{:+.1%}" if name == "relative_error" else "{:.3g}")
            ax.axvline(0, color=INK, linewidth=0.6)
            ax.set_title(label, fontsize=8)
            ax.set_xticks([])
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
        axes[0].set_yticks(places, [str(name) for name in scores.index])
        axes[0].set_ylim(len(scores) - 0.5, -0.5)
    return figure


def _write_values(ax: Axes, values: np.ndarray, form: str) -> None:
    """Write every value beyond the end of its bar, and leave room for it."""
    low, high = min(np.nanmin(values, initial=0), 0), max(np.nanmax(values, initial=0), 0)
    reach = (high - low) or 1.0
    for place, value in enumerate(values):
        text = "not defined" if np.isnan(value) else form.format(value)
        side: Any = "left" if not value < 0 else "right"
        end = np.nan_to_num(value) + (0.03 if side == "left" else -0.03) * reach
        ax.text(end, place, text, ha=side, va="center", fontsize=7)
    ax.set_xlim(low - 0.5 * reach * (low < 0), high + 0.5 * reach)


def density_figure(by_density: pd.DataFrame) -> ShownFigure:
    """Draw how large errors are, by how many people truly live in a cell.

    Parameters
    ----------
    by_density
        As from :func:`popdask.imagery.evaluation.scores_by_density`.

    Returns
    -------
    matplotlib.figure.Figure
        The mean absolute error; the mean error (above 0, too many people); and the cells of every
        bin.

    Examples
    --------
    >>> from popdask.imagery.evaluation import scores_by_density
    >>> table = pd.DataFrame({"cell": [1, 2, 3], "prediction": [1, 4, 9], "truth": [0, 5, 7]})
    >>> figure = density_figure(scores_by_density(table))
    >>> [label.get_text() for label in figure.axes[2].get_xticklabels()]
    ['0–1', '5–10']
    """
    bins = by_density[["low", "high", "cells"]].drop_duplicates("low").sort_values("low")
    models = by_density["model"].unique()
    with rc_context(STYLE):
        figure, (above, middle, below) = sheet("Error by density", (3, 2, 1.2), height=5.2)
        for colour, model in zip(_colours(len(models)), models, strict=True):
            rows = by_density[by_density["model"] == model]
            places = np.searchsorted(bins["low"], rows["low"])
            line: Any = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.4}
            above.plot(places, rows["mae"], label=str(model), **line)
            middle.plot(places, rows["bias"], **line)
        largest = float(by_density["bias"].abs().max())
        if largest > 0:
            middle.set_yscale("symlog", linthresh=10 ** (np.floor(np.log10(largest)) - 1))
        if (by_density["mae"] > 0).any():
            above.set_yscale("log")
            above.yaxis.set_major_formatter(PLAIN)
        middle.axhline(0, color=INK, linewidth=0.6)
        middle.yaxis.set_major_formatter(PLAIN)
        above.legend(frameon=False)
        below.bar(range(len(bins)), bins["cells"], color=MAIN_COLOUR, width=0.7)
        below.set_yscale("log")
        below.yaxis.set_major_formatter(COUNT)
        below.set_xticks(range(len(bins)), [_span(row) for row in bins.itertuples()])
        labels = {above: "mean abs. error", middle: "mean error", below: "cells"}
        for ax, label in labels.items():
            ax.set_ylabel(label)
        below.set_xlabel("true people per cell")
    return figure


def _span(row: Any) -> str:
    return f"{row.low:,g}–{row.high:,g}" if np.isfinite(row.high) else f"from {row.low:,g}"


def _colours(count: int) -> list[str]:
    """Colours of models: the first stands out."""
    return [(MAIN_COLOUR, ACCENT_COLOUR, *CLASSES[1:6])[number % 7] for number in range(count)]


def class_panels_figure(
    classes: xr.DataArray,
    communities: xr.DataArray,
    population: xr.DataArray | None = None,
    *,
    size: float = 2.4,
    max_cells: int = 300,
) -> ShownFigure:
    """Draw one panel for each class, with the communities that it has.

    Parameters
    ----------
    classes : DataArray of int, (y, x)
        Classes from 0, −1 = none.
    communities : DataArray of int, (y, x)
        Community numbers, −1 = none; each community has one class.
    population : DataArray, (y, x), optional
        People per cell, to tell empty land from missing data.
    size : float, optional
        Width of a panel in inches.
    max_cells : int, optional
        The rasters are reduced until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the rasters do not share one grid.

    Examples
    --------
    >>> classes = xr.DataArray([[0, 0, 1, 1]], dims=("y", "x"), coords={"y": [0], "x": range(4)})
    >>> figure = class_panels_figure(classes, classes.where(classes > 0, -1))
    >>> [axes.get_title("left") for axes in figure.axes]
    ['class 0: no community', 'class 1: 1 community']
    """
    check_array("classes", classes, "y", "x")
    check_array("communities", communities, "y", "x")
    if classes.shape != communities.shape:
        raise InputError(
            f"classes have the shape {classes.shape}, communities {communities.shape}; expected "
            "those of one frame: select the same"
        )
    numbers = np.unique(np.asarray(classes.data))
    numbers = numbers[numbers >= 0]
    people = xr.ones_like(classes, np.float32) if population is None else population
    parts = {number: communities.where(classes == number, -1) for number in numbers.tolist()}
    at, shown = dask.compute(
        shrink(people, max_cells),
        {number: shrink(part.astype(np.int64), max_cells) for number, part in parts.items()},
    )
    counts = {number: _count(part) for number, part in parts.items()}
    grid, columns = Grid.of(classes), min(COLUMNS, max(len(numbers), 1))
    rows = -(-max(len(numbers), 1) // columns)
    height = rows * (size * grid.size[1] / grid.size[0] + 0.35)
    with rc_context(STYLE):
        figure, axes = panels(size * columns, height, rows, columns, squeeze=False)
        for ax, (number, part) in zip(axes.flat, shown.items(), strict=False):
            layers = {"population": at, "communities": part}
            colours = style.colours(layers, None, None)
            style.draw(ax, "communities", layers, grid, style.people_norm([layers]), colours)
            count = f"{counts[number] or 'no'} communit{'ies' if counts[number] > 1 else 'y'}"
            ax.set_title(f"class {number}: {count}", loc="left", fontweight="bold")
        for ax in axes.flat[len(shown) :]:
            ax.remove()
    return figure


def _count(labels: xr.DataArray) -> int:
    """Count the communities of a raster."""
    found = np.unique(np.asarray(labels.data))
    return int((found >= 0).sum())


def assignment_figure(
    links: pd.DataFrame, *, by: str = "people", most: int = 300, size: float = 6.0
) -> ShownFigure:
    """Draw the assignment matrix of two frames: how much communities have to do with each other.

    Parameters
    ----------
    links : DataFrame
        Of two frames, as from :func:`popdask.tracking.link.link`: source, target, and what to draw.
    by : {"people", "overlap", "similarity"}, optional
        People or cells in common, or the similarity of flows.
    most : int, optional
        Rows and columns at most: those with the heaviest links.
    size : float, optional
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each community of the earlier frame and a column for each of the later one, which
        are ordered so that those that belong together lie on the diagonal.

    Raises
    ------
    InputError
        If the links are of several pairs of frames, or `by` is unknown.

    Examples
    --------
    >>> links = pd.DataFrame({"source": [0, 1, 1], "target": [4, 3, 4], "people": [9.0, 8.0, 1.0]})
    >>> axes = assignment_figure(links).axes[0]
    >>> axes.images[0].get_array().filled(0).tolist()
    [[9.0, 0.0], [1.0, 8.0]]
    """
    if by not in ASSIGNED:
        raise InputError(f"by is {by!r}; expected one of {', '.join(ASSIGNED)}")
    check_table("links", links, ["source", "target", by], "link")
    pairs = [name for name in ("time", "next") if name in links]
    if pairs and len(links[pairs].drop_duplicates()) > 1:
        raise InputError(
            "links are of several pairs of frames; expected those of one: select them, as in "
            'links[links["time"] == links["time"].iloc[0]]'
        )
    matrix = _link_matrix(links, by, most)
    values = np.ma.masked_equal(matrix, 0)
    with rc_context(STYLE):
        figure, ax = panels(size, size + 0.6)
        top = float(matrix.max(initial=0)) or 1.0
        norm = LogNorm(max(min(1.0, top / 10), top / 1e6), top, clip=True)
        shown = ax.imshow(values, cmap=PEOPLE, norm=norm, interpolation="nearest")
        ax.set_facecolor(NO_DATA)
        ends = [year(links[name].iloc[0]) if name in links and len(links) else "" for name in
                ("time", "next")]  # fmt: skip
        span = " to ".join(filter(None, ends))
        ax.set_title(f"assignment {span}".strip(), loc="left", fontweight="bold")
        ax.set(ylabel="communities of the earlier frame", xlabel="communities of the later frame")
        ax.set(xticks=[], yticks=[])
        label = {"people": "people in common", "overlap": "cells in common"}.get(by, by)
        style.bar_below(figure, shown, ax, label, pad=0.02)
    return figure


def _link_matrix(links: pd.DataFrame, by: str, most: int) -> np.ndarray:
    """Lay links out, heaviest first, later communities below the earlier ones they belong to."""
    heavy = links[links[by] > 0].sort_values(by, ascending=False, kind="stable")
    rows = heavy["source"].drop_duplicates().head(most)
    heavy = heavy[heavy["source"].isin(rows)]
    place = pd.Series(range(len(rows)), index=rows)
    best = heavy.drop_duplicates("target").assign(row=lambda t: t["source"].map(place))
    columns = best.sort_values("row", kind="stable")["target"].head(most)
    heavy = heavy[heavy["target"].isin(columns)]
    across = pd.Series(range(len(columns)), index=columns)
    matrix = np.zeros((len(rows), len(columns)))
    matrix[heavy["source"].map(place), heavy["target"].map(across)] = heavy[by]
    return matrix


def reconstruction_figure(
    population: xr.DataArray,
    reconstruction: xr.DataArray,
    *,
    size: float = 4.5,
    max_cells: int = 600,
) -> ShownFigure:
    """Draw a frame beside what the encoder remembers of it, on one scale.

    Parameters
    ----------
    population, reconstruction : DataArray of float, (y, x)
        People per cell, NaN = no data.
    size : float, optional
        Width of a panel in inches.
    max_cells : int, optional
        The maps are reduced until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If they do not share one grid.

    Examples
    --------
    >>> people = xr.DataArray([[1.0, 30.0]], dims=("y", "x"), coords={"y": [0], "x": [0, 1]})
    >>> [axes.get_title("left") for axes in reconstruction_figure(people, people).axes[:2]]
    ['population', 'reconstruction']
    """
    for name, raster in (("population", population), ("reconstruction", reconstruction)):
        check_array(name, raster, "y", "x")
    if population.shape != reconstruction.shape:
        raise InputError(
            f"population has the shape {population.shape}, reconstruction {reconstruction.shape}; "
            "expected those of one frame: select the same"
        )
    true, remembered = dask.compute(
        *(shrink(raster, max_cells) for raster in (population, reconstruction))
    )
    grid, maps = Grid.of(population), [{"population": true}, {"population": remembered}]
    norm: Any = style.people_norm(maps)
    with rc_context(STYLE):
        height = size * grid.size[1] / grid.size[0] + 0.8
        figure, axes = panels(2 * size, height, 1, 2)
        words = (f"population {when(population)}".strip(), "reconstruction")
        for ax, at, title in zip(axes, maps, words, strict=True):
            style.draw(ax, "population", at, grid, norm, np.empty((0, 3)))
            ax.set_title(title, loc="left", fontweight="bold")
        people = ScalarMappable(norm, PEOPLE)
        style.bar_below(figure, people, list(axes), "people per cell", aspect=60, shrink=0.6)
        style.scale_bar(axes[0], grid, true)
    return figure
