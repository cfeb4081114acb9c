"""Maps of populations, classes, communities and settlements; of means, motion and change.

Rasters beyond what a panel can show are reduced first: people by the maximum (a village must not
disappear), communities by the commonest one, and classes, which are numbered from the commonest on,
by the rarest one (a city must not disappear in its outskirts).

The divergence of a flow says where people seem to run apart or together, the Laplacian of a frame
where it has peaks and hollows; both have a sign, and are as strong in a few places as weak in most.
So their scale is logarithmic on both sides of zero, and the strongest cell of a square is shown.
"""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, SymLogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from shapely import get_coordinates, get_parts

from popdask.errors import InputError
from popdask.io.conventions import check_population
from popdask.io.grids import grid_of
from popdask.plot import style
from popdask.plot.style import (
    ACCENT_COLOUR,
    INK,
    MAIN_COLOUR,
    NO_DATA,
    PEOPLE,
    PLAIN,
    STYLE,
    Grid,
    Paths,
    ShownFigure,
    block_size,
    number_colours,
    panels,
    say,
    sheet,
    shrink,
    when,
    year,
)
from popdask.validate import check_flow

SIGNED = FuncFormatter(
    lambda number, _: f"{number:+,.{0 if abs(number) >= 1 else 2}f}" if number else "0"
)
SPEED = colormaps["plasma_r"]
CHANGE = colormaps["PuOr"].with_extremes(bad=to_rgba(NO_DATA))  # ColorBrewer's, for all eyes

QUANTILE = 0.999  # of magnitudes: the few beyond it are drawn as it
DECADES = 3  # that a scale spans


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
) -> ShownFigure:
    """Draw a world: a row for each frame; population, classes, communities and tracks across.

    Parameters
    ----------
    population
        People per cell (time, y, x), NaN = no data.
    classes, communities
        Integers (time, y, x), −1 outside; each adds a column.
    summary
        The table of :func:`popdask.tracking.describe.summarize`.
    tracks
        The table of :func:`popdask.tracking.tracks.tracks`: communities take the colour of their
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
    norm, count = style.people_norm(maps), style.class_count(maps)
    with rc_context(STYLE):
        height = (size * grid.size[1] / grid.size[0] + 0.2) * len(shown) + 0.5
        across = len(columns)
        figure, axes = panels(size * across, height, len(shown), across, squeeze=False)
        for line, time, at in zip(axes, times[shown], maps, strict=True):
            for ax, name in zip(line, columns, strict=True):
                style.draw(ax, name, at, grid, norm, style.colours(at, tracks, time))
            if paths is not None:
                style.draw_paths(line[-1], paths, time)
            line[0].set_title(year(time), loc="left", fontweight="bold")
        for column, name in zip(axes.T, columns, strict=True):
            column[0].set_title(name)
            style.key(figure, list(column), name, norm, count, tracks is not None)
        style.scale_bar(axes[0, 0], grid, maps[0]["population"])
    return figure


def map_figure(
    raster: xr.DataArray,
    population: xr.DataArray | None = None,
    *,
    outlines: xr.DataArray | None = None,
    tracks: pd.DataFrame | None = None,
    places: gpd.GeoDataFrame | None = None,
    title: str | None = None,
    size: float = 8.0,
    max_cells: int = 1000,
) -> ShownFigure:
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
        The table of :func:`popdask.tracking.tracks.tracks`, to colour communities by their track.
    places
        Name, population and geometry of places of that frame, in the CRS of the raster: their names
        are written, those of the largest first, where there is room.
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
    norm = style.people_norm([at])
    with rc_context(STYLE):
        figure, ax = style.map_sheet(grid, size)
        style.draw(ax, name, at, grid, norm, style.colours(at, tracks, time))
        if outlines is not None:
            lines = style.borders(at["outlines"]) * style.pixel(at["outlines"], grid)
            lines[..., 1] = grid.size[1] - lines[..., 1] if grid.upright else lines[..., 1]
            ax.add_collection(LineCollection(list(lines), colors=INK, linewidths=0.5))
        if places is not None:
            style.write_names(ax, grid, places)
        one = str(raster.name).replace("_", " ")
        official = one in ("settlement", "urban centre")
        heading = f"{f'{one}s' if official else name} {year(time)}".strip()
        ax.set_title(title or heading, loc="left", fontweight="bold")
        style.key(figure, [ax], name, norm, style.class_count([at]), tracks is not None)
        if official and tracks is None:
            ax.set_xlabel(f"one colour per {one}")
        style.scale_bar(ax, grid, at["population"])
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


def means_figure(
    means: pd.DataFrame, population: xr.DataArray, *, most: int = 20, size: float = 6.0
) -> ShownFigure:
    """Draw the mean population and the centroid of every community.

    Parameters
    ----------
    means
        As from :func:`popdask.tracking.diagnostics.community_means`, with the ``track`` of each.
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
    >>> from popdask.tracking.diagnostics import community_means
    >>> from popdask.tracking.describe import summarize
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
        figure, (ax, beside) = panels(size * 1.75, height, 1, 2, width_ratios=(1, 0.7))
        at = {"population": image}
        style.draw(ax, "tracks", at, grid, style.people_norm([at]), np.empty((0, 3)))
        ax.set_title(f"communities {year(time)}", loc="left", fontweight="bold")
        style.scale_bar(ax, grid, image)
        if now.empty:
            say(beside, "no communities")
            return figure
        _draw_means(figure, ax, now, grid)
        _draw_ranking(beside, means, most)
    return figure


