"""Frames opened as one lazy cube population(time, y, x), cubes kept as plain Zarr, cells of 1 km.

Every frame is one raster of people per cell. Opening reads the headers alone and checks that all
frames lie on one grid; the cells are read, cleaned and checked block by block, one time step per
Dask task, each task opening its file for itself, so that the graph holds paths and no handles. A
Zarr group lies in a folder or behind a URL.

The rules that tell settlements by their density are meant for cells of 1 km. A finer grid in a
plane is summed to the largest whole multiple of its cells that measures 1 km at most, counted from
the raster's first cell, so that no cell is cut; on Mercator's map, 1 km on the ground where its
cells are largest. A grid in degrees, or of larger cells, stays as it is. Blocks are cut where cells
of 1 km end, so that each is summed within one block, in one order; sums are then joined to blocks
of as many cells as the raster's have, so that tasks stay few.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  registers DataArray.rio
import xarray as xr
from affine import Affine
from dask.base import tokenize
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from popdask._numba_cache import compiled
from popdask.errors import InputError
from popdask.io.conventions import as_group, check_population, in_cf_units
from popdask.io.frames import CHUNK, Time, find_frames, frame_time, grids_of, time_text
from popdask.io.grids import grid_of, same_grid, share_out, source_window, steps_of, turns
from popdask.io.paths import Path_, atomic_path, compute_to_end, file_of, fsspec_options
from popdask.io.rasters import read_counts, size_and_time
from popdask.validate import check_array


def write_group(dataset: xr.Dataset, path: Path_, what: str) -> None:
    """Write a Dataset as a new Zarr group; in a folder, whole or not at all."""
    taken = InputError(f"{path} exists; expected a new folder for {what}; remove or rename it")
    if "://" in str(path):
        try:
            cells = dataset.to_zarr(path, mode="w-", compute=False, **_options(path))
        except FileExistsError as error:
            raise taken from error
        cells.compute()
        return
    if Path(path).exists():
        raise taken
    with atomic_path(path, new=True) as unfinished:
        compute_to_end(dataset.to_zarr(unfinished, mode="w-", compute=False, **_options(path)))


def open_group(path: Path_, expected: str, group: str | None = None, **how: Any) -> xr.Dataset:
    """Open a Zarr group, or one in it, lazily, in the chunks of the store if not told otherwise."""
    options = {"group": group, "chunks": {}, "decode_coords": "all", **_options(path), **how}
    try:
        return xr.open_zarr(path, **options)
    except (OSError, ValueError, KeyError) as error:
        kept = Path(path, "snapshots").is_dir() and Path(path, "manifests").is_dir()
        mend = "it is an Icechunk repository: open it with popdask.RegionStore" if kept else ""
        raise InputError(
            f"{path} cannot be opened as Zarr ({error}); expected {expected}; "
            f"{mend or 'correct the path'}"
        ) from error


def _options(path: Path_) -> dict[str, Any]:
    options = fsspec_options(os.fspath(path)) or None
    return {"consolidated": False, "storage_options": options}


ENDS = ("population_low", "population_high")  # of intervals, beside the population
DIMENSIONS = ("time", "y", "x")
Chunks = str | int | tuple[Any, ...] | Mapping[str, Any]


def open_frames(
    frames: Path_ | Mapping[Any, Path_] | Iterable[Path_],
    *,
    times: Iterable[Time] | None = None,
    chunks: Chunks = "auto",
    align: bool | Literal["cover"] = False,
    nodata: float | None = None,
) -> xr.Dataset:
    """Open population rasters, one per time, as a cube.

    Parameters
    ----------
    frames : mapping, list of paths, or str
        ``{time: path or URL}``; or paths, with `times`; or a pattern such as ``pop_{year}.tif`` or
        ``pop_{time:%Y-%m}.tif``, FORMAT as in `datetime.strptime`.
    times : list of time, optional
        Times of the paths. A time is a datetime, text in ISO form, or a year ("2006" or 2006).
    chunks : "auto", int, tuple or mapping
        Cells per block along y and x; "auto" is 1024 × 1024. One time step per block, unless a
        mapping or a tuple of three says otherwise.
    align : bool or "cover"
        Bring frames on other grids onto the grid of the first in time, keeping every person on it:
        each cell's people are shared among the cells it covers, by area. People beyond that grid
        are left out; `popdask.io.people_beyond` counts them. With "cover", the grid is extended
        by whole cells until it holds all frames.
    nodata : float, optional
        One more value that means no data in every frame, for example 0 where sea is written as 0.

    Returns
    -------
    Dataset
        ``population(time, y, x)`` float32, people per cell, NaN = no data, backed by Dask, sorted
        by time (datetime64), with the CRS and transform in ``spatial_ref``. Declared nodata is
        NaN, and so are −99999 and values under −1e30.

    Raises
    ------
    InputError
        If a file is missing or unreadable, is a density, has several bands or no CRS; if two frames
        have one time or, without `align`, different grids; and, when computed, if a file is
        truncated or holds a negative or infinite count.

    Examples
    --------
    >>> import tempfile, rasterio
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for year in (2000, 2010):
    ...         profile = dict(width=3, height=2, count=1, dtype="int16", crs="EPSG:3035")
    ...         transform = rasterio.transform.from_origin(4321000, 3210000, 1000, 1000)
    ...         path = f"{folder}/pop_{year}.tif"
    ...         with rasterio.open(path, "w", "GTiff", transform=transform, **profile) as file:
    ...             file.write(np.full((1, 2, 3), year - 1990))
    ...     cube = open_frames(f"{folder}/pop_{{year}}.tif")
    ...     cube.population.sum(("y", "x")).values
    array([ 60., 120.], dtype=float32)
    """
    return _opened(_paths_by_time(frames, times), chunks, align, nodata)


def open_surface(path: str, chunks: Chunks) -> xr.DataArray:
    """Open one raster of land, errors or the like as frames are opened: (y, x)."""
    frames = _opened({frame_time(2000): path}, chunks, people=False)
    return frames["population"][0].drop_vars("time")


def _opened(
    paths: Mapping[np.datetime64, str],
    chunks: Chunks,
    align: bool | str = False,
    nodata: float | None = None,
    *,
    people: bool = True,
) -> xr.Dataset:
    """Open rasters as a lazy cube; what holds no `people` may have colours and units of its own."""
    grids, grid = grids_of(paths.values(), align, people=people)
    sizes = _chunk_sizes(chunks, (len(paths), *grid.shape))
    layers = [_lazy_frame(path, grids[path], grid, sizes[1:], nodata) for path in paths.values()]
    return _as_dataset(da.stack(layers).rechunk({0: sizes[0]}), list(paths), grid)


def open_cube(path: Path_) -> xr.Dataset:
    """Open a cube stored as Zarr.

    Parameters
    ----------
    path : path or URL
        A Zarr group with ``population(time, y, x)``, people per cell, and a CRS as rioxarray or
        `write_cube` store it; or a pyramid of such groups, of which the finest is opened.

    Returns
    -------
    Dataset
        As `open_frames` gives it, in the chunks of the store.

    Raises
    ------
    InputError
        If it is not such a group; and, when computed, if it holds a negative or infinite count.

    Examples
    --------
    >>> import tempfile
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 4, 2), "EPSG:3035", resolution=1)
    >>> empty = xr_zeros(grid, "float32", time=["2006-01-01"]).to_dataset(name="population")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_cube(empty, f"{folder}/cube.zarr")
    ...     open_cube(f"{folder}/cube.zarr").population.rio.crs.to_epsg()
    3035
    """
    expected = "a group with population(time, y, x)"
    stored = open_group(path, expected)
    if finest := _finest(stored.attrs.get("multiscales")):
        stored = open_group(path, expected, finest)
    held = stored.get("population")
    if held is None or set(held.dims) != set(DIMENSIONS):
        found = {str(name): array.dims for name, array in stored.data_vars.items()}
        raise InputError(
            f"{path} holds {found}; expected a variable population with the dimensions time, y and "
            "x; rename its variables and dimensions"
        )
    held = held.transpose(*DIMENSIONS)
    times = [frame_time(time) for time in held["time"].values]
    if len(set(times)) < len(times):
        raise InputError(
            f"{path} has {len(times)} frames for {len(set(times))} times; expected one frame per "
            "time; remove the duplicates"
        )
    cells = check_population(str(path), held.drop_vars("time")).data.astype("float32")
    return _as_dataset(cells, times, grid_of(held)).sortby("time")


def _finest(multiscales: Any) -> str | None:
    """The group of the finest level; None where the words are those of another convention."""
    layout = multiscales.get("layout") if isinstance(multiscales, dict) else None
    first = layout[0] if isinstance(layout, list) and layout else None
    asset = first.get("asset") if isinstance(first, dict) else None
    return asset if isinstance(asset, str) and re.fullmatch(r"\w[\w.-]*", asset) else None


def write_cube(cube: xr.Dataset, path: Path_) -> None:
    """Write a cube as plain Zarr, whole or not at all.

    Parameters
    ----------
    cube : Dataset
        With ``population(time, y, x)``, and perhaps ``population_low`` and ``population_high``, the
        ends of its intervals; they are written in blocks of 1 × 1024 × 1024.
    path : path or URL
        A new folder. Behind a URL, an interrupted write leaves part of a group.

    Raises
    ------
    InputError
        If `path` is there already, or the cube holds no population with a time and a grid.

    Examples
    --------
    >>> import tempfile
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 4, 2), "EPSG:3035", resolution=1)
    >>> empty = xr_zeros(grid, "float32", time=["2006-01-01"]).to_dataset(name="population")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_cube(empty, f"{folder}/cube.zarr")
    ...     dict(open_cube(f"{folder}/cube.zarr").sizes)
    {'time': 1, 'y': 2, 'x': 4}
    """
    if not (isinstance(cube, xr.Dataset) and "population" in cube):
        raise InputError(
            "the cube has no variable population; expected a Dataset as open_frames gives it; make "
            "one of an array with array.to_dataset(name='population')"
        )
    hint = "give the frame its time, as in cube.expand_dims(time=pandas.to_datetime(['2020']))"
    people = check_population("cube.population", cube["population"], *DIMENSIONS, hint=hint)
    grid_of(people)
    if cube.rio.grid_mapping not in ("spatial_ref", *cube.dims) and cube.rio.crs is not None:
        cube = cube.drop_vars(cube.rio.grid_mapping).rio.write_crs(cube.rio.crs)
    names = ["population", *(name for name in ENDS if name in cube)]
    blocks = cube[names].assign(population=people).chunk({"time": 1, "y": CHUNK, "x": CHUNK})
    for name in names:
        blocks[name].encoding = {"grid_mapping": "spatial_ref"}
        blocks[name].attrs = in_cf_units(blocks[name].attrs)
    write_group(as_group(blocks), path, "the cube")


def _paths_by_time(frames: Any, times: Iterable[Time] | None) -> dict[np.datetime64, str]:
    if isinstance(frames, str | os.PathLike) and times is None:
        return find_frames(os.fspath(frames))
    pairs: list[tuple[Any, str]]
    if isinstance(frames, Mapping):
        pairs = [(time, os.fspath(path)) for time, path in frames.items()]
    elif not isinstance(frames, str | os.PathLike | Iterable):
        raise InputError(
            f"frames is {frames!r}; expected a pattern such as pop_{{year}}.tif, a table "
            "{time: path}, or paths with times=; give one of them"
        )
    else:
        paths = [frames] if isinstance(frames, str | os.PathLike) else list(frames)
        known = [times] if isinstance(times, str) else list(() if times is None else times)
        if len(known) != len(paths):
            raise InputError(
                f"there are {len(paths)} frames and {len(known)} times; expected one time for each "
                "frame; pass times=, or a table of times and paths"
            )
        pairs = [(time, os.fspath(path)) for time, path in zip(known, paths, strict=True)]
    found: dict[np.datetime64, str] = {}
    for key, path in pairs:
        time = frame_time(key)
        if time in found:
            raise InputError(
                f"{found[time]} and {path} are both of {time_text(time)}; expected one frame per "
                "time; correct the times"
            )
        found[time] = path
    if not found:
        raise InputError("there are no frames; expected at least one raster; pass a path per time")
    return {time: found[time] for time in sorted(found)}


def _chunk_sizes(chunks: Chunks, shape: tuple[int, int, int]) -> tuple[tuple[int, ...], ...]:
    """Turn what a caller says about chunks into sizes along (time, y, x)."""
    if isinstance(chunks, str | int):
        chunks = (chunks, chunks)
    try:
        if not isinstance(chunks, Mapping):
            chunks = dict(zip(DIMENSIONS[-len(chunks) :], chunks, strict=True))
        if unknown := set(chunks) - set(DIMENSIONS):
            raise ValueError(f"unknown dimensions {unknown}")
        wanted = [chunks.get(d, 1 if d == "time" else "auto") for d in DIMENSIONS]
        wanted = [CHUNK if size == "auto" else size for size in wanted]
        sizes = da.core.normalize_chunks(tuple(wanted), shape=shape)
        if min(size for axis in sizes for size in axis) < 1:
            raise ValueError("empty chunks")
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise InputError(
            f"chunks={chunks!r} does not fit (time, y, x) of {shape} ({error}); expected 'auto', a "
            "number of cells, (y, x), or {'y': cells, 'x': cells}; correct it"
        ) from error
    return sizes


def _lazy_frame(
    path: str,
    source: GeoBox,
    target: GeoBox,
    chunks: tuple[tuple[int, ...], ...],
    nodata: float | None,
) -> da.Array:
    aligned = None if same_grid(source, target) else (source, target)
    file = file_of(path)
    version = size_and_time(file) if Path(file).is_file() else None
    return da.map_blocks(
        _read_block,
        path=path,
        aligned=aligned,
        nodata=nodata,
        chunks=chunks,
        dtype="float32",
        meta=np.empty((0, 0), "float32"),
        name=f"frame-{tokenize(path, version, source, target, nodata, chunks)}",
    )


def _read_block(
    *,
    path: str,
    aligned: tuple[GeoBox, GeoBox] | None,
    nodata: float | None,
    block_info: dict[Any, Any],
) -> np.ndarray:
    rows, columns = (slice(*ends) for ends in block_info[None]["array-location"])
    if aligned is None:
        return read_counts(path, rows, columns, nodata=nodata)
    source, target = aligned
    total = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan)
    for turned in turns(source, target):
        window = source_window(turned, target, rows, columns)
        if any(side.start == side.stop for side in window):
            continue
        people = read_counts(path, *window, nodata=nodata)
        moved = share_out(people, turned, window, target, rows, columns)
        both = np.where(np.isnan(moved), total, total + moved)
        total = np.where(np.isnan(total), moved, both)
    return total.astype("float32")


def _as_dataset(cells: da.Array, times: list[np.datetime64], grid: GeoBox) -> xr.Dataset:
    places = xr_coords(grid, dims=("y", "x"))
    for axis in ("y", "x"):
        for stale in ("crs", "resolution"):  # spatial_ref says it, and these outlive a change of it
            places[axis].attrs.pop(stale, None)
    population = xr.DataArray(
        cells,
        dims=DIMENSIONS,
        coords={"time": np.array(times, "datetime64[ns]"), **places},
        attrs={"units": "people per cell", "long_name": "population"},
        name="population",
    )
    return population.to_dataset().rio.write_grid_mapping("spatial_ref")


def coarse_grid(grid: GeoBox) -> GeoBox:
    """The grid of the cells of 1 km; those at the far sides may reach beyond the raster."""
    down, across = steps_of(grid)
    shape = -(-grid.shape[0] // down), -(-grid.shape[1] // across)
    return GeoBox(shape, grid.transform * Affine.scale(across, down), grid.crs)


def to_1km(values: xr.DataArray, *, mean: bool = False) -> xr.DataArray:
    """Sum a finer grid to cells of 1 km.

    Parameters
    ----------
    values : DataArray, (…, y, x)
        People, or areas, of cells in a plane, NaN = no data, with CRS and transform.
    mean : bool, optional
        Give the mean of the cells with data: for shares of the cell.

    Returns
    -------
    DataArray of float64, (…, y, x)
        Lazy where `values` are; on cells of the largest whole multiple of theirs that is 1 km at
        most, counted from the raster's first cell. NaN where no cell has data. As it was where its
        cells are larger than half of that, or in degrees.

    Raises
    ------
    InputError
        If y or x, a CRS or a regular grid is missing.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 2000, 1000), "EPSG:3035", resolution=250)
    >>> to_1km(xr_zeros(grid) + 3).values
    array([[48., 48.]])
    """
    check_array("values", values, "y", "x")
    grid = grid_of(values)
    down, across = steps_of(grid)
    if (down, across) == (1, 1):
        return values
    ordered = values.transpose(..., "y", "x")
    data = ordered.data
    lazy = data if isinstance(data, da.Array) else da.from_array(data, name=False)
    found: Any = sum_cells(lazy, (down, across), mean)
    if data is not lazy:
        found = found.compute(scheduler="sync")
    coords = dict(xr_coords(coarse_grid(grid), dims=("y", "x")))
    return _like(values, found, coords)


def from_1km(values: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Draw labels or codes of cells of 1 km on the finer grid that was summed.

    Parameters
    ----------
    values : DataArray, (…, y, x)
        On the grid that `to_1km` gives.
    like : DataArray, (…, y, x)
        What was summed; its chunks along y and x are taken, where it has any.

    Returns
    -------
    DataArray, (…, y, x)
        Each cell of 1 km repeated; lazy where `values` are.

    Raises
    ------
    InputError
        If `values` are not on the grid that `to_1km` makes of `like`.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> fine = xr_zeros(GeoBox.from_bbox((0, 0, 1000, 500), "EPSG:3035", resolution=500))
    >>> from_1km(to_1km(fine + 1), fine).values
    array([[2., 2.]])
    """
    check_array("values", values, "y", "x")
    steps, rows, columns = steps_of(grid_of(like)), like.sizes["y"], like.sizes["x"]
    expected = -(-rows // steps[0]), -(-columns // steps[1])
    ordered = values.transpose(..., "y", "x")
    if ordered.shape[-2:] != expected:
        raise InputError(
            f"values have {ordered.shape[-2]} × {ordered.shape[-1]} cells; expected {expected[0]} "
            f"× {expected[1]}, the cells of 1 km of a grid of {rows} × {columns}; give what was "
            "found on the result of to_1km"
        )
    data = ordered.data
    if isinstance(data, da.Array):
        cuts = None if like.chunks is None else [like.chunksizes[dim] for dim in ("y", "x")]
        drawn: Any = repeat_cells(data, steps, (rows, columns), cuts)
    else:
        drawn = _repeat(data, *steps)[..., :rows, :columns]
    coords = {name: like[name] for name in ("y", "x", "spatial_ref") if name in like.coords}
    return _like(values, drawn, coords)


def _like(values: xr.DataArray, data: Any, grid: dict[Any, Any]) -> xr.DataArray:
    """Put (…, y, x) on another grid, and what is told of its other dimensions beside it."""
    others = {
        name: coord
        for name, coord in values.coords.items()
        if name not in ("y", "x", "spatial_ref") and not {"y", "x"} & set(coord.dims)
    }
    dims = [dim for dim in values.dims if dim not in ("y", "x")]
    found = xr.DataArray(data, others | grid, (*dims, "y", "x"), attrs=values.attrs)
    # Without a name xarray takes that of a Dask array.
    return found.rename(values.name).transpose(*values.dims)


def aligned(array: da.Array, steps: tuple[int, int]) -> da.Array:
    """Move the cuts of the blocks of (…, y, x) to where cells of 1 km end."""
    chunks = [cut_chunks(c, step) for c, step in zip(array.chunks[-2:], steps, strict=True)]
    return array.rechunk((*array.chunks[:-2], *chunks))


def cut_chunks(chunks: tuple[int, ...], step: int) -> tuple[int, ...]:
    """Move the borders of chunks to the nearest multiples of a step, or to the raster's end."""
    whole = sum(chunks)
    ends = {min(round(end / step) * step, whole) for end in np.cumsum(chunks)[:-1].tolist()}
    return tuple(b - a for a, b in pairwise(sorted(ends | {0, whole})))


def sum_cells(array: da.Array, steps: tuple[int, int], mean: bool = False) -> da.Array:
    """Sum the cells of every cell of 1 km, NaN where none has data."""
    if steps == (1, 1):
        return array.astype(np.float64)
    array = aligned(array, steps)
    coarse = _coarse(array.chunks[-2:], steps)
    chunks = (*array.chunks[:-2], *coarse)
    meta = np.empty((0,) * array.ndim)
    sums = da.map_blocks(_sum_block, array, *steps, mean, chunks=chunks, meta=meta)
    joined = [_joined(c, step) for c, step in zip(coarse, steps, strict=True)]
    return sums.rechunk((*array.chunks[:-2], *joined))


def _coarse(chunks: Iterable[Iterable[int]], steps: tuple[int, int]) -> list[tuple[int, ...]]:
    """Sizes of blocks in cells of 1 km."""
    return [
        tuple(-(-size // step) for size in sizes) for sizes, step in zip(chunks, steps, strict=True)
    ]


def _joined(chunks: tuple[int, ...], step: int) -> tuple[int, ...]:
    """Sizes of blocks of so many neighbours each."""
    return tuple(sum(chunks[start : start + step]) for start in range(0, len(chunks), step))


def _sum_block(values: NDArray, down: int, across: int, mean: bool) -> NDArray[np.float64]:
    frames = values.reshape(-1, *values.shape[-2:])
    found = np.stack([_sum_frame(frame, down, across, mean) for frame in frames])
    return found.reshape(*values.shape[:-2], *found.shape[-2:])


@compiled
def _sum_frame(values: NDArray, down: int, across: int, mean: bool) -> NDArray[np.float64]:
    rows, columns = values.shape
    sums = np.zeros((-(-rows // down), -(-columns // across)))
    known = np.zeros(sums.shape, np.int32)
    for y in range(rows):
        line, count = sums[y // down], known[y // down]
        for x in range(columns):
            value = values[y, x]
            if not np.isnan(value):
                line[x // across] += value
                count[x // across] += 1
    for y in range(sums.shape[0]):
        for x in range(sums.shape[1]):
            if known[y, x] == 0:
                sums[y, x] = np.nan
            elif mean:
                sums[y, x] /= known[y, x]
    return sums


def repeat_cells(
    array: da.Array, steps: tuple[int, int], shape: tuple[int, int], cuts: Any = None
) -> da.Array:
    """Draw cells of 1 km on a finer grid of this shape, in blocks cut at `cuts`."""
    if steps != (1, 1):
        if cuts is not None:
            cells = [cut_chunks(c, step) for c, step in zip(cuts, steps, strict=True)]
            array = array.rechunk((*array.chunks[:-2], *_coarse(cells, steps)))
        fine = [_fine(*axis) for axis in zip(array.chunks[-2:], steps, shape, strict=True)]
        chunks = (*array.chunks[:-2], *fine)
        array = da.map_blocks(_repeat_block, array, *steps, chunks=chunks, meta=array._meta)
    return array if cuts is None else array.rechunk((*array.chunks[:-2], *cuts))


def _fine(chunks: tuple[int, ...], step: int, whole: int) -> tuple[int, ...]:
    ends = np.minimum(np.cumsum(chunks) * step, whole)
    return tuple(np.diff(ends, prepend=0).tolist())


def _repeat_block(block: NDArray, down: int, across: int, block_info: Any = None) -> NDArray:
    """Repeat the cells of a block, as far as the raster goes."""
    where = block_info[None]["chunk-shape"][-2:]
    return _repeat(block, down, across)[..., : where[0], : where[1]]


def _repeat(block: NDArray, down: int, across: int) -> NDArray:
    return block.repeat(down, axis=-2).repeat(across, axis=-1)
