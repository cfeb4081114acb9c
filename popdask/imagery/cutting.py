"""From a mosaic to cells: images (cell, band, row, col) with the people who live in them.

Cells follow the Z-curve over the grid, so those of an aligned square of 8 × 8 cells (fewer where
they are large) stand next to one another. The image is brought into such squares, each borrows the
ring of context from its neighbours, and one task cuts it: chunks of the result are squares of the
grid, whatever the chunks of the image are, and squares without a wanted cell are never read.

People are counted from a raster, a table of cells, polygons or points. Counts are a table with the
columns north, east (int64) and people (float64), one row per cell; a cell that is not in it is
unknown.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers DataArray.rio
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from popdask.errors import InputError
from popdask.imagery.cells import cells_nodata, make_cells
from popdask.imagery.grid import CellGrid, as_grid, block_side, crs_text, z_order
from popdask.io.conventions import check_population
from popdask.io.grids import describe_grid, grid_of, same_grid, share_out
from popdask.io.paths import Path_
from popdask.io.rasters import read_counts, read_grid
from popdask.io.tables import read_features, read_table

ALIGNED = 1e-3  # of a pixel

Groups = list[tuple[tuple[int, int], NDArray[np.int64]]]

#: Part of a cell by which the corners of its square may be off: files are rounded and reprojected.
_SLACK = 0.02
COUNT_COLUMNS = ["north", "east", "people"]


@dataclass(frozen=True)
class Lattice:
    """Where an image lies on the pixels of a cell grid, counted down and right from its origin."""

    grid: CellGrid
    pixels: int
    """Pixels per side of a cell."""
    top: int
    left: int
    height: int
    width: int

    @property
    def inside(self) -> tuple[range, range]:
        """Rows and columns of the cells that lie in the image, counted as its pixels are."""
        return (
            range(-(-self.top // self.pixels), (self.top + self.height) // self.pixels),
            range(-(-self.left // self.pixels), (self.left + self.width) // self.pixels),
        )

    def whole_cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """North and east of those cells, in Z-order."""
        down, east = (np.arange(cells.start, cells.stop) for cells in self.inside)
        norths, easts = (axis.ravel() for axis in np.meshgrid(-1 - down, east, indexing="ij"))
        order = z_order(norths, easts)
        return norths[order].astype(np.int64), easts[order].astype(np.int64)


def find_lattice(image: xr.DataArray, grid: CellGrid) -> Lattice:
    """Find where an image (…, y, x), north up, lies on the pixels of a cell grid."""
    box = grid_of(image)
    t = box.transform
    if box.crs != grid.crs:
        raise InputError(
            f"the image is in {crs_text(box.crs)} and the cells in {grid.crs}; expected one CRS; "
            "open the mosaic with grid=… and align=True to reproject it"
        )
    if max(t.a, -t.e) > grid.size * (1 + ALIGNED):
        raise InputError(
            f"the image's pixels are {t.a:g} × {-t.e:g} and the cells {grid.size:g}; expected "
            "cells no smaller than a pixel; use larger cells"
        )
    pixels = round(grid.size / t.a)
    pixel = grid.size / pixels
    left, top = (t.c - grid.origin[0]) / pixel, (grid.origin[1] - t.f) / pixel
    right, bottom = left + box.shape[1] * t.a / pixel, top - box.shape[0] * t.e / pixel
    edges = np.array([left, top, right - box.shape[1], bottom - box.shape[0]])
    if np.abs(edges - np.round(edges[[0, 1, 0, 1]])).max() > ALIGNED:
        raise InputError(
            f"the image has {describe_grid(box)}, and its pixels do not fit into cells of "
            f"{grid.label}; expected a whole number of pixels in each cell; open the mosaic with "
            "grid=… to resample it"
        )
    return Lattice(grid, pixels, round(top), round(left), *box.shape)


def cut_images(
    image: xr.DataArray,
    lattice: Lattice,
    north: NDArray[np.int64],
    east: NDArray[np.int64],
    context: int,
) -> tuple[da.Array, da.Array]:
    """Cut images (cell, band, row, col), and the share (cell,) of their own pixels with data."""
    # The image is (band, y, x); the cells are in Z-order and lie within it.
    side, p = block_side(lattice.pixels, context), lattice.pixels
    fill = nodata_of(image)
    blocks = _in_blocks(image.data, lattice, side, fill)
    depth = {0: 0, 1: context * p, 2: context * p}
    rimmed = da.overlap.overlap(blocks, depth=depth, boundary={0: "none", 1: fill, 2: fill})
    groups = _group(lattice, side, north, east)
    span = (2 * context + 1) * p
    images = _gather(rimmed, groups, cut_block, (p, span), (image.sizes["band"], span, span))
    valid = _in_blocks(valid_pixels(image, fill)[None], lattice, side, False)
    covered = _gather(valid, groups, _share_block, (p, p), (), "float32")
    return images, covered


def nodata_of(image: xr.DataArray) -> Any:
    """Return the value of pixels without data: the image's own, or else 0, or NaN."""
    default = np.nan if image.dtype.kind == "f" else 0
    return image.dtype.type(image.attrs.get("nodata", image.attrs.get("_FillValue", default)))


