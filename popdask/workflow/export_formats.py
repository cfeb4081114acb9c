"""The formats of exports, an entry for each, and what jobs of any kind have to write in them.

A kind of job says by a `Content` which of its arrays are rasters and which of its tables are files
or layers; a format says what its files are called, and writes them. A catalogue lists what was
written before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popdask.config.settings import Job
from popdask.io.frames import stamps
from popdask.io.paths import write_text
from popdask.store.content import WORK
from popdask.store.repository import RegionStore
from popdask.workflow.exports import Exports, exporting
from popdask.workflow.inputs import credits_of
from popdask.workflow.plan import StagePlan
from popdask.workflow.progress import Reporter

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from popdask.report.page import Picture


#: Draws the pictures of a job, from its store and a branch of it.
Illustrate = Callable[[Any, RegionStore, str], Iterable["Picture"]]


@dataclass(frozen=True)
class Content:
    """What a job exports: names from its settings, and the rest of a run, read when asked for."""

    job: Any
    run: Any  # as the arrays, none where only names are asked for
    arrays: Any
    """Those of the run, with its rasters."""
    rasters: list[str]
    """Arrays that are exported."""
    tables: Sequence[str]
    """Tables that are exported, if the run has them."""
    read: Callable[[], Iterable[tuple[str, pd.DataFrame]]]
    """Reads those that it has, by name."""
    illustrate: Illustrate
    words: str = ""
    """Describe the catalogue of the job's name."""
    credit: str = ""
    """Whose work is to be named beside the files."""
    colours: Callable[[str, Any], np.ndarray | None] = lambda raster, time: None
    """Chooses the colours of the values of a raster at a time; none of amounts."""
    layers: Callable[[], Mapping[str, gpd.GeoDataFrame]] = dict
    """Gives what has a place, by name."""
    cube: Callable[[], xr.Dataset] | None = None
    """Gives the arrays of a pyramid, if they are not the rasters."""
    finest: Sequence[str] = ()
    """Those of them that have no coarser levels."""
    lists_all: bool = True
    """Whether a catalogue lists all files; else rasters and tables, these without checksums."""


#: Says what a job exports, and with a run also what that is.
Contents = Callable[..., Content]


@dataclass(frozen=True)
class Format:
    """A format of exports."""

    files: Callable[[Content, Sequence[str]], list[str]]
    """What its files are called after the job's name, from how those of each frame end."""
    write: Callable[[Content, Exports], None]
    """Writes them, as far as they are not there."""
    cells: bool = False
    """Whether they hold every cell of the rasters."""


def _write_cogs(content: Content, exports: Exports) -> None:
    """Write the rasters of each frame, and the colours of labels and codes beside them."""
    from popdask.io.export import write_colours

    for kind in content.rasters:
        array = content.arrays[kind]
        times = array["time"].values if "time" in array.dims else [None]
        for time, path in zip(times, exports.cogs(array, kind), strict=True):
            colours = content.colours(kind, time)
            if colours is not None:
                exports.add(write_colours(path, colours))


def _write_geotiffs(content: Content, exports: Exports) -> None:
    for kind in content.rasters:
        exports.geotiff(content.arrays[kind], kind)


def _write_zarr(content: Content, exports: Exports) -> None:
    from popdask.io.pyramid import write_pyramid

    arrays = content.cube() if content.cube else content.arrays[content.rasters]
    arrays = arrays.assign_attrs(_said_of(content.job, content.run.record()))
    exports.add(write_pyramid(arrays, exports.path(".zarr"), finest=content.finest), "arrays")


def _write_geoparquet(content: Content, exports: Exports) -> None:
    from popdask.io.tables import write_geoparquet

    for kind, table in content.read():
        exports.add(write_geoparquet(table, exports.path(f"_{kind}.parquet")), kind)


def _write_gpkg(content: Content, exports: Exports) -> None:
    from popdask.io.tables import write_gpkg

    exports.add(write_gpkg(content.layers(), exports.path(".gpkg")), "layers")


