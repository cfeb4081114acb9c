"""The stages of the settlements job: what each of them reads, computes and stores.

population → degree of urbanisation, settlements → summary → links → tracks → export

Labels are drawn on the cells of the raster, although they are found on cells of 1 km: all that is
stored lies on one grid. A settlement has for links, tracks and lines the part of a community.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from popdask.config.jobs import SettlementsJob
from popdask.io import cube, tables
from popdask.io import paths as files_io
from popdask.io.rasters import open_raster
from popdask.plot import maps, style
from popdask.plot.style import number_colours
from popdask.report.page import Picture
from popdask.store.content import table_bytes
from popdask.store.repository import RegionStore
from popdask.store.transaction import frame_runs
from popdask.tracking import describe
from popdask.tracking import tracks as linking
from popdask.tracking.events import EventRules
from popdask.tracking.lattice import from_1km, to_1km
from popdask.tracking.link import compare_frames
from popdask.tracking.names import GEONAMES_CREDIT, name_settlements, read_places
from popdask.tracking.settlements import settlement_kinds, settlements
from popdask.tracking.urbanisation import degree_of_urbanisation
from popdask.workflow.checks import beyond_notes
from popdask.workflow.exports import Exports, exported, exporting
from popdask.workflow.frame_stages import (
    FramesRun,
    people_left_out,
    with_left_out,
    with_work,
    write_formats,
)
from popdask.workflow.inputs import run_record
from popdask.workflow.plan import StagePlan
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import own_store, owner_record
from popdask.workflow.settlements_files import RASTERS, export_names

LONGLAT = "EPSG:4326"
AT_ONCE = 6  # frames that are compared with those before them

#: Colours of the Degree of Urbanisation, those of GHS-SMOD.
CODE_COLOURS = {
    30: "#ff0000",
    23: "#732600",
    22: "#a87000",
    21: "#ffff00",
    13: "#375623",
    12: "#abcd66",
    11: "#cdf57a",
    10: "#7ab6f5",
}


@dataclass(frozen=True)
class SettlementStages(FramesRun):
    """The stages of one run, ready to be computed; the arrays are lazy, as they are stored."""

    job: SettlementsJob

    def compute(self, stage: StagePlan, reporter: Reporter) -> None:
        """Compute what is stale of one stage, and commit it."""
        COMPUTE[stage.name](self, with_work(stage))
        if stage.name == "population":
            for text in beyond_notes(self.records()):
                reporter.note(text)

    def record(self) -> dict[str, Any]:
        """Put down what the finished run was made from and with."""
        balance, exports = self.balance_rows(), exported(self.records())
        return run_record(self.job, self.files, {}, balance=balance, exports=exports)


def check_inputs(job: SettlementsJob, population: xr.DataArray) -> None:
    """Refuse frames that are too coarse, land on another grid, and names that cannot be read."""
    _codes(job, population[:1])
    _settlements(job, population[:1], None)
    _places(job)


def _codes(job: SettlementsJob, population: xr.DataArray) -> xr.DataArray:
    """The Degree of Urbanisation of cells of 1 km, drawn on those of the population."""
    land, built = (_coarse(_surface(job, name, population)) for name in ("land", "built"))
    codes = degree_of_urbanisation(to_1km(population), land=land, built=built)
    return from_1km(codes, population)


def _settlements(
    job: SettlementsJob, population: xr.DataArray, first: xr.DataArray | None
) -> xr.DataArray:
    rules, land = job.settlements, _surface(job, "land", population)
    options = rules.model_dump(include={"density", "min_people", "hold"})
    return settlements(population, land=land, first=first, **options)


def _coarse(surface: xr.DataArray | None) -> xr.DataArray | None:
    """Land or built-up area of cells of 1 km: shares are averaged, areas added up."""
    if surface is None:
        return None
    share = surface.attrs["units"] != "m2"
    return to_1km(surface, mean=share).assign_attrs(surface.attrs)


def _surface(job: SettlementsJob, name: str, population: xr.DataArray) -> xr.DataArray | None:
    """Land or built-up area on the grid of the population, with its units; None without a file."""
    place = getattr(job.settlements, name)
    if place is None:
        return None
    with open_raster(place) as file:
        tags = {key.lower(): text for key, text in (*file.tags().items(), *file.tags(1).items())}
        said = file.units[0] or tags.get("units", "")
    frame = cube.open_frames([place], times=["2000"], chunks=job.input.chunks)
    surface = frame["population"][0]
    units = {"share": "1", "m2": "m2", None: said}[job.settlements.units]
    metres = units.strip().lower() in {"m2", "m²", "m^2", "m**2"}
    return surface.drop_vars("time").rename(name).assign_attrs(units="m2" if metres else units)


def _places(job: SettlementsJob) -> gpd.GeoDataFrame:
    """The places that settlements are called after; none where the job names no file of them."""
    names = job.settlements.names
    if names is None:
        return gpd.GeoDataFrame({"name": []}, geometry=[], crs=LONGLAT)
    return read_places(names, column=job.settlements.column)


def _ingest(run: SettlementStages, stage: StagePlan) -> None:
    record = {**stage.record, "files": dict(run.files), **owner_record(run.job)}
    if run.job.input.align:
        record["beyond"] = people_left_out(run, stage)
    run.work.write_frames(stage.name, run.source[["population"]], stage.stale, record)


def _degurba(run: SettlementStages, stage: StagePlan) -> None:
    codes = _codes(run.job, run.population).to_dataset(name="degurba")
    run.work.write_frames(stage.name, codes, stage.stale, stage.record)


def _labels(run: SettlementStages, stage: StagePlan) -> None:
    begin = min(stage.stale) if run.job.settlements.hold else 0  # held: as the frame before, stored
    stored = run.work.dataset()["settlement"][:begin] if begin else None
    first = None if stored is None else stored[-1].drop_vars("time")
    labels = _settlements(run.job, run.population.isel(time=slice(begin, None)), first)
    if stored is not None:
        labels = xr.concat([stored, labels], "time", coords="minimal", compat="override")
    arrays = labels.to_dataset(name="settlement")
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


def _summary(run: SettlementStages, stage: StagePlan) -> None:
    labels, population, codes = run.frames(stage.stale, "settlement", "population", "degurba")
    balance = describe.people_balance(labels, population)
    describe.check_balance(balance)
    nothing = np.zeros(0, dtype=np.int64)  # where settlements come from is told by their tracks
    unknown = pd.DataFrame(
        {"time": labels["time"].values[:0], "community": nothing, "track": nothing}
    )
    table = describe.summarize(labels, population, tracks=unknown)
    kinds = settlement_kinds(labels, population, codes)  # in the same order
    table = _as_settlements(table.drop(columns=["velocity", "heading"]))
    table.insert(2, "kind", kinds["kind"].to_numpy())
    fresh = {"settlement_summary": table, "balance": with_left_out(run, balance)}
    run.work.write_files(stage.name, run.merged(stage, fresh), stage.record)


def _links(run: SettlementStages, stage: StagePlan) -> None:
    job, arrays, parts = run.job, run.work.dataset(), []
    memory = job.tracks.memory
    options: dict[str, Any] = {"share": job.links.share, "error": job.input.error}
    for first, last in _batches(stage.stale):
        frames = arrays.isel(time=slice(max(first - memory - 1, 0), last + 1))
        labels, population = frames["settlement"], frames["population"]
        found = compare_frames(labels, population, rule="overlap", memory=memory, **options)
        targets = arrays["time"].values[first : last + 1]
        parts.append([table[table["next"].isin(targets)] for table in found])
    links, ends = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    fresh = {"settlement_links": links, "settlement_ends": _as_settlements(ends)}
    run.work.write_files(stage.name, run.merged(stage, fresh, by="next"), stage.record)


def _batches(frames: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of frames, as (first, last), of a few each: what is compared at once is held at once."""
    for first, last in frame_runs(frames):
        for start in range(first, last + 1, AT_ONCE):
            yield start, min(start + AT_ONCE - 1, last)


