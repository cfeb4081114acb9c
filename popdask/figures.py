"""Figures of populations, classes and communities, and of the tracks they leave.

Maps are drawn in kilometres from their lower left corner, whatever the CRS, so that one scale bar
is right for all. Rasters beyond what a panel can show are reduced first: people by the maximum (a
village must not disappear), labels by the commonest one that is not −1 (nor must a community).

The colour of a track or a community is a function of its number alone: it is the same in every
frame, in every figure and after every run. Hues follow the golden angle at three lightnesses of the
OKLCH space, so that neighbouring numbers differ for colour-blind eyes too.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (the accessor that knows the CRS)
import shapely
import xarray as xr
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from popdask.errors import InputError

INK, NOBODY, NO_DATA = "#3b3f45", "#f5f4f0", "#d5e0e8"
PEOPLE = colormaps["viridis_r"]
STYLE: Any = {
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": "#c4c4be",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "xtick.labelsize": 7,
}
# Paul Tol's "muted" scheme, then his "light" and "medium" ones for more than ten classes.
CLASSES = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255",
    "#aa4499", "#9a9a9a", "#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#6699cc", "#bbcc33",
    "#aaaa00", "#225555", "#663333", "#004488",
)  # fmt: skip


@dataclass(frozen=True)
class _Grid:
    """A raster's grid, in kilometres from its lower left corner."""

    west: float
    south: float
    rows: int
    cols: int
    cell: tuple[float, float]
    """Width and height of a cell."""
    unit: tuple[float, float]
    """Kilometres per unit of the map's x and y."""
    upright: bool
    """Whether the first row is the northernmost."""

    @classmethod
    def of(cls, raster: xr.DataArray) -> _Grid:
        x, y = raster["x"].values.astype(float), raster["y"].values.astype(float)
        dx, dy = (abs(axis[-1] - axis[0]) / max(len(axis) - 1, 1) or 1.0 for axis in (x, y))
        crs = raster.rio.crs
        unit = (1e-3, 1e-3)
        if crs is not None and crs.is_geographic:
            unit = (111.32 * float(np.cos(np.radians(y.mean()))), 110.57)
        elif crs is not None:
            unit = (crs.linear_units_factor[1] / 1000,) * 2
        west, south = x.min() - dx / 2, y.min() - dy / 2
        cell = dx * unit[0], dy * unit[1]
        return cls(west, south, len(y), len(x), cell, unit, bool(y[0] >= y[-1]))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return self.cols * self.cell[0], self.rows * self.cell[1]

    def place(self, points: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the x and y of shapely points given in map coordinates."""
        x, y = shapely.get_x(points), shapely.get_y(points)
        return (x - self.west) * self.unit[0], (y - self.south) * self.unit[1]


@dataclass(frozen=True)
class _Paths:
    """Where every track is in every frame."""

    nodes: pd.DataFrame
    """time, frame, track, population, x, y."""
    joints: pd.DataFrame
    """time, x, y of a track, and parent_x, parent_y of another that it comes from."""

    @classmethod
    def of(cls, summary: pd.DataFrame, tracks: pd.DataFrame, grid: _Grid) -> _Paths:
        key = ["time", "community"]
        places = pd.DataFrame(summary[[*key, "population"]])
        places["x"], places["y"] = grid.place(np.asarray(summary["centroid"]))
        nodes = tracks.drop_duplicates(key).merge(places, on=key).sort_values(["track", "time"])
        # A parent is a track of the frame before.
        nodes["frame"] = np.searchsorted(np.unique(nodes["time"]), nodes["time"])
        ends = nodes[["frame", "track", "x", "y"]].assign(frame=nodes["frame"] + 1)
        born = nodes.explode("parent").dropna(subset="parent").astype({"parent": "int64"})
        joints = born[born["parent"] != born["track"]].merge(
            ends.add_prefix("parent_"),
            left_on=["frame", "parent"],
            right_on=["parent_frame", "parent_track"],
        )
        return cls(nodes, joints)


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
        People per cell (time, y, x), NaN = no data; read frame by frame.
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
    grid, times = _Grid.of(population), cubes["population"]["time"].values
    paths = None if summary is None or tracks is None else _Paths.of(summary, tracks, grid)
    columns = [*cubes, *([] if paths is None else ["tracks"])]
    shown = np.unique(np.linspace(0, len(times) - 1, min(frames, len(times))).round().astype(int))
    maps = [{name: reduced(cube[i], max_cells) for name, cube in cubes.items()} for i in shown]
    norm, count = _people_norm(maps), _class_count(maps)
    with rc_context(STYLE):
        height = (size * grid.size[1] / grid.size[0] + 0.2) * len(shown) + 0.5
        figure = Figure((size * len(columns), height), layout=_layout())
        axes = figure.subplots(len(shown), len(columns), squeeze=False)
        for line, time, at in zip(axes, times[shown], maps, strict=True):
            for ax, name in zip(line, columns, strict=True):
                _show(ax, _image(name, at, norm, _colours(at, tracks, time)), at, grid)
            if paths is not None:
                _draw_paths(line[-1], paths, time)
            line[0].set_title(_year(time), loc="left", fontweight="bold")
        for column, name in zip(axes.T, columns, strict=True):
            column[0].set_title(name)
            _key(figure, list(column), name, norm, count, tracks is not None)
        _scale_bar(axes[0, 0], grid, maps[0]["population"])
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
    at = {key: reduced(cube[0], max_cells) for key, cube in _cubes(**given).items()}
    at.setdefault("population", np.ones(at[name].shape, np.float32))
    grid, time = _Grid.of(raster), raster["time"].values if "time" in raster.coords else None
    norm = _people_norm([at])
    with rc_context(STYLE):
        figure = Figure((size, size * grid.size[1] / grid.size[0] + 0.7), layout=_layout())
        ax = figure.subplots()
        _show(ax, _image(name, at, norm, _colours(at, tracks, time)), at, grid)
        if outlines is not None:
            lines = _borders(at["outlines"]) * _pixel(at["outlines"], grid)
            lines[..., 1] = grid.size[1] - lines[..., 1] if grid.upright else lines[..., 1]
            ax.add_collection(LineCollection(list(lines), colors=INK, linewidths=0.5))
        ax.set_title(title or f"{name} {_year(time)}".strip(), loc="left", fontweight="bold")
        _key(figure, [ax], name, norm, _class_count([at]), tracks is not None)
        _scale_bar(ax, grid, at["population"])
    return figure


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 120) -> Path:
    """Write a figure in one step: a reader sees the old file or the new one, never half of one.

    Parameters
    ----------
    figure
        A figure.
    path
        The file; its suffix says the format. Its folder is made if needed.
    dpi
        Dots per inch.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".figure-") as folder:
        draft = Path(folder) / path.name
        figure.savefig(draft, dpi=dpi)
        draft.replace(path)
    return path


