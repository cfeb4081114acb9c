"""Scene groups: where cells that look alike lie, and a plot of how alike they look."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Patch
from numpy.typing import NDArray

from popdask.errors import InputError
from popdask.figures import _panels as panels
from popdask.figures._sheets import Figure
from popdask.figures.colours import CLASSES, INK, NO_DATA, STYLE
from popdask.figures.places import Grid
from popdask.figures.reduce import shrink

__all__ = ["GROUPS", "scene_map_figure", "scene_plot_figure"]

# Paul Tol's colours in an order in which the first few differ most for colour-blind eyes.
GROUPS = tuple(CLASSES[i] for i in (0, 5, 7, 1, 3, 8, 6, 2, 4, *range(10, 20)))
NOISE = "#c4c4be"


def scene_map_figure(
    groups: xr.Dataset, *, size: float = 4.0, columns: int = 2, max_cells: int = 500
) -> Figure:
    """Map the groups of cells that look alike, a panel for each way of grouping.

    Parameters
    ----------
    groups
        As :func:`popdask.imagery.scenes.scene_groups` gives them, on cells or on a map.
    size
        Width of a panel in inches.
    columns
        Panels side by side.
    max_cells
        Maps are reduced to the commonest group until neither side has more cells.

    Returns
    -------
    matplotlib.figure.Figure
        Free of pyplot; give it to :func:`popdask.figures.save_figure`.

    Raises
    ------
    InputError
        If there are no groups.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> land = xr_zeros(GeoBox.from_bbox((0, 0, 400, 300), "EPSG:25832", resolution=100), "int16")
    >>> groups = xr.Dataset({"kmeans_3": land, "plot_x": land * 1.0, "plot_y": land * 1.0})
    >>> scene_map_figure(groups).axes[0].get_title("left")
    'KMeans, 3 groups'
    """
    from popdask.imagery.scenes import scene_map  # loads torch, which other figures do without

    laid = scene_map(groups)
    names = _labels(laid)
    grid = Grid.of(laid[names[0]])
    known = np.asarray(shrink(laid["plot_x"], max_cells))
    rows = -(-len(names) // columns)
    with rc_context(STYLE):
        height = size * grid.size[1] / grid.size[0] + 0.7
        figure = Figure((size * min(columns, len(names)), height * rows), layout=panels.layout())
        axes = figure.subplots(rows, min(columns, len(names)), squeeze=False).ravel()
        for ax, name in zip(axes, names, strict=False):
            labels = np.asarray(shrink(laid[name], max_cells))
            panels.show(ax, _paint(labels, known), grid)
            ax.set_title(_title(name), loc="left", fontweight="bold")
            _key(ax, laid[name].values[laid["plot_x"].notnull().values], below=True)
        for ax in axes[len(names) :]:
            ax.set_axis_off()
        panels.scale_bar(axes[0], grid, known)
    return figure


def scene_plot_figure(
    groups: xr.Dataset,
    examples: xr.Dataset | None = None,
    *,
    by: str | None = None,
    size: float = 8.0,
) -> Figure:
    """Plot how alike cells look: a dot for each, near those like it, with example images.

    Parameters
    ----------
    groups
        As :func:`popdask.imagery.scenes.scene_groups` gives them.
    examples
        As :func:`popdask.imagery.scenes.scene_examples` chooses them: images of one band are grey,
        of others the first three are red, green and blue, or the first alone.
    by
        The groups that give the colour; by default those of KMeans with most groups.
    size
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure
        Free of pyplot. The axes of such a plot have no meaning but nearness.

    Raises
    ------
    InputError
        If there are no such groups.

    Examples
    --------
    >>> groups = xr.Dataset(
    ...     {"hdbscan": ("cell", np.array([0, 1, -1], "int16"))}
    ...     | {name: ("cell", [0.0, 2.0, 1.0]) for name in ("plot_x", "plot_y")}
    ... )
    >>> scene_plot_figure(groups, by="hdbscan").axes[0].get_title("left")
    'HDBSCAN'
    """
    names = _labels(groups)
    by = by or ([name for name in names if name != "hdbscan"] or names)[-1]
    if by not in names:
        raise InputError(f"there are no groups {by!r}; expected one of {', '.join(names)}")
    x, y, labels = (groups[name].values.ravel() for name in ("plot_x", "plot_y", by))
    known = np.isfinite(x)
    x, y, labels = x[known], y[known], labels[known]
    with rc_context(STYLE):
        figure = Figure((size, size * 0.8), layout="constrained")
        ax = figure.subplots()
        ax.scatter(x, y, s=np.clip(4e4 / len(x), 2, 24), c=_colours(labels), linewidths=0)
        ax.margins(0.08)
        if examples is not None:
            _place(ax, examples, by, size)
        for group in np.unique(labels[labels >= 0]):
            _number(ax, int(group), np.median(x[labels == group]), np.median(y[labels == group]))
        ax.set(xticks=[], yticks=[], xlabel="nearby cells look alike; the axes have no unit")
        ax.spines[["top", "right", "bottom", "left"]].set_visible(False)
        ax.set_title(_title(by), loc="left", fontweight="bold")
        _key(ax, labels, below=False)
    return figure


def _labels(groups: xr.Dataset) -> list[str]:
    names = [str(name) for name, column in groups.data_vars.items() if column.dtype.kind == "i"]
    if not names or "plot_x" not in groups:
        raise InputError(
            f"a figure of scene groups has {', '.join(map(str, groups.data_vars)) or 'nothing'}; "
            "expected columns of labels with plot_x and plot_y: give what scene_groups returns"
        )
    return names


def _title(name: str) -> str:
    """Write a column's name as a title.

    >>> _title("kmeans_5"), _title("hdbscan")
    ('KMeans, 5 groups', 'HDBSCAN')
    """
    method, _, k = name.partition("_")
    return f"KMeans, {k} groups" if method == "kmeans" else name.upper()


def _colours(labels: NDArray) -> NDArray[np.float64]:
    """Give the colour of every label, (…, 3); noise is grey."""
    palette = np.array([*map(to_rgb, GROUPS), to_rgb(NOISE)])
    return palette[np.where(labels < 0, -1, labels % len(GROUPS))]


def _paint(labels: NDArray, known: NDArray) -> NDArray[np.float64]:
    """Paint a map (y, x, 3); what has no features differs from noise."""
    image = _colours(labels)
    image[(labels < 0) & np.isnan(known)] = to_rgb(NO_DATA)
    return image


def _key(ax: Axes, labels: NDArray, *, below: bool) -> None:
    """Name the groups, with their cells."""
    found, cells = np.unique(labels, return_counts=True)
    found, cells = np.roll(found, -int(found[0] < 0)), np.roll(cells, -int(found[0] < 0))
    handles = [
        Patch(color=tuple(colour), label=f"{'noise' if group < 0 else group}: {count:,}")
        for group, count, colour in zip(found, cells, _colours(found), strict=True)
    ]
    place: dict[str, Any] = {"bbox_to_anchor": (1, 1), "title": "cells"}
    if below:
        place = {"bbox_to_anchor": (0, 0), "ncols": 7, "columnspacing": 1.0}
    ax.legend(handles=handles, loc="upper left", frameon=False, handlelength=1, fontsize=7, **place)


def _number(ax: Axes, group: int, x: float, y: float) -> None:
    """Write a group's number onto its middle."""
    colour = GROUPS[group % len(GROUPS)]
    box = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": colour}
    ax.annotate(
        str(group), (x, y), ha="center", va="center", color=INK, fontweight="bold",
        bbox=box | {"linewidth": 2}, zorder=5,
    )  # fmt: skip


