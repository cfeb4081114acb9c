"""Figures of estimates beside the truth, of what models look at (Grad-CAM), and of scene groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from popdask.errors import InputError
from popdask.io.grids import describe_grid, grid_of, same_grid
from popdask.metrics.estimates import count_scores
from popdask.plot import style
from popdask.plot.maps import draw_signed
from popdask.plot.style import (
    ACCENT_COLOUR,
    CLASSES,
    COUNT,
    INK,
    MAIN_COLOUR,
    NO_DATA,
    PEOPLE,
    STYLE,
    Grid,
    ShownFigure,
    panels,
    say,
    shrink,
)

HEXAGONS = 45  # along the axis of the truth
WORST_SHARE = 2.0  # from which a relative error is drawn no worse
HEAT = colormaps["inferno"]
SHARE = colormaps["YlOrRd"].with_extremes(bad=(0, 0, 0, 0))
STRENGTH = 0.65  # of the colours over an image, where they are strongest
# Paul Tol's colours in an order in which the first few differ most for colour-blind eyes.
GROUPS = tuple(CLASSES[i] for i in (0, 5, 7, 1, 3, 8, 6, 2, 4, *range(10, 20)))
NOISE = "#c4c4be"


def agreement_figure(
    predictions: pd.DataFrame, *, title: str = "", size: float = 4.0
) -> ShownFigure:
    """Draw predicted against true people, on linear and on logarithmic axes.

    Parameters
    ----------
    predictions
        One row per cell, with ``prediction`` and ``truth`` (people).
    title
        What is drawn, such as the model's name.
    size
        Width of a panel in inches.

    Returns
    -------
    matplotlib.figure.Figure
        The colour of a hexagon says how many cells lie in it. The logarithmic axes are those of
        1 + people, so that cells where nobody is, or nobody is predicted, are there as well;
        predictions below 0 lie on 0 there.

    Raises
    ------
    InputError
        If a column is missing, or a value is infinite.

    Examples
    --------
    >>> table = pd.DataFrame({"prediction": [0.0, 4.0, 9.0], "truth": [0, 5, 7]})
    >>> [axes.get_title("left") for axes in agreement_figure(table).axes[:2]]
    ['3 cells, R² 0.81', 'logarithmic']
    """
    known = _known(predictions)
    scores = count_scores(known["prediction"], known["truth"])
    with rc_context(STYLE):
        figure, (linear, logarithmic) = panels(2 * size + 0.6, size + 0.3, 1, 2)
        if not len(known):
            say(linear, "no cell is known")
            say(logarithmic, "")
            return figure
        least, most = float(min(known.min().min(), 0)), max(float(known.max().max()), 1.0)
        hexagons = [
            _hexagons(linear, known, (least, most)),
            _hexagons(
                logarithmic, known.clip(lower=0).add(1).transform(np.log10), (0, np.log10(1 + most))
            ),
        ]
        norm = LogNorm(
            1, max(2.0, *(float(np.max(np.asarray(shown.get_array()))) for shown in hexagons))
        )
        for shown in hexagons:
            shown.set_norm(norm)
        _people_ticks(logarithmic, most)
        heading = f"{scores.cells:,} cells, R² {scores.r2:.2f}"
        linear.set_title(f"{title}: {heading}" if title else heading, loc="left", fontweight="bold")
        logarithmic.set_title("logarithmic", loc="left")
        bar = figure.colorbar(hexagons[0], ax=[linear, logarithmic], aspect=40, pad=0.01)
        bar.set_label("cells")
        bar.formatter = COUNT
        style.plain(bar)
    return figure


def _hexagons(ax: Axes, known: pd.DataFrame, span: tuple[float, float]) -> PolyCollection:
    """Draw predicted against true people, and the line on which they agree."""
    shown = ax.hexbin(
        known["truth"], known["prediction"], gridsize=HEXAGONS, extent=(*span, *span), mincnt=1,
        cmap=PEOPLE, linewidths=0.2,
    )  # fmt: skip
    ax.plot(span, span, color=ACCENT_COLOUR, linewidth=1, linestyle=(0, (4, 3)))
    margin = 0.03 * (span[1] - span[0])
    limits = (span[0] - margin, span[1] + margin)
    ax.set(
        xlabel="true people", ylabel="predicted people", xlim=limits, ylim=limits, aspect="equal"
    )
    ax.spines[["top", "right"]].set_visible(False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(COUNT)
    return shown


def _people_ticks(ax: Axes, most: float) -> None:
    """Write people along axes of log10(1 + people)."""
    people = [0, *(step * 10**power for power in range(8) for step in (1, 3))]
    people = [number for number in people if number <= most]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(FixedLocator([float(np.log10(1 + number)) for number in people]))
        axis.set_ticklabels([f"{number:,}" for number in people])


def error_map_figure(
    population: xr.DataArray,
    truth: xr.DataArray,
    *,
    title: str = "error of the estimate",
    size: float = 8.0,
    max_cells: int = 150,
) -> ShownFigure:
    """Draw where there are too many people in an estimate, and where too few.

    Parameters
    ----------
    population, truth
        Estimated and true people per cell (y, x) on one grid, NaN = no data or unknown.
    title
        Written above.
    size
        Width in inches.
    max_cells
        Errors are added up in squares until neither side has more.

    Returns
    -------
    matplotlib.figure.Figure
        Colours grow with the logarithm, the same way to both sides of 0.

    Raises
    ------
    InputError
        If the two lie on different grids.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> truth = moving_cities().population.population[0]
    >>> error_map_figure(truth * 1.1, truth).axes[0].get_title("left")
    'error of the estimate: +10.0% of the people'
    """
    grid = _common_grid(population, truth)
    error = population.data - truth.data
    error, people = dask.compute(shrink(error, max_cells, "sum"), shrink(truth, max_cells, "sum"))
    known = ~np.isnan(error)
    total = people[known].sum(dtype=np.float64)
    share = f": {error[known].sum(dtype=np.float64) / total:+.1%} of the people" if total else ""
    with rc_context(STYLE):
        figure, ax = style.map_sheet(grid, size)
        ax.set_title(title + share, loc="left", fontweight="bold")
        draw_signed(figure, ax, error, grid, "people too many (purple) or too few (orange)")
        style.scale_bar(ax, grid, np.nan_to_num(people))
    return figure


def _common_grid(population: xr.DataArray, truth: xr.DataArray) -> Grid:
    """The grid of an estimate and of its truth."""
    if not same_grid(grid_of(population), grid_of(truth)):
        raise InputError(
            f"the estimate has {describe_grid(grid_of(population))} but the truth "
            f"{describe_grid(grid_of(truth))}; one grid was expected: bring the truth to it"
        )
    return Grid.of(population)


def relative_error_figure(
    population: xr.DataArray,
    truth: xr.DataArray,
    *,
    smoothing: float = 3.0,
    image: NDArray | None = None,
    title: str = "relative error of the estimate",
    size: float = 8.0,
) -> ShownFigure:
    """Draw how far an estimate is from the truth, as a share of the people there.

    Parameters
    ----------
    population, truth
        Estimated and true people per cell (y, x) on one grid, NaN = no data or unknown.
    smoothing
        Standard deviation of the Gaussian that spreads errors over their neighbours, in cells;
        0 draws each cell by itself.
    image
        A photograph of the same extent (rows, columns, red green blue), drawn below.
    title
        Written above.
    size
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure
        ``|estimate − truth| / max(truth, 1)`` of each cell, at most 2, and then smoothed. Cells
        that are not known count for nothing.

    Raises
    ------
    InputError
        If the two lie on different grids.

    Notes
    -----
    The maps of Sellebjerg et al. are smoothed by 3 cells and drawn over the orthophoto. Both
    rasters are read whole.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> truth = moving_cities().population.population[0]
    >>> figure = relative_error_figure(truth * 1.1, truth)
    >>> figure.axes[1].get_xlabel()
    'share of the people, 2 or more = darkest; smoothed by 3 cells'
    """
    grid = _common_grid(population, truth)
    estimate, true = dask.compute(population.data, truth.data)
    error = np.minimum(np.abs(estimate - true) / np.maximum(true, 1), WORST_SHARE)
    known = np.isfinite(error)
    spread, weight = (
        gaussian_filter(values.astype(float), smoothing, mode="constant")
        for values in (np.where(known, error, 0), known)
    )
    smooth = np.divide(spread, weight, out=np.full(error.shape, np.nan), where=known)
    with rc_context(STYLE):
        figure, ax = style.map_sheet(grid, size)
        if image is not None:
            extent = (0, grid.size[0], 0, grid.size[1])  # it may be finer than the cells
            ax.imshow(image, extent=extent, origin="upper" if grid.upright else "lower")
        shown = style.show(
            ax, smooth, grid, cmap=SHARE, vmin=0, vmax=WORST_SHARE,
            alpha=1 if image is None else STRENGTH,
        )  # fmt: skip
        ax.set_title(title, loc="left", fontweight="bold")
        smoothed = f"; smoothed by {smoothing:g} cells" if smoothing else ""
        label = f"share of the people, {WORST_SHARE:g} or more = darkest{smoothed}"
        style.bar_below(figure, shown, ax, label)
        style.scale_bar(ax, grid, np.nan_to_num(true))
    return figure


def spread_figure(
    predictions: pd.DataFrame, *, title: str = "", bins: int = 40, size: float = 4.0
) -> ShownFigure:
    """Draw how people of cells and errors of their estimates are spread, as histograms.

    Parameters
    ----------
    predictions
        One row per cell, with ``prediction`` and ``truth`` (people).
    title
        What is drawn, such as the model's name.
    bins
        How many intervals the people, and the errors, fall into.
    size
        Width of a panel in inches.

    Returns
    -------
    matplotlib.figure.Figure
        Left, cells by their true and by their estimated people; right, cells by their error.
        Counts of cells are on a logarithmic axis; rows without a number are left out.

    Raises
    ------
    InputError
        If a column is missing.

    Examples
    --------
    >>> table = pd.DataFrame({"prediction": [0.0, 4.0, 9.0], "truth": [0, 5, 7]})
    >>> spread_figure(table, bins=2).axes[1].get_title("left")
    'errors: mean +0.33, median +0.00'
    """
    known = _known(predictions)
    with rc_context(STYLE):
        figure, (people, errors) = panels(2 * size + 0.6, size * 0.8, 1, 2)
        if not len(known):
            say(people, "no cell is known")
            say(errors, "")
            return figure
        edges = np.histogram_bin_edges(known.to_numpy(), bins)
        middles = (edges[:-1] + edges[1:]) / 2
        for name, colour in (("truth", MAIN_COLOUR), ("prediction", ACCENT_COLOUR)):
            counts, _ = np.histogram(known[name], edges)
            people.plot(middles, counts, drawstyle="steps-mid", color=colour, label=name)
        error = known["prediction"] - known["truth"]
        counts, edges = np.histogram(error, bins)
        errors.bar((edges[:-1] + edges[1:]) / 2, counts, np.diff(edges), color=MAIN_COLOUR)
        heading = f"{len(known):,} cells"
        people.set_title(f"{title}: {heading}" if title else heading, loc="left", fontweight="bold")
        caption = f"errors: mean {error.mean():+.2f}, median {error.median():+.2f}"
        errors.set_title(caption, loc="left")
        people.legend(frameon=False)
        for ax, label in ((people, "people per cell"), (errors, "estimate − truth, people")):
            ax.set(xlabel=label, ylabel="cells", yscale="symlog", ylim=(0, None))
            ax.spines[["top", "right"]].set_visible(False)
            ax.yaxis.set_major_formatter(COUNT)
    return figure


def _known(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions and truths of the cells that have both."""
    if lacking := {"prediction", "truth"} - set(predictions):
        raise InputError(f"predictions has no column {' and no '.join(sorted(lacking))}; add it")
    return predictions[["prediction", "truth"]].astype(float).dropna()


