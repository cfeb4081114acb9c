"""Communities described: people, area, outline, place and motion; and that nobody gets lost.

What a community is, is a sum over its cells (:mod:`popdask.blocks.sums`): of people, of areas, of
rows and columns (the centroid is the unweighted mean of the cells' centres), of flows. The trick is
that nothing but these sums leaves a chunk, as whole numbers: the table is identical under any
chunking, and the cells are read once.

Outlines are of whole cells. Each chunk outlines its own, and the pieces of a community are joined
in integer coordinates, where no rounding can part two neighbours. Only pieces that reach the border
of their chunk have something to be joined with. The corners that chunk borders leave behind lie on
straight edges and are taken out, so that outlines, too, are identical under any chunking.

Velocity is the displacement of the centroid over the true time between two frames, measured on the
ellipsoid where coordinates are geographic. Where a community comes from is a matter of tracks
(:func:`follow`) or, without them, of the people in the cells that communities of two successive
frames share.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from threading import Lock
from typing import Any, NamedTuple

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import rasterio.features
import rioxarray  # noqa: F401  registers DataArray.rio
import shapely
import xarray as xr
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from popdask.blocks.sums import (
    LabelSums,
    add_up,
    argmax_by_group,
    first_cells,
    frames_of,
    people_by_pair,
    split_keys,
    sum_frames,
    tabulate,
    to_fixed,
)
from popdask.io.conventions import check_population, decimal_years
from popdask.io.frames import year_text
from popdask.io.grids import grid_of, has_parallel_rows, pixel_area_km2
from popdask.validate import check_flow, check_labels

_ALONE = Lock()


class Pieces(NamedTuple):
    """Polygons of (column, row), each of one community."""

    numbers: np.ndarray
    """The community of each, int64."""
    polygons: np.ndarray
    border: np.ndarray
    """Whether it reaches the border of its chunk, bool."""


def outline_block(labels: np.ndarray, corner: tuple[int, int]) -> Pieces:
    """Outline the communities of a block (1, y, x) that begins at (row, column)."""
    top, left = corner
    labels = labels[0].astype(np.int32)
    shapes = []
    for rows, columns in _windows(labels):
        part = labels[rows, columns]
        place = Affine.translation(left + columns.start, top + rows.start)
        with _ALONE:
            # rasterio silences this for each call, process-wide; threads that leave such a block of
            # their own undo that, unless it is silenced for good
            warnings.filterwarnings("ignore", "", NotGeoreferencedWarning, r"rasterio\.features")
            shapes += rasterio.features.shapes(part, part >= 0, 4, transform=place)
    numbers = np.array([number for _, number in shapes], dtype=np.int64)
    polygons = _polygons([outline["coordinates"] for outline, _ in shapes])
    bottom, right = top + labels.shape[0], left + labels.shape[1]
    border = (shapely.bounds(polygons) == (left, top, right, bottom)).any(axis=1)
    # rings that touch themselves at a corner are taken apart
    bent = np.flatnonzero(~border & ~shapely.is_valid(polygons))
    polygons[bent] = [shapely.union_all(polygons[i : i + 1]) for i in bent]
    return Pieces(numbers, polygons, border)


def _windows(labels: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Cut a block along its empty rows, then columns: most of a country is empty."""
    inside = labels >= 0
    for rows in _filled(inside.any(axis=1)):
        yield from ((rows, columns) for columns in _filled(inside[rows].any(axis=0)))


def _filled(marked: Any) -> list[slice]:
    """The runs of marked places along an axis."""
    ends = np.flatnonzero(np.diff(marked, prepend=False, append=False)).tolist()
    return [slice(*run) for run in zip(ends[::2], ends[1::2], strict=True)]


def _polygons(outlines: list[list[list[tuple[float, float]]]]) -> np.ndarray:
    """Make polygons of the corners of their rings."""
    rings = list(chain.from_iterable(outlines))
    corners = np.array(list(chain.from_iterable(rings)), dtype=np.float64).reshape(-1, 2)
    of_rings, of_polygons = (
        np.cumsum([0, *map(len, parts)], dtype=np.int64) for parts in (rings, outlines)
    )
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, corners, (of_rings, of_polygons))