def is_nodata(pixels: NDArray, nodata: Any) -> NDArray[np.bool_]:
    """Return which pixels hold what those without data do."""
    return np.isnan(pixels) if np.isnan(nodata) else pixels == nodata


def valid_pixels(image: xr.DataArray, fill: Any) -> da.Array:
    """Return the pixels (y, x) that have data: what the mosaic says, or else the values."""
    if "valid" in image.coords:
        return da.asarray(image.coords["valid"].transpose("y", "x").data)
    values = da.asarray(image.data)
    if image.dtype.kind == "f":
        return (~da.isnan(values) & (values != fill)).any(0)
    if {"nodata", "_FillValue"} & set(image.attrs):
        return (values != fill).any(0)
    return da.ones(image.shape[1:], chunks=values.chunks[1:], dtype=bool)


def _in_blocks(array: Any, lattice: Lattice, side: int, fill: Any) -> da.Array:
    """Pad (band, y, x) to whole blocks of side × side cells, one per chunk."""
    block = side * lattice.pixels
    rows = lattice.top % block, -(lattice.top + lattice.height) % block
    columns = lattice.left % block, -(lattice.left + lattice.width) % block
    array = da.asarray(array)
    if any(rows) or any(columns):
        array = da.pad(array, [(0, 0), rows, columns], constant_values=fill)
    return array.rechunk((-1, block, block))


def _group(
    lattice: Lattice, side: int, north: NDArray[np.int64], east: NDArray[np.int64]
) -> Groups:
    """Group cells by block: (block row and column, (n, 2) rows and columns of cells within it)."""
    # In Z-order the cells of a block stand together, so the groups keep the order of the cells.
    cells = np.stack([-1 - north, east], axis=1)
    first = np.array([lattice.top, lattice.left]) // (side * lattice.pixels)
    blocks = cells // side - first
    starts = np.flatnonzero(np.any(np.diff(blocks, axis=0, prepend=-1), axis=1))
    parts = np.split(cells % side, starts[1:])
    return [((int(r), int(c)), part) for (r, c), part in zip(blocks[starts], parts, strict=True)]


def _gather(
    blocks: da.Array,
    groups: Groups,
    cut: Any,
    span: tuple[int, int],
    shape: tuple[int, ...],
    dtype: Any = None,
) -> da.Array:
    """Cut the cells of every block: an array (cell, *shape) with one chunk per block."""
    name = f"{cut.__name__.strip('_')}-{tokenize(blocks.name, groups, span)}"
    zeros = (0,) * len(shape)
    graph: Any = {
        (name, i, *zeros): (cut, (blocks.name, 0, *block), local, *span)
        for i, (block, local) in enumerate(groups)
    }
    chunks = (tuple(len(local) for _, local in groups), *((size,) for size in shape))
    dependencies: Any = [blocks]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=dependencies)
    return da.Array(layers, name, chunks=chunks, dtype=np.dtype(dtype or blocks.dtype))