def gradcam_figure(
    images: NDArray,
    maps: Mapping[str, NDArray[np.floating]],
    labels: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    ring: int = 0,
    size: float = 1.5,
) -> ShownFigure:
    """Draw cells beside what Grad-CAM finds in them.

    Parameters
    ----------
    images
        Raw pixels (cell, band, row, col); one band is drawn grey, of three or more the first three
        as red, green and blue. All are stretched alike, by the middle 98 % of their pixels.
    maps
        By model, such as "presence" and "people": Grad-CAM in [0, 1] of every cell, (cell, row,
        col), as from :func:`popdask.imagery.estimate.gradcam`; without any, the cells alone.
    labels
        What stands below each cell, such as "12 people, 9.4 estimated".
    groups
        The group of each cell, such as "best" or "worst": each is a row. One row if not given.
    ring
        Pixels around the cell on every side of the image; the cell is then outlined.
    size
        Width of a panel in inches.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each group; for each cell its image, and the image under each of the maps. Where
        nothing in a cell speaks for people, the panel says so.

    Raises
    ------
    InputError
        If there is no cell, or not one map, label and group for each.

    Examples
    --------
    >>> images, heat = np.zeros((2, 1, 20, 20), np.uint8), np.zeros((2, 20, 20), np.float32)
    >>> figure = gradcam_figure(images, {"people": heat}, ["a", "b"], ["best", "worst"])
    >>> [axes.get_title("left") for axes in figure.axes[:2]]
    ['best', 'people']
    """
    groups = list(groups if groups is not None else [""] * len(images))
    counts = {"labels": len(labels), "groups": len(groups)}
    counts |= {f"maps of {name}": len(values) for name, values in maps.items()}
    for what, count in counts.items():
        if count != len(images) or not count:
            raise InputError(
                f"there are {len(images)} images and {count} {what}; expected as many, at least one"
            )
    rows = {group: [i for i, own in enumerate(groups) if own == group] for group in groups}
    panels, shown = 1 + len(maps), stretched(images)
    columns = panels * max(map(len, rows.values()))
    lines = max(label.count("\n") for label in labels)
    with rc_context(STYLE):
        figure = ShownFigure(
            (size * columns + 0.6, (size + 0.35 + 0.2 * lines) * len(rows)), layout="constrained"
        )
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for ax in axes.ravel():
            ax.set_axis_off()
        for line, (group, cells) in zip(axes, rows.items(), strict=True):
            for place, cell in enumerate(cells):
                own = line[place * panels : (place + 1) * panels]
                _draw_cell(own, shown[cell], {name: m[cell] for name, m in maps.items()}, ring)
                own[0].text(0, -0.04, labels[cell], transform=own[0].transAxes, va="top")
            line[0].set_title(group, loc="left", fontweight="bold")
        if maps:
            _heat_key(figure, axes)
    return figure


