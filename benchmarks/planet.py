"""A raster as large as the world, classified by the Degree of Urbanisation chunk by chunk.

The ground is Norway's cells of 1 km with Belgium laid into its sea, repeated until the raster has
as many cells as are asked for: 36,000 × 18,000 are the world in Mollweide, and have some 6 billion
people. It is drawn block by block as it is read and counted by class as it is classified, on two
threads of one process, so that all memory is that of the classification. The peer is flexurba,
which took 145 minutes and 116 GB for the world in one piece, as its makers say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from benchmarks.machine import Machine, Row, Spent, duration, in_child, measured
from popdask.io import open_frames
from popdask.io.cube import to_1km
from popdask.tracking.urbanisation import degree_of_urbanisation

WORLD = (18_000, 36_000)
CELLS = (20_000_000, 648_000_000)  # the cost of a cell is level from the first of them on
CHUNK = 2000
THREADS = 2
CORNER = (40, 40)  # of Belgium in the Norwegian Sea
SECONDS, BYTES = 600, 4 * 2**30  # what the world may take
FLEXURBA = 145 * 60 / 650e6  # seconds per cell


def rows(machine: Machine, *, quick: bool, cells: int | None = None) -> Iterator[Row]:
    """Classify rasters of some sizes."""
    chunk = 200 if quick else CHUNK
    for count in (250_000,) if quick else (cells,) if cells else CELLS:
        shape = shape_of(count)
        counts, spent = in_child(classified, shape, chunk, quick)
        size = shape[0] * shape[1]
        whole = spent.wall / size * WORLD[0] * WORLD[1]
        yield Row(
            "planet, level 2",
            f"{shape[1]:,} × {shape[0]:,}, {size / 1e6:.0f} M cells",
            f"{duration(spent.cpu)}, {spent.cpu / size * 1e9:.0f} ns per cell",
            f"flexurba, as told, {FLEXURBA * 1e9:,.0f} ns per cell on the clock",
            limit=f"{whole / SECONDS:.0%} of {SECONDS} s for 648 M cells at this rate, "
            f"{spent.peak / BYTES:.0%} of 4 GiB",
            also=f"{duration(spent.wall)} on the clock, load {os.getloadavg()[0]:.1f}; "
            f"{spent.peak / 2**20:,.0f} MiB; {counts[30]:,} cells of urban centres",
        )


def shape_of(cells: int) -> tuple[int, int]:
    """Rows and columns of a raster of the world's form with so many cells."""
    rows = max(round((cells / 2) ** 0.5), 1)
    return rows, 2 * rows


def classified(shape: tuple[int, int], chunk: int, quick: bool) -> tuple[np.ndarray, Spent]:
    """Count the cells of every code, and tell what it took."""
    ground = _invented() if quick else country()
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        _counts(drawn(ground, (300, 600), 200)).compute()  # to compile it
        return measured(_counts(drawn(ground, shape, chunk)).compute)


def country() -> np.ndarray:
    """Norway with Belgium in its sea, people per cell of 1 km."""
    data = Path(os.environ["POPDASK_DATA"])
    paths = "norway_250m/norway_pop_250m_2019.tif", "belgium_1km/POP.tif"
    norway, belgium = (
        np.nan_to_num(to_1km(open_frames({"2019": str(data / path)})["population"][0]).values)
        for path in paths
    )
    ground = norway.astype(np.float32)
    sea = ground[CORNER[0] :, CORNER[1] :][: belgium.shape[0], : belgium.shape[1]]
    assert not sea.any(), "Belgium lies on Norwegians"
    sea[:] = belgium
    return ground


def drawn(ground: np.ndarray, shape: tuple[int, int], chunk: int) -> xr.DataArray:
    """Repeat a country over a raster in Mollweide, lazily."""

    def block(block_info: dict[object, dict[str, list[tuple[int, int]]]]) -> np.ndarray:
        (top, bottom), (left, right) = block_info[None]["array-location"]
        across = np.arange(left, right) % ground.shape[1]
        return ground[np.arange(top, bottom) % ground.shape[0]][:, across]

    chunks = da.core.normalize_chunks((chunk, chunk), shape)
    people = da.map_blocks(
        block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    corner = Affine.translation(-500.0 * shape[1], 500.0 * shape[0])
    grid = GeoBox(shape, corner * Affine.scale(1000, -1000), "ESRI:54009")
    return xr.DataArray(people, dict(xr_coords(grid, dims=("y", "x"))), ("y", "x"), "population")


def _counts(population: xr.DataArray) -> da.Array:
    """Count the cells of every code, 0 to 30."""
    codes = degree_of_urbanisation(population).data
    counts = codes.map_blocks(
        lambda block: np.bincount(block.ravel(), minlength=31)[None, None],
        chunks=((1,) * codes.numblocks[0], (1,) * codes.numblocks[1], (31,)),
        new_axis=2,
        dtype=np.int64,
    )
    return counts.sum(axis=(0, 1), split_every=8)


def _invented() -> np.ndarray:
    """A city of 64 km² in the country."""
    ground = np.full((120, 120), 20, np.float32)
    ground[30:38, 40:48] = 2500
    return ground