def _draw_means(figure: ShownFigure, ax: Axes, now: pd.DataFrame, grid: Grid) -> None:
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
    caption = "people per cell, mean of the community; a dot's area: its people"
    style.bar_below(figure, dots, ax, caption, PLAIN).locator = LogLocator(subs=(1, 2, 5))


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


def flow_figure(
    population: xr.DataArray,
    flow: xr.Dataset,
    *,
    arrows: int = 45,
    size: float = 8.0,
    max_cells: int = 1000,
) -> ShownFigure:
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
        figure, ax = style.map_sheet(grid, size)
        style.draw(ax, "tracks", at, grid, style.people_norm([at]), np.empty((0, 3)))
        ax.set_title(f"flow {when(population)}".strip(), loc="left", fontweight="bold")
        style.scale_bar(ax, grid, at["population"])
        row, col = np.nonzero(np.hypot(sums["u"], sums["v"]) > 0)
        if len(row):
            u, v = (sums[name][row, col] / sums["weight"][row, col] for name in "uv")
            side = block_size(population.shape, arrows) * np.array(grid.cell)
            x, y = (col + 0.5) * side[0], (row + 0.5) * side[1]
            y, v = (grid.size[1] - y, -v) if grid.upright else (y, v)
            norm = _draw_arrows(ax, x, y, u, v, length=float(min(side)))
            caption = "speed, cells per frame (mean of the people around)"
            style.bar_below(figure, ScalarMappable(norm, SPEED), ax, caption, PLAIN, extend="both")
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
) -> ShownFigure:
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
    span = " to ".join(filter(None, (when(before), when(after))))
    with rc_context(STYLE):
        figure, ax = style.map_sheet(grid, size)
        ax.set_title(f"change of population, {span}".strip(", "), loc="left", fontweight="bold")
        draw_signed(figure, ax, change, grid, "people gained (purple) or lost (orange)")
        style.scale_bar(ax, grid, people)
    return figure


def draw_signed(figure: Figure, ax: Axes, values: np.ndarray, grid: Grid, label: str) -> None:
    """Draw more and less, in colours that grow with the logarithm, and explain them below."""
    most = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    norm = SymLogNorm(max(most / 1000, min(1.0, most)), vmin=-most, vmax=most, base=10)
    shown = style.show(ax, values, grid, cmap=CHANGE, norm=norm)
    wide, high = style.pixel(values, grid)
    bar = style.bar_below(figure, shown, ax, f"{label} per {wide:.3g} × {high:.3g} km", SIGNED)
    bar.set_ticks(style.signed_ticks(norm))