def _draw_cell(
    axes: Sequence[Axes], image: NDArray, maps: Mapping[str, NDArray], ring: int
) -> None:
    """Draw a cell, and again under each of its maps."""
    height, width = image.shape[:2]
    for ax in axes:
        ax.imshow(image)
        if ring:
            side = (width - 2 * ring, height - 2 * ring)
            corner = (ring - 0.5, ring - 0.5)
            ax.add_patch(Rectangle(corner, *side, fill=False, edgecolor="white", linewidth=0.7))
    for ax, (name, heat) in zip(axes[1:], maps.items(), strict=True):
        ax.imshow(HEAT(heat), alpha=STRENGTH * np.asarray(heat, float))
        ax.set_title(name, loc="left", fontsize=7)
        if not np.any(heat):
            ax.text(0.04, 0.04, "nothing", transform=ax.transAxes, color="white", fontsize=7)


def stretched(images: NDArray) -> NDArray[np.float64]:
    """Turn raw images (n, band, row, col) into colours (n, row, col, 3) from 0 to 1."""
    bands = images[:, :3] if images.shape[1] >= 3 else images[:, :1].repeat(3, axis=1)
    values = bands.astype(float)
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, (1, 99)) if len(known) else (0.0, 1.0)
    scaled = (np.nan_to_num(values, nan=low) - low) / (high - low if high > low else 1.0)
    return np.moveaxis(scaled.clip(0, 1), 1, -1)


