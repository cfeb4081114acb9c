"""Motion of communities: the displacement of their centroids over the true time between frames.

Where coordinates are geographic, it is measured on the ellipsoid. Where a community comes from is a
matter of tracks (:func:`follow`) or, without them, of the people in the cells that communities of
two successive frames share.
"""

from collections.abc import Sequence

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from popdask.exact import words
from popdask.tracking.tally import (
    Table,
    heaviest,
    pair_keys,
    split_keys,
    sum_frames,
    tabulate,
)


def follow(communities: gpd.GeoDataFrame, tracks: pd.DataFrame) -> gpd.GeoDataFrame:
    """Measure velocity and heading along tracks.

    Parameters
    ----------
    communities : geopandas.GeoDataFrame
        The table of :func:`summarize`.
    tracks : pandas.DataFrame
        The tracks (time, community, track), as :func:`popdask.tracking.linking.tracks` gives them.

    Returns
    -------
    geopandas.GeoDataFrame
        A copy, in which ``velocity`` and ``heading`` speak of the community's own track; NaN in a
        track's first frame.

    Examples
    --------
    >>> place = gpd.GeoSeries([shapely.Point(0, 0), shapely.Point(0, 500)], crs=25833)
    >>> towns = gpd.GeoDataFrame({"time": [2000, 2001], "community": 0}, geometry=place)
    >>> tracks = pd.DataFrame({"time": [2000, 2001], "community": 0, "track": 0})
    >>> follow(towns.assign(centroid=place), tracks)[["velocity", "heading"]]
       velocity  heading
    0       NaN      NaN
    1       0.5      0.0
    """
    key = ["time", "community"]
    numbered = tracks[[*key, "track"]].drop_duplicates()
    track = pd.DataFrame(communities[key]).merge(numbered, "left", key, validate="one_to_one")
    track = track.assign(row=np.arange(len(track))).sort_values("time", kind="stable")
    origin = track.groupby("track")["row"].shift().sort_index().fillna(-1)
    return move(communities, origin.to_numpy(dtype=np.int64))


def shared_people(community: da.Array, people: da.Array) -> da.Array:
    """Tabulate, lazily, the people and cells that communities of successive frames share.

    Parameters
    ----------
    community : dask.array.Array of int, (time, y, x)
        Community numbers.
    people : dask.array.Array of float, (time, y, x)
        People per cell.

    Returns
    -------
    dask.array.Array of object, (time - 1,)
        For every frame but the last a :class:`~popdask.tracking.tally.Table` by pair of
        communities: two words of people (who live there before), cells.
    """
    return sum_frames(_shared_block, community[:-1], community[1:], people[:-1])


def _shared_block(before: np.ndarray, after: np.ndarray, people: np.ndarray) -> Table:
    shared = (before >= 0) & (after >= 0)
    columns = (*words(people[shared]), np.ones(np.count_nonzero(shared), dtype=np.int64))
    return tabulate(pair_keys(before[shared], after[shared]), columns)


def predecessors(communities: list[np.ndarray], shared: Sequence[Table]) -> np.ndarray:
    """Find the community of the frame before that left most people in each community.

    Parameters
    ----------
    communities : list of numpy.ndarray
        The numbers of the communities of every frame, ascending.
    shared : sequence of Table
        What every frame but the first shares with the one before, from :func:`shared_people`.

    Returns
    -------
    numpy.ndarray
        int64, for each community its predecessor's place among all of them, −1 where there is none.
    """
    first = np.cumsum([0, *(len(frame) for frame in communities)])
    found = np.full(first[-1], -1)
    for t, table in enumerate(shared):
        source, target = split_keys(table.keys)
        best = heaviest(target, source, table.reals(0), table.sums[2])
        rows = first[t + 1] + np.searchsorted(communities[t + 1], target[best])
        found[rows] = first[t] + np.searchsorted(communities[t], source[best])
    return found


def move(communities: gpd.GeoDataFrame, origin: np.ndarray) -> gpd.GeoDataFrame:
    """Fill in velocity (km per year) and heading (degrees clockwise from north).

    Parameters
    ----------
    communities : geopandas.GeoDataFrame
        With ``time`` and ``centroid``.
    origin : numpy.ndarray of int64
        For each row the row that it comes from, −1 where there is none.
    """
    rows = np.flatnonzero(origin >= 0)
    origin = origin[rows]
    x, y = shapely.get_coordinates(communities["centroid"].to_numpy()).T
    years = _years(communities["time"])
    crs = communities.crs
    if crs.is_geographic:
        azimuth, _, metres = crs.get_geod().inv(x[origin], y[origin], x[rows], y[rows])
    else:
        unit = crs.axis_info[0].unit_conversion_factor
        east, north = x[rows] - x[origin], y[rows] - y[origin]
        azimuth, metres = np.degrees(np.arctan2(east, north)), np.hypot(east, north) * unit
    velocity, heading = np.full((2, len(communities)), np.nan)
    velocity[rows] = metres / 1000 / (years[rows] - years[origin])
    heading[rows] = np.where(metres > 0, azimuth % 360, np.nan)
    return communities.assign(velocity=velocity, heading=heading)


def _years(times: pd.Series) -> np.ndarray:
    """Write times as decimal calendar years; numbers are years already."""
    if not pd.api.types.is_datetime64_dtype(times):
        return times.to_numpy(dtype=np.float64)
    begin = times.dt.to_period("Y").dt.start_time
    length = np.where(times.dt.is_leap_year, 366, 365)
    return (times.dt.year + (times - begin) / pd.Timedelta(days=1) / length).to_numpy()
