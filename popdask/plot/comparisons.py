"""Maps and matrices side by side: classes apart, frames assigned, truth and reconstruction.

Class by class, which communities a class has; frame by frame, how much every community of one has
to do with every one of the next; and a frame beside what its codes remember of it.
"""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from popdask.errors import InputError
from popdask.plot import style
from popdask.plot.style import NO_DATA, PEOPLE, STYLE, Grid, ShownFigure, shrink, when, year
from popdask.validate import check_array, check_table

COLUMNS = 5  # panels beside one another
ASSIGNED = ("people", "overlap", "similarity")


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
        figure = ShownFigure((size * columns, height), layout=style.layout())
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, (number, part) in zip(axes, shown.items(), strict=False):
            layers = {"population": at, "communities": part}
            colours = style.colours(layers, None, None)
            style.draw(ax, "communities", layers, grid, style.people_norm([layers]), colours)
            count = f"{counts[number] or 'no'} communit{'ies' if counts[number] > 1 else 'y'}"
            ax.set_title(f"class {number}: {count}", loc="left", fontweight="bold")
        for ax in axes[len(shown) :]:
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
    matrix = _matrix(links, by, most)
    values = np.ma.masked_equal(matrix, 0)
    with rc_context(STYLE):
        figure = ShownFigure((size, size + 0.6), layout=style.layout())
        ax = figure.subplots()
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
        bar = figure.colorbar(shown, ax=ax, location="bottom", aspect=40, shrink=0.8, pad=0.02)
        bar.set_label({"people": "people in common", "overlap": "cells in common"}.get(by, by))
        style.plain(bar)
    return figure


def _matrix(links: pd.DataFrame, by: str, most: int) -> np.ndarray:
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
        figure = ShownFigure((2 * size, height), layout=style.layout())
        axes = figure.subplots(1, 2)
        words = (f"population {when(population)}".strip(), "reconstruction")
        for ax, at, title in zip(axes, maps, words, strict=True):
            style.draw(ax, "population", at, grid, norm, np.empty((0, 3)))
            ax.set_title(title, loc="left", fontweight="bold")
        bar = figure.colorbar(ScalarMappable(norm, PEOPLE), ax=axes, location="bottom", aspect=60,
                              shrink=0.6, pad=0.01)  # fmt: skip
        bar.set_label("people per cell")
        style.plain(bar)
        style.scale_bar(axes[0], grid, true)
    return figure
