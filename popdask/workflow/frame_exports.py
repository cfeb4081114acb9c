"""Exports of jobs that begin with frames of people: one stage, and one entry for each format.

A part of a job (its communities, its settlements) says which of its arrays are rasters, which of
its tables are files and which are layers; a format says what its files are called and writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from popdask.io import paths as files_io
from popdask.io.frames import stamps
from popdask.store.content import WORK
from popdask.workflow.exports import Exports, Illustrate, exporting, said_of, write_page
from popdask.workflow.frames import FramesJob, FramesRun, Layer
from popdask.workflow.plan import Basis, CellCost, Fingerprint, Record, Stage, StagePlan, rasters_of
from popdask.workflow.progress import Reporter

if TYPE_CHECKING:
    import geopandas as gpd


@dataclass(frozen=True)
class Part:
    """What of a job can be exported: its communities, or its settlements."""

    layer: Layer
    """What they are, of which tables are written."""
    stages: tuple[str, ...]
    """The stages that compute its rasters."""
    rasters: tuple[str, ...]
    """Arrays that are exported as rasters, beside the population."""
    cell_bytes: int
    """Bytes of a cell of those."""
    colours: Callable[[Any], Mapping[str, np.ndarray]] = lambda run: {}
    """The colours of those that are alike in all frames of a run, by name."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of its tables."""
        return (self.layer.table, *map(self.layer.stage, ("tracks", "events", "links")))


@dataclass
class Content:
    """What of a part of a run is written, read when it is asked for."""

    part: Part
    run: FramesRun

    def colours(self, time: np.datetime64) -> dict[str, np.ndarray]:
        """Choose the colours of a frame's rasters, by name."""
        from popdask.plot.style import number_colours

        rows = self._described["time"] == time  # in the order of the labels
        tracks = self._described["track"][rows].to_numpy()
        return {**self._alike, self.part.layer.array: number_colours(tracks)}

    @cached_property
    def tables(self) -> dict[str, Any]:
        """Tables by name."""
        from popdask.io import tables

        layer, table = self.part.layer, self._described
        lines = tables.track_lines(self._centres, layer.as_communities(self._events))
        if "name" in table:
            names = table.drop_duplicates("track").set_index("track")["name"]
            lines.insert(1, "name", names.reindex(lines["track"]).to_numpy())
        found = (table, lines, self._events, self.run.work.table(layer.stage("links")))
        return dict(zip(self.part.tables, found, strict=True))

    def layers(self) -> dict[str, gpd.GeoDataFrame]:
        """Give what of them has a place, as layers by name."""
        from popdask.io.tables import link_lines

        table, tracks, _, links = self.part.tables
        times, found = self.run.work.dataset()["time"].values, self.tables
        lines = link_lines(found[links], self._centres, times)
        return {table: found[table], tracks: found[tracks], links: lines}

    @cached_property
    def _alike(self) -> Mapping[str, np.ndarray]:
        return self.part.colours(self.run)

    @cached_property
    def _described(self) -> gpd.GeoDataFrame:
        from popdask.io.tables import with_tracks

        table: gpd.GeoDataFrame = self.run.work.table(self.part.layer.table)
        return table if "track" in table else with_tracks(table, self._events)

    @cached_property
    def _events(self) -> pd.DataFrame:
        return self.run.work.table(self.part.layer.stage("tracks"))

    @cached_property
    def _centres(self) -> gpd.GeoDataFrame:
        layer = self.part.layer
        return layer.as_communities(self.run.work.table(layer.stage("summary")))


Parts = Callable[[Any], Sequence[Part]]
"""Gives the parts of a job."""


def rasters(parts: Iterable[Part]) -> list[str]:
    """Name the arrays that are exported as rasters."""
    return ["population", *(name for part in parts for name in part.rasters)]


@dataclass(frozen=True)
class Written:
    """What is written so far."""

    run: FramesRun
    exports: Exports
    parts: Mapping[Part, Content]
    words: str
    illustrate: Illustrate
    frames: dict[np.datetime64, dict[str, Path]] = field(default_factory=dict)
    """The rasters of each frame, by what they show."""
    others: dict[str, Path] = field(default_factory=dict)  # files of all frames, by what they are

    @property
    def name(self) -> str:
        """The job's name, with which that of every file begins."""
        return self.run.job.name

    def add(self, kind: str, path: Path) -> None:
        """Put a file of all frames on record."""
        self.exports.add(path)
        self.others[kind] = path


@dataclass(frozen=True)
class Format:
    """A format of exports."""

    files: Callable[[Sequence[Part], Sequence[str]], list[str]]
    """What its files are called after the job's name, from the stamps of frames."""
    write: Callable[[Written], None]  # writes them, as far as they are not there


def _write_cogs(written: Written) -> None:
    """Write the rasters of each frame, and the colours of labels and codes beside them."""
    from popdask.io import export

    arrays, exports = written.run.work.dataset(), written.exports
    times = arrays["time"].values
    written.frames.update({time: {} for time in times})
    for kind in rasters(written.parts):
        paths = exports.cogs(arrays[kind], f"{written.name}_{kind}")
        for time, path in zip(times, paths, strict=True):
            written.frames[time][kind] = path
    for content in written.parts.values():
        for time in times:
            for kind, colours in content.colours(time).items():
                exports.add(export.write_colours(written.frames[time][kind], colours))


def _write_geotiffs(written: Written) -> None:
    arrays = written.run.work.dataset()
    for kind in rasters(written.parts):
        written.others[kind] = written.exports.geotiff(arrays[kind], f"{written.name}_{kind}")


