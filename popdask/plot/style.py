"""The style of figures: colours that colour-blind eyes tell apart, sheets, and panels of maps.

The colour of a track or a community is a function of its number alone: it is the same in every
frame, in every figure and after every run. Hues follow the golden angle at three lightnesses of the
OKLCH space, so that neighbouring numbers differ for colour-blind eyes too.

Places are in kilometres from the lower left corner of the map, whatever the CRS, so that one scale
bar is right for all maps.

People are reduced by the maximum (a village must not disappear), labels by the commonest one that
is not −1 (nor must a community). The trick is to move the chunks' borders to those of the blocks:
then every chunk is reduced where it lies, and a large raster is never in memory as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import rioxarray  # noqa: F401  (the accessor that knows the CRS)
import shapely
import xarray as xr
from matplotlib import colormaps, figure
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase, get_registered_canvas_class
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, SymLogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from popdask.errors import InputError
from popdask.io.cube import cut_chunks
from popdask.io.frames import year_text
from popdask.io.grids import has_parallel_rows, pixel_area_km2
from popdask.io.paths import atomic_path

INK, NOBODY, NO_DATA = "#3b3f45", "#f5f4f0", "#d5e0e8"
INK_ON_MAP = "#3a3f46"  # maps stay light where a page turns dark, and INK with it
MAIN_COLOUR, ACCENT_COLOUR = "#332288", "#cc6677"
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
    "ytick.color": INK,
    "ytick.labelsize": 7,
}
# Paul Tol's "muted" scheme, but for its grey, which colour-blind eyes take for its teal, then his
# "light" and "medium" ones for more than ten classes.
CLASSES = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255",
    "#aa4499", "#333333", "#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#6699cc", "#bbcc33",
    "#aaaa00", "#225555", "#663333", "#004488",
)  # fmt: skip


By = Literal["max", "sum", "mode"]
COUNT = FuncFormatter(lambda number, _: f"{number:,.0f}")
PLAIN = FuncFormatter(lambda number, _: f"{number:,g}")
TALLEST = 3  # times as high as wide, that a sheet may be
GREY = "grey lines lead from tracks that split or merged"


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


def cycled(colours: Sequence[str], count: int) -> np.ndarray:
    """Give so many colours as numbers (count, 3), from the beginning again after the last."""
    return np.array([to_rgb(colours[i % len(colours)]) for i in range(count)]).reshape(-1, 3)


class ShownFigure(figure.Figure):
    """A figure that a notebook shows, though pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        print_figure(self, picture, "png", dpi=self.dpi)
        return picture.getvalue()


