"""Ways to look at scene groups: as a map, as a table, as images of some cells.

Groups are a Dataset on cells or on a map, as `popdask.imagery.scenes.scene_groups` gives them.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from odc.geo.xr import xr_coords

from popdask.imagery.cells import cells_grid, cut_cells

PLACES = ("plot_x", "plot_y")


def scene_map(groups: xr.Dataset) -> xr.Dataset:
    """Lay groups of cells onto the map.

    Parameters
    ----------
    groups : Dataset
        As `scene_groups` gives them, on cells or on a map already.

    Returns
    -------
    Dataset
        Its variables (y, x), north up, with CRS; −1 and NaN where there is no cell.

    Examples
    --------
    >>> groups = xr.Dataset(
    ...     {"kmeans_2": ("cell", np.array([1, 0], "int16")), "plot_x": ("cell", [0.0, 1.0])},
    ...     coords={"north": ("cell", [3, 4]), "east": ("cell", [7, 7])},
    ...     attrs={"cell_size": 100.0, "origin": [0.0, 0.0]},
    ... )
    >>> scene_map(groups.rio.write_crs("EPSG:25832")).kmeans_2.values.tolist()
    [[0], [1]]
    """
    if {"y", "x"} <= set(groups.dims):
        return groups
    north, east = groups["north"].values, groups["east"].values
    norths, easts = (range(int(axis.min()), int(axis.max()) + 1) for axis in (north, east))
    box = cells_grid(groups).geobox(norths, easts)
    places = norths.stop - 1 - north, east - easts.start

    def lay(column: xr.DataArray) -> tuple[tuple[str, str], NDArray, dict]:
        none = -1 if column.dtype.kind == "i" else np.nan
        raster = np.full(box.shape, none, column.dtype)
        raster[places] = column.values
        return ("y", "x"), raster, column.attrs

    columns = {name: lay(column) for name, column in groups.data_vars.items()}
    return xr.Dataset(columns, xr_coords(box, dims=("y", "x")), groups.attrs)


def scene_table(groups: xr.Dataset) -> pd.DataFrame:
    """Write groups as a table with a row for every cell that has features.

    Parameters
    ----------
    groups : Dataset
        As `scene_groups` gives them.

    Returns
    -------
    DataFrame
        north, east; what else goes by cell, such as people; the labels; plot_x and plot_y.

    Examples
    --------
    >>> groups = xr.Dataset(
    ...     {"kmeans_2": ("cell", np.array([1, 0], "int16")), "plot_x": ("cell", [0.0, 1.0])},
    ...     coords={"north": ("cell", [3, 4]), "east": ("cell", [7, 7])},
    ...     attrs={"cell_size": 100.0, "origin": [0.0, 0.0]},
    ... )
    >>> scene_table(groups)
       north  east  kmeans_2  plot_x
    0      3     7         1     0.0
    1      4     7         0     1.0
    """
    flat = groups.drop_vars("spatial_ref", errors="ignore").to_dataframe()
    if {"y", "x"} <= set(groups.dims):
        flat = flat.reset_index()
        north, east = cells_grid(groups).cells_at(flat["x"], flat["y"])
        flat = flat.drop(columns=["y", "x"]).assign(north=north, east=east)
    first = [name for name in ("north", "east") if name in flat]
    last = [str(name) for name in groups.data_vars]
    others = [name for name in flat if name not in (*first, *last)]
    known = flat["plot_x"].notna()
    return flat.loc[known, [*first, *others, *last]].reset_index(drop=True)


def scene_examples(
    groups: xr.Dataset, source: xr.Dataset | xr.DataArray, *, count: int = 60
) -> xr.Dataset:
    """Choose cells that show what is where in the plot, and read their images.

    Parameters
    ----------
    groups : Dataset
        As `scene_groups` gives them.
    source : Dataset or DataArray
        What `scene_features` described: cells, or the mosaic.
    count : int, optional
        Cells, at most: the plot is divided into about so many squares, and each gives the cell
        that is nearest to its middle.

    Returns
    -------
    Dataset
        ``images`` (cell, band, row, col) as they are stored, and the variables of the groups
        (cell). Eager; reads the chunks of the chosen cells only.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> from popdask.imagery.grid import CellGrid
    >>> image = xr_zeros(CellGrid(100).geobox(range(4), range(6), pixels=40), "uint8")
    >>> cells = cut_cells(image)
    >>> places = {name: ("cell", np.arange(24) % 5.0) for name in ("plot_x", "plot_y")}
    >>> groups = cells.drop_vars(["images", "people", "covered"]).assign(places)
    >>> scene_examples(groups, image, count=6).images.sizes["cell"]
    3
    """
    table = scene_table(groups)
    chosen = table.loc[_scattered(table[list(PLACES)].to_numpy(), count)]
    cells = source
    if isinstance(source, xr.DataArray):
        cells = cut_cells(source, None, cells_grid(groups))
    place = pd.MultiIndex.from_arrays([cells["north"].values, cells["east"].values])
    wanted = place.get_indexer(pd.MultiIndex.from_frame(chosen[["north", "east"]]))
    images = cells["images"].isel(cell=wanted).drop_vars("spatial_ref", errors="ignore").compute()
    labels = {name: ("cell", chosen[name].to_numpy()) for name in map(str, groups.data_vars)}
    return xr.Dataset({"images": images, **labels})


def _scattered(places: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Choose rows of (n, 2) that are spread evenly over the plane, one per square of a lattice."""
    low, extent = places.min(0), np.ptp(places, axis=0)
    side = math.sqrt(max(extent.prod(), 1e-12) / count)
    square = np.floor((places - low) / side)
    middle = low + (square + 0.5) * side
    order = np.argsort(((places - middle) ** 2).sum(1), kind="stable")
    _, first = np.unique(square[order], axis=0, return_index=True)
    return np.sort(order[first])[:count]
