"""What a run reads and puts on record, without secrets.

Inputs are files, mosaics, and bands of files of their own (buildings, elevation, night lights) that
come behind those of a mosaic. Credits are what is on record beside the files that a run has read,
or in them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from popdask.config.jobs import PopulationJob, ScenesJob
from popdask.config.settings import Band, Grid, Input, Job
from popdask.errors import InputError
from popdask.io import frames, rasters
from popdask.io.frames import beyond_texts, frame_time, year_text
from popdask.io.paths import file_of, without_secrets
from popdask.io.rasters import open_raster, size_and_time, unchanged_sources
from popdask.workflow.progress import current_client, current_workers

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from popdask.blocks.sums import LabelSums
    from popdask.imagery.grid import CellGrid

_log = logging.getLogger(__name__)

#: What the numbers of a result may depend on.
LIBRARIES = (
    "popdask",
    "dask",
    "distributed",
    "icechunk",
    "numba",
    "numpy",
    "pandas",
    "rasterio",
    "scikit-learn",
    "scipy",
    "shapely",
    "torch",
    "xarray",
    "zarr",
)

#: GDAL's notes beside a raster; any program that opens the raster may add to them.
NOTES = ".aux.xml"
ANY_TIME = np.datetime64("2000-01-01", "s")
Times = Mapping[np.datetime64, tuple[str, ...]]
ImageJob = PopulationJob | ScenesJob
#: Tags of a raster that say who made it.
TAGS = ("attribution", "credit", "source", "copyright", "tifftag_copyright", "license", "licence")
SQUARE, LEAST = 256, 25  # cells along a square; and of one, that make a place that can be missed
Sides = tuple[NDArray, NDArray]


def file_fingerprints(
    frames: Mapping[np.datetime64, str], known: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the version of each frame's file."""
    times = {iso(time): path for time, path in frames.items()}
    return {time: file_fingerprint(path, known.get(time, {})) for time, path in times.items()}


def file_fingerprint(path: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the version of a file: ``path`` (without secrets), ``size``, ``mtime``, ``sha256``."""
    file = file_of(path)
    if known and known.get("path") == path and Path(file).exists():
        same = (known["size"], known["mtime"]) == size_and_time(file)
        if same and unchanged_sources(known, path):
            return dict(known)
    return {"path": without_secrets(path), **rasters.frame_fingerprint(path)}


def run_record(
    job: Job, files: Mapping[str, Mapping[str, Any]], seeds: Mapping[str, int], **further: Any
) -> dict[str, Any]:
    """Record what a run was made from and with."""
    return {
        "name": job.name,
        "settings": _clean(job.model_dump(mode="json")),
        "seeds": dict(seeds),
        "inputs": dict(files),
        "credits": credits_of({"inputs": files}),
        "versions": versions(),
        "machine": _machine(),
        **further,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the numbers may depend on."""
    return {"python": platform.python_version()} | {
        name: package_version(name) for name in LIBRARIES
    }


def _clean(value: Any) -> Any:
    """The same settings, without secrets in their URLs."""
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    return without_secrets(value) if isinstance(value, str) else value


def _machine() -> dict[str, Any]:
    """The host of the run, and what its workers are."""
    host = {"host": socket.gethostname(), "system": platform.platform(), "cores": os.cpu_count()}
    if current_client() is None:
        return host
    workers = current_workers()
    return host | {"workers": len(workers), "threads": sum(w["nthreads"] for w in workers)}


@cache
def package_version(name: str) -> str:
    """Return the version of an installed package; "unknown" where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"


def by_time(patterns: str | tuple[str, ...], settings: Input) -> Times:
    """The files of each time, in the order of their patterns."""
    found: dict[np.datetime64, tuple[str, ...]] = {}
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        if "{" in pattern:
            times = frames.find_frames(pattern, settings.start, settings.end)
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
    """The version of a file, or of a folder or shapefile by the names and contents of its parts."""
    parts = None if "://" in path else _parts(Path(path))
    if parts is None:
        return file_fingerprint(path, known.get(path, {}))
    sizes = {name: size_and_time(str(part)) for name, part in parts.items()}
    # Parts are read again only where a name, a size or a time is another than that on record.
    listing = hashlib.sha256(repr(sizes).encode()).hexdigest()
    then = known.get(path, {})
    if then.get("listing") == listing:
        return dict(then)
    sums = [(name, file_sum(part)) for name, part in parts.items()]
    sha256 = hashlib.sha256(repr(sums).encode()).hexdigest()
    size = sum(size for size, _ in sizes.values())
    return {"path": path, "size": size, "mtime": None, "sha256": sha256, "listing": listing}


def file_sum(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file; of a folder, of all files in it; nothing of GDAL's notes."""
    if path.name.endswith(NOTES):
        return {}
    if path.is_dir():
        return sum_of_parts({part: file_sum(path / part) for part in files_in(path)})
    with path.open("rb") as file:
        return sum_of(file)


def files_in(folder: Path) -> list[str]:
    """List the files below a folder, by their paths within it."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def sum_of(file: Any) -> dict[str, Any]:
    """Size and SHA-256 of an open file."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": file.tell(), "sha256": digest}