def sheet(
    title: str, rows: Sequence[float] = (1.0,), *, height: float = 3.6
) -> tuple[ShownFigure, list[Axes]]:
    """Lay out charts below each other, of relative heights, on one x axis."""
    drawn = ShownFigure((6.0, height), layout="constrained")
    axes = drawn.subplots(len(rows), sharex=True, height_ratios=rows, squeeze=False)[:, 0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(color="#c4c4be")
    axes[0].set_title(title, loc="left", fontweight="bold")
    return drawn, list(axes)


def say(ax: Axes, note: str) -> None:
    """Leave axes empty but for a note."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, note, transform=ax.transAxes, ha="center", va="center", color=INK)


def year(time: Any) -> str:
    """Write a time as a year, or as a date where it is not the first of January; text as it is."""
    if time is None or isinstance(time, str):
        return time or ""
    return year_text(time)


def period(labels: Iterable[str]) -> str:
    """Say what frames are, by their labels: years one after another, or else frames."""
    labels = list(labels)
    dated = all(label.isdigit() and len(label) == 4 for label in labels)
    whole = dated and all(int(after) - int(before) == 1 for before, after in pairwise(labels))
    return "year" if whole else "frame"


def when(raster: xr.DataArray) -> str:
    """Write the time of a raster of one frame, if it has one."""
    return year(raster["time"].values if "time" in raster.coords else None)


@dataclass(frozen=True)
class Grid:
    """A raster's grid, in kilometres from its lower left corner."""

    west: float  # the left edge, in the map's units
    south: float  # the lower edge, in the map's units
    rows: int  # number of rows
    cols: int  # number of columns
    cell: tuple[float, float]  # width and height of a cell in kilometres
    unit: tuple[float, float]  # kilometres per unit of the map's x and y
    upright: bool  # whether the first row is the northernmost

    @classmethod
    def of(cls, raster: xr.DataArray) -> Grid:
        """Return the grid of a raster (…, y, x)."""
        # Where its CRS is geographic, a degree of longitude is as long everywhere as in the
        # middle of the raster; without a CRS, its units are taken for metres.
        x, y = raster["x"].values.astype(float), raster["y"].values.astype(float)
        dx, dy = (abs(axis[-1] - axis[0]) / max(len(axis) - 1, 1) or 1.0 for axis in (x, y))
        crs = raster.rio.crs
        unit = (1e-3, 1e-3)
        if crs is not None and crs.is_geographic:
            unit = (111.32 * float(np.cos(np.radians(y.mean()))), 110.57)
        elif crs is not None:
            unit = (crs.linear_units_factor[1] / 1000,) * 2
            if has_parallel_rows(pyproj.CRS.from_user_input(crs)):
                middle = float(np.median(pixel_area_km2(raster)))
                unit = (math.sqrt(middle / (dx * dy)),) * 2
        west, south = x.min() - dx / 2, y.min() - dy / 2
        cell = dx * unit[0], dy * unit[1]
        return cls(west, south, len(y), len(x), cell, unit, bool(y[0] >= y[-1]))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in kilometres."""
        return self.cols * self.cell[0], self.rows * self.cell[1]

    def place(self, points: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the x and y of shapely points given in map coordinates, in kilometres."""
        x, y = shapely.get_x(points), shapely.get_y(points)
        return (x - self.west) * self.unit[0], (y - self.south) * self.unit[1]


@dataclass(frozen=True)
class Paths:
    """Where every track is in every frame."""

    nodes: pd.DataFrame  # time, frame, track, population, x, y in kilometres
    joints: pd.DataFrame
    """time, x, y of a track, and parent_x, parent_y of another that it comes from."""

    @classmethod
    def of(cls, summary: pd.DataFrame, tracks: pd.DataFrame, grid: Grid) -> Paths:
        """Place the tracks of `popdask.tracks` by the centroids of `popdask.summarize`."""
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

    Raises
    ------
    InputError
        If matplotlib does not write that format.

    Examples
    --------
    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(Figure(), f"{folder}/maps/empty.png").name
    'empty.png'
    """
    form = Path(path).suffix[1:]
    if form not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(f"{path} ends with '.{form}'; expected a form such as .png, .svg or .pdf")
    with atomic_path(path) as unfinished:
        print_figure(figure, unfinished, form, dpi=dpi)
    return Path(path)


def print_figure(figure: Figure, file: Any, form: str, *, dpi: float, **options: Any) -> None:
    """Draw a figure once; ``savefig`` draws twice, the first time to find the layout alone."""
    canvas, before = figure.canvas, figure.dpi
    try:
        figure.set_dpi(dpi)
        getattr(get_registered_canvas_class(form)(figure), f"print_{form}")(file, **options)
    finally:
        figure.set_canvas(canvas)
        figure.set_dpi(before)


def reduced(
    raster: xr.DataArray | np.ndarray, max_cells: int, *, by: By | None = None
) -> np.ndarray:
    """Reduce a raster by a whole factor until neither side has more than ``max_cells`` cells.

    Parameters
    ----------
    raster
        (y, x); NumPy or Dask.
    max_cells
        The longest side allowed.
    by
        The ``"max"`` or the ``"sum"`` of what is not NaN, or the ``"mode"``: the commonest number
        that is not negative, the lowest of equals. By default floats are reduced by the maximum
        and integers by the mode.

    Returns
    -------
    numpy.ndarray
        (y, x) of the same dtype. Blocks at the lower and right end may be cut.

    Examples
    --------
    >>> reduced(np.array([[-1, -1, 2, 3], [-1, 7, 3, -1]]), 2)
    array([[7, 3]])
    >>> reduced(np.array([[1.0, 2.0, np.nan, 3.0]]), 2, by="sum")
    array([[3., 3.]])
    """
    return np.asarray(shrink(raster, max_cells, by))


def shrink(
    raster: xr.DataArray | np.ndarray | da.Array, max_cells: int, by: By | None = None
) -> np.ndarray | da.Array:
    """Reduce as `reduced` does; what is lazy stays lazy."""
    values = raster.data if isinstance(raster, xr.DataArray) else raster
    by = by or ("max" if values.dtype.kind == "f" else "mode")
    factor = block_size(values.shape, max_cells)
    if factor == 1:
        return values
    if not isinstance(values, da.Array):
        return _reduce(values, factor, by)
    aligned = values.rechunk([cut_chunks(sizes, factor) for sizes in values.chunks])
    chunks = [tuple(-(-size // factor) for size in sizes) for sizes in aligned.chunks]
    return aligned.map_blocks(_reduce, factor, by, chunks=chunks, dtype=values.dtype)


def block_size(shape: Sequence[int], max_cells: int) -> int:
    """Say how many cells along a side become one."""
    return -(-max(shape) // max_cells)


def _reduce(values: np.ndarray, factor: int, by: By) -> np.ndarray:
    nothing = np.nan if values.dtype.kind == "f" else -1
    pad = [(0, -length % factor) for length in values.shape]
    values = np.pad(values, pad, constant_values=nothing)
    rows, cols = values.shape[0] // factor, values.shape[1] // factor
    blocks = values.reshape(rows, factor, cols, factor)
    if by == "mode":
        return _commonest(blocks)
    if by == "max":
        return np.fmax.reduce(np.fmax.reduce(blocks, axis=3), axis=1)
    empty = np.isnan(blocks).all(axis=(1, 3))
    return np.where(empty, np.nan, np.nansum(blocks, axis=(1, 3))).astype(values.dtype)


def _commonest(blocks: np.ndarray) -> np.ndarray:
    """Take a vote among the numbers of each block, (row, within, column, within)."""
    rows, _, cols, _ = blocks.shape
    row, _, col, _ = inside = np.nonzero(blocks >= 0)
    numbers = blocks[inside].astype(np.int64)
    span = numbers.max(initial=0) + 1
    ballots, count = np.unique((row * cols + col) * span + numbers, return_counts=True)
    block, number = np.divmod(ballots, span)
    order = np.lexsort((number, -count, block))
    winners, first = np.unique(block[order], return_index=True)
    result = np.full(rows * cols, -1, blocks.dtype)
    result[winners] = number[order][first]
    return result.reshape(rows, cols)


def panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **how: Any
) -> tuple[ShownFigure, Any]:
    """Lay out panels in the spacing that all figures share, in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.01, hspace=0.01)
    figure = ShownFigure((width, height), layout=layout)
    return figure, figure.subplots(rows, columns, **how)