def cut_block(block: NDArray, cells: NDArray[np.int64], step: int, span: int) -> NDArray:
    """Cut cells (n, band, span, span), given by row and column, from (band, y, x) with its ring."""
    every = np.lib.stride_tricks.sliding_window_view(block, (span, span), (1, 2))
    down, across = cells.T
    cut: NDArray = every[:, ::step, ::step].transpose(1, 2, 0, 3, 4)[down, across]
    return cut


def _share_block(block: NDArray, cells: NDArray[np.int64], step: int, span: int) -> NDArray:
    """Share (n,) of pixels with data, from a block (1, y, x)."""
    return cut_block(block, cells, step, span).mean((1, 2, 3), dtype=np.float64).astype("float32")


def cut_cells(
    image: xr.DataArray,
    counts: pd.DataFrame | xr.DataArray | None = None,
    grid: CellGrid | str | float = 100.0,
    *,
    context: int = 0,
    labelled: bool = False,
    missing: float = np.nan,
    outside: Literal["error", "drop"] = "error",
) -> xr.Dataset:
    """Cut an image into the cells of a grid.

    Parameters
    ----------
    image : DataArray, (band, y, x) or (y, x)
        NumPy or Dask, with a CRS, on the grid's lattice, as `open_mosaic` with a grid gives it.
    counts : DataFrame or DataArray, optional
        People of cells: a table (north, east, people), or a raster (y, x) on the grid.
    grid : CellGrid, str or float, optional
        The grid, the name of a preset, or the size of its cells in units of the image's CRS.
    context : int, optional
        Cells of the ring that is seen around each cell: 1 makes 3 × 3 cells of an image. What lies
        beyond the mosaic has no data.
    labelled : bool, optional
        Only cells with known counts.
    missing : float, optional
        People of cells that `counts` does not have: NaN for unknown, 0 where it lists every
        inhabited cell.
    outside : {"error", "drop"}, optional
        What a table's counts of cells beyond the image are: an error, or left out. A raster's are
        left out.

    Returns
    -------
    Dataset
        ``images`` (cell, band, row, col) with the dtype of the image, lazy, row 0 in the north;
        ``people`` (cell) float64, NaN = unknown; ``covered`` (cell) float32, lazy, the share of
        the cell's own pixels that have data; coordinates ``north`` and ``east`` (cell) int64 and
        ``spatial_ref``; attributes cell_size, resolution, context, origin and nodata. The whole
        cells within the image, in Z-order, the same under any chunking.

    Raises
    ------
    InputError
        If the image has no CRS or another than the grid, lies off the grid's lattice, its pixels
        are larger than a cell, it holds no whole cell, or counts are of unknown cells.

    Notes
    -----
    A chunk of images is a square of up to 8 × 8 cells. A task holds that square with its ring.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = CellGrid(100)
    >>> image = xr_zeros(grid.geobox(range(4), range(3), pixels=20), "uint8").expand_dims("band")
    >>> cells = cut_cells(image, None, grid, context=1)
    >>> dict(cells.images.sizes)
    {'cell': 12, 'band': 1, 'row': 60, 'col': 60}
    """
    image = as_bands(image)
    known_grid = as_grid(grid, image.rio.crs)
    _check_context(context)
    lattice = find_lattice(image, known_grid)
    north, east = lattice.whole_cells()
    people = _people(counts, known_grid, north, east, missing, outside)
    if labelled:
        chosen = np.isfinite(people)
        north, east, people = north[chosen], east[chosen], people[chosen]
    if not len(north):
        raise InputError(
            f"the image has {describe_grid(grid_of(image))}, which hold no "
            f"{'cell with a count' if labelled else 'whole cell'} of {known_grid.label}; expected "
            "at least one; check the grid, the counts and the place"
        )
    images, covered = cut_images(image, lattice, north, east, context)
    return make_cells(
        images,
        people,
        north,
        east,
        known_grid,
        context=context,
        nodata=nodata_of(image),
        covered=covered,
    )