def sum_of_parts(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Size and SHA-256 of many files, by the sums of each."""
    lines = "".join(f"{name} {written['sha256']}\n" for name, written in sorted(parts.items()))
    size = sum(written["size"] for written in parts.values())
    return {"size": size, "sha256": hashlib.sha256(lines.encode()).hexdigest()}


def checksums(files: Mapping[str, Mapping[str, Any]], paths: Iterable[str]) -> list[str]:
    """What tells the versions of some files apart, in their order."""
    return [rasters.frame_version(files[without_secrets(path)]) for path in paths]


def iso(time: np.datetime64) -> str:
    """Write a time as the store does."""
    return str(time.astype("datetime64[s]"))


def cell_grid(cells: Grid, path: str, join: int = 1) -> CellGrid:
    """The grid of the cells, joined; its CRS is that of an image where it is not given."""
    from popdask.imagery.grid import CellGrid, crs_text
    from popdask.imagery.mosaic import open_sheet

    if cells.grid is not None:
        grid = CellGrid.preset(cells.grid)
    else:
        grid = CellGrid(cells.size, cells.crs or crs_text(open_sheet(path).grid.crs))
    return grid.joined(join) if join > 1 else grid


def open_image(job: ImageJob, paths: Sequence[str], grid: CellGrid) -> xr.DataArray:
    """Open the files of one mosaic as one image of whole cells, lazily."""
    from popdask.imagery.mosaic import open_mosaic

    image = open_mosaic(
        paths,
        grid=grid,
        resolution=job.cells.resolution,
        align=job.input.align,
        nodata=job.input.nodata,
    )
    bands = job.input.bands if isinstance(job, PopulationJob) else ()
    return with_bands(image, bands, grid) if bands else image


def pixels_along(image: xr.DataArray, grid: CellGrid) -> int:
    """Count the pixels along a side of a cell."""
    return round(grid.size / abs(float(image["x"][1] - image["x"][0])))


def frame_grid(job: ImageJob, mosaics: Times, grid: CellGrid) -> xr.Dataset:
    """The coordinates of the results: the times of the mosaics, and the cells of all of them."""
    from popdask.io.grids import grid_of

    extents = [
        grid.covering(tuple(grid_of(open_image(job, paths, grid)).boundingbox))
        for paths in mosaics.values()
    ]
    norths, easts = (
        range(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*extents, strict=True)
    )
    return coordinates(grid.geobox(norths, easts), list(mosaics))


def coordinates(geobox: GeoBox, times: Sequence[np.datetime64]) -> xr.Dataset:
    """A Dataset without variables, on a grid and times."""
    import xarray as xr
    from odc.geo.xr import xr_coords

    coords = {str(name): value for name, value in xr_coords(geobox, dims=("y", "x")).items()}
    stamps = np.array(times, "datetime64[ns]")
    return xr.Dataset(coords={"time": stamps, **coords})


def with_bands(image: xr.DataArray, bands: Sequence[Band], grid: CellGrid) -> xr.DataArray:
    """Put bands behind those of an image, on its pixels; all become float32, lazily."""
    import dask.array as da
    import xarray as xr

    pixel = abs(float(image["x"][1] - image["x"][0]))
    white = np.iinfo(image.dtype).max if image.dtype.kind in "ui" else 1
    parts = [da.asarray(image.data).astype(np.float32) / np.float32(white)]
    parts += [_layer(image, band, grid, pixel) for band in bands]
    data = da.concatenate(parts).rechunk({0: -1})
    names = np.arange(1, len(data) + 1)
    found = xr.DataArray(
        data,
        dims=("band", "y", "x"),
        coords={**image.drop_vars("band").coords, "band": names},
        attrs=image.attrs,
        name=image.name,
    )
    nodata = image.attrs.get("nodata", 0)
    return found.assign_attrs(nodata=float(np.float32(nodata) / np.float32(white)))


def _layer(image: xr.DataArray, band: Band, grid: CellGrid, pixel: float) -> da.Array:
    """One band (1, y, x) on the pixels of the image, without gaps."""
    import dask.array as da

    from popdask.imagery.mosaic import open_mosaic

    layer = open_mosaic(
        band.path, grid=grid, resolution=pixel, align=True, resampling=band.resampling
    )
    if layer.sizes["band"] != 1:
        raise InputError(
            f"{band.path}, the band {band.name!r}, has {layer.sizes['band']} bands; expected one: "
            "take it out into a file of its own"
        )
    known = layer.where(layer["valid"]).fillna(0).astype(np.float32)
    with warnings.catch_warnings():  # xarray masks one axis after the other, each in its chunks
        warnings.simplefilter("ignore", da.PerformanceWarning)
        laid = known.reindex(y=image["y"], x=image["x"], method="nearest", tolerance=pixel / 10)
    meets = (
        np.isin(np.round(layer[axis] / pixel, 1), np.round(image[axis] / pixel, 1)).any()
        for axis in ("y", "x")
    )
    if not all(meets):
        raise InputError(
            f"{band.path}, the band {band.name!r}, meets no pixel of the image; expected a raster "
            "of the same place: check its CRS and extent"
        )
    values = da.nan_to_num(da.asarray(laid.data)).rechunk((1, *da.asarray(image.data).chunks[1:]))
    return da.log1p(da.maximum(values, 0)) if band.normalisation == "log" else values


def credits_of(record: Mapping[str, Any]) -> list[str]:
    """List the credits of a run's input files, each once."""
    paths = [Path(file_of(str(file.get("path", "")))) for file in record.get("inputs", {}).values()]
    return list(dict.fromkeys(credit for path in paths if path.is_file() for credit in _of(path)))


def _of(path: Path) -> list[str]:
    """Whom to credit for one file; which is not known of what is damaged or another's."""
    from rasterio.errors import RasterioError

    try:
        return _fetched(path) or _tagged(path)
    except (RasterioError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        # A report is not to end with what lies beside its inputs.
        _log.warning("whom to credit for %s cannot be told (%s)", path, type(error).__name__)
        return []


def _fetched(path: Path) -> list[str]:
    """Whom the record of `popdask fetch` beside a file credits, if it is one and lists it."""
    from popdask.datasets.frames import (
        MANIFEST,
        Credit,  # fetching imports much that reading does not need
    )

    manifest = path.with_name(MANIFEST)
    if not manifest.exists():
        return []
    manifest_content = json.loads(manifest.read_text(encoding="utf-8"))
    files = manifest_content.get("files") if isinstance(manifest_content, dict) else None
    entry = files.get(path.name) if isinstance(files, dict) else None
    if not isinstance(entry, dict) or "credit" not in entry:
        return []  # a file of that name which is somebody else's
    return [str(Credit(**manifest_content["credits"][entry["credit"]]))]


def _tagged(path: Path) -> list[str]:
    """Whom the tags of a raster credit."""
    if path.suffix.lower() not in (".tif", ".tiff", ".vrt"):
        return []
    with open_raster(str(path)) as file:
        tags = {name.lower(): text.strip() for name, text in file.tags().items()}
    return [tags[name] for name in TAGS if tags.get(name)]


def beyond_notes(beyond: Mapping[str, Any]) -> Iterator[str]:
    """Say of each frame, as on record, how many people lay beyond the grid it was brought onto."""
    rows = [(time, each["raster"], each["beyond"]) for time, each in sorted(beyond.items())]
    yield from beyond_texts(pd.DataFrame(rows, columns=["time", "raster", "beyond"]))


def count_squares(people: np.ndarray, corner: tuple[int, int]) -> LabelSums:
    """Tabulate a block (1, y, x) by square of the grid: cells that people live in, and people."""
    from popdask.blocks.sums import pair_keys, tabulate, to_fixed

    inhabited = people > 0
    _, rows, columns = np.nonzero(inhabited)
    keys = pair_keys((rows + corner[0]) // SQUARE, (columns + corner[1]) // SQUARE)
    return tabulate(keys, [np.ones(keys.size, np.int64), *to_fixed(people[inhabited])])


def squares_table(times: Iterable[Any], sums: Iterable[LabelSums]) -> pd.DataFrame:
    """Lay out what :func:`count_squares` gives of each frame."""
    from popdask.blocks.sums import split_keys

    parts = []
    for time, table in zip(times, sums, strict=True):
        row, column = split_keys(table.keys)
        cells, people = table.sums[0], table.reals(1)
        columns = {"row": row, "column": column, "cells": cells, "people": people}
        parts.append(pd.DataFrame({"time": np.full(len(row), time), **columns}))
    return pd.concat(parts, ignore_index=True)


def coverage_notes(squares: pd.DataFrame, times: Iterable[Any], grid: GeoBox) -> Iterator[str]:
    """Say of frames in which parts of the raster nobody lives, though many do in another frame."""
    from pyproj import Transformer

    key = ["row", "column"]
    fullest = squares.sort_values("cells", kind="stable").drop_duplicates(key, keep="last")
    fullest = fullest[fullest["cells"] >= LEAST].set_index(key)
    for time in times:
        here = squares[squares["time"] == time].set_index(key)
        gone = fullest[~fullest.index.isin(here.index)]
        if here.empty or gone.empty:  # of a frame without anybody, others say enough
            continue
        most = gone.reset_index().sort_values("people", kind="stable").iloc[-1]
        middle = ((most[each] + 0.5) * SQUARE for each in reversed(key))
        globe = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
        lon, lat = globe.transform(*(grid.transform * tuple(middle)))
        when, then = map(year_text, (time, most["time"]))
        yield (
            f"in {when} nobody lives in {len(gone)} square{'s' if len(gone) > 1 else ''} of "
            f"{SQUARE} × {SQUARE} cells where {gone['people'].sum():,.0f} people do in other "
            f"years, as around {abs(lat):.1f}° {'N' if lat >= 0 else 'S'}, "
            f"{abs(lon):.1f}° {'E' if lon >= 0 else 'W'} in {then}: look at its coverage"
        )


def seam_notes(
    labels: xr.DataArray, reach: float, what: str, classes: xr.DataArray | None = None
) -> Iterator[str]:
    """Say which groups are two because a global raster is cut there, frame by frame."""
    from popdask.io.grids import goes_around, grid_of

    # Labels are found on the plane, of which the first and last column may be neighbours on Earth.
    if not goes_around(grid_of(labels)):
        return
    wide = max(1, int(reach))
    sides = [slice(0, wide), slice(-wide, None)]
    for time in labels["time"].values:
        west, east = (labels.sel(time=time).isel(x=side).values for side in sides)
        kinds = [np.zeros_like(west), np.zeros_like(east)]
        if classes is not None:
            kinds = [classes.sel(time=time).isel(x=side).values for side in sides]
        if count := len(_meeting((west, east), (kinds[0], kinds[1]), reach)):
            yield (
                f"{count:,} {what} of {str(time)[:10]} go on at the other side of the raster's "
                "seam, where its columns come round, and are counted as two each; move the seam "
                "to where nobody lives, such as 169° W (gdalwarp --config CENTER_LONG 11 -te -169 "
                "-90 191 90), if they are to be one"
            )


def _meeting(labels: Sides, kinds: Sides, reach: float) -> set[tuple[int, int]]:
    """Pairs of labels of the first and the last columns with cells of a kind within reach."""
    (west, east), (of_west, of_east) = labels, kinds
    found: set[tuple[int, int]] = set()
    for i, j in np.ndindex(west.shape[1], east.shape[1]):
        apart = i + 1 + j  # the last column lies beside the first
        if apart > reach:
            continue
        most = min(int((reach**2 - apart**2) ** 0.5), len(west) - 1)
        for down in range(-most, most + 1):
            here = slice(max(down, 0), len(west) + min(down, 0))
            there = slice(max(-down, 0), len(west) + min(-down, 0))
            a, b = west[here, i], east[there, -1 - j]
            same = (a >= 0) & (b >= 0) & (of_west[here, i] == of_east[there, -1 - j])
            found |= set(zip(a[same].tolist(), b[same].tolist(), strict=True))
    return {(a, b) for a, b in found if a != b}