def join_outlines(blocks: Iterable[Pieces]) -> np.ndarray:
    """Join the pieces of each community, in the order of their numbers."""
    numbers, polygons, border = map(np.concatenate, zip(*blocks, strict=True))
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    _, *groups = np.split(order, starts)
    outlines = np.array([_joined(polygons[group], border[group]) for group in groups], dtype=object)
    # normal form begins each ring at a true corner, so that no needless one is kept
    cornered = shapely.simplify(shapely.normalize(outlines), 0, preserve_topology=False)
    return shapely.normalize(cornered)


def _joined(polygons: np.ndarray, border: np.ndarray) -> shapely.Geometry:
    """Join the pieces of one community."""
    if border.any():
        polygons = np.append(polygons[~border], shapely.union_all(polygons[border]))
    parts = shapely.get_parts(polygons)
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts)


def follow(communities: gpd.GeoDataFrame, tracks: pd.DataFrame) -> gpd.GeoDataFrame:
    """Measure velocity and heading along tracks; NaN in a track's first frame."""
    key = ["time", "community"]
    numbered = tracks[[*key, "track"]].drop_duplicates()
    track = pd.DataFrame(communities[key]).merge(numbered, "left", key, validate="one_to_one")
    track = track.assign(row=np.arange(len(track))).sort_values("time", kind="stable")
    origin = track.groupby("track")["row"].shift().sort_index().fillna(-1)
    return move(communities, origin.to_numpy(dtype=np.int64))


def predecessors(communities: list[np.ndarray], shared: Sequence[LabelSums]) -> np.ndarray:
    """Find who left most people in each community: its place among all, −1 where there is none."""
    first = np.cumsum([0, *(len(frame) for frame in communities)])
    found = np.full(first[-1], -1)
    for t, table in enumerate(shared):
        source, target = split_keys(table.keys)
        best = argmax_by_group(target, source, table.reals(1), table.sums[0])
        rows = first[t + 1] + np.searchsorted(communities[t + 1], target[best])
        found[rows] = first[t] + np.searchsorted(communities[t], source[best])
    return found


def move(communities: gpd.GeoDataFrame, origin: np.ndarray) -> gpd.GeoDataFrame:
    """Fill in velocity (km per year) and heading (degrees clockwise from north)."""
    rows = np.flatnonzero(origin >= 0)
    origin = origin[rows]
    x, y = shapely.get_coordinates(communities["centroid"].to_numpy()).T
    years = decimal_years(communities["time"])
    crs = communities.crs
    parallel = has_parallel_rows(crs)
    if parallel:
        x, y = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    if crs.is_geographic or parallel:
        azimuth, _, metres = crs.get_geod().inv(x[origin], y[origin], x[rows], y[rows])
    else:
        unit = crs.axis_info[0].unit_conversion_factor
        east, north = x[rows] - x[origin], y[rows] - y[origin]
        azimuth, metres = np.degrees(np.arctan2(east, north)), np.hypot(east, north) * unit
    velocity, heading = np.full((2, len(communities)), np.nan)
    velocity[rows] = metres / 1000 / (years[rows] - years[origin])
    heading[rows] = np.where(metres > 0, azimuth % 360, np.nan)
    return communities.assign(velocity=velocity, heading=heading)


def yearly_growth(tracks: pd.DataFrame, times: Iterable[Any]) -> pd.Series:
    """Give growth in per cent per year, like for like, by time and community."""
    rows = tracks[tracks["event"] != "vanish"].drop_duplicates(["time", "community"])
    frames = pd.Series(list(times))
    here = pd.Index(frames).get_indexer(pd.Index(rows["time"]))
    before = here - 1 - rows["gap"].to_numpy()
    years = decimal_years(frames)
    with np.errstate(divide="ignore", invalid="ignore"):
        span = np.where(before >= 0, years[here] - years[before], np.nan)
        rate = 100 * ((1 + rows["growth"].to_numpy(dtype=float)) ** (1 / span) - 1)
    return pd.Series(rate, pd.MultiIndex.from_frame(rows[["time", "community"]]), name="growth")


def total_growth(tracks: pd.DataFrame) -> pd.Series:
    """Give growth since the first frame of the track in per cent: the product of all its steps."""
    key = ["time", "community"]
    rows = tracks[tracks["event"] != "vanish"].drop_duplicates(key)
    rows = rows.sort_values(["track", "time"], kind="stable")
    steps = 1 + rows["growth"].astype(float).fillna(0.0)
    steps[~rows["track"].duplicated()] = 1.0  # before that its people were of no track
    total = 100 * (steps.groupby(rows["track"]).cumprod() - 1)
    return pd.Series(total.to_numpy(), pd.MultiIndex.from_frame(rows[key]), name="growth_total")