def drop_padding(cells: xr.Dataset) -> tuple[xr.Dataset, int]:
    """Leave out cells in which the mosaic has nothing."""
    # Eager: the images are read once, chunk by chunk. Where zeros are known to be padding, also
    # in corners, say so in ``open_mosaic(nodata=0)``.
    images = da.asarray(cells["images"].data)
    images = images.rechunk((images.chunks[0], -1, -1, -1))
    context = int(cells.attrs["context"])
    ring = images.shape[-1] // (2 * context + 1) * context
    padded = images.map_blocks(
        _has_empty_edge, ring, cells_nodata(cells), drop_axis=[1, 2, 3], dtype=bool
    )
    if "covered" in cells:
        padded = padded | (da.asarray(cells["covered"].data) < 1)
    (empty,) = dask.compute(padded)
    return cells.isel(cell=~empty), int(empty.sum())


def as_bands(image: xr.DataArray) -> xr.DataArray:
    """Bring an image into the form that cells are cut from."""
    if "band" not in image.dims:
        image = image.expand_dims("band")
    if set(image.dims) != {"band", "y", "x"}:
        raise InputError(
            f"the image has the dimensions {image.dims}; expected band, y and x; select one time"
        )
    if image.rio.crs is None:
        raise InputError(
            "the image has no CRS; expected one, to find its cells; set it with rio.write_crs"
        )
    image = image.transpose("band", "y", "x")
    return image if grid_of(image).transform.e < 0 else image.isel(y=slice(None, None, -1))


def _check_context(context: int) -> None:
    if not (isinstance(context, int | np.integer) and 0 <= context <= 8):
        raise InputError(
            f"context is {context!r}; expected a whole number of cells from 0 to 8, such as 1 for "
            "a cell with its eight neighbours; correct it"
        )


def _people(
    counts: pd.DataFrame | xr.DataArray | None,
    grid: CellGrid,
    north: NDArray[np.int64],
    east: NDArray[np.int64],
    missing: float,
    outside: str,
) -> NDArray[np.float64]:
    if counts is None:
        return np.full(len(north), np.nan)
    drop = outside == "drop" or isinstance(counts, xr.DataArray)
    if isinstance(counts, xr.DataArray):
        counts = counts_from_raster(counts, grid)
    people = people_of_cells(counts, grid, north, east, drop_others=drop)
    return np.where(np.isnan(people), missing, people)


def _has_empty_edge(images: NDArray, ring: int, nodata: Any) -> NDArray[np.bool_]:
    """Return which of (n, band, row, col) have a first or last row or column without data."""
    own = images[..., ring : images.shape[-2] - ring, ring : images.shape[-1] - ring]
    empty: NDArray[np.bool_] = np.all(is_nodata(own, nodata), axis=1)
    lines = [empty[:, 0], empty[:, -1], empty[:, :, 0], empty[:, :, -1]]
    return np.any([line.all(1) for line in lines], axis=0)


def counts_from_raster(
    raster: xr.DataArray | Path_, grid: CellGrid, *, share: bool = False
) -> pd.DataFrame:
    """Read the people of cells from a population raster."""
    people, source, name = _read_raster(raster)
    if source.transform.e > 0:  # rows from south to north
        people, source = people[::-1], source.flipy()
    norths, easts = grid.covering(tuple(source.boundingbox), source.crs)
    target = grid.geobox(norths, easts)
    if same_grid(target, source):
        values = people.astype("float64")
    elif share:
        everything = slice(0, source.shape[0]), slice(0, source.shape[1])
        rows, columns = slice(0, target.shape[0]), slice(0, target.shape[1])
        values = share_out(people, source, everything, target, rows, columns)
    else:
        raise InputError(
            f"{name} has {describe_grid(source)}, which are not cells of {grid.label} in {grid.crs}"
            "; expected a raster on the cell grid; pass share=True to share its people by area"
        )
    row, column = np.nonzero(np.isfinite(values))
    return _table(norths.stop - 1 - row, easts.start + column, values[row, column])


