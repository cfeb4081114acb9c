"""Maps of populations, classes and communities, and of the tracks they leave.

Rasters beyond what a panel can show are reduced first: people by the maximum (a village must not
disappear), communities by the commonest one, and classes, which are numbered from the commonest on,
by the rarest one (a city must not disappear in its outskirts).
"""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import rc_context
from matplotlib.collections import LineCollection

from popdask.cube.arrays import check_population
from popdask.errors import InputError
from popdask.figures import _panels as panels
from popdask.figures._sheets import Figure
from popdask.figures.colours import INK, STYLE
from popdask.figures.places import Grid, Paths
from popdask.figures.reduce import shrink
from popdask.figures.times import year


def world_figure(
    population: xr.DataArray,
    classes: xr.DataArray | None = None,
    communities: xr.DataArray | None = None,
    summary: pd.DataFrame | None = None,
    tracks: pd.DataFrame | None = None,
    *,
    frames: int = 6,
    size: float = 3.0,
    max_cells: int = 400,
) -> Figure:
    """Draw a world: a row for each frame; population, classes, communities and tracks across.

    Parameters
    ----------
    population
        People per cell (time, y, x), NaN = no data.
    classes, communities
        Integers (time, y, x), −1 outside; each adds a column.
    summary
        The table of :func:`popdask.tracking.summary.summarize`.
    tracks
        The table of :func:`popdask.tracking.linking.tracks`: communities take the colour of their
        track, and with a summary there is a column of the tracks: each a path of centroids up to
        its present place, a dot the size of its people. Thin grey lines come from other tracks.
    frames
        How many frames to draw at most, the first and the last among them.
    size
        Width of a panel in inches.
    max_cells
        Rasters are reduced until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure
        Free of pyplot; give it to :func:`save_figure`.

    Raises
    ------
    InputError
        If the rasters do not share one grid and its frames.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> world = moving_cities()
    >>> figure = world_figure(world.population.population, communities=world.labels, frames=2)
    >>> [axes.get_title("left") for axes in figure.axes[:4]]
    ['2000', '', '2007', '']
    """
    cubes = _cubes(population=population, classes=classes, communities=communities)
    grid, times = Grid.of(population), cubes["population"]["time"].values
    paths = None if summary is None or tracks is None else Paths.of(summary, tracks, grid)
    columns = [*cubes, *([] if paths is None else ["tracks"])]
    shown = np.unique(np.linspace(0, len(times) - 1, min(frames, len(times))).round().astype(int))
    (maps,) = dask.compute(
        [{name: _shrunk(name, cube[i], max_cells) for name, cube in cubes.items()} for i in shown]
    )
    norm, count = panels.people_norm(maps), panels.class_count(maps)
    with rc_context(STYLE):
        height = (size * grid.size[1] / grid.size[0] + 0.2) * len(shown) + 0.5
        figure = Figure((size * len(columns), height), layout=panels.layout())
        axes = figure.subplots(len(shown), len(columns), squeeze=False)
        for line, time, at in zip(axes, times[shown], maps, strict=True):
            for ax, name in zip(line, columns, strict=True):
                panels.draw(ax, name, at, grid, norm, panels.colours(at, tracks, time))
            if paths is not None:
                panels.draw_paths(line[-1], paths, time)
            line[0].set_title(year(time), loc="left", fontweight="bold")
        for column, name in zip(axes.T, columns, strict=True):
            column[0].set_title(name)
            panels.key(figure, list(column), name, norm, count, tracks is not None)
        panels.scale_bar(axes[0, 0], grid, maps[0]["population"])
    return figure


def map_figure(
    raster: xr.DataArray,
    population: xr.DataArray | None = None,
    *,
    outlines: xr.DataArray | None = None,
    tracks: pd.DataFrame | None = None,
    title: str | None = None,
    size: float = 8.0,
    max_cells: int = 1000,
) -> Figure:
    """Draw a single frame large.

    Parameters
    ----------
    raster
        People per cell, if it is of floats; else classes, if it is named so; else communities.
        (y, x).
    population
        People per cell (y, x), to tell empty land from missing data under labels.
    outlines
        Communities (y, x) to outline on top.
    tracks
        The table of :func:`popdask.tracking.linking.tracks`, to colour communities by their track.
    title
        Written above; by default what it is and when.
    size
        Width in inches.
    max_cells
        The raster is reduced until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure
        Free of pyplot; give it to :func:`save_figure`.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> world = moving_cities()
    >>> figure = map_figure(world.population.population[0], outlines=world.labels[0])
    >>> figure.axes[0].get_title("left")
    'population 2000'
    """
    name = "population" if raster.dtype.kind == "f" else str(raster.name)
    name = name if name in ("population", "classes") else "communities"
    given = {"population": population, name: raster, "outlines": outlines}
    (at,) = dask.compute(
        {key: _shrunk(key, cube[0], max_cells) for key, cube in _cubes(**given).items()}
    )
    at.setdefault("population", np.ones(at[name].shape, np.float32))
    grid, time = Grid.of(raster), raster["time"].values if "time" in raster.coords else None
    norm = panels.people_norm([at])
    with rc_context(STYLE):
        figure = Figure((size, size * grid.size[1] / grid.size[0] + 0.7), layout=panels.layout())
        ax = figure.subplots()
        panels.draw(ax, name, at, grid, norm, panels.colours(at, tracks, time))
        if outlines is not None:
            lines = panels.borders(at["outlines"]) * panels.pixel(at["outlines"], grid)
            lines[..., 1] = grid.size[1] - lines[..., 1] if grid.upright else lines[..., 1]
            ax.add_collection(LineCollection(list(lines), colors=INK, linewidths=0.5))
        ax.set_title(title or f"{name} {year(time)}".strip(), loc="left", fontweight="bold")
        panels.key(figure, [ax], name, norm, panels.class_count([at]), tracks is not None)
        panels.scale_bar(ax, grid, at["population"])
    return figure


def _cubes(**given: xr.DataArray | None) -> dict[str, xr.DataArray]:
    """Return the rasters that are given as (time, y, x), on one grid."""
    cubes = {name: raster for name, raster in given.items() if raster is not None}
    if "population" in cubes:
        cubes["population"] = check_population("population", cubes["population"])
    shapes = {name: dict(raster.sizes) for name, raster in cubes.items()}
    if len({tuple(sorted(sizes.items())) for sizes in shapes.values()}) > 1:
        raise InputError(f"the rasters of a figure must share frames and grid, but are {shapes}")
    return {
        name: (raster if "time" in raster.dims else raster.expand_dims("time")).transpose(
            "time", "y", "x"
        )
        for name, raster in cubes.items()
    }


def _shrunk(name: str, raster: xr.DataArray, max_cells: int) -> np.ndarray | da.Array:
    """Reduce a raster as its kind demands."""
    return shrink(raster, max_cells, "max" if name == "classes" else None)