def with_rates(
    table: gpd.GeoDataFrame, tracks: pd.DataFrame, times: Iterable[Any]
) -> gpd.GeoDataFrame:
    """Add to communities their density, their growth, and where on the globe they lie."""
    key = pd.MultiIndex.from_frame(pd.DataFrame(table[["time", "community"]]))
    centres = gpd.GeoSeries(table["centroid"], crs=table.crs)
    globe = None if table.crs is None else centres.to_crs("EPSG:4326")
    return table.assign(
        density=table["population"] / table["area_km2"],
        growth=yearly_growth(tracks, times).reindex(key).to_numpy(),
        growth_total=total_growth(tracks).reindex(key).to_numpy(),
        lon=np.nan if globe is None else globe.x,
        lat=np.nan if globe is None else globe.y,
    )


#: What is doubted: a community with more than this part of all cells and fewer people per km² than
#: this, fewer tracks than this part that live through, people that differ by more than this part
#: from the frames around.
VAST, SPARSE, FEW, JUMP = 0.1, 100, 0.5, 0.05

_OUTSIDE, _RASTER, _MISSING = -1, -2, -3  # keys beside those of communities


def summarize(
    community: xr.DataArray,
    population: xr.DataArray,
    flow: xr.Dataset | None = None,
    *,
    tracks: pd.DataFrame | None = None,
) -> gpd.GeoDataFrame:
    """Describe every community of every frame.

    Eager: one pass over the cells, one call of :func:`dask.compute`.

    Parameters
    ----------
    community : DataArray of int, (time, y, x)
        Community numbers ≥ 0, negative where there is none.
    population : DataArray of float, (time, y, x)
        People per cell, NaN = no data, with CRS and transform.
    flow : Dataset, optional
        ``u`` and ``v`` (time, y, x), cells per frame, to be averaged over each community.
    tracks : pandas.DataFrame, optional
        The tracks (time, community, track) that velocities follow. Without them, a community is
        thought to come from the one of the frame before that left most people in shared cells.

    Returns
    -------
    geopandas.GeoDataFrame
        One row per community, ordered by time and community: ``time``; ``community`` (int64);
        ``population`` (people); ``cells`` (int64); ``area_km2``; ``centroid`` (Point, the mean of
        the cells' centres); ``velocity`` (km per year) and ``heading`` (degrees clockwise from
        north), both NaN where there is no community before, heading also where it stood still;
        ``mean_u``, ``mean_v`` where ``flow`` is given; ``geometry`` (Polygon or MultiPolygon).
        Both geometries are in the CRS of the grid.

    Raises
    ------
    InputError
        If the arrays do not share frames and grid, or the grid has no CRS.

    Notes
    -----
    Numbers of years as times are taken for years. A year is a calendar year, so that frames of
    1 January 2000 and 2005 are 5 years apart.

    Examples
    --------
    >>> import popdask.tracking.describe as summary
    >>> grid = {"time": pd.to_datetime(["2000", "2001"]), "y": [750.0, 250.0]}
    >>> grid["x"] = [250.0, 750.0, 1250.0]
    >>> labels = [[[0, 0, -1], [0, 0, -1]], [[-1, 0, 0], [-1, 0, 0]]]
    >>> community = xr.DataArray(labels, grid, ("time", "y", "x")).rio.write_crs(25833)
    >>> table = summary.summarize(community, xr.full_like(community, 10.0, float))
    >>> table[["population", "cells", "area_km2", "velocity", "heading"]]
       population  cells  area_km2  velocity  heading
    0        40.0      4       1.0       NaN      NaN
    1        40.0      4       1.0       0.5     90.0
    """
    check_labels("community", community)
    population = check_population("population", population)
    if flow is not None:
        check_flow(flow)
    values = [population] if flow is None else [population, flow["u"], flow["v"]]
    times, (labels, *arrays) = frames_of(community, *values)
    grid = population if population.rio.crs is not None else community
    sums = sum_frames(
        sum_block, labels, *arrays, add=join, finish=outlined, **block_options(grid, labels)
    )
    if tracks is not None:
        return follow(described(times, sums.compute(), grid), tracks)
    shared = sum_frames(people_by_pair, labels[:-1], labels[1:], arrays[0][:-1])
    parts, pairs = dask.compute(sums, shared)
    origin = predecessors([table.keys for table, _ in parts], pairs)
    return move(described(times, parts, grid), origin)


