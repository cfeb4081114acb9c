"""Settlements, held through time, and which are cities, towns and villages.

Settlements are connected cells of 1 km, those of rural and urban clusters in the Degree of
Urbanisation (GHSL Data Package 2023, JRC): 300 people per km² of land or more, touching at edges or
corners, 500 people together.

People are counts, and a count of N is uncertain by √N. A cell whose density is near the threshold
would come and go for no reason, and a settlement with it. So a cell leaves a settlement only where
it has 4 √D people fewer than the threshold D, and enters where it has 4 √D more; and a settlement
dies where it has lost half of the least people M that it takes to be listed. After the first frame
it takes 3 √M more: else every draw would add some, and none would go.

The trick is that the labels of a frame are all that the next needs to know, so that a frame can be
appended: what is held are the cells of settlements that are listed, not those of smaller places.

A city holds an urban centre. A town has 5,000 people, or holds a dense or semi-dense urban cluster.
The rest are villages. Codes are those of cells of 1 km, settlements may be drawn on finer ones.
Clusters near their least size come and go, so a kind is held along a track, as settlements are.
"""

from __future__ import annotations

from itertools import pairwise
from operator import itemgetter
from typing import Any

import dask
import dask.array as da
import numba
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from popdask.blocks.components import (
    Parts,
    Runs,
    corners_of,
    describe_parts,
    join_parts,
    label_block,
    paint,
    sum_people,
)
from popdask.blocks.sums import (
    LabelSums,
    frames_of,
    from_fixed,
    people_by_label,
    sum_frames,
    tabulate,
)
from popdask.errors import InputError
from popdask.io.conventions import check_population
from popdask.io.cube import aligned, repeat_cells, sum_cells
from popdask.io.grids import grid_of, steps_of
from popdask.tracking.urban_rules import check_codes
from popdask.tracking.urbanisation import cell_areas, share_of_cell
from popdask.validate import check_array, check_labels

TOWN_PEOPLE = 5000.0  # of a town, whatever its cells
_SIGMAS = 4.0  # how far a count must lie from the threshold to be beyond it
_BIRTH = 3.0  # by how many standard deviations of it a new one exceeds what it takes to be listed
_DEATH = 0.5  # share of the people that it takes to be listed, below which one dies
_CENTRE, _CLUSTERS = 30, (23, 22)
_KINDS = {"village": 0.0, "town": TOWN_PEOPLE, "city": 50_000.0}  # with the people of each


