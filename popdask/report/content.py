"""What the reports of all products have in common: a map of layers, plots, tables and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from popdask.figures.places import Grid
from popdask.report.layers import Layer


@dataclass(frozen=True)
class Content:
    """What a report shows, apart from the pictures and the record that all reports have."""

    lead: str
    """What was done, in a sentence."""
    numbers: list[dict[str, str]]
    """What was found, in a few numbers: ``value`` and ``what`` it is."""
    map_note: str
    """How to use the map."""
    layers: list[Layer]
    """The layers, the first of which is shown first."""
    rasters: Mapping[str, xr.DataArray]
    """The layers' rasters (time, y, x)."""
    grid: Grid
    """Where the cells lie."""
    times: list[str]
    """The frames' names."""
    milliseconds: list[float]
    """The frames' times, as Bokeh has them."""
    plots: list[Any]
    """Bokeh's plots, ``map`` among them."""
    filling: Mapping[str, Any] = field(default_factory=dict)
    """What else the template shows."""
    tables: Mapping[str, Any] = field(default_factory=dict)
    """Tables for the script."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """The colour of each track."""


def cell_words(grid: Grid, factor: int) -> str:
    """Say how large a cell of the map is, where it stands for some of the raster's.

    Examples
    --------
    >>> cell_words(Grid(0.0, 0.0, 4, 4, (0.25, 0.25), (1e-3, 1e-3), True), 2)
    '500 × 500 m'
    """
    width, height = (side * factor for side in grid.cell)
    if max(width, height) < 1:
        return f"{np.round(1000 * width):,.0f} × {np.round(1000 * height):,.0f} m"
    return f"{width:.3g} × {height:.3g} km"
