"""Estimates of the last finished run, kept where the mosaics of a job cover other cells than then.

An estimate depends on the images of its own date alone. So a date that covers more makes the arrays
larger, and leaves the estimates of the other dates as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from popdask.job import PopulationJob
from popdask.pipelines.images import cell_grid, frame_grid
from popdask.pipelines.population.sources import Sources
from popdask.store import RegionStore


def has_other_cells(stored: xr.Dataset, frame: xr.Dataset) -> bool:
    """Tell whether two grids have the same kind of cells, but not the same ones.

    Examples
    --------
    >>> from popdask.imagery.grid import CellGrid
    >>> from popdask.pipelines.images import coordinates
    >>> grid, times = CellGrid(100, "EPSG:25832"), [np.datetime64("2025-01-01", "s")]
    >>> small, large = (
    ...     coordinates(grid.geobox(range(8), range(n)), times) for n in (5, 9)
    ... )
    >>> has_other_cells(small, large), has_other_cells(small, small)
    (True, False)
    """
    ours, theirs = frame.odc.geobox, stored.odc.geobox
    alike = ours.crs == theirs.crs and ours.resolution == theirs.resolution
    return alike and (ours.shape, ours.affine) != (theirs.shape, theirs.affine)


def covers_other_cells(job: PopulationJob) -> bool:
    """Tell whether the mosaics of a job cover other cells than in its last run."""
    store = RegionStore(job.output.store)
    if not store.records():
        return False
    mosaics = Sources.of(job).mosaics
    grid = cell_grid(job.cells, next(iter(mosaics.values()))[0], job.cells.join)
    return has_other_cells(store.dataset(), frame_grid(job, mosaics, grid))


def earlier_estimates(
    store: RegionStore, frame: xr.Dataset, wanted: Mapping[str, str]
) -> dict[str, xr.Dataset]:
    """Find estimates that readers see, and that hold on a grid with other cells.

    Parameters
    ----------
    store
        The results.
    frame
        The coordinates of the run.
    wanted
        Fingerprints of the estimates, by ISO time.

    Returns
    -------
    dict of Dataset
        By ISO time, lazily and on the cells of then; none where the cells are the same.
    """
    record = store.records().get("estimate", {})
    prints = record.get("frames", {})
    known = [time for time in prints if prints[time] == wanted.get(time)]
    if not known:
        return {}
    stored = store.dataset()
    if not has_other_cells(stored, frame):
        return {}
    names = {time: sorted(record["checksums"][time]) for time in known}
    return {time: stored[names[time]].sel(time=np.datetime64(time), drop=True) for time in known}
