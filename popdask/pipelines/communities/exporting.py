"""The results of the communities job as files: rasters, tables, layers and a catalogue."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from popdask import export
from popdask.figures import CLASSES, number_colours
from popdask.pipelines.communities.reporting import illustrate
from popdask.pipelines.communities.state import CommunitiesRun
from popdask.pipelines.exports import Exports, cycled
from popdask.pipelines.page import write_page
from popdask.store import WORK
from popdask.tracking.classes import ClassModel

RASTERS = ("population", "classes", "community")

Frames = dict[np.datetime64, dict[str, Path]]


def write_exports(run: CommunitiesRun, exports: Exports) -> None:
    """Write what the job asks for, as far as it is not there.

    Parameters
    ----------
    run
        The run, of which all other stages are finished.
    exports
        Where the files go, and are put on record.
    """
    formats, name = set(run.job.output.export), run.job.name
    frames = _cogs(run, exports) if "cog" in formats else {}
    others: dict[str, Path] = {}
    if "geotiff" in formats:
        arrays = run.work.dataset()
        others |= {kind: exports.geotiff(arrays[kind], f"{name}_{kind}") for kind in RASTERS}
    if formats & {"geoparquet", "gpkg"}:
        others |= _tables(run, exports)
    if "stac" in formats:
        exports.fetch(*(path for rasters in frames.values() for path in rasters.values()))
        exports.add(
            *export.write_catalog(
                exports.folder,
                name,
                frames,
                others,
                description=f"Communities of {name}, found in gridded population data and followed "
                "through time.",
                sha256=exports.sha256,
            )
        )
    if "report" in formats:
        page = write_page(run.job, run.store, WORK, exports.folder, illustrate, run.record())
        exports.add(page)


def _cogs(run: CommunitiesRun, exports: Exports) -> Frames:
    """Write the rasters of each frame, and the colours of labels beside them."""
    arrays, tracks = run.work.dataset(), run.work.table("tracks")
    times = arrays["time"].values
    frames: Frames = {time: {} for time in times}
    for kind in RASTERS:
        paths = exports.cogs(arrays[kind], f"{run.job.name}_{kind}")
        for time, path in zip(times, paths, strict=True):
            frames[time][kind] = path
    classes = cycled(CLASSES, _class_count(run))
    for time, rasters in frames.items():
        exports.add(export.write_colours(rasters["classes"], classes))
        exports.add(export.write_colours(rasters["community"], _track_colours(tracks, time)))
    return frames


def _class_count(run: CommunitiesRun) -> int:
    names = run.models(range(len(run.plan.times)))
    models = (run.work.file(f"classifier-{name}.safetensors") for name in names)
    return max(ClassModel.from_bytes(model).k for model in models)


def _track_colours(tracks: pd.DataFrame, time: np.datetime64) -> np.ndarray:
    """The colour of each community of a frame: that of its track, as in figures."""
    now = tracks[tracks["time"] == time].drop_duplicates("community")
    numbers = np.arange(now["community"].max() + 1 if len(now) else 0)
    numbers[now["community"].to_numpy()] = now["track"].to_numpy()
    return number_colours(numbers)


def _tables(run: CommunitiesRun, exports: Exports) -> dict[str, Path]:
    """Write tables as GeoParquet, and what has a place as layers of a GeoPackage."""
    name, formats = run.job.name, run.job.output.export
    communities, events, links = map(run.work.table, ("communities", "tracks", "links"))
    assert isinstance(communities, gpd.GeoDataFrame), "it has outlines"
    described = export.with_tracks(communities, events)
    tracks, written = export.track_lines(communities, events), {}
    if "geoparquet" in formats:
        tables = {"communities": described, "tracks": tracks, "events": events, "links": links}
        for kind, table in tables.items():
            path = exports.folder / f"{name}_{kind}.parquet"
            written[kind] = export.write_geoparquet(table, path)
    if "gpkg" in formats:
        times = run.work.dataset()["time"].values
        lines = export.link_lines(links, communities, times)
        layers = {"communities": described, "tracks": tracks, "links": lines}
        written["layers"] = export.write_gpkg(layers, exports.folder / f"{name}.gpkg")
    exports.add(*written.values())
    return written