def map_sheet(grid: Grid, size: float) -> tuple[ShownFigure, Axes]:
    """Lay out one map, so many inches wide, with room for what explains it."""
    # A strip of cells has white beside it, not a sheet of its own shape.
    ratio = np.clip(grid.size[1] / grid.size[0], 1 / TALLEST, TALLEST)
    return panels(size, size * ratio + 0.7)


def bar_below(
    figure: Figure, shown: Any, below: Axes | list[Axes], label: str, form: Any = None, **more: Any
) -> Colorbar:
    """Explain colours by a bar below one or more maps."""
    place: dict[str, Any] = {"location": "bottom", "aspect": 40, "shrink": 0.8, "pad": 0.01}
    place |= more
    bar = figure.colorbar(shown, ax=below, **place)
    bar.set_label(label)
    if form is not None:
        bar.formatter = form
    plain(bar)
    return bar


def signed_ticks(norm: SymLogNorm) -> list[float]:
    """Return 0 and powers of ten on both sides of it, few enough to stand apart."""
    most = float(norm.vmax or 1.0)
    powers = 10.0 ** np.arange(-12, 13)
    ticks = powers[(powers > 3 * norm.linthresh) & (powers <= most)].tolist() or [most]
    few = ticks[:: -1 - len(ticks) // 3][::-1]
    return [*(-tick for tick in few[::-1]), 0, *few]


def people_norm(maps: list[dict[str, np.ndarray]]) -> LogNorm:
    """Return a scale for people from 1 to the most that any of the maps has."""
    most = max(np.nanmax(at["population"], initial=0) for at in maps)
    return LogNorm(1, max(float(most), 10.0))


def class_count(maps: list[dict[str, np.ndarray]]) -> int:
    """Return the number of classes that the maps have together."""
    return 1 + max((int(at["classes"].max(initial=0)) for at in maps if "classes" in at), default=0)


def colours(at: dict[str, np.ndarray], tracks: pd.DataFrame | None, time: Any) -> np.ndarray:
    """Return the colour of each community of a frame, by its track where tracks are given."""
    numbers = np.arange(at["communities"].max(initial=-1) + 1 if "communities" in at else 0)
    if tracks is not None:
        now = tracks[tracks["time"] == time].drop_duplicates("community")
        now = now[now["community"] < len(numbers)]
        numbers[now["community"].to_numpy()] = now["track"].to_numpy()
    return number_colours(numbers)


def image(name: str, at: dict[str, np.ndarray], norm: LogNorm, colours: np.ndarray) -> np.ndarray:
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


def pixel(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the width and height of a reduced cell; the last ones may reach beyond the grid."""
    factor = max(-(-grid.rows // values.shape[0]), -(-grid.cols // values.shape[1]))
    return factor * np.array(grid.cell)


def draw(
    ax: Axes, name: str, at: dict[str, np.ndarray], grid: Grid, norm: LogNorm, colours: np.ndarray
) -> None:
    """Draw one raster onto bare axes in kilometres."""
    show(ax, image(name, at, norm, colours), grid)


def show(ax: Axes, values: np.ndarray, grid: Grid, **style: Any) -> AxesImage:
    """Put an image or a reduced raster onto bare axes in kilometres."""
    width, height = pixel(values, grid) * values.shape[1::-1]
    bottom, top = (grid.size[1] - height, grid.size[1]) if grid.upright else (0.0, height)
    style |= {"extent": (0, width, bottom, top), "origin": "upper" if grid.upright else "lower"}
    shown = ax.imshow(values, **style)
    ax.set(xlim=(0, grid.size[0]), ylim=(0, grid.size[1]), xticks=[], yticks=[], aspect="equal")
    return shown


def draw_paths(ax: Axes, paths: Paths, time: Any) -> None:
    """Draw tracks up to a time, large ones below."""
    past = paths.nodes[paths.nodes["time"] <= time]
    now = past[past["time"] == time].sort_values("population", ascending=False)
    joints = paths.joints[paths.joints["time"] <= time]
    ends = joints[["parent_x", "parent_y", "x", "y"]].to_numpy(float).reshape(-1, 2, 2)
    ends, alpha = np.unique(ends, axis=0), float(np.clip(60 / max(len(ends), 1), 0.15, 1))
    ax.add_collection(LineCollection(list(ends), colors="#8a8a86", linewidths=0.7, alpha=alpha))
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


def write_names(ax: Axes, grid: Grid, places: gpd.GeoDataFrame, most: int = 25) -> None:
    """Write the names of the largest places at their middle, where they do not cover another."""
    # Where one lies that has no name, the map shows.
    named = places[~places["name"].astype(str).str.match(r"\S+( centre)? (at \d|\d+ km )")]
    largest = named.sort_values("population", ascending=False, kind="stable").head(most)
    x, y = grid.place(shapely.centroid(largest.geometry.to_numpy()))
    high = 0.018 * grid.size[1]  # of a line, in kilometres
    taken: list[tuple[float, float, float]] = []
    for name, left, low in zip(largest["name"].astype(str), x + high / 2, y, strict=True):
        wide = 0.55 * high * len(name)
        free = all(
            abs(low - other) > high or left > end or left + wide < start
            for start, end, other in taken
        )
        if free and left + wide < grid.size[0]:
            taken.append((left, left + wide, low))
            text = ax.annotate(name, (left, low), va="center", fontsize=7.5, color=INK_ON_MAP)
            text.set_path_effects([withStroke(linewidth=2.2, foreground="white", alpha=0.85)])


def borders(labels: np.ndarray) -> np.ndarray:
    """Return the sides between cells of different labels, (n, 2 ends, x and y) in cells."""
    row, col = np.nonzero(labels[:, 1:] != labels[:, :-1])
    upright = np.stack([col + 1, row, col + 1, row + 1], axis=-1)
    row, col = np.nonzero(labels[1:] != labels[:-1])
    level = np.stack([col, row + 1, col + 1, row + 1], axis=-1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2).astype(float)


def key(
    figure: Figure, column: list[Axes], name: str, norm: LogNorm, classes: int, tracked: bool
) -> None:
    """Explain the colours of a column below it."""
    level = {"panchor": False}  # columns with and without a bar stay level
    if name == "population":
        people = ScalarMappable(norm, PEOPLE)
        bar = bar_below(figure, people, column, "people per cell", COUNT, **level)
        bar.set_ticks([10.0**power for power in range(int(np.log10(norm.vmax or 10)) + 1)])
    elif name == "classes":
        colours = ListedColormap([CLASSES[i % len(CLASSES)] for i in range(classes)])
        steps = ScalarMappable(BoundaryNorm(np.arange(classes + 1) - 0.5, classes), colours)
        bar_below(figure, steps, column, "class", **level).set_ticks(list(range(classes)))
    else:
        by = f"paths of the centroids;\n{GREY}" if name == "tracks" else "one colour per "
        column[-1].set_xlabel(
            by + ("" if name == "tracks" else "track" if tracked else "community")
        )


def plain(bar: Colorbar) -> None:
    """Take away what a colour bar does not need."""
    bar.minorticks_off()
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def scale_bar(ax: Axes, grid: Grid, people: np.ndarray) -> None:
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
        ax.transData, length, f"{length:g} km", corner, pad=0.4, sep=2.5, color=INK_ON_MAP,
        label_top=True, size_vertical=0, fontproperties=FontProperties(size=7),
    )  # fmt: skip
    bar.patch.set(facecolor="white", edgecolor="none", alpha=0.85)
    ax.add_artist(bar)
