"""Maps of motion as fields: divergence, Laplacian, speed with arrows and borders; who moved.

The divergence of a flow says where people seem to run apart or together, the Laplacian of a frame
where it has peaks and hollows; both have a sign, and are as strong in a few places as weak in most.
So their scale is logarithmic on both sides of zero, and where cells are reduced, the strongest of a
square is shown.
"""

from __future__ import annotations

from typing import Any

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from shapely import get_coordinates, get_parts

from popdask.errors import InputError
from popdask.io.grids import grid_of
from popdask.plot import style
from popdask.plot.maps import CHANGE, SPEED, draw_signed
from popdask.plot.style import (
    ACCENT_COLOUR,
    INK,
    MAIN_COLOUR,
    PLAIN,
    STYLE,
    Grid,
    ShownFigure,
    block_size,
    say,
    sheet,
    shrink,
    when,
)
from popdask.validate import check_flow

QUANTILE = 0.999  # of magnitudes: the few beyond it are drawn as it
DECADES = 3  # that a scale spans
_PLACE: Any = {"location": "bottom", "aspect": 40, "shrink": 0.8, "pad": 0.01}


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
        figure = _map(size, grid)
        ax = figure.axes[0]
        shown = style.show(ax, values, grid, cmap=CHANGE, norm=norm)
        name = title or f"{field.name or 'field'} {when(field)}".strip()
        ax.set_title(name, loc="left", fontweight="bold")
        bar = figure.colorbar(shown, ax=ax, extend="both", **_PLACE)
        bar.set_label(f"{field.attrs.get('long_name', field.name or '')}, {unit}".strip(", "))
        style.plain(bar)
        style.scale_bar(ax, grid, np.abs(values))
    return figure


def _map(size: float, grid: Grid) -> ShownFigure:
    """Begin a figure of one map."""
    height = size * grid.size[1] / grid.size[0] + 0.7
    figure = ShownFigure((size, height), layout=style.layout())
    figure.subplots()
    return figure


def _signed(values: np.ndarray) -> Normalize:
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
        figure = _map(size, grid)
        ax = figure.axes[0]
        style.show(ax, np.where(shown > norm.vmin, shown, np.nan), grid, cmap=SPEED, norm=norm)
        ax.set_title(f"speed {when(population)}".strip(), loc="left", fontweight="bold")
        _point(ax, mean, block_size(population.shape, arrows), grid)
        if borders is not None:
            lines = _lines(borders, population, grid)
            ax.add_collection(LineCollection(lines, colors=INK, linewidths=0.6))
        bar = figure.colorbar(ScalarMappable(norm, SPEED), ax=ax, extend="min", **_PLACE)
        bar.formatter = PLAIN
        bar.set_label("speed, cells per frame")
        style.plain(bar)
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
        figure = ShownFigure((size, size / 3 * ratio + 1.0), layout=style.layout())
        *flows, last = axes = figure.subplots(1, 3)
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