def _write_stac(content: Content, exports: Exports) -> None:
    from popdask.io.export import write_catalog

    name, arrays = content.job.name, content.arrays
    frames: dict[Any, dict[str, Path]] = {time: {} for time in arrays["time"].values}
    for kind in content.rasters:
        for rasters, path in zip(frames.values(), exports.fetched(arrays[kind], kind), strict=True):
            rasters[kind] = path
    others, sha256 = exports.listed, exports.sha256
    if not content.lists_all:
        others = {kind: path for kind, path in others.items() if kind in content.tables}
        sha256 = {path: one for path, one in sha256.items() if path not in others.values()}
    words = content.words.format(name) + (f" {content.credit}." if content.credit else "")
    for path in write_catalog(
        exports.folder, name, frames, others, description=words, sha256=sha256
    ):
        exports.add(path)


def _write_report(content: Content, exports: Exports) -> None:
    run = content.run
    exports.add(write_page(content, run.store, WORK, exports.folder, run.record()))


FORMATS: Mapping[str, Format] = {
    "cog": Format(
        lambda its, ends: [f"_{kind}{end}.tif" for kind in its.rasters for end in ends],
        _write_cogs,
        cells=True,
    ),
    "geotiff": Format(
        lambda its, ends: [f"_{kind}.tif" for kind in its.rasters], _write_geotiffs, cells=True
    ),
    "zarr": Format(lambda its, ends: [".zarr"], _write_zarr, cells=True),
    "geoparquet": Format(
        lambda its, ends: [f"_{kind}.parquet" for kind in its.tables], _write_geoparquet
    ),
    "gpkg": Format(lambda its, ends: [".gpkg"], _write_gpkg),
    "stac": Format(
        lambda its, ends: [f"{end}.json" for end in ("_collection", *ends)], _write_stac
    ),
    "report": Format(lambda its, ends: ["_report.html"], _write_report),
}
"""The formats, in the order in which they are written."""


def rasters_of(job: Any) -> int:
    """How often every cell is written to rasters, but for coarser levels."""
    return sum(one.cells for name, one in FORMATS.items() if name in job.output.export)


def export_names(
    content: Content, times: Iterable[np.datetime64 | str], formats: Collection[str] = FORMATS
) -> list[str]:
    """Name the files that a job exports in some formats, within their folder, by its frames."""
    ends = [f"_{stamp}" for stamp in stamps(times)] or [""]
    names = [end for one in _asked(content, formats) for end in one.files(content, ends)]
    names += ["_CREDITS.txt"] if names and content.credit else []
    return [f"{content.job.name}{end}" for end in names]


def write_exports(
    contents: Contents, formats: Collection[str], run: Any, stage: StagePlan, reporter: Reporter
) -> None:
    """Write what a job asks for in some formats, as far as it is not there, and commit it."""
    content = contents(run.job, run)
    with exporting(run, stage, export_names(content, run.plan.times, formats)) as exports:
        if content.credit:
            exports.add(write_text(exports.path("_CREDITS.txt"), f"{content.credit}\n"))
        for one in _asked(content, formats):
            one.write(content, exports)


def _asked(content: Content, formats: Collection[str]) -> list[Format]:
    asked = content.job.output.export
    return [one for name, one in FORMATS.items() if name in asked and name in formats]


def _said_of(job: Job, record: Mapping[str, Any]) -> dict[str, str]:
    """Say what exported arrays are, by CF: nothing of when, so that files stay the same."""
    software = f"popdask {record['versions']['popdask']}"
    said = {
        "title": job.title or job.name,
        "institution": job.institution,
        "source": software,
        "history": f"written by {software}",
        "license": "\n".join(credits_of(record)),
    }
    return {key: text for key, text in said.items() if text}


def write_page(
    content: Content, region: RegionStore, branch: str, folder: Path, record: Mapping[str, Any]
) -> Path:
    """Write the report of the results on a branch into a folder."""
    from popdask.report.page import write_report  # which loads Bokeh and matplotlib

    return write_report(
        region,
        folder / f"{content.job.name}_report.html",
        pictures=content.illustrate(content.job, region, branch),
        credits=credits_of(record),
        branch=branch,
        record=record,
    )