def _write_zarr(written: Written) -> None:
    from popdask.io.pyramid import write_pyramid

    run, path = written.run, written.exports.folder / f"{written.name}.zarr"
    arrays = run.work.dataset()[rasters(written.parts)].assign_attrs(said_of(run.job, run.record()))
    written.add("arrays", write_pyramid(arrays, path))


def _write_geoparquet(written: Written) -> None:
    from popdask.io import tables

    for content in written.parts.values():
        for kind, table in content.tables.items():
            path = written.exports.folder / f"{written.name}_{kind}.parquet"
            written.add(kind, tables.write_geoparquet(table, path))


def _write_gpkg(written: Written) -> None:
    from popdask.io import tables

    layers: dict[str, gpd.GeoDataFrame] = {}
    for content in written.parts.values():
        layers |= content.layers()
    path = written.exports.folder / f"{written.name}.gpkg"
    written.add("layers", tables.write_gpkg(layers, path))


def _write_stac(written: Written) -> None:
    from popdask.io import export

    exports = written.exports
    exports.fetch(*(path for kinds in written.frames.values() for path in kinds.values()))
    items = export.write_catalog(
        exports.folder,
        written.name,
        written.frames,
        written.others,
        description=written.words,
        sha256=exports.sha256,
    )
    exports.add(*items)


def _write_report(written: Written) -> None:
    run, folder = written.run, written.exports.folder
    page = write_page(run.job, run.store, WORK, folder, written.illustrate, run.record())
    written.exports.add(page)


FORMATS: Mapping[str, Format] = {
    "cog": Format(
        lambda parts, stamps: [
            f"_{kind}_{stamp}.tif" for kind in rasters(parts) for stamp in stamps
        ],
        _write_cogs,
    ),
    "geotiff": Format(
        lambda parts, stamps: [f"_{kind}.tif" for kind in rasters(parts)], _write_geotiffs
    ),
    "zarr": Format(lambda parts, stamps: [".zarr"], _write_zarr),
    "geoparquet": Format(
        lambda parts, stamps: [f"_{kind}.parquet" for part in parts for kind in part.tables],
        _write_geoparquet,
    ),
    "gpkg": Format(lambda parts, stamps: [".gpkg"], _write_gpkg),
    "stac": Format(
        lambda parts, stamps: [f"_{what}.json" for what in ("collection", *stamps)], _write_stac
    ),
    "report": Format(lambda parts, stamps: ["_report.html"], _write_report),
}
"""The formats, in the order in which they are written: a catalogue lists those before it."""


def export_names(
    job: FramesJob, parts: Sequence[Part], times: Iterable[np.datetime64 | str]
) -> list[str]:
    """Name the files that a job exports, within their folder."""
    asked, found = job.output.export, stamps(times)
    formats = [one for name, one in FORMATS.items() if name in asked]
    names = [f"{job.name}{end}" for one in formats for end in one.files(parts, found)]
    return [*names, f"{job.name}_CREDITS.txt"] if asked and _owes_credit(job) else names


def _owes_credit(job: FramesJob) -> bool:
    """Return whether the places are GeoNames', which wants to be named."""
    return job.has_settlements and job.settlements.by_geonames


def _write(
    run: FramesRun, exports: Exports, parts: Sequence[Part], words: str, illustrate: Illustrate
) -> None:
    """Write what a job asks for, as far as it is not there."""
    from popdask.tracking.names import GEONAMES_CREDIT

    job = run.job
    words = words.format(job.name)
    if _owes_credit(job):
        words, place = f"{words} {GEONAMES_CREDIT}.", exports.folder / f"{job.name}_CREDITS.txt"
        exports.add(files_io.write_text(place, f"{GEONAMES_CREDIT}\n"))
    contents = {part: Content(part, run) for part in parts}
    written = Written(run, exports, contents, words, illustrate)
    for name, one in FORMATS.items():
        if name in job.output.export:
            one.write(written)


def export_stage(parts: Parts, needs: tuple[str, ...], words: str, illustrate: Illustrate) -> Stage:
    """The last stage of a job: `words` describe the catalogue of the job's name."""

    def wanted(basis: Basis, of: Fingerprint) -> Record | None:
        job, formats = basis.job, basis.job.output.export
        if not formats:
            return None
        drawn = ["population", *(stage for part in parts(job) for stage in part.stages)]
        settings = [job.name, "cog" in formats]
        frames = {
            t: of(settings, *(basis.frames(stage)[t] for stage in drawn)) for t in basis.times
        }
        rows: list[Any] = [basis.frames(part.layer.stage("tracks")) for part in parts(job)]
        rows += [job.naming] if "zarr" in formats else []  # which says it of itself
        last = of(frames, sorted(formats), rows)  # and what is about all frames
        return {"frames": {**frames, basis.times[-1]: last}, "rasters": frames}

    def compute(run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
        mine = parts(run.job)
        names = export_names(run.job, mine, run.plan.times)
        with exporting(run.work, stage, run.job, names, run.files) as exports:
            _write(run, exports, mine, words, illustrate)

    def bytes_of(job: Any) -> int:
        return 4 + sum(part.cell_bytes for part in parts(job))

    def levels(job: Any) -> int:  # each a quarter of the one before: together a third of the first
        return bytes_of(job) // 3 if "zarr" in job.output.export else 0

    cost = CellCost(
        read=lambda job: rasters_of(job) * bytes_of(job),
        written=lambda job: rasters_of(job) * bytes_of(job) + levels(job),
        held=24,
        tasks=lambda work: rasters_of(work.job) * len(rasters(parts(work.job))),
        more=lambda work: work.cells * rasters_of(work.job),
    )
    return Stage(
        "export",
        version=3,
        needs=needs,
        wanted=wanted,
        cost=cost,
        compute=compute,
        writes_files=True,
    )
