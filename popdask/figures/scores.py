"""Charts of scores: how training went, which cells are told right, models side by side.

They draw the tables of :mod:`popdask.imagery.evaluation` and the histories of trained models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from popdask.errors import InputError
from popdask.figures import _panels as panels
from popdask.figures._sheets import COUNT, PLAIN, Figure, say, sheet
from popdask.figures.colours import ACCENT, CLASSES, INK, MAIN, NOBODY, PEOPLE, STYLE

SCORES = {
    "accuracy": "accuracy",
    "matthews": "Matthews correlation",
    "r2": "R²",
    "mae": "mean abs. error",
    "mse": "mean sq. error",
    "relative_error": "error of the total",
}


def history_figure(
    history: pd.DataFrame | Sequence[Mapping[str, float]],
    *,
    title: str = "training",
    losses: Sequence[str] = ("training", "validation"),
) -> Figure:
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
        for colour, name in zip((ACCENT, MAIN, *CLASSES[2:]), losses, strict=False):
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


def confusion_figure(scores: pd.DataFrame, *, size: float = 2.4) -> Figure:
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
        figure = Figure((size * len(scores) + 0.5, size + 0.7), layout=panels.layout())
        axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
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


def scores_figure(scores: pd.DataFrame, *, columns: Mapping[str, str] = SCORES) -> Figure:
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
        figure = Figure((width, height), layout=panels.layout())
        axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
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


def density_figure(by_density: pd.DataFrame) -> Figure:
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
        below.bar(range(len(bins)), bins["cells"], color=MAIN, width=0.7)
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
    return [(MAIN, ACCENT, *CLASSES[1:6])[number % 7] for number in range(count)]