def settlements(
    population: xr.DataArray,
    *,
    land: xr.DataArray | None = None,
    density: float = 300,
    min_people: float = 500,
    contiguity: int = 8,
    hold: bool = True,
    first: xr.DataArray | None = None,
) -> xr.DataArray:
    """Find the settlements of every frame.

    Parameters
    ----------
    population : DataArray, (time, y, x) or (y, x)
        People per cell, NaN = no data, with CRS and transform. Cells finer than 1 km are summed to
        the largest whole multiple of them that is 1 km at most, counted from the raster's first
        cell; in degrees the raster's own cells are taken, by their true area.
    land : DataArray, (y, x) or (time, y, x), optional
        Permanent land of the cells: shares of the cell, or m² where the attribute ``units`` says
        "m2". Without it every cell is land.
    density : float, optional
        People per km² of land from which a cell belongs to a settlement.
    min_people : float, optional
        People of a settlement.
    contiguity : {4, 8}, optional
        Neighbours of a cell: those across its edges, or across its corners, too.
    hold : bool, optional
        Whether settlements are held from frame to frame (see Notes). Otherwise each frame is found
        by itself.
    first : DataArray of int, (y, x), optional
        The settlements of the frame before the first, where frames are appended and held.

    Returns
    -------
    DataArray of int32, (time, y, x) or (y, x)
        0, 1, … in every frame, by the first cell of each settlement, row-major; -1 for none. Lazy,
        in the chunks of `population`.

    Raises
    ------
    InputError
        If the dimensions are others, cells are larger than 5 km, there is no CRS, land lies on
        another grid, a setting is out of range, or `first` is not on the grid; when computed, where
        a share of land is above 1 or a number of people impossible.

    Notes
    -----
    With D = density · km² of land of a cell, the first frame takes cells of D people or more. Later
    a cell that lay in a settlement stays while it has D - 4 √D or more, and another enters with
    D + 4 √D. A cell without people is in no settlement. One without data is not empty: it stays
    where it was, and its settlement is not given up for it; a cell of 1 km has data where any part
    of it has. Connected cells are listed from `min_people` on in the first frame, and later from
    3 √`min_people` more; where one of them lay in a settlement of the frame before, while they have
    half of `min_people`. So their number is late where all places grow or decline slowly. What had
    no data in the frame before was in no settlement of it, and has to be as clear as what is new.

    Where cells hold few people at the threshold, as fine ones in degrees do, 4 √D is more than D,
    and a cell stays until it is empty: bring such a raster to 1 km first.

    An appended frame changes nothing before it, and is the same whether it is found with the others
    or by itself, with the frame before as `first`.

    Examples
    --------
    Two villages grow together:

    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 5000, 1000), "EPSG:3035", resolution=1000)
    >>> population = xr_zeros(grid, dtype="float32").expand_dims(time=[2000, 2010]).copy()
    >>> population[0, 0] = [600, 0, 290, 700, 0]
    >>> population[1, 0] = [600, 800, 400, 700, 0]
    >>> settlements(population).values[:, 0]
    array([[ 0, -1, -1,  1, -1],
           [ 0,  0,  0,  0, -1]], dtype=int32)
    """
    population = check_population("population", population, timed=hold)
    _check(population, density, min_people, contiguity)
    area = cell_areas(population)
    dims = ("time", "y", "x") if "time" in population.dims else ("y", "x")
    ordered = population.transpose(*dims)
    steps, data = steps_of(grid_of(population)), ordered.chunk().data
    frames = data if data.ndim == 3 else data[None]
    frames = aligned(frames.rechunk({0: 1}), steps)
    people = sum_cells(frames, steps)
    least = density * sum_cells(_ground(ordered, land, area, frames.chunks), steps)
    before = None
    if hold and first is not None:
        before = _before(first, population, steps).rechunk(people.chunks[1:])
    found = _find(people, least, before, hold, min_people, contiguity)
    drawn = repeat_cells(found, steps, frames.shape[1:], data.chunks[-2:])
    labels = xr.DataArray(
        (drawn if data.ndim == 3 else drawn[0]).rechunk(data.chunks),
        coords=ordered.coords,
        dims=dims,
        name="settlement",
        attrs={"long_name": "settlement, −1 = none", "units": "1"},
    )
    return labels.transpose(*population.dims)


def _check(population: xr.DataArray, density: float, min_people: float, contiguity: int) -> None:
    """Refuse what no settlement can be found by."""
    more = set(population.dims) - {"time", "y", "x"}
    if more:
        raise InputError(
            f"population has the dimensions {population.dims}; expected (time, y, x) or (y, x); "
            f"select one of the others, as in population.isel({min(map(str, more))}=0)"
        )
    if not 0 < density < np.inf:
        raise InputError(
            f"density is {density!r}; expected people per km², such as 300; give a number above 0"
        )
    if not 0 <= min_people < np.inf:
        raise InputError(
            f"min_people is {min_people!r}; expected a number of people, such as 500; give 0 or "
            "more"
        )
    if contiguity not in (4, 8):
        raise InputError(
            f"contiguity is {contiguity!r}; expected 4 (edges) or 8 (edges and corners); give one"
        )


def _ground(
    population: xr.DataArray,
    land: xr.DataArray | None,
    area: NDArray[np.float64],
    chunks: tuple[tuple[int, ...], ...],
) -> da.Array:
    """Land of every cell in km², (time, y, x), of one frame where it is the same in all."""
    rows = da.from_array(area[None, :, None], chunks=(1, chunks[1], 1))
    if land is None:
        return da.broadcast_to(rows, (1, *population.shape[-2:]), chunks=((1,), *chunks[1:]))
    timed = "time" in land.dims or "time" not in population.dims
    share = share_of_cell("land", land, population if timed else population[0], area)
    share = share if share.ndim == 3 else share[None]
    return share.rechunk((1, *chunks[1:])) * rows


def _before(first: xr.DataArray, population: xr.DataArray, steps: tuple[int, int]) -> da.Array:
    """Settlements of the frame before on the cells of 1 km."""
    check_labels("first", first)
    sizes = {dim: population.sizes[dim] for dim in ("y", "x")}
    if dict(first.sizes) != sizes:
        raise InputError(
            f"first has the sizes {dict(first.sizes)}; expected {sizes}: give the settlements of "
            "the one frame before, as in labels.isel(time=-1)"
        )
    labels = first.transpose("y", "x").chunk().data
    return labels[:: steps[0], :: steps[1]].astype(np.int32)


