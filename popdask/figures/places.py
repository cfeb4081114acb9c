"""Where cells and tracks are on a map: in kilometres from its lower left corner, whatever the CRS.

So one scale bar is right for all maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (the accessor that knows the CRS)
import shapely
import xarray as xr


@dataclass(frozen=True)
class Grid:
    """A raster's grid, in kilometres from its lower left corner."""

    west: float
    """The left edge, in the map's units."""
    south: float
    """The lower edge, in the map's units."""
    rows: int
    """Number of rows."""
    cols: int
    """Number of columns."""
    cell: tuple[float, float]
    """Width and height of a cell in kilometres."""
    unit: tuple[float, float]
    """Kilometres per unit of the map's x and y."""
    upright: bool
    """Whether the first row is the northernmost."""

    @classmethod
    def of(cls, raster: xr.DataArray) -> Grid:
        """Give the grid of a raster (…, y, x).

        Where its CRS is geographic, a degree of longitude is as long everywhere as in the middle
        of the raster; without a CRS, its units are taken for metres.

        Examples
        --------
        >>> axes = {"y": [750.0, 250.0], "x": [250.0, 750.0, 1250.0]}
        >>> raster = xr.DataArray(np.zeros((2, 3)), axes, dims=("y", "x"))
        >>> "{:.1f} × {:.1f} km".format(*Grid.of(raster).size)
        '1.5 × 1.0 km'
        """
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
        """Width and height in kilometres."""
        return self.cols * self.cell[0], self.rows * self.cell[1]

    def place(self, points: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the x and y of shapely points given in map coordinates, in kilometres."""
        x, y = shapely.get_x(points), shapely.get_y(points)
        return (x - self.west) * self.unit[0], (y - self.south) * self.unit[1]


@dataclass(frozen=True)
class Paths:
    """Where every track is in every frame."""

    nodes: pd.DataFrame
    """time, frame, track, population, x, y in kilometres."""
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