def reduced(raster: xr.DataArray | np.ndarray, max_cells: int) -> np.ndarray:
    """Reduce a raster by a whole factor until neither side has more than ``max_cells`` cells.

    Parameters
    ----------
    raster
        (y, x). Floats are reduced by the maximum that is not NaN; integers by the commonest number
        that is not negative, the lowest of equals.
    max_cells
        The longest side allowed.

    Returns
    -------
    numpy.ndarray
        (y, x) of the same dtype. Blocks at the lower and right end may be cut.

    Examples
    --------
    >>> reduced(np.array([[-1, -1, 2, 3], [-1, 7, 3, -1]]), 2)
    array([[7, 3]])
    """
    values = np.asarray(raster)
    factor = -(-max(values.shape) // max_cells)
    if factor == 1:
        return values
    nothing = np.nan if values.dtype.kind == "f" else -1
    pad = [(0, -length % factor) for length in values.shape]
    values = np.pad(values, pad, constant_values=nothing)
    rows, cols = values.shape[0] // factor, values.shape[1] // factor
    blocks = values.reshape(rows, factor, cols, factor)
    if values.dtype.kind == "f":
        return np.fmax.reduce(np.fmax.reduce(blocks, axis=3), axis=1)
    row, _, col, _ = inside = np.nonzero(blocks >= 0)
    votes, count = np.unique(
        np.stack([row * cols + col, blocks[inside].astype(np.int64)]), axis=1, return_counts=True
    )
    order = np.lexsort((votes[1], -count, votes[0]))
    winners, first = np.unique(votes[0][order], return_index=True)
    result = np.full(rows * cols, -1, values.dtype)
    result[winners] = votes[1][order][first]
    return result.reshape(rows, cols)


def number_colours(numbers: np.ndarray) -> np.ndarray:
    """Return the colour of tracks or communities, a function of their number alone.

    Parameters
    ----------
    numbers
        Integers (n,).

    Returns
    -------
    numpy.ndarray
        sRGB in [0, 1], float64 (n, 3).

    References
    ----------
    Ottosson, B. (2020). A perceptual color space for image processing.
    https://bottosson.github.io/posts/oklab/

    Examples
    --------
    >>> number_colours(np.array([0, 1])).round(2)
    array([[0.73, 0.33, 0.41],
           [0.16, 0.65, 0.86]])
    """
    numbers = np.asarray(numbers, dtype=np.int64)
    hue = 2 * np.pi * ((numbers * 0.6180339887498949 + 0.03) % 1)
    light = np.array([0.58, 0.68, 0.78])[numbers % 3]
    a, b = 0.13 * np.cos(hue), 0.13 * np.sin(hue)
    cones = [
        (light + 0.3963377774 * a + 0.2158037573 * b) ** 3,
        (light - 0.1055613458 * a - 0.0638541728 * b) ** 3,
        (light - 0.0894841775 * a - 1.2914855480 * b) ** 3,
    ]
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(np.stack(cones, axis=-1) @ to_linear.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb.round(4)  # the last bits depend on how many numbers there are


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.01, hspace=0.01)


def _cubes(**given: xr.DataArray | None) -> dict[str, xr.DataArray]:
    """Return the rasters that are given as (time, y, x), on one grid."""
    cubes = {name: raster for name, raster in given.items() if raster is not None}
    shapes = {name: dict(raster.sizes) for name, raster in cubes.items()}
    if len({tuple(sorted(sizes.items())) for sizes in shapes.values()}) > 1:
        raise InputError(f"the rasters of a figure must share frames and grid, but are {shapes}")
    return {
        name: (raster if "time" in raster.dims else raster.expand_dims("time")).transpose(
            "time", "y", "x"
        )
        for name, raster in cubes.items()
    }


def _people_norm(maps: list[dict[str, np.ndarray]]) -> LogNorm:
    """Return a scale for people from 1 to the most that any of the maps has."""
    most = max(np.nanmax(at["population"], initial=0) for at in maps)
    return LogNorm(1, max(float(most), 10.0))


def _class_count(maps: list[dict[str, np.ndarray]]) -> int:
    return 1 + max((int(at["classes"].max(initial=0)) for at in maps if "classes" in at), default=0)


def _colours(at: dict[str, np.ndarray], tracks: pd.DataFrame | None, time: Any) -> np.ndarray:
    """Return the colour of each community of a frame, by its track where tracks are given."""
    numbers = np.arange(at["communities"].max(initial=-1) + 1 if "communities" in at else 0)
    if tracks is not None:
        now = tracks[tracks["time"] == time].drop_duplicates("community")
        now = now[now["community"] < len(numbers)]
        numbers[now["community"].to_numpy()] = now["track"].to_numpy()
    return number_colours(numbers)


def _image(name: str, at: dict[str, np.ndarray], norm: LogNorm, colours: np.ndarray) -> np.ndarray:
    """Paint one panel, (y, x, 3)."""
    people = at["population"]
    some = np.nan_to_num(people) > 0 if name in ("population", "tracks") else at[name] >= 0
    image = np.empty((*people.shape, 3))
    image[:] = to_rgb(NOBODY)
    image[np.isnan(people)] = to_rgb(NO_DATA)
    if name == "population":
        image[some] = PEOPLE(norm(np.maximum(people[some], 1)))[:, :3]
    elif name == "tracks":
        image[some] *= 1 - 0.35 * np.asarray(norm(np.maximum(people[some], 1)))[:, None]
    elif name == "classes":
        palette = np.array([to_rgb(colour) for colour in CLASSES])
        image[some] = palette[at[name][some] % len(palette)]
    else:
        image[some] = colours[at[name][some]]
    return image


def _pixel(image: np.ndarray, grid: _Grid) -> np.ndarray:
    """Return the width and height of a reduced cell; the last ones may reach beyond the grid."""
    factor = max(-(-grid.rows // image.shape[0]), -(-grid.cols // image.shape[1]))
    return factor * np.array(grid.cell)


def _show(ax: Axes, image: np.ndarray, at: dict[str, np.ndarray], grid: _Grid) -> None:
    """Put an image onto bare axes in kilometres."""
    width, height = _pixel(image, grid) * image.shape[1::-1]
    bottom, top = (grid.size[1] - height, grid.size[1]) if grid.upright else (0.0, height)
    origin = "upper" if grid.upright else "lower"
    ax.imshow(image, extent=(0, width, bottom, top), origin=origin)  # type: ignore[arg-type]
    ax.set(xlim=(0, grid.size[0]), ylim=(0, grid.size[1]), xticks=[], yticks=[], aspect="equal")


def _draw_paths(ax: Axes, paths: _Paths, time: Any) -> None:
    """Draw tracks up to a time, large ones below."""
    past = paths.nodes[paths.nodes["time"] <= time]
    now = past[past["time"] == time].sort_values("population", ascending=False)
    joints = paths.joints[paths.joints["time"] <= time]
    ends = joints[["parent_x", "parent_y", "x", "y"]].to_numpy(float).reshape(-1, 2, 2)
    ax.add_collection(LineCollection(list(ends), colors="#8a8a86", linewidths=0.7))
    trails = {track: trail[["x", "y"]].to_numpy(float) for track, trail in past.groupby("track")}
    colours = number_colours(np.array(list(trails), dtype=np.int64))
    ax.add_collection(LineCollection(list(trails.values()), colors=list(colours), linewidths=1.4))
    most = paths.nodes["population"].max()
    ax.scatter(
        now["x"],
        now["y"],
        s=4 + 40 * np.sqrt(now["population"] / most) if len(now) else 4,
        c=number_colours(now["track"].to_numpy()),
        edgecolors="white",
        linewidths=0.6,
        zorder=3,
    )


def _borders(labels: np.ndarray) -> np.ndarray:
    """Return the sides between cells of different labels, (n, 2 ends, x and y) in cells."""
    row, col = np.nonzero(labels[:, 1:] != labels[:, :-1])
    upright = np.stack([col + 1, row, col + 1, row + 1], axis=-1)
    row, col = np.nonzero(labels[1:] != labels[:-1])
    level = np.stack([col, row + 1, col + 1, row + 1], axis=-1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2).astype(float)


def _key(
    figure: Figure, column: list[Axes], name: str, norm: LogNorm, classes: int, tracked: bool
) -> None:
    """Explain the colours of a column below it."""
    place: dict[str, Any] = {"location": "bottom", "aspect": 40, "shrink": 0.8, "pad": 0.01}
    place["panchor"] = False  # columns with and without a bar stay level
    if name == "population":
        bar = figure.colorbar(ScalarMappable(norm, PEOPLE), ax=column, **place)
        bar.set_label("people per cell")
        bar.set_ticks([10.0**power for power in range(int(np.log10(norm.vmax or 10)) + 1)])
        bar.formatter = FuncFormatter(lambda people, _: f"{people:,.0f}")
    elif name == "classes":
        colours = ListedColormap([CLASSES[i % len(CLASSES)] for i in range(classes)])
        steps = BoundaryNorm(np.arange(classes + 1) - 0.5, classes)
        bar = figure.colorbar(ScalarMappable(steps, colours), ax=column, **place)
        bar.set_ticks(list(range(classes)))
        bar.set_label("class")
    else:
        by = "paths of the centroids" if name == "tracks" else "one colour per "
        by += "" if name == "tracks" else "track" if tracked else "community"
        column[-1].set_xlabel(by)
        return
    bar.minorticks_off()
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def _scale_bar(ax: Axes, grid: _Grid, people: np.ndarray) -> None:
    """Draw a round number of kilometres, about a fifth of the map, in the emptiest corner."""
    width = grid.size[0]
    power = 10 ** np.floor(np.log10(width / 5))
    length = float(max(step * power for step in (1, 2, 5) if step * power <= width / 5))
    some = np.nan_to_num(people if grid.upright else people[::-1]) > 0
    rows, cols = some.shape[0] // 10 + 1, some.shape[1] // 4 + 1
    corners = {
        "lower left": some[-rows:, :cols],
        "lower right": some[-rows:, -cols:],
        "upper left": some[:rows, :cols],
        "upper right": some[:rows, -cols:],
    }
    corner = min(corners, key=lambda name: corners[name].sum())
    bar = AnchoredSizeBar(
        ax.transData, length, f"{length:g} km", corner, pad=0.4, sep=2.5, color=INK,
        label_top=True, size_vertical=0, fontproperties=FontProperties(size=7),
    )  # fmt: skip
    bar.patch.set(facecolor="white", edgecolor="none", alpha=0.85)
    ax.add_artist(bar)


def _year(time: Any) -> str:
    """Write a time as a year, or as a date where it is not the first of January."""
    if not isinstance(time, np.datetime64) and np.asarray(time).dtype.kind != "M":
        return "" if time is None else str(time)
    day = pd.Timestamp(time)
    return str(day.year) if day.day_of_year == 1 else str(day.date())