def _heat_key(figure: ShownFigure, axes: NDArray) -> None:
    """Explain the colours."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), HEAT), ax=axes, shrink=0.6, aspect=30, pad=0.01
    )
    bar.set_ticks([0, 1], labels=["nothing", "most"])
    bar.set_label("speaks for people")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def scene_map_figure(
    groups: xr.Dataset, *, size: float = 4.0, columns: int = 2, max_cells: int = 500
) -> ShownFigure:
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
        Free of pyplot; give it to :func:`popdask.plot.save_figure`.

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
    rows, columns = -(-len(names) // columns), min(columns, len(names))
    with rc_context(STYLE):
        height = size * grid.size[1] / grid.size[0] + 0.7
        figure, axes = panels(size * columns, height * rows, rows, columns, squeeze=False)
        for ax, name in zip(axes.flat, names, strict=False):
            labels = np.asarray(shrink(laid[name], max_cells))
            style.show(ax, _paint(labels, known), grid)
            ax.set_title(_title(name), loc="left", fontweight="bold")
            _group_key(ax, laid[name].values[laid["plot_x"].notnull().values], below=True)  # noqa: PD004
        for ax in axes.flat[len(names) :]:
            ax.set_axis_off()
        style.scale_bar(axes.flat[0], grid, known)
    return figure


def scene_plot_figure(
    groups: xr.Dataset,
    examples: xr.Dataset | None = None,
    *,
    by: str | None = None,
    size: float = 8.0,
) -> ShownFigure:
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
        figure = ShownFigure((size, size * 0.8), layout="constrained")
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
        _group_key(ax, labels, below=False)
    return figure


def _labels(groups: xr.Dataset) -> list[str]:
    names = [str(name) for name, column in groups.data_vars.items() if column.dtype.kind == "i"]
    if not names or "plot_x" not in groups:
        raise InputError(
            f"a figure of scene groups has {', '.join(map(str, groups.data_vars)) or 'nothing'}; "
            "expected columns of labels with plot_x and plot_y: give what scene_groups returns"
        )
    # A store lists them in no fixed order.
    return sorted(names, key=lambda name: (name == "hdbscan", len(name), name))


def _title(name: str) -> str:
    """Write a column's name as a title."""
    method, _, k = name.partition("_")
    return f"KMeans, {k} groups" if method == "kmeans" else name.upper()


def _colours(labels: NDArray) -> NDArray[np.float64]:
    """Return the colour of every label, (…, 3); noise is grey."""
    palette = np.array([*map(to_rgb, GROUPS), to_rgb(NOISE)])
    return palette[np.where(labels < 0, -1, labels % len(GROUPS))]


def _paint(labels: NDArray, known: NDArray) -> NDArray[np.float64]:
    """Paint a map (y, x, 3); what has no features differs from noise."""
    image = _colours(labels)
    image[(labels < 0) & np.isnan(known)] = to_rgb(NO_DATA)
    return image


def _group_key(ax: Axes, labels: NDArray, *, below: bool) -> None:
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
