"""Labelled cells and counts, read as a population job says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.errors import InputError
from popdask.imagery.cells import (
    counts_from_points,
    counts_from_raster,
    counts_from_table,
    cut_cells,
    drop_padding,
    fold_cells,
    join_cells,
    read_cells,
    split_cells,
)
from popdask.imagery.cells.counts import counts_beyond, refuse_doubles
from popdask.imagery.grid import CellGrid
from popdask.imagery.tables import has_geometry
from popdask.job import PopulationJob
from popdask.job.population import Cells, Truth
from popdask.pipelines.images import cell_grid, open_image
from popdask.pipelines.population.sources import Sources


def labelled_cells(job: PopulationJob, sources: Sources) -> tuple[xr.Dataset, int, int]:
    """Cut the cells of known people, without those that lack pixels, and split them.

    Returns
    -------
    cells : Dataset
        With ``split``, or with ``fold`` for a cross-validation; the images are lazy.
    dropped : int
        Cells that were left out, because the mosaic has no data in them.
    outside : int
        Counts of cells that the mosaic does not touch.
    """
    settings, outside = job.cells, 0
    if settings.folder is not None:
        grid = cell_grid(settings, next(iter(sources.mosaics.values()))[0])
        cells = read_cells(settings.folder, grid, skip=settings.skip_unnamed)
    else:
        grid = cell_grid(settings, sources.training[0])
        image = open_image(job, sources.training, grid)
        counts = read_counts(str(settings.counts), grid, settings)
        cells = cut_cells(
            image,
            counts,
            grid,
            context=settings.context,
            labelled=True,
            absent=_absent(settings),
            outside="drop",
        )
        outside = int(counts_beyond(counts, cells["north"].values, cells["east"].values).sum())
    if settings.join > 1:
        cells = join_cells(cells, settings.join)
    cells, dropped = drop_padding(cells)
    if not cells.sizes["cell"]:
        raise InputError(
            f"all {dropped} labelled cells lack pixels at an edge or within; expected some that "
            "the mosaic covers: check the place, the grid and nodata"
        )
    how: dict[str, Any] = {"kind": settings.split, "block": settings.block, "seed": settings.seed}
    if settings.folds:
        return fold_cells(cells, settings.folds, **how), dropped, outside
    return split_cells(cells, validation=settings.validation, **how), dropped, outside


def read_counts(path: str, grid: CellGrid, settings: Cells | Truth) -> pd.DataFrame:
    """Read people by cell from a raster, a table or points, by what the file is."""
    kind = Path(path).suffix.lower()
    if kind in (".tif", ".tiff", ".vrt", ".nc"):
        return counts_from_raster(path, grid, share=settings.share)
    if kind == ".csv" or (kind in (".parquet", ".pq") and not has_geometry(path)):
        return counts_from_table(path, grid, people=settings.column)
    return counts_from_points(path, grid, weight=settings.column)


def read_truth(job: PopulationJob, paths: Sequence[str], grid: CellGrid) -> pd.DataFrame:
    """Read the known people of a mosaic's cells; those of joined cells are added up."""
    assert job.truth is not None
    join = job.cells.join
    small = CellGrid(grid.size / join, grid.crs, grid.origin)
    counts = pd.concat([read_counts(path, small, job.truth) for path in paths], ignore_index=True)
    refuse_doubles(counts, small, " and ".join(paths))
    if join == 1:
        return counts
    places = counts.assign(north=counts["north"] // join, east=counts["east"] // join)
    sums = places.groupby(["north", "east"], as_index=False)["people"].agg(["sum", "count"])
    whole = sums[(sums["count"] == join**2) | (job.truth.absent == "nobody")]
    return whole.rename(columns={"sum": "people"})[["north", "east", "people"]]


def true_cells(
    job: PopulationJob, images: xr.DataArray, paths: Sequence[str], grid: CellGrid
) -> xr.Dataset:
    """Cut the cells of a mosaic whose people are known, without those that lack pixels."""
    assert job.truth is not None
    counts = read_truth(job, paths, grid)
    cells = cut_cells(
        images,
        counts,
        grid,
        context=job.cells.context,
        labelled=True,
        absent=_absent(job.truth),
        outside="drop",
    )
    return drop_padding(cells)[0]


def _absent(settings: Cells | Truth) -> float:
    return 0.0 if settings.absent == "nobody" else np.nan
