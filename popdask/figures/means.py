"""Communities by their mean population: where they are, and how they change."""

from __future__ import annotations

import dask
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, NullFormatter

from popdask.figures import _panels as panels
from popdask.figures._sheets import PLAIN, Figure, say
from popdask.figures.colours import INK, PEOPLE, STYLE, number_colours
from popdask.figures.places import Grid
from popdask.figures.reduce import shrink
from popdask.figures.times import year


def means_figure(
    means: pd.DataFrame, population: xr.DataArray, *, most: int = 20, size: float = 6.0
) -> Figure:
    """Draw the mean population and the centroid of every community.

    Parameters
    ----------
    means
        As from :func:`popdask.tracking.analysis.community_means`, with the ``track`` of each.
    population
        People per cell (y, x) of the frame to map, for the land below.
    most
        How many tracks to compare, those with the most people.
    size
        Width of the map in inches.

    Returns
    -------
    matplotlib.figure.Figure
        The frame's communities at their centroids; how the mean of the largest tracks has changed
        from the first frame that has them to the last.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> from popdask.tracking.analysis import community_means
    >>> from popdask.tracking.summary import summarize
    >>> world = moving_cities()
    >>> people = world.population.population
    >>> means = community_means(summarize(world.labels, people))
    >>> figure = means_figure(means.assign(track=means["community"]), people[-1])
    >>> figure.axes[1].get_xlabel()
    'mean population of the community, people per cell'
    """
    grid, time = Grid.of(population), population["time"].values
    (image,) = dask.compute(shrink(population, 600))
    now = means[means["time"] == time].sort_values("population", ascending=False)
    with rc_context(STYLE):
        height = max(size * grid.size[1] / grid.size[0] + 0.7, 3.0)
        figure = Figure((size * 1.75, height), layout=panels.layout())
        ax, beside = figure.subplots(1, 2, width_ratios=(1, 0.7))
        at = {"population": image}
        panels.draw(ax, "tracks", at, grid, panels.people_norm([at]), np.empty((0, 3)))
        ax.set_title(f"communities {year(time)}", loc="left", fontweight="bold")
        panels.scale_bar(ax, grid, image)
        if now.empty:
            say(beside, "no communities")
            return figure
        _draw_means(figure, ax, now, grid)
        _draw_ranking(beside, means, most)
    return figure


def _draw_means(figure: Figure, ax: Axes, now: pd.DataFrame, grid: Grid) -> None:
    """Draw a dot per community: its area says how many people, its colour how dense."""
    low, high = now["mean_population"].min(), now["mean_population"].max()
    norm = LogNorm(max(low, high / 1e4), max(high, low * 1.01))
    dots = ax.scatter(
        (now["x"] - grid.west) * grid.unit[0],
        (now["y"] - grid.south) * grid.unit[1],
        s=8 + 500 * now["population"] / now["population"].max(),
        c=now["mean_population"], norm=norm, cmap=PEOPLE,
        edgecolors="white", linewidths=0.6,
    )  # fmt: skip
    bar = figure.colorbar(dots, ax=ax, location="bottom", aspect=40, shrink=0.8, pad=0.01)
    bar.locator, bar.formatter = LogLocator(subs=(1, 2, 5)), PLAIN
    bar.set_label("people per cell, mean of the community; a dot's area: its people")
    panels.plain(bar)


def _draw_ranking(ax: Axes, means: pd.DataFrame, most: int) -> None:
    """Draw the mean of the largest tracks, from the first frame (ring) to the last (dot)."""
    means = means.sort_values("time", kind="stable")
    largest = means.groupby("track")["population"].max().nlargest(most).index
    lives = means[means["track"].isin(largest)].groupby("track")["mean_population"]
    ends = pd.DataFrame({"first": lives.first(), "last": lives.last()}).loc[largest[::-1]]
    rows = np.arange(len(ends))
    colours = [tuple(colour) for colour in number_colours(ends.index.to_numpy())]
    ax.hlines(rows, ends["first"], ends["last"], colors=colours, linewidth=1.6)
    ax.scatter(ends["first"], rows, s=22, facecolors="white", edgecolors=colours, zorder=3)
    ax.scatter(ends["last"], rows, s=24, c=colours, zorder=3)
    ax.set_yticks(rows, [f"track {track}" for track in ends.index], fontsize=7)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(PLAIN)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="x", color="#e4e4de", linewidth=0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(which="both", length=0, labelcolor=INK)
    ax.set_axisbelow(True)
    ax.set_xlabel("mean population of the community, people per cell")
    ax.set_title("the most populous tracks, from first (ring) to last frame", loc="left")
