"""Why a model says what it says: cells, and over them what in them speaks for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from popdask.errors import InputError
from popdask.figures._sheets import Figure
from popdask.figures.colours import STYLE

HEAT = colormaps["inferno"]
STRENGTH = 0.65  # of the colours over an image, where they are strongest


def gradcam_figure(
    images: NDArray,
    maps: Mapping[str, NDArray[np.floating]],
    labels: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    ring: int = 0,
    size: float = 1.5,
) -> Figure:
    """Draw cells beside what Grad-CAM finds in them.

    Parameters
    ----------
    images
        Raw pixels (cell, band, row, col); one band is drawn grey, of three or more the first three
        as red, green and blue. All are stretched alike, by the middle 98 % of their pixels.
    maps
        By model, such as "presence" and "people": Grad-CAM in [0, 1] of every cell, (cell, row,
        col), as from :func:`popdask.imagery.gradcam.gradcam`.
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
    panels, shown = 1 + len(maps), _stretched(images)
    columns = panels * max(map(len, rows.values()))
    with rc_context(STYLE):
        figure = Figure((size * columns + 0.6, (size + 0.35) * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for ax in axes.ravel():
            ax.set_axis_off()
        for line, (group, cells) in zip(axes, rows.items(), strict=True):
            for place, cell in enumerate(cells):
                own = line[place * panels : (place + 1) * panels]
                _draw_cell(own, shown[cell], {name: m[cell] for name, m in maps.items()}, ring)
                own[0].text(0, -0.04, labels[cell], transform=own[0].transAxes, va="top")
            line[0].set_title(group, loc="left", fontweight="bold")
        _key(figure, axes)
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


def _stretched(images: NDArray) -> NDArray[np.float64]:
    """Turn raw images (n, band, row, col) into colours (n, row, col, 3) from 0 to 1."""
    bands = images[:, :3] if images.shape[1] >= 3 else images[:, :1].repeat(3, axis=1)
    values = bands.astype(float)
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, (1, 99)) if len(known) else (0.0, 1.0)
    scaled = (np.nan_to_num(values, nan=low) - low) / (high - low if high > low else 1.0)
    return np.moveaxis(scaled.clip(0, 1), 1, -1)


def _key(figure: Figure, axes: NDArray) -> None:
    """Explain the colours."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), HEAT), ax=axes, shrink=0.6, aspect=30, pad=0.01
    )
    bar.set_ticks([0, 1], labels=["nothing", "most"])
    bar.set_label("speaks for people")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
