"""Estimates against the truth: cell against cell, and where on the map they differ."""

from __future__ import annotations

import dask
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, SymLogNorm
from matplotlib.ticker import FixedLocator

from popdask.cube.grids import describe_grid, grid_of, same_grid
from popdask.errors import InputError
from popdask.figures import _panels as panels
from popdask.figures._sheets import COUNT, Figure, say
from popdask.figures.colours import ACCENT, PEOPLE, STYLE
from popdask.figures.motion import CHANGE, SIGNED
from popdask.figures.places import Grid
from popdask.figures.reduce import shrink
from popdask.metrics import count_scores

HEXAGONS = 45  # along the axis of the truth


def agreement_figure(predictions: pd.DataFrame, *, title: str = "", size: float = 4.0) -> Figure:
    """Draw predicted against true people, on linear and on logarithmic axes.

    Parameters
    ----------
    predictions
        One row per cell, with ``prediction`` and ``truth`` (people).
    title
        What is drawn, such as the model's name.
    size
        Width of a panel in inches.

    Returns
    -------
    matplotlib.figure.Figure
        The colour of a hexagon says how many cells lie in it. The logarithmic axes are those of
        1 + people, so that cells where nobody is, or nobody is predicted, are there as well;
        predictions below 0 lie on 0 there.

    Raises
    ------
    InputError
        If a column is missing, or a value is infinite.

    Examples
    --------
    >>> table = pd.DataFrame({"prediction": [0.0, 4.0, 9.0], "truth": [0, 5, 7]})
    >>> [axes.get_title("left") for axes in agreement_figure(table).axes[:2]]
    ['3 cells, R² 0.81', 'logarithmic']
    """
    if lacking := {"prediction", "truth"} - set(predictions):
        raise InputError(f"predictions has no column {' and no '.join(sorted(lacking))}; add it")
    known = predictions[["prediction", "truth"]].astype(float).dropna()
    scores = count_scores(known["prediction"], known["truth"])
    with rc_context(STYLE):
        figure = Figure((2 * size + 0.6, size + 0.3), layout=panels.layout())
        linear, logarithmic = figure.subplots(1, 2)
        if not len(known):
            say(linear, "no cell is known")
            say(logarithmic, "")
            return figure
        least, most = float(min(known.min().min(), 0)), max(float(known.max().max()), 1.0)
        hexagons = [
            _hexagons(linear, known, (least, most)),
            _hexagons(
                logarithmic, known.clip(lower=0).add(1).transform(np.log10), (0, np.log10(1 + most))
            ),
        ]
        norm = LogNorm(
            1, max(2.0, *(float(np.max(np.asarray(shown.get_array()))) for shown in hexagons))
        )
        for shown in hexagons:
            shown.set_norm(norm)
        _people_ticks(logarithmic, most)
        heading = f"{scores.cells:,} cells, R² {scores.r2:.2f}"
        linear.set_title(f"{title}: {heading}" if title else heading, loc="left", fontweight="bold")
        logarithmic.set_title("logarithmic", loc="left")
        bar = figure.colorbar(hexagons[0], ax=[linear, logarithmic], aspect=40, pad=0.01)
        bar.set_label("cells")
        bar.formatter = COUNT
        panels.plain(bar)
    return figure


def _hexagons(ax: Axes, known: pd.DataFrame, span: tuple[float, float]) -> PolyCollection:
    """Draw predicted against true people, and the line on which they agree."""
    shown = ax.hexbin(
        known["truth"], known["prediction"], gridsize=HEXAGONS, extent=(*span, *span), mincnt=1,
        cmap=PEOPLE, linewidths=0.2,
    )  # fmt: skip
    ax.plot(span, span, color=ACCENT, linewidth=1, linestyle=(0, (4, 3)))
    margin = 0.03 * (span[1] - span[0])
    limits = (span[0] - margin, span[1] + margin)
    ax.set(
        xlabel="true people", ylabel="predicted people", xlim=limits, ylim=limits, aspect="equal"
    )
    ax.spines[["top", "right"]].set_visible(False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(COUNT)
    return shown


def _people_ticks(ax: Axes, most: float) -> None:
    """Write people along axes of log10(1 + people)."""
    people = [0, *(step * 10**power for power in range(8) for step in (1, 3))]
    people = [number for number in people if number <= most]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(FixedLocator([float(np.log10(1 + number)) for number in people]))
        axis.set_ticklabels([f"{number:,}" for number in people])


def error_map_figure(
    population: xr.DataArray,
    truth: xr.DataArray,
    *,
    title: str = "error of the estimate",
    size: float = 8.0,
    max_cells: int = 150,
) -> Figure:
    """Draw where there are too many people in an estimate, and where too few.

    Parameters
    ----------
    population, truth
        Estimated and true people per cell (y, x) on one grid, NaN = no data or unknown.
    title
        Written above.
    size
        Width in inches.
    max_cells
        Errors are added up in squares until neither side has more.

    Returns
    -------
    matplotlib.figure.Figure
        Colours grow with the logarithm, the same way to both sides of 0.

    Raises
    ------
    InputError
        If the two lie on different grids.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> truth = moving_cities().population.population[0]
    >>> error_map_figure(truth * 1.1, truth).axes[0].get_title("left")
    'error of the estimate: +10.0% of the people'
    """
    if not same_grid(grid_of(population), grid_of(truth)):
        raise InputError(
            f"the estimate has {describe_grid(grid_of(population))} but the truth "
            f"{describe_grid(grid_of(truth))}; one grid was expected: bring the truth to it"
        )
    grid = Grid.of(population)
    error = population.data - truth.data
    error, people = dask.compute(shrink(error, max_cells, "sum"), shrink(truth, max_cells, "sum"))
    most = float(np.nanmax(np.abs(error), initial=0)) or 1.0
    norm = SymLogNorm(max(most / 1000, min(1.0, most)), vmin=-most, vmax=most, base=10)
    known = ~np.isnan(error)
    total = people[known].sum(dtype=np.float64)
    share = f": {error[known].sum(dtype=np.float64) / total:+.1%} of the people" if total else ""
    with rc_context(STYLE):
        figure = Figure((size, size * grid.size[1] / grid.size[0] + 0.7), layout=panels.layout())
        ax = figure.subplots()
        shown = panels.show(ax, error, grid, cmap=CHANGE, norm=norm)
        ax.set_title(title + share, loc="left", fontweight="bold")
        bar = figure.colorbar(shown, ax=ax, location="bottom", aspect=40, shrink=0.8, pad=0.01)
        wide, high = panels.pixel(error, grid)
        bar.set_label(
            f"people too many (purple) or too few (orange) per {wide:.3g} × {high:.3g} km"
        )
        powers = 10.0 ** np.arange(-3, 9)
        ticks = powers[(powers > 3 * norm.linthresh) & (powers <= most)].tolist() or [most]
        bar.set_ticks([*(-tick for tick in ticks[::-1]), 0, *ticks])
        bar.formatter = SIGNED
        panels.plain(bar)
        panels.scale_bar(ax, grid, np.nan_to_num(people))
    return figure