def _place(ax: Axes, examples: xr.Dataset, by: str, size: float) -> None:
    """Put images onto their places, framed in the colour of their group."""
    pictures = _pictures(examples["images"].values)
    inches = 0.3 * size / max(np.sqrt(len(pictures)), 4)
    colours = _colours(examples[by].values)
    places = zip(examples["plot_x"].values, examples["plot_y"].values, strict=True)
    for picture, place, colour in zip(pictures, places, colours, strict=True):
        shown = OffsetImage(picture, zoom=72 * inches / len(picture), cmap="gray")
        frame = {"edgecolor": colour, "linewidth": 2, "boxstyle": "square,pad=0"}
        ax.add_artist(AnnotationBbox(shown, place, pad=0, bboxprops=frame, zorder=3))


def _pictures(images: NDArray) -> NDArray[np.float64]:
    """Stretch images (n, band, row, col) to what can be shown, (n, row, col, 3)."""
    bands = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    low, high = np.nanpercentile(bands, (1, 99), axis=(0, 2, 3), keepdims=True)
    stretched = np.clip((bands - low) / np.maximum(high - low, 1e-9), 0, 1)
    return np.nan_to_num(np.broadcast_to(stretched, (len(images), 3, *images.shape[2:]))).transpose(
        0, 2, 3, 1
    )
