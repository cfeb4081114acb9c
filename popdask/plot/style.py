"""The style of figures: colours that colour-blind eyes tell apart, sheets, times, places, files.

The colour of a track or a community is a function of its number alone: it is the same in every
frame, in every figure and after every run. Hues follow the golden angle at three lightnesses of the
OKLCH space, so that neighbouring numbers differ for colour-blind eyes too.

Places are in kilometres from the lower left corner of the map, whatever the CRS, so that one scale
bar is right for all maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import rioxarray  # noqa: F401  (the accessor that knows the CRS)
import shapely
import xarray as xr
from matplotlib import colormaps, figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

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


COUNT = FuncFormatter(lambda number, _: f"{number:,.0f}")
PLAIN = FuncFormatter(lambda number, _: f"{number:,g}")


class ShownFigure(figure.Figure):
    """A figure that a notebook shows, though pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def sheet(
    title: str, rows: Sequence[float] = (1.0,), *, width: float = 6.0, height: float = 3.6
) -> tuple[ShownFigure, list[Axes]]:
    """Lay out charts below each other, of relative heights, on one x axis."""
    drawn = ShownFigure((width, height), layout="constrained")
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
    """Say what frames are, by their labels: years, or else frames."""
    return "year" if all(label.isdigit() and len(label) == 4 for label in labels) else "frame"


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

    Examples
    --------
    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(Figure(), f"{folder}/maps/empty.png").name
    'empty.png'
    """
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, dpi=dpi)
    return Path(path)