def _find(
    people: da.Array,
    least: da.Array,
    before: da.Array | None,
    hold: bool,
    min_people: float,
    contiguity: int,
) -> da.Array:
    """Label the settlements of frames (time, y, x) of cells of 1 km, one block a frame deep."""
    name = f"settlements-{tokenize(people.name, least.name, before, hold, min_people, contiguity)}"
    times, down, across = people.numblocks
    corners, width = corners_of(people.chunks[1:]), people.shape[-1]
    graph: dict[Any, Any] = {}
    for time in range(times):
        blocks = list(np.ndindex(down, across))
        parts = [("parts-" + name, time, *block) for block in blocks]
        joined = ("list-" + name, time)
        graph[joined] = (_listed, parts, (down, across), min_people, contiguity)
        for number, block in enumerate(blocks):
            key = time, *block
            held: Any = (name, time - 1, *block) if hold and time else None
            if before is not None and not time:
                held = (before.name, *block)
            ground = (least.name, min(time, least.numblocks[0] - 1), *block)
            given = (people.name, *key), ground, held
            graph["runs-" + name, *key] = (_label, *given, corners[number], width, contiguity)
            graph["parts-" + name, *key] = (itemgetter(1), ("runs-" + name, *key))
            columns = people.chunks[-1][block[1]]
            graph[name, *key] = (_draw, ("runs-" + name, *key), joined, number, columns)
    below: list[Any] = [array for array in (people, least, before) if array is not None]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=below)
    return da.Array(layers, name, people.chunks, dtype=np.int32)


def _label(
    people: NDArray,
    least: NDArray,
    before: NDArray[np.int32] | None,
    corner: tuple[int, int],
    width: int,
    contiguity: int,
) -> tuple[Runs, Parts]:
    """Connected cells of a block, and what the others need to know of them."""
    people, least = people[0], least[0]
    lay = None if before is None else before.reshape(people.shape) >= 0
    inside = _inside(people, least, lay)
    runs = label_block(inside, contiguity)
    count = runs.roots.size
    sums = [sum_people(people, *runs[:4], count)]
    for marked in (lay, lay & np.isnan(people)) if lay is not None else ():
        sums.append(_count(marked, *runs[:4], count)[None])
    return runs, describe_parts(runs, inside, corner, width, np.concatenate(sums))