def _tracks(run: SettlementStages, stage: StagePlan) -> None:
    described = _as_communities(run.work.table("settlement_summary"))
    links, ends = (run.work.table(f"settlement_{name}") for name in ("links", "ends"))
    settings = run.job.tracks.model_dump()
    memory = settings.pop("memory")
    tracks = linking.tracks(
        links,
        described,
        rules=EventRules(**settings, min_people=run.job.settlements.min_people),
        ends=_as_communities(ends),
        memory=memory,
        times=[np.datetime64(time) for time in run.plan.times],
    )
    table = _described(run, described, tracks)
    files = {
        "settlement_tracks.parquet": table_bytes(_as_settlements(tracks)),
        "settlements.parquet": table_bytes(table),
    }
    run.work.write_files(stage.name, files, stage.record)


def _described(
    run: SettlementStages, described: gpd.GeoDataFrame, tracks: pd.DataFrame
) -> gpd.GeoDataFrame:
    """The table of settlements: with track, name, density, growth and place."""
    table = tables.with_tracks(described, tracks)
    named = name_settlements(table, _places(run.job))["name"]
    growth = describe.yearly_growth(tracks, run.work.dataset()["time"].values)
    key = pd.MultiIndex.from_frame(pd.DataFrame(table[["time", "community"]]))
    place = gpd.GeoSeries(table["centroid"], crs=table.crs).to_crs(LONGLAT)
    table = table.assign(
        name=named,
        density=table["population"] / table["area_km2"],
        growth=growth.reindex(key).to_numpy(),
        lon=place.x,
        lat=place.y,
    )
    told = ["population", "cells", "area_km2", "density", "growth", "lon", "lat", "geometry"]
    return _as_settlements(table[["time", "community", "track", "name", "kind", *told]])