def block_options(grid: xr.DataArray, labels: da.Array) -> dict[str, Any]:
    """What :func:`sum_block` must know of the whole grid."""
    return {"area": pixel_area_km2(grid), "first": first_cells(labels.chunks)}


def described(times: Iterable[Any], parts: Sequence[Any], grid: xr.DataArray) -> gpd.GeoDataFrame:
    """Make a table of what :func:`outlined` gives of each frame, without motion."""
    frames = [
        _describe(time, table, outlines, grid_of(grid).transform)
        for time, (table, outlines) in zip(times, parts, strict=True)
    ]
    communities = gpd.GeoDataFrame(
        pd.concat(frames, ignore_index=True), geometry="geometry", crs=grid.rio.crs
    )
    communities["centroid"] = gpd.GeoSeries(communities["centroid"], crs=grid.rio.crs)
    return communities


class LostPeopleError(RuntimeError):
    """People of the raster are neither in a community nor outside all of them."""


def people_balance(community: xr.DataArray, population: xr.DataArray) -> pd.DataFrame:
    """Count the people of every frame inside and outside its communities, and in the raster.

    Parameters
    ----------
    community : DataArray of int, (time, y, x)
        Community numbers ≥ 0, negative where there is none.
    population : DataArray of float, (time, y, x)
        People per cell, NaN = no data.

    Returns
    -------
    pandas.DataFrame
        One row per frame: ``time``; ``inside`` and ``outside`` (people, from the exact table of the
        communities); ``total`` (their sum); ``raster`` (people, summed exactly without looking at
        the communities); ``difference`` (total − raster, relative to the raster); ``missing`` (the
        share of cells that have no data).

    Raises
    ------
    InputError
        If the arrays do not share frames and grid.

    Examples
    --------
    >>> community = xr.DataArray([[[0, 0, -1]]], dims=("time", "y", "x"))
    >>> population = xr.DataArray([[[1.0, 2.0, 4.0]]], dims=("time", "y", "x"))
    >>> people_balance(community, population)
       time  inside  outside  total  raster  difference  missing
    0     0     3.0      4.0    7.0     7.0         0.0      0.0
    """
    check_labels("community", community)
    population = check_population("population", population)
    times, (labels, people) = frames_of(community, population)
    tables = sum_frames(count_block, labels, people).compute()
    return balanced(times, tables, labels.shape[1] * labels.shape[2])


def balanced(times: np.ndarray, tables: Sequence[LabelSums], cells: int) -> pd.DataFrame:
    """Make a table of what :func:`count_block` gives of each frame, of so many cells."""
    raster = np.array([table.reals(0)[table.keys == _RASTER].sum() for table in tables])
    inside = np.array([table.reals(0)[table.keys >= 0].sum() for table in tables])
    outside = np.array([table.reals(0)[table.keys == _OUTSIDE].sum() for table in tables])
    missing = np.array([table.sums[2][table.keys == _MISSING].sum() for table in tables])
    total = inside + outside
    scale = np.where(raster == 0, 1.0, np.abs(raster))
    return pd.DataFrame(
        {
            "time": times,
            "inside": inside,
            "outside": outside,
            "total": total,
            "raster": raster,
            "difference": (total - raster) / scale,
            "missing": missing / max(cells, 1),
        }
    )


def data_gaps(balance: pd.DataFrame) -> list[str]:
    """Name the frames that lack data where other frames have some."""
    least = balance["missing"].min()
    lacking = balance[balance["missing"] > least]
    frames = [year_text(time) for time in lacking["time"]]
    parts = [
        f" in {100 * share:.3g} % of its cells, {100 * least:.3g} % in the one with most"
        if share < 1
        else ""
        for share in lacking["missing"]
    ]
    return [f"{frame} has no data{part}" for frame, part in zip(frames, parts, strict=True)]