def _inside(people: NDArray, least: NDArray, lay: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Cells that are dense enough; `lay` marks those that lay in a settlement before."""
    if lay is None:
        return (people >= least) & (people > 0)
    spread = _SIGMAS * np.sqrt(least)
    enough = people >= np.where(lay, least - spread, least + spread)
    return (enough & (people > 0)) | (lay & np.isnan(people))


@numba.njit(cache=True, nogil=True)
def _count(
    marked: NDArray[np.bool_],
    first: NDArray[np.int64],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    component: NDArray[np.int32],
    components: int,
) -> NDArray[np.int64]:
    """Marked cells of every component."""
    counts = np.zeros(components, np.int64)
    for row in range(first.size - 1):
        for run in range(first[row], first[row + 1]):
            for x in range(start[run], stop[run]):
                counts[component[run]] += marked[row, x]
    return counts


def _listed(
    parts: list[Parts], blocks: tuple[int, int], min_people: float, contiguity: int
) -> list[NDArray[np.int32]]:
    """For every block the settlement of each of its components, -1 where they are not listed."""
    joined = join_parts(parts, blocks, contiguity)
    people, held = from_fixed(joined.sums[0], joined.sums[1]), len(joined.sums) > 3
    listed = people >= min_people + held * _BIRTH * np.sqrt(min_people)
    if held:
        lay, unknown = joined.sums[3:] > 0
        listed |= lay & (unknown | (people >= _DEATH * min_people))
    label = np.where(listed, np.cumsum(listed) - 1, -1).astype(np.int32)
    return [label[numbers] for numbers in joined.numbers]


def _draw(
    labelled: tuple[Runs, Parts], label: list[NDArray[np.int32]], number: int, columns: int
) -> NDArray[np.int32]:
    return paint(*labelled[0][:4], label[number], columns)[None]


def settlement_kinds(
    settlements: xr.DataArray,
    population: xr.DataArray,
    codes: xr.DataArray,
    *,
    town_people: float = TOWN_PEOPLE,
) -> pd.DataFrame:
    """Distinguish cities, towns and villages.

    Eager: one pass over the cells, one call of :func:`dask.compute`.

    Parameters
    ----------
    settlements : DataArray of int, (time, y, x) or (y, x)
        Settlement numbers ≥ 0, negative where there is none.
    population : DataArray, (time, y, x) or (y, x)
        People per cell, NaN = no data, on the grid of the settlements or on its cells of 1 km.
    codes : DataArray of int, (time, y, x) or (y, x)
        Degree of Urbanisation, level 2, on the grid of the settlements or on its cells of 1 km, as
        ``degree_of_urbanisation(to_1km(population))`` gives them.
    town_people : float, optional
        People from which a settlement is a town, whatever its codes.

    Returns
    -------
    pandas.DataFrame
        One row per settlement, ordered by time and settlement: ``time``; ``settlement`` (int64);
        ``kind``: "city" where it holds a cell of an urban centre (30), else "town" where it has
        that many people or a cell of a dense or semi-dense urban cluster (23, 22), else "village".

    Raises
    ------
    InputError
        If the arrays do not share frames and grid, or codes are not those of level 2.

    Examples
    --------
    >>> settlements = xr.DataArray([[[0, -1, 1, -1, 2]]], dims=("time", "y", "x"))
    >>> population = xr.DataArray([[[700.0, 0, 900, 0, 5100]]], dims=("time", "y", "x"))
    >>> codes = xr.DataArray([[[13, 11, 22, 11, 21]]], dims=("time", "y", "x"))
    >>> settlement_kinds(settlements, population, codes)
       time  settlement     kind
    0     0           0  village
    1     0           1     town
    2     0           2     town
    """
    check_labels("settlements", settlements)
    population = check_population("population", population)
    check_array("codes", codes, "y", "x")
    times, (labels, people) = frames_of(_on(settlements, population, "population"), population)
    _, (coded, code) = frames_of(_on(settlements, codes, "codes"), codes)
    residents, clusters = dask.compute(
        sum_frames(people_by_label, labels, people), sum_frames(codes_block, coded, code)
    )
    frames = [
        kinds_of(time, people, 0, held, town_people)
        for time, people, held in zip(times, residents, clusters, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def _on(settlements: xr.DataArray, array: xr.DataArray, name: str) -> xr.DataArray:
    """The settlements on the grid of an array: their own, or that of its cells of 1 km."""
    sizes, other = ({dim: a.sizes[dim] for dim in ("y", "x")} for a in (settlements, array))
    if sizes == other:
        return settlements
    down, across = steps_of(grid_of(settlements))
    coarse = settlements.isel(y=slice(None, None, down), x=slice(None, None, across))
    if {dim: coarse.sizes[dim] for dim in ("y", "x")} != other:
        raise InputError(
            f"{name} has {other['y']} × {other['x']} cells; expected the {sizes['y']} × "
            f"{sizes['x']} of the settlements, or their {coarse.sizes['y']} × {coarse.sizes['x']} "
            "cells of 1 km; give what belongs to the same raster"
        )
    return coarse


def codes_block(labels: NDArray, codes: NDArray) -> LabelSums:
    """Cells of urban centres, and of dense and semi-dense clusters, by settlement."""
    inside = labels >= 0
    own = codes[inside]
    check_codes(own)
    counts = own == _CENTRE, np.isin(own, _CLUSTERS)
    return tabulate(labels[inside].astype(np.int64), [c.astype(np.int64) for c in counts])


def kinds_of(
    time: object, people: LabelSums, column: int, clusters: LabelSums, town_people: float
) -> pd.DataFrame:
    """The kinds of a frame's settlements, whose people stand in a column of the first table."""
    city, town = clusters.sums > 0
    town |= people.reals(column) >= town_people
    return pd.DataFrame(
        {
            "time": np.full(len(people.keys), time),
            "settlement": people.keys,
            "kind": np.select([city, town], ["city", "town"], "village"),
        }
    )


def held_kinds(table: pd.DataFrame) -> NDArray[np.object_]:
    """Kinds of settlements with time and track: one stays while it has half of a kind's people."""
    names = np.array(list(_KINDS), dtype=object)
    own = pd.Categorical(table["kind"], names).codes.astype(np.int64)
    least = _DEATH * np.array(list(_KINDS.values()))
    # The largest kind that the people of each would let it keep.
    kept = np.searchsorted(least, table["population"].to_numpy(float), side="right") - 1
    order = np.lexsort((table["time"].to_numpy(), table["track"].to_numpy()))
    track, held = table["track"].to_numpy(), own.copy()
    for before, here in pairwise(order.tolist()):
        if track[before] == track[here]:
            held[here] = max(own[here], min(held[before], kept[here]))
    return names[held]