def counts_from_table(
    table: pd.DataFrame | Path_, grid: CellGrid, *, cell: str = "cell", people: str = "people"
) -> pd.DataFrame:
    """Read the people of cells from a table of codes."""
    name = "the table of counts" if isinstance(table, pd.DataFrame) else str(table)
    rows = table
    if not isinstance(rows, pd.DataFrame):
        rows = read_table(rows, "a table of cells and people", dtype={cell: str})
    if not len(rows):
        raise InputError(f"{name} has no rows; expected a table of cells and people")
    codes = cell if cell in rows.columns else None
    positions = codes is None and {"north", "east"} <= set(rows.columns)
    if not positions:
        codes = codes or _codes_column(rows, grid)
    if people not in rows.columns or not (positions or codes):
        raise InputError(
            f"{name} has the columns {', '.join(map(str, rows.columns))}; expected {cell} and "
            f"{people}; name them with cell= and people="
        )
    numbers = _as_people(rows[people], name)
    if positions:
        north, east = (_as_places(rows[axis], name) for axis in ("north", "east"))
    else:
        try:
            cells = np.array([grid.parse(code) for code in rows[codes]], np.int64).reshape(-1, 2)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        north, east = cells[:, 0], cells[:, 1]
    counts = _table(north, east, numbers)
    refuse_doubles(counts, grid, name)
    return counts


def _codes_column(rows: pd.DataFrame, grid: CellGrid) -> str | None:
    """Find the column that holds codes of cells, as its first value tells; None if none does."""
    for column in map(str, rows.columns):
        first = rows[column].dropna()
        try:
            grid.parse(first.iloc[0] if len(first) else "")
        except InputError:
            continue
        return column
    return None


def counts_from_features(
    features: gpd.GeoDataFrame | Path_, grid: CellGrid, *, people: str = "people"
) -> pd.DataFrame:
    """Read the people of cells from squares or points of a file of features."""
    name = "the features" if isinstance(features, gpd.GeoDataFrame) else str(features)
    found = features if isinstance(features, gpd.GeoDataFrame) else read_features(features, "cells")
    if not len(found):
        raise InputError(f"{name} has no features; expected cells or points with people")
    if not found.geom_type.isin(["Polygon", "MultiPolygon"]).all():
        return counts_from_points(found, grid, weight=people)
    rows = pd.DataFrame(found.drop(columns=found.geometry.name))
    if _codes_column(rows, grid):
        return counts_from_table(rows, grid, people=people)
    if people not in found.columns:
        raise InputError(
            f"{name} has the columns {', '.join(map(str, found.columns))}; expected {people}; name "
            "the column of the people"
        )
    if found.crs is None:
        raise InputError(f"{name} have no CRS; expected one, to find their cells; set it")
    bounds = found.to_crs(grid.crs).bounds.to_numpy()
    middle = (bounds[:, :2] + bounds[:, 2:]) / 2
    north, east = grid.cells_at(middle[:, 0], middle[:, 1])
    corners = np.stack([grid.origin[0] + east * grid.size, grid.origin[1] + north * grid.size], 1)
    off = np.abs(np.hstack([bounds[:, :2] - corners, bounds[:, 2:] - corners - grid.size])).max(1)
    if (off > _SLACK * grid.size).any():
        row = int(np.argmax(off))
        raise InputError(
            f"{name} has {int((off > _SLACK * grid.size).sum())} shapes that are no cells of "
            f"{grid.label} in {grid.crs}, first in row {row}; expected its squares; name the grid "
            "that they are of, or add a column of codes"
        )
    counts = _table(north, east, _as_people(found[people], name))
    refuse_doubles(counts, grid, name)
    return counts


def counts_from_points(
    points: gpd.GeoDataFrame | Path_, grid: CellGrid, *, weight: str | None = None
) -> pd.DataFrame:
    """Count people at points, such as addresses, by cell."""
    name = "the points" if isinstance(points, gpd.GeoDataFrame) else str(points)
    found = points if isinstance(points, gpd.GeoDataFrame) else read_features(points, "points")
    if found.crs is None:
        raise InputError(f"{name} have no CRS; expected one, to find their cells; set it")
    wrong = (found.geom_type != "Point") | found.is_empty
    if wrong.any():
        raise InputError(
            f"{name} hold {int(wrong.sum())} geometries that are not points, first "
            f"{found.geom_type[wrong].iloc[0]}; expected points; take their centroids or remove "
            "them"
        )
    if weight is not None and weight not in found.columns:
        raise InputError(
            f"{name} have the columns {', '.join(map(str, found.columns))}; expected {weight}; "
            "correct weight"
        )
    people = np.ones(len(found)) if weight is None else _as_people(found[weight], name)
    there = found.to_crs(grid.crs).geometry
    x, y = there.x.to_numpy(), there.y.to_numpy()
    lost = ~(np.isfinite(x) & np.isfinite(y))
    if lost.any():
        raise InputError(
            f"{name} hold {int(lost.sum())} points that have no place in {grid.crs}, first "
            f"{found.geometry[lost].iloc[0]}; expected points near the cells; correct or remove "
            "them"
        )
    north, east = grid.cells_at(x, y)
    return _table(north, east, people).groupby(["north", "east"], as_index=False).sum()