def turnover(tracks: pd.DataFrame, changes: pd.DataFrame, times: np.ndarray, many: str) -> str:
    """Say how many (of what `many` names) `changes` has between the first frame and the last."""
    parts = []
    for verb in ("came", "went"):
        ways = changes[changes["verb"] == verb].groupby("how", sort=False).size()
        said = ", ".join(f"{some:,} {way}" for way, some in ways.items())
        parts.append(f"{ways.sum():,} {verb}" + (f" ({said})" if said else ""))
    counts = [
        f"{tracks['track'][tracks['time'] == time].nunique():,} in {year_text(time)}"
        for time in times[[0, -1]]
    ]
    return f"{many.capitalize()}: {', '.join(counts)}; {', '.join(parts)}"


def comings_and_goings(tracks: pd.DataFrame, times: np.ndarray) -> pd.DataFrame:
    """List the tracks that came after the first frame or went before the last: when and how."""
    first, last = times[[0, -1]]
    span = tracks.groupby("track")["time"].agg(["min", "max"])
    led = tracks.explode("parent").dropna(subset="parent").astype({"parent": np.int64})
    led = led[led["track"] != led["parent"]]
    led = led.join(span["min"], on="track").join(span["max"], on="parent")
    out = led[led["time"] == led["min"]].groupby("track")["parent"].agg(set)
    into = led[led["time"] > led["max"]].groupby("parent")["track"].agg(set)
    event = tracks.groupby("event")["track"].agg(set)
    came = _ways(
        "came",
        span["min"][span["min"] > first],
        ("appeared", dict.fromkeys(event.get("appear", ()), ())),
        ("out of others", out),
        silently="formed",  # where people lived before, or where data lacked
    )
    alone = span.index[span["max"] == times[-2:][0]]
    went = _ways(
        "went",
        span["max"][span["max"] < last],
        ("vanished", dict.fromkeys(event.get("vanish", ()), ())),
        ("into others", into),
        # What may still come back has not vanished.
        (f"missing in {year_text(last)} alone", dict.fromkeys(alone, ())),
        silently="no longer seen",  # it is in others, or, with more memory, may come back, too
    )
    return pd.DataFrame([*came, *went], columns=["verb", "track", "time", "how", "others"])


def _ways(verb: str, when: pd.Series, *ways: tuple[str, Any], silently: str) -> list[Any]:
    """Say of tracks by the first way that is known of each how they began or ended, and whom by."""
    rows, left = [], set(when.index)
    for how, known in (*ways, (silently, dict.fromkeys(when.index, ()))):
        here = sorted(left & set(known.keys()))
        rows += [(verb, track, when[track], how, sorted(known[track])) for track in here]
        left -= set(here)
    return rows


def doubts(communities: pd.DataFrame, tracks: pd.DataFrame, balance: pd.DataFrame) -> list[str]:
    """Say what should be looked at: vast communities, few tracks that live, frames that jump."""
    frames = [year_text(time) for time in balance["time"]]
    found = []
    last = communities[communities["time"] == balance["time"].iloc[-1]]
    for largest in last.sort_values("cells").tail(1).itertuples():
        share, density = largest.cells / last["cells"].sum(), largest.population / largest.area_km2
        if share > VAST and density < SPARSE:
            found.append(
                f"the largest community of {frames[-1]} has {100 * share:.0f} % of the cells of "
                f"all, and {density:.0f} people per km²: it is the land between places; raise "
                "[communities] min_density to leave it out"
            )
    alive = [
        set(tracks[(tracks["time"] == time) & (tracks["event"] != "vanish")]["track"])
        for time in balance["time"].iloc[[0, -1]]
    ]
    both = len(alive[0] & alive[1])
    if alive[0] and both < FEW * len(alive[0]):
        found.append(
            f"{both} of the {len(alive[0])} track{'s' if len(alive[0]) > 1 else ''} of {frames[0]} "
            f"live to {frames[-1]}: look at how the frames lie, and at what they count"
        )
    for frame, change in _jumps(balance):
        beside = {0: "after", len(frames) - 1: "before"}.get(frame, "around")
        found.append(
            f"the people of {frames[frame]} are {100 * abs(change):.0f} % "
            f"{'more' if change > 0 else 'fewer'} than the frames {beside} it suggest: look at its "
            "coverage"
        )
    return found


