"""The mosaics of a job: which files they are, whether they changed, and how they are opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from popdask import cube
from popdask.cube.frames import frame_time
from popdask.errors import InputError
from popdask.imagery.grid import CellGrid, crs_text
from popdask.imagery.mosaic import open_mosaic
from popdask.imagery.mosaic.sheets import open_sheet
from popdask.job import PopulationJob, ScenesJob
from popdask.job.images import Grid, Input
from popdask.pipelines.provenance import file_fingerprint, without_secrets

ANY_TIME = np.datetime64("2000-01-01", "s")
Times = Mapping[np.datetime64, tuple[str, ...]]
ImageJob = PopulationJob | ScenesJob


def by_time(patterns: str | tuple[str, ...], settings: Input) -> Times:
    """The files of each time, in the order of their patterns."""
    found: dict[np.datetime64, tuple[str, ...]] = {}
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        if "{" in pattern:
            times = cube.find_frames(pattern, settings.start, settings.end)
            parts: dict[np.datetime64, tuple[str, ...]] = {t: (path,) for t, path in times.items()}
        else:
            time = ANY_TIME if settings.time is None else frame_time(settings.time)
            parts = {time: files_of(pattern)}
        for time, paths in parts.items():
            found[time] = found.get(time, ()) + paths
    return {time: found[time] for time in sorted(found)}


def files_of(patterns: str | tuple[str, ...]) -> tuple[str, ...]:
    """The files of one mosaic."""
    found: list[str] = []
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        if "{" in pattern:
            raise InputError(f"{pattern!r} has a time in it: expected the files of one mosaic.")
        names = [pattern]
        if "*" in pattern and "://" not in pattern:
            found_here = Path(pattern).parent.glob(Path(pattern).name)
            names = sorted(map(str, found_here))
        if not names:
            raise InputError(f"the pattern {pattern!r} finds no file; correct it")
        found += names
    return tuple(found)


def _parts(place: Path) -> dict[str, Path] | None:
    """The files of a folder, or those of a shapefile, by name; None for a single file."""
    if place.is_dir():
        inside = sorted(part for part in place.rglob("*") if part.is_file())
        return {str(part.relative_to(place)): part for part in inside}
    if place.suffix.lower() == ".shp" and place.is_file():  # its numbers are in another one
        beside = sorted(part for part in place.parent.iterdir() if part.stem == place.stem)
        return {part.name: part for part in beside if part.is_file()}
    return None


def version_of(path: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The version of a file, or of a folder or shapefile by names, sizes and times of its parts."""
    parts = None if "://" in path else _parts(Path(path))
    if parts is None:
        return file_fingerprint(path, known.get(path, {}))
    told = [(name, part.stat().st_size, part.stat().st_mtime_ns) for name, part in parts.items()]
    digest = hashlib.sha256(repr(told).encode()).hexdigest()
    return {"path": path, "size": sum(size for _, size, _ in told), "mtime": None, "sha256": digest}


def checksums(files: Mapping[str, Mapping[str, Any]], paths: Iterable[str]) -> list[str]:
    """What tells the versions of some files apart, in their order."""
    return [cube.frame_version(files[without_secrets(path)]) for path in paths]


def iso(time: np.datetime64) -> str:
    """Write a time as the store does."""
    return str(time.astype("datetime64[s]"))


def cell_grid(cells: Grid, path: str, join: int = 1) -> CellGrid:
    """The grid of the cells, joined; its CRS is that of an image where it is not given."""
    if cells.grid is not None:
        grid = CellGrid.preset(cells.grid)
    else:
        grid = CellGrid(cells.size, cells.crs or crs_text(open_sheet(path).grid.crs))
    return grid.joined(join) if join > 1 else grid


def open_image(job: ImageJob, paths: Sequence[str], grid: CellGrid) -> xr.DataArray:
    """Open the files of one mosaic as one image of whole cells, lazily."""
    return open_mosaic(
        paths,
        grid=grid,
        resolution=job.cells.resolution,
        align=job.input.align,
        nodata=job.input.nodata,
    )


def frame_grid(job: ImageJob, mosaics: Times, grid: CellGrid) -> xr.Dataset:
    """The coordinates of the results: the times of the mosaics, and the cells of all of them."""
    extents = [
        grid.covering(tuple(open_image(job, paths, grid).odc.geobox.boundingbox))
        for paths in mosaics.values()
    ]
    norths, easts = (
        range(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*extents, strict=True)
    )
    return coordinates(grid.geobox(norths, easts), list(mosaics))


def coordinates(geobox: GeoBox, times: Sequence[np.datetime64]) -> xr.Dataset:
    """A Dataset without variables, on a grid and times."""
    coords = {str(name): value for name, value in xr_coords(geobox, dims=("y", "x")).items()}
    stamps = np.array(times, "datetime64[ns]")
    return xr.Dataset(coords={"time": stamps, **coords})