def people_of_cells(
    counts: pd.DataFrame,
    grid: CellGrid,
    north: NDArray[np.int64],
    east: NDArray[np.int64],
    *,
    drop_others: bool = False,
) -> NDArray[np.float64]:
    """Look up the people of some cells."""
    refuse_doubles(counts, grid, "the table of counts")
    cells = pd.MultiIndex.from_arrays([north, east])
    known = pd.MultiIndex.from_frame(counts[["north", "east"]])
    others = counts_beyond(counts, north, east)
    if others.any() and (others.all() or not drop_others):
        first = counts[others].iloc[0]
        raise InputError(
            f"{int(others.sum())} of {len(counts)} counts are of cells that the image does not "
            f"have, first {grid.code(first.north, first.east)}; expected counts of its cells; "
            + (
                "check the grid and the place"
                if others.all()
                else 'pass outside="drop" to leave them out'
            )
        )
    people = pd.Series(counts["people"].to_numpy(np.float64), known)
    return people.reindex(cells).to_numpy(np.float64)


def counts_beyond(counts: pd.DataFrame, north: NDArray, east: NDArray) -> NDArray[np.bool_]:
    """Return which counts (north, east, people) are of other cells than these."""
    cells = pd.MultiIndex.from_arrays([north, east])
    return ~pd.MultiIndex.from_frame(counts[["north", "east"]]).isin(cells)


def refuse_doubles(counts: pd.DataFrame, grid: CellGrid, name: str) -> None:
    """Refuse counts (north, east, people) in which a cell is there twice."""
    twice = counts.duplicated(["north", "east"])
    if twice.any():
        first = counts[twice].iloc[0]
        raise InputError(
            f"{name} has {int(twice.sum())} cells twice, first {grid.code(first.north, first.east)}"
            "; expected one count for each cell; add them up or remove all but one"
        )


def _table(north: NDArray, east: NDArray, people: NDArray) -> pd.DataFrame:
    columns = (north.astype(np.int64), east.astype(np.int64), people.astype(np.float64))
    return pd.DataFrame(dict(zip(COUNT_COLUMNS, columns, strict=True)))


def _read_raster(raster: xr.DataArray | Path_) -> tuple[NDArray, GeoBox, str]:
    if isinstance(raster, xr.DataArray):
        name = str(raster.name or "the raster of counts")
        if set(raster.dims) != {"y", "x"}:
            raise InputError(
                f"{name} has the dimensions {raster.dims}; expected y and x; select one band, for "
                "example with isel(band=0)"
            )
        counts = check_population(name, raster.transpose("y", "x")).to_numpy().astype("float32")
        return counts, grid_of(raster), name
    path = os.fspath(raster)
    grid = read_grid(path)
    return read_counts(path, slice(0, grid.shape[0]), slice(0, grid.shape[1])), grid, path


def _as_people(column: pd.Series, name: str) -> NDArray[np.float64]:
    """Check that a column holds counts."""
    people = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    wrong = ~(np.isfinite(people) & (people >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{name} has {int(wrong.sum())} counts that are negative or not numbers, first "
            f"{column.iloc[row]} in row {row}; expected people, 0 or more; correct or remove them"
        )
    return people


def _as_places(column: pd.Series, name: str) -> NDArray[np.int64]:
    """Check that a column holds whole numbers."""
    places = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    wrong = ~(np.isfinite(places) & (places == np.rint(places)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{name} has {column.iloc[row]} as {column.name} in row {row}; expected whole numbers, "
            "the corners of cells in units of their size; divide coordinates by it"
        )
    return places.astype(np.int64)