def journey_figure(
    population: xr.DataArray,
    communities: xr.DataArray,
    summary: pd.DataFrame,
    tracks: pd.DataFrame,
    *,
    size: float = 4.5,
    max_cells: int = 600,
) -> ShownFigure:
    """Draw the communities of the first and of the last frame, and their paths between.

    Parameters
    ----------
    population, communities
        (time, y, x); of one frame there is one panel of communities.
    summary
        The table of :func:`popdask.tracking.describe.summarize`.
    tracks
        The table of :func:`popdask.tracking.tracks.tracks`; a track has one colour throughout.
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
    >>> from popdask.tracking.link import link
    >>> from popdask.tracking.tracks import tracks
    >>> from popdask.tracking.describe import summarize
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
    norm, span = style.people_norm(maps), " to ".join(year(times[i]) for i in shown)
    with rc_context(STYLE):
        height = size * grid.size[1] / grid.size[0] + 0.5
        count = len(shown) + 1
        figure, (*axes, last) = panels(size * count, height, 1, count)
        for ax, at, time in zip(axes, maps, times[shown], strict=True):
            colours = style.colours(at, tracks, time)
            style.draw(ax, "communities", at, grid, norm, colours)
            ax.set_title(f"communities {year(time)}", loc="left", fontweight="bold")
        style.draw(last, "tracks", maps[-1], grid, norm, np.empty((0, 3)))
        style.draw_paths(last, Paths.of(summary, tracks, grid), times[-1])
        last.set_title(f"tracks {span}", loc="left", fontweight="bold")
        axes[0].set_xlabel("one colour per track")
        words = "paths of the centroids; a dot is the size of its people"
        last.set_xlabel(f"{words};\n{style.GREY}")
        style.scale_bar(last, grid, maps[-1]["population"])
    return figure


def field_figure(
    field: xr.DataArray, *, title: str | None = None, size: float = 8.0, max_cells: int = 1000
) -> ShownFigure:
    """Draw a field with a sign: the divergence of a flow, or the Laplacian of a frame.

    Parameters
    ----------
    field : DataArray of float, (y, x)
        As from :func:`popdask.tracking.growth.divergence` or `laplacian`; NaN = no data.
    title : str, optional
        Written above; by default its name and time.
    size : float, optional
        Width in inches.
    max_cells : int, optional
        The map is reduced to the strongest value of squares until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure
        Free of pyplot; give it to :func:`save_figure`.

    Raises
    ------
    InputError
        If `field` does not have these dimensions.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> from popdask.tracking.growth import laplacian
    >>> figure = field_figure(laplacian(moving_cities().population.population[0]))
    >>> figure.axes[0].get_title("left")
    'laplacian 2000'
    """
    if set(field.dims) != {"y", "x"}:
        raise InputError(
            f"field has the dimensions {field.dims}; expected (y, x), one frame: select one, as in "
            "field.isel(time=0)"
        )
    field = field.transpose("y", "x")
    high, low = dask.compute(*(shrink(sign * field, max_cells, "max") for sign in (1, -1)))
    values = np.where(high >= low, high, -low)
    grid, norm = Grid.of(field), _signed(values)
    unit = field.attrs.get("units", "")
    with rc_context(STYLE):
        figure, ax = style.map_sheet(grid, size)
        shown = style.show(ax, values, grid, cmap=CHANGE, norm=norm)
        name = title or f"{field.name or 'field'} {when(field)}".strip()
        ax.set_title(name, loc="left", fontweight="bold")
        label = f"{field.attrs.get('long_name', field.name or '')}, {unit}".strip(", ")
        bar = style.bar_below(figure, shown, ax, label, extend="both")
        bar.set_ticks(style.signed_ticks(norm))
        style.scale_bar(ax, grid, np.abs(values))
    return figure


def _signed(values: np.ndarray) -> SymLogNorm:
    """Return a scale that is logarithmic on both sides of zero."""
    strength = np.abs(values[np.isfinite(values) & (values != 0)])
    most = float(np.quantile(strength, QUANTILE)) if strength.size else 1.0
    return SymLogNorm(most / 10**DECADES, vmin=-most, vmax=most, base=10)


def speed_figure(
    population: xr.DataArray,
    flow: xr.Dataset,
    *,
    borders: gpd.GeoDataFrame | gpd.GeoSeries | None = None,
    arrows: int = 30,
    size: float = 8.0,
    max_cells: int = 1000,
) -> ShownFigure:
    """Draw how fast people seem to move, with arrows for where to, and coasts or borders.

    Parameters
    ----------
    population : DataArray, (y, x)
        People per cell, NaN = no data.
    flow : Dataset
        ``u`` and ``v`` (y, x), cells per frame, v down the rows.
    borders : GeoDataFrame or GeoSeries, optional
        Lines or outlines to draw, such as a GeoJSON of borders that ``geopandas.read_file`` has
        read, in any CRS.
    arrows : int, optional
        How many arrows along the longer side at most. Each is the mean over its square of cells,
        weighted by their people, and tells the direction alone.
    size : float, optional
        Width in inches.
    max_cells : int, optional
        The map is reduced to the fastest of squares until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If `flow` has no u and v, or `borders` no CRS.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> from popdask.tracking.flow import optical_flow
    >>> population = moving_cities(frames=6).population.population
    >>> figure = speed_figure(population[2], optical_flow(population).isel(time=2))
    >>> figure.axes[0].get_title("left")
    'speed 2002'
    """
    check_flow(flow)
    people = population.fillna(0)
    fast = xr.ufuncs.hypot(flow["u"], flow["v"]).where(population.notnull())  # noqa: PD004
    weighted = {"u": flow["u"] * people, "v": flow["v"] * people}
    shown, mean = dask.compute(
        shrink(fast, max_cells, "max"),
        {name: shrink(raster, arrows, "sum") for name, raster in weighted.items()},
    )
    grid = Grid.of(population)
    most = float(np.nanmax(shown, initial=0)) or 1.0
    norm = LogNorm(most / 10**DECADES, most, clip=True)
    with rc_context(STYLE):
        figure, ax = style.map_sheet(grid, size)
        style.show(ax, np.where(shown > norm.vmin, shown, np.nan), grid, cmap=SPEED, norm=norm)
        ax.set_title(f"speed {when(population)}".strip(), loc="left", fontweight="bold")
        _point(ax, mean, block_size(population.shape, arrows), grid)
        if borders is not None:
            lines = _lines(borders, population, grid)
            ax.add_collection(LineCollection(lines, colors=INK, linewidths=0.6))
        speeds = ScalarMappable(norm, SPEED)
        style.bar_below(figure, speeds, ax, "speed, cells per frame", PLAIN, extend="min")
        style.scale_bar(ax, grid, shown)
    return figure


def growth_figure(
    parts: xr.Dataset, *, title: str | None = None, size: float = 12.0, max_cells: int = 150
) -> ShownFigure:
    """Draw how many people moved in and out, and by how many more or fewer they became.

    Parameters
    ----------
    parts : Dataset
        ``moved_in``, ``moved_out`` and ``grown`` (y, x), people, as one pair of frames of what
        :func:`popdask.tracking.growth.growth` makes, or the sum of several; NaN = no data.
    title : str, optional
        Written above.
    size : float, optional
        Width of the three maps together in inches.
    max_cells : int, optional
        Cells are added up in squares until neither side has more.

    Returns
    -------
    matplotlib.figure.Figure
        Free of pyplot; give it to :func:`save_figure`.

    Raises
    ------
    InputError
        If `parts` lacks one of the three, or has other dimensions.

    Examples
    --------
    >>> people = xr.DataArray([[[9.0, 0.0, 5.0]], [[0.0, 9.0, 6.0]]], dims=("time", "y", "x"))
    >>> flow = xr.Dataset({"u": people.where(people == 9, 0) / 9, "v": xr.zeros_like(people)})
    >>> from popdask.tracking.growth import growth
    >>> figure = growth_figure(growth(people, flow).isel(time=0))
    >>> [ax.get_title("left") for ax in figure.axes[:3]]
    ['moved in', 'moved out', 'grown here']
    """
    names = ("moved_in", "moved_out", "grown")
    if not all(name in parts and set(parts[name].dims) == {"y", "x"} for name in names):
        raise InputError(
            f"parts has {dict(parts.sizes)} with {', '.join(map(str, parts.data_vars))}; expected "
            f"(y, x) with {', '.join(names)}, one pair of frames: select one of what growth makes"
        )
    layers = [parts[name].transpose("y", "x") for name in names]
    moved_in, moved_out, grown = dask.compute(*(shrink(one, max_cells, "sum") for one in layers))
    most = max(float(np.nanmax(one, initial=0)) for one in (moved_in, moved_out))
    grid, norm = Grid.of(layers[0]), LogNorm(1.0, max(most, 10.0), clip=True)
    ratio = np.clip(grid.size[1] / grid.size[0], 1 / style.TALLEST, style.TALLEST)
    with rc_context(STYLE):
        figure, axes = panels(size, size / 3 * ratio + 1.0, 1, 3)
        *flows, last = axes
        for ax, name in zip(axes, ("moved in", "moved out", "grown here"), strict=True):
            ax.set_title(name, loc="left", fontweight="bold")
        for ax, values in zip(flows, (moved_in, moved_out), strict=True):
            style.show(ax, np.where(values >= 1, values, np.nan), grid, cmap=SPEED, norm=norm)
        wide, high = style.pixel(moved_in, grid)
        caption = f"people, from and to other cells, per {wide:.3g} × {high:.3g} km"
        style.bar_below(figure, ScalarMappable(norm, SPEED), list(flows), caption, PLAIN)
        draw_signed(figure, last, grown, grid, "more (purple) or fewer (orange)")
        style.scale_bar(axes[0], grid, moved_in)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def _point(ax: Any, mean: dict[str, np.ndarray], block: int, grid: Grid) -> None:
    """Draw arrows of one length in the middles of blocks."""
    row, column = np.nonzero(np.hypot(mean["u"], mean["v"]) > 0)
    u, v = (mean[name][row, column] for name in "uv")
    wide, high = block * np.array(grid.cell)
    x, y = (column + 0.5) * wide, (row + 0.5) * high
    y, v = (grid.size[1] - y, -v) if grid.upright else (y, v)
    long = 0.8 * min(wide, high) / np.maximum(np.hypot(u, v), 1e-30)
    ax.quiver(x, y, u * long, v * long, color=INK, angles="xy", scale_units="xy", scale=1,
              pivot="middle", width=0.0015, headwidth=4, headlength=4)  # fmt: skip


def _lines(
    borders: gpd.GeoDataFrame | gpd.GeoSeries, population: xr.DataArray, grid: Grid
) -> list[np.ndarray]:
    """Give borders as lines (n, 2) in kilometres of the map."""
    if borders.crs is None:
        raise InputError(
            "the borders have no CRS; expected one, as a GeoJSON has; set it, as in "
            'borders.set_crs("EPSG:4326")'
        )
    there = borders.geometry.to_crs(grid_of(population).crs)
    lines = get_parts(get_parts(there.boundary.where(there.geom_type.str.contains("Poly"), there)))
    return [
        (get_coordinates(line) - (grid.west, grid.south)) * np.array(grid.unit) for line in lines
    ]


def speed_error_figure(table: pd.DataFrame) -> ShownFigure:
    """Draw the squared error of the reconstructed flow by speed, with the speeds of both.

    Parameters
    ----------
    table : DataFrame
        As from ``popdask.tracking.diagnostics.error_by_speed``.

    Returns
    -------
    matplotlib.figure.Figure
        Errors above, beside that of a flow at rest; below, how many cells are so fast.

    Examples
    --------
    >>> from popdask.tracking.diagnostics import error_by_speed
    >>> figure = speed_error_figure(error_by_speed([[1.0, 0.0]], [[0.5, 0.0]]))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['squared error, cells²', 'cells']
    """
    with rc_context(STYLE):
        title = "Error of the reconstructed flow"
        figure, (above, below) = sheet(title, (3, 1.6), height=4.6)
        if table.empty:
            say(above, "nothing moves")
            say(below, "")
            return figure
        middles = np.sqrt(table["low"] * table["high"])
        dots: Any = {"linestyle": "none", "marker": "o", "markersize": 3}
        above.plot(middles, table["rest_error"], color=ACCENT_COLOUR, label="at rest", **dots)
        above.plot(middles, table["error"], color=MAIN_COLOUR, label="encoder", **dots)
        above.set(yscale="log", ylabel="squared error, cells²")
        above.legend(frameon=False)
        edges = np.append(table["low"], table["high"].iloc[-1])
        for name, colour, label in (
            ("cells", ACCENT_COLOUR, "true"),
            ("reconstructed", MAIN_COLOUR, "reconstructed"),
        ):
            below.stairs(table[name], edges, color=colour, label=label)
        below.legend(frameon=False)
        below.set(xscale="log", ylabel="cells", xlabel="speed, cells per frame")
    return figure