def _as_communities(table: Any) -> Any:
    return table.rename(columns={"settlement": "community"})


def _as_settlements(table: Any) -> Any:
    return table.rename(columns={"community": "settlement"})


def _export(run: SettlementStages, stage: StagePlan) -> None:
    names = export_names(run.job, run.plan.times)
    with exporting(run.work, stage, run.job, names, run.files) as exports:
        _write_exports(run, exports)


def _write_exports(run: SettlementStages, exports: Exports) -> None:
    """Write what the job asks for, as far as it is not there."""
    name, settlements_table = run.job.name, cache(lambda: run.work.table("settlements"))
    codes = np.zeros((max(CODE_COLOURS) + 1, 3))
    for code, colour in CODE_COLOURS.items():
        codes[code] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]

    def colours(time: np.datetime64) -> dict[str, np.ndarray]:
        table = settlements_table()  # in the order of settlements
        tracks = table["track"][table["time"] == time].to_numpy()
        return {"degurba": codes, "settlement": number_colours(tracks)}

    words = "Settlements of {}, found in gridded population data and followed through time."
    if run.job.settlements.by_geonames:
        text = files_io.write_text(exports.folder / f"{name}_CREDITS.txt", GEONAMES_CREDIT + "\n")
        exports.add(text)
        words = f"{words} {GEONAMES_CREDIT}."
    write_formats(run, exports, RASTERS, colours, _tables, words, illustrate)


def _tables(run: SettlementStages, exports: Exports) -> dict[str, Path]:
    """Write tables as GeoParquet, and what has a place as layers of a GeoPackage."""
    name, formats = run.job.name, run.job.output.export
    described = run.work.table("settlements")
    centres = _as_communities(run.work.table("settlement_summary"))
    events, links = (run.work.table(f"settlement_{kind}") for kind in ("tracks", "links"))
    names = described.drop_duplicates("track").set_index("track")["name"]
    tracks = tables.track_lines(centres, _as_communities(events))
    tracks.insert(1, "name", names.reindex(tracks["track"]).to_numpy())
    written = {}
    if "geoparquet" in formats:
        kinds = {"settlements": described, "settlement_tracks": tracks}
        kinds |= {"settlement_events": events, "settlement_links": links}
        for kind, table in kinds.items():
            path = exports.folder / f"{name}_{kind}.parquet"
            written[kind] = tables.write_geoparquet(table, path)
    if "gpkg" in formats:
        lines = tables.link_lines(links, centres, run.work.dataset()["time"].values)
        layers = {"settlements": described, "tracks": tracks, "links": lines}
        written["layers"] = tables.write_gpkg(layers, exports.folder / f"{name}.gpkg")
    exports.add(*written.values())
    return written


COMPUTE: Mapping[str, Callable[[SettlementStages, StagePlan], None]] = {
    "population": _ingest,
    "degurba": _degurba,
    "settlements": _labels,
    "summary": _summary,
    "links": _links,
    "tracks": _tracks,
    "export": _export,
}


def draw(job: SettlementsJob, reporter: Reporter | None = None) -> list[Path]:
    """Draw the settlements of a job's last finished run, and how people have changed."""
    region = own_store(job)
    found, tracks = region.dataset(), region.table("settlement_tracks")
    first, last = found.isel(time=0), found.isel(time=-1)
    folder = job.export_folder / "figures"
    with (reporter or Reporter()).stage("figures", "to do"):
        labels, people = last["settlement"], last["population"]
        title = f"settlements {style.year(labels['time'].values)}"
        tracks = _as_communities(tracks)
        drawn = {"settlements": maps.map_figure(labels, people, tracks=tracks, title=title)}
        if found.sizes["time"] > 1:
            drawn["change"] = maps.change_figure(first["population"], people)
        return [
            style.save_figure(figure, folder / f"{job.name}_{name}.png", dpi=150)
            for name, figure in drawn.items()
        ]


def illustrate(job: SettlementsJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw the change since the first frame."""
    found = region.dataset(branch)
    first, last = found.isel(time=0), found.isel(time=-1)
    if found.sizes["time"] > 1:
        yield Picture(
            "Change since the first frame",
            "Where there are more people than in the first frame, and where fewer.",
            maps.change_figure(first["population"], last["population"]),
        )