def _jumps(balance: pd.DataFrame) -> Iterator[tuple[int, float]]:
    """Frames whose people are not what the others suggest, and by which part of them."""
    years, count = decimal_years(balance["time"]), len(balance)
    people = np.log(np.maximum(balance["raster"].to_numpy(dtype=float), 1))
    if count < 3:
        return
    later = (years[1:-1] - years[:-2]) / (years[2:] - years[:-2])
    # How the people of each frame in the middle differ from even growth between its neighbours.
    bends = np.zeros((count - 2, count))
    for row, part in enumerate(later):
        bends[row, row : row + 3] = part - 1, 1, -part
    rest, ends = bends @ people, (0, count - 1) if count == 3 else ()
    for _ in range(count):  # one frame after the other that explains most of what is left
        explained = (bends.T @ rest) / np.linalg.norm(bends, axis=0)
        explained[list(ends)] = 0
        frame = int(np.abs(explained).argmax())
        jump = explained[frame] / np.linalg.norm(bends[:, frame])
        if abs(np.expm1(jump * np.abs(bends[:, frame]).max())) <= JUMP:
            return
        yield frame, float(np.expm1(jump))
        rest = rest - bends[:, frame] * jump


def check_balance(balance: pd.DataFrame, *, tolerance: float = 1e-9) -> None:
    """Check that the people in and outside of communities are those of the raster."""
    lost = balance[~(balance["difference"].abs() <= tolerance)]
    for frame in lost.itertuples():
        raise LostPeopleError(
            f"{frame.time}: {frame.total!r} people in and outside the communities, but "
            f"{frame.raster!r} in the raster; the labels are not those of this population"
        )


class _Part(NamedTuple):
    """What a block, or some of them, tell of the communities in them."""

    table: LabelSums
    outlines: list[Pieces]


def sum_block(
    labels: np.ndarray,
    people: np.ndarray,
    *flow: np.ndarray,
    area: np.ndarray,
    first: Sequence[np.ndarray],
    block_id: tuple[int, int, int],
) -> _Part:
    """Tabulate a block (1, y, x) by community: cells, people, area, rows, columns and flow."""
    inside = labels >= 0
    top, left = (int(first[axis][block_id[axis]]) for axis in (1, 2))
    _, rows, columns = np.nonzero(inside)
    rows, columns = rows + top, columns + left

    def sums() -> Iterator[np.ndarray]:
        yield np.ones(rows.size, dtype=np.int64)
        yield from to_fixed(people[inside])
        yield from to_fixed(area[rows])
        yield rows
        yield columns
        for component in flow:
            yield from to_fixed(component[inside])

    table = tabulate(labels[inside].astype(np.int64), sums())
    return _Part(table, [outline_block(labels, (top, left))])


def join(parts: list[_Part]) -> _Part:
    """Add up what blocks tell."""
    tables, outlines = zip(*parts, strict=True)
    return _Part(add_up(list(tables)), [pieces for part in outlines for pieces in part])


def outlined(part: _Part) -> tuple[LabelSums, np.ndarray]:
    """A frame's table, and the outlines of its communities in the order of their numbers."""
    return part.table, join_outlines(part.outlines)


def count_block(labels: np.ndarray, people: np.ndarray) -> LabelSums:
    """Tabulate the people of a block by community, and all of them; and cells without data."""
    unknown = np.isnan(people)
    lived_in = (people != 0) & ~unknown
    weights = to_fixed(people[lived_in])
    columns = [*weights, np.zeros_like(weights[0])]
    here = tabulate(np.maximum(labels[lived_in].astype(np.int64), _OUTSIDE), columns)
    every = tabulate(np.full(weights[0].size, _RASTER), columns)
    nothing, cells = np.zeros(1, np.int64), np.array([np.count_nonzero(unknown)])
    return add_up([here, every, tabulate(nothing + _MISSING, [nothing, nothing, cells])])


def _describe(time: Any, table: LabelSums, outlines: np.ndarray, transform: Affine) -> pd.DataFrame:
    """Turn the sums of a frame into columns with units."""
    cells, rows, columns = table.sums[0], table.sums[5], table.sums[6]
    described = {
        "time": np.full(len(cells), time),
        "community": table.keys,
        "population": table.reals(1),
        "cells": cells,
        "area_km2": table.reals(3),
        "centroid": shapely.points(*(transform @ (columns / cells + 0.5, rows / cells + 0.5))),
        "velocity": np.nan,
        "heading": np.nan,
    }
    if len(table.sums) > 7:
        described |= {"mean_u": table.reals(7) / cells, "mean_v": table.reals(9) / cells}
    described["geometry"] = shapely.transform(
        outlines, lambda points: np.column_stack(transform @ (points[:, 0], points[:, 1]))
    )
    return pd.DataFrame(described)
