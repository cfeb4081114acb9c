"""Maps of what changes: the flow's arrows, people gained and lost, the journeys of communities."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, SymLogNorm, to_rgba
from matplotlib.ticker import FuncFormatter

from popdask.figures import _panels as panels
from popdask.figures._sheets import PLAIN, Figure
from popdask.figures.colours import NO_DATA, STYLE
from popdask.figures.places import Grid, Paths
from popdask.figures.reduce import block_size, shrink
from popdask.figures.times import when, year

SIGNED = FuncFormatter(
    lambda number, _: f"{number:+,.{0 if abs(number) >= 1 else 2}f}" if number else "0"
)
SPEED = colormaps["plasma_r"]
CHANGE = colormaps["PuOr"].with_extremes(bad=to_rgba(NO_DATA))  # ColorBrewer's, for all eyes


def flow_figure(
    population: xr.DataArray,
    flow: xr.Dataset,
    *,
    arrows: int = 45,
    size: float = 8.0,
    max_cells: int = 1000,
) -> Figure:
    """Draw the flow of one frame as arrows on the map.

    Parameters
    ----------
    population
        People per cell (y, x), NaN = no data.
    flow
        ``u`` and ``v`` (y, x), cells per frame, y down the rows.
    arrows
        How many arrows along the longer side at most. Each is the mean over its block of cells,
        weighted by their people; its colour is its speed.
    size
        Width in inches.
    max_cells
        The map is reduced until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> from popdask.tracking.flow import optical_flow
    >>> population = moving_cities(frames=6).population.population
    >>> figure = flow_figure(population[2], optical_flow(population)[["u", "v"]].isel(time=2))
    >>> figure.axes[0].get_title("left")
    'flow 2002'
    """
    people = population.fillna(0)
    weighted = {"weight": people, "u": flow["u"] * people, "v": flow["v"] * people}
    at, sums = dask.compute(
        {"population": shrink(population, max_cells)},
        {name: shrink(raster, arrows, "sum") for name, raster in weighted.items()},
    )
    grid = Grid.of(population)
    with rc_context(STYLE):
        figure = Figure((size, size * grid.size[1] / grid.size[0] + 0.7), layout=panels.layout())
        ax = figure.subplots()
        panels.draw(ax, "tracks", at, grid, panels.people_norm([at]), np.empty((0, 3)))
        ax.set_title(f"flow {when(population)}".strip(), loc="left", fontweight="bold")
        panels.scale_bar(ax, grid, at["population"])
        row, col = np.nonzero(np.hypot(sums["u"], sums["v"]) > 0)
        if len(row):
            u, v = (sums[name][row, col] / sums["weight"][row, col] for name in "uv")
            side = block_size(population.shape, arrows) * np.array(grid.cell)
            x, y = (col + 0.5) * side[0], (row + 0.5) * side[1]
            y, v = (grid.size[1] - y, -v) if grid.upright else (y, v)
            norm = _draw_arrows(ax, x, y, u, v, length=float(min(side)))
            place: Any = {"location": "bottom", "aspect": 40, "shrink": 0.8, "pad": 0.01}
            bar = figure.colorbar(ScalarMappable(norm, SPEED), ax=ax, extend="both", **place)
            bar.formatter = PLAIN
            bar.set_label("speed, cells per frame (mean of the people around)")
            panels.plain(bar)
        else:
            ax.set_xlabel("nothing moves")
    return figure


def _draw_arrows(
    ax: Any, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray, *, length: float
) -> LogNorm:
    """Draw arrows that grow with the logarithm of the speed, the fastest on top."""
    speed = np.hypot(u, v)
    fastest = float(np.quantile(speed, 0.99))
    norm = LogNorm(fastest / 1000, fastest, clip=True)
    seen = np.argsort(speed)
    seen = seen[speed[seen] > fastest / 1000]
    long = length * (0.25 + 1.25 * np.asarray(norm(speed[seen]))) / speed[seen]
    ax.quiver(
        x[seen], y[seen], u[seen] * long, v[seen] * long, color=SPEED(norm(speed[seen])),
        angles="xy", scale_units="xy", scale=1, pivot="middle", width=0.0022,
        headwidth=4, headlength=4.5, headaxislength=4,
    )  # fmt: skip
    return norm


def change_figure(
    before: xr.DataArray, after: xr.DataArray, *, size: float = 8.0, max_cells: int = 150
) -> Figure:
    """Draw how many people were gained and lost between two frames.

    Parameters
    ----------
    before, after
        People per cell (y, x), NaN = no data.
    size
        Width in inches.
    max_cells
        Cells are added up in squares until neither side has more.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> population = moving_cities().population.population
    >>> change_figure(population[0], population[-1]).axes[0].get_title("left")
    'change of population, 2000 to 2007'
    """
    grid = Grid.of(after)
    gain = after.drop_vars("time", errors="ignore") - before.drop_vars("time", errors="ignore")
    change, people = dask.compute(shrink(gain, max_cells, "sum"), shrink(after, max_cells))
    most = float(np.nanmax(np.abs(change), initial=0)) or 1.0
    norm = SymLogNorm(max(most / 1000, min(1.0, most)), vmin=-most, vmax=most, base=10)
    span = " to ".join(filter(None, (when(before), when(after))))
    with rc_context(STYLE):
        figure = Figure((size, size * grid.size[1] / grid.size[0] + 0.7), layout=panels.layout())
        ax = figure.subplots()
        shown = panels.show(ax, change, grid, cmap=CHANGE, norm=norm)
        ax.set_title(f"change of population, {span}".strip(", "), loc="left", fontweight="bold")
        bar = figure.colorbar(shown, ax=ax, location="bottom", aspect=40, shrink=0.8, pad=0.01)
        wide, high = panels.pixel(change, grid)
        bar.set_label(f"people gained (purple) or lost (orange) per {wide:.3g} × {high:.3g} km")
        powers = 10.0 ** np.arange(-3, 9)
        ticks = powers[(powers > 3 * norm.linthresh) & (powers <= most)].tolist() or [most]
        bar.set_ticks([*(-tick for tick in ticks[::-1]), 0, *ticks])
        bar.formatter = SIGNED
        panels.plain(bar)
        panels.scale_bar(ax, grid, people)
    return figure


def journey_figure(
    population: xr.DataArray,
    communities: xr.DataArray,
    summary: pd.DataFrame,
    tracks: pd.DataFrame,
    *,
    size: float = 4.5,
    max_cells: int = 600,
) -> Figure:
    """Draw the communities of the first and of the last frame, and their paths between.

    Parameters
    ----------
    population, communities
        (time, y, x); of one frame there is one panel of communities.
    summary
        The table of :func:`popdask.tracking.summary.summarize`.
    tracks
        The table of :func:`popdask.tracking.linking.tracks`; a track has one colour throughout.
    size
        Width of a panel in inches.
    max_cells
        Rasters are reduced until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> from popdask.tracking.linking import link, tracks
    >>> from popdask.tracking.summary import summarize
    >>> world = moving_cities()
    >>> people, labels = world.population.population, world.labels
    >>> summary = summarize(labels, people)
    >>> found = tracks(link(labels, people, rule="overlap"), summary)
    >>> [axes.get_title("left") for axes in journey_figure(people, labels, summary, found).axes]
    ['communities 2000', 'communities 2007', 'tracks 2000 to 2007']
    """
    grid, times = Grid.of(population), population["time"].values
    shown = sorted({0, len(times) - 1})
    cubes = {"population": population, "communities": communities}
    (maps,) = dask.compute(
        [{name: shrink(cube[i], max_cells) for name, cube in cubes.items()} for i in shown]
    )
    norm, span = panels.people_norm(maps), " to ".join(year(times[i]) for i in shown)
    with rc_context(STYLE):
        height = size * grid.size[1] / grid.size[0] + 0.5
        figure = Figure((size * (len(shown) + 1), height), layout=panels.layout())
        *axes, last = figure.subplots(1, len(shown) + 1)
        for ax, at, time in zip(axes, maps, times[shown], strict=True):
            colours = panels.colours(at, tracks, time)
            panels.draw(ax, "communities", at, grid, norm, colours)
            ax.set_title(f"communities {year(time)}", loc="left", fontweight="bold")
        panels.draw(last, "tracks", maps[-1], grid, norm, np.empty((0, 3)))
        panels.draw_paths(last, Paths.of(summary, tracks, grid), times[-1])
        last.set_title(f"tracks {span}", loc="left", fontweight="bold")
        axes[0].set_xlabel("one colour per track")
        words = "paths of the centroids; a dot is the size of its people"
        last.set_xlabel(f"{words};\n{panels.GREY}")
        panels.scale_bar(last, grid, maps[-1]["population"])
    return figure
