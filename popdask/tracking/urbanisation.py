"""The Degree of Urbanisation of every cell, and urban centres.

Endorsed by the UN Statistical Commission in 2020; the rules are those of GHSL Data Package 2023
(Schiavina and others, JRC) and of Eurostat's manual "Applying the Degree of Urbanisation" (2021).

Clusters are found by `popdask.blocks.components`: a block keeps runs of cells and one byte
per cell, and one task per frame joins what touches across blocks and adds up the people. The edge
rule of urban centres lets all cells of a round join at once, and goes on until none does. A cell
can only change where a neighbour changed in the round before, so a block that sees `_REACH` cells
around it knows what happens inside for as many rounds; then blocks tell each other their rims,
`_STEPS` times. A block is left alone where neither it nor a neighbour changed in the last round.
Should any frame not have come to rest by then (128 rounds: no place does, but a contrived one),
one task finishes it in one piece. Holes have fewer than `centre_gap` cells, and a buffer is a few
cells wide, so both are seen from within a block and its rims. So every answer is that of the whole
frame, to the cell, and only rims, sums and the few cells that joined a centre travel.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from popdask.blocks.components import corners_of
from popdask.blocks.overlap import AROUND, add_overlap, merge_thin_chunks
from popdask.errors import InputError
from popdask.io.conventions import check_population, flags
from popdask.io.grids import describe_grid, grid_of, pixel_area_km2, same_grid
from popdask.tracking import _urban_blocks as kernels
from popdask.tracking.urban_rules import Plan, UrbanisationRules, make_plan, optimal_rule
from popdask.validate import check_array, check_instance


class _Frames:
    """The graph of a classification; a key is a stage, a frame and a block."""

    def __init__(
        self,
        people: da.Array,
        land: da.Array | None,
        built: da.Array | None,
        area: NDArray[np.float64],
        plan: Plan,
        numbered: bool,
    ):
        single = dict.fromkeys(range(people.ndim - 2), 1)
        own = merge_thin_chunks(people.rechunk(single), max(plan.halo, plan.pad))
        self.chunks, self.plan, self.numbered = own.chunks, plan, numbered
        sources = [None if a is None else a.rechunk(own.chunks) for a in (own, land, built)]
        if plan.pad:
            sources = [a if a is None else add_overlap(a, plan.pad, fill=np.nan) for a in sources]
        self.sources, self.below = sources, [a for a in sources if a is not None]
        token = tokenize(*(a.name for a in self.below), area, plan, numbered)
        self.name = f"degree-of-urbanisation-{token}"
        self.area, self.width = np.pad(area, plan.pad, mode="edge"), own.shape[-1]
        self.graph: dict[Any, Any] = {}
        *times, down, across = own.numblocks
        self.frames, self.grid = list(np.ndindex(*times)), (down, across)
        blocks = np.ndindex(down, across)
        self.corners = dict(zip(blocks, corners_of(own.chunks[-2:]), strict=True))

    def key(self, stage: str, *where: int) -> tuple[Any, ...]:
        return (f"{stage}-{self.name}", *where)

    def over(self, stage: str, frame: tuple[int, ...]) -> list[tuple[Any, ...]]:
        """Keys of a stage for all blocks of a frame."""
        return [self.key(stage, *frame, *block) for block in self.corners]

    def around(self, stage: str, frame: tuple[int, ...], block: tuple[int, ...]) -> list[Any]:
        """Keys of a stage for the eight neighbours of a block."""
        near = [(block[0] + y, block[1] + x) for y, x in AROUND]
        return [self.key(stage, *frame, *at) if at in self.corners else None for at in near]

    def clusters(self, *where: int) -> tuple[Any, Any]:
        """Keys of a block's cells, and of the clusters that are large enough."""
        return self.key("tile", *where), self.key("chosen", *where)

    def inputs(self, frame: tuple[int, ...], block: tuple[int, ...]) -> list[Any]:
        """People, land and built-up area of a block, and the areas of its rows."""
        top, rows = self.corners[block][0], self.chunks[-2][block[0]]
        given = [None if a is None else (a.name, *frame, *block) for a in self.sources]
        return [*given, self.area[top : top + rows + 2 * self.plan.pad]]

    def build(self) -> da.Array:
        """Lay down all stages of all frames."""
        for frame in self.frames:
            self._label(frame)
            self._complete(frame, self._grow(frame))
        layers = HighLevelGraph.from_collections(self.name, self.graph, dependencies=self.below)
        dtype = np.int32 if self.numbered else np.int8
        return da.Array(layers, self.name, self.chunks, dtype=dtype)

    def _label(self, frame: tuple[int, ...]) -> None:
        graph, key, plan = self.graph, self.key, self.plan
        joined, optimal = key("join", *frame), key("optimal", *frame)
        graph[optimal] = self._optimal(frame)
        graph[joined] = (kernels.join, self.over("parts", frame), self.grid, plan)
        for number, (block, corner) in enumerate(self.corners.items()):
            at, labelled = (*frame, *block), key("label", *frame, *block)
            more = plan, corner, self.width, optimal
            graph[labelled] = (kernels.label_tile, *self.inputs(frame, block), *more)
            graph[key("tile", *at)] = (itemgetter(0), labelled)
            graph[key("parts", *at)] = (itemgetter(1), labelled)
            graph[key("chosen", *at)] = (itemgetter(number), joined)
            graph[key("grown-0", *at)] = (kernels.start, *self.clusters(*at), plan)

    def _optimal(self, frame: tuple[int, ...]) -> Any:
        """Task for the threshold of built-up land, where the rules ask for it."""
        rule = optimal_rule(self.plan.rules, self.plan.level)
        if rule is None:
            return np.array([np.inf])
        kind, people = rule
        for block, corner in self.corners.items():
            more = kind, corner, self.width, self.plan.pad
            built = kernels.built_parts, *self.inputs(frame, block), *more
            self.graph[self.key("built", *frame, *block)] = built
        return kernels.optimal, self.over("built", frame), self.grid, kind, people

    def _grow(self, frame: tuple[int, ...]) -> str:
        """Lay down the rounds of the edge rule; the stage at which they end."""
        graph, key, plan = self.graph, self.key, self.plan
        finish, active = key("finish", *frame), key("active", *frame)
        if plan.rules.centre_edge is None:
            graph[finish] = None
            return "grown-0"
        last = f"grown-{plan.steps}"
        graph[active] = (kernels.any_active, self.over(last, frame))
        graph[finish] = (kernels.finish, self.over("send", frame), self.grid[1], plan)
        for block in self.corners:
            at = (*frame, *block)
            clusters = self.clusters(*at)
            for step in range(plan.steps):
                before = f"grown-{step}"
                states = key(before, *at), self.around(before, frame, block)
                graph[key(f"grown-{step + 1}", *at)] = (kernels.grow, *clusters, *states, plan)
            graph[key("send", *at)] = (kernels.send, *clusters, key(last, *at), active, plan)
        return last

    def _complete(self, frame: tuple[int, ...], grown: str) -> None:
        graph, key, plan = self.graph, self.key, self.plan
        if self.numbered:
            draw: Any = kernels.draw_centres
            known = key("number", *frame)
            graph[known] = (kernels.number_centres, self.over("first", frame))
        else:
            draw, known = kernels.draw, key("near", *frame)
            graph[known] = (kernels.near, self.over("complete", frame))
        for block, corner in self.corners.items():
            at = (*frame, *block)
            clusters, found = self.clusters(*at), key("complete", *at)
            states = key(grown, *at), self.around(grown, frame, block), key("finish", *frame)
            graph[found] = (kernels.complete, *clusters, *states, corner, plan)
            if self.numbered:
                first = kernels.first_cells, *clusters, found, plan, corner, self.width
                graph[key("first", *at)] = first
            graph[self.name, *at] = (draw, *clusters, found, known, plan, len(self.chunks))


def classify(
    people: da.Array,
    land: da.Array | None,
    built: da.Array | None,
    area: NDArray[np.float64],
    plan: Plan,
    numbered: bool = False,
) -> da.Array:
    """Codes, or centres by number, of arrays (…, y, x), in the chunks of the people."""
    return _Frames(people, land, built, area, plan, numbered).build().rechunk(people.chunks)


_REACH, _STEPS = 32, 4
OFFICIAL = UrbanisationRules()
LARGEST_KM2 = 25.5  # a cell of 5 km, and what a projection does to it
_SQUARE_METRES = {"m2", "m²", "m^2", "m**2"} | {
    f"square {word}" for word in ("metre", "metres", "meter", "meters")
}
_FEW = 10  # cells with land of less than 1 m², as slivers along a coast have
_SHARES = {"1", "", "share", "fraction"}
_NAMES = {
    2: {
        30: "urban centre",
        23: "dense urban cluster",
        22: "semi-dense urban cluster",
        21: "suburban",
        13: "rural cluster",
        12: "low density rural",
        11: "very low density rural",
        10: "water",
    },
    1: {3: "urban centre", 2: "urban cluster", 1: "rural", 0: "water"},
}


def degree_of_urbanisation(
    population: xr.DataArray,
    *,
    land: xr.DataArray | None = None,
    built: xr.DataArray | None = None,
    level: int = 2,
    rules: UrbanisationRules = OFFICIAL,
) -> xr.DataArray:
    """Classify cells by the Degree of Urbanisation.

    Parameters
    ----------
    population : DataArray, (…, y, x)
        People per cell, NaN = no data, with CRS and transform. The rules are meant for cells of
        1 km; larger ones than 5 km are refused.
    land, built : DataArray, (y, x) or (…, y, x), optional
        Permanent land and built-up area of the cells: shares of the cell, or m² where the attribute
        ``units`` says "m2". Without land every cell is land; without built-up area the rules that
        need it are left out. NaN = unknown.
    level : {2, 1}, optional
        Seven classes and water, or three and water.
    rules : UrbanisationRules, optional
        The official ones where left out.

    Returns
    -------
    DataArray of int8, (…, y, x)
        Lazy, in the chunks of `population`. Level 2: 30 urban centre, 23 dense and 22 semi-dense
        urban cluster, 21 suburban or peri-urban, 13 rural cluster, 12 low and 11 very low density
        rural, 10 water. Level 1: 3 urban centre, 2 urban cluster, 1 rural, 0 water.

    Raises
    ------
    InputError
        If an array lacks y or x or lies on another grid, cells are larger than 5 km, there is no
        CRS, or the level is neither 1 nor 2; when computed, where a share of land or built-up area
        is above 1.

    Notes
    -----
    The codes are those of the frame in one piece, whatever the chunks. With "optimal" as threshold
    of built-up land, the frame's people, land and built-up area are held until it is known.
    Rules: GHSL Data Package 2023, JRC; Eurostat, "Applying the Degree of Urbanisation", 2021.

    Examples
    --------
    A town of 16 km² and 32,000 people in the country:

    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 8000, 6000), "EPSG:3035", resolution=1000)
    >>> population = xr_zeros(grid, dtype="float32") + 10
    >>> population[1:5, 2:6] = 2000
    >>> degree_of_urbanisation(population).values[2]
    array([11, 11, 23, 23, 23, 23, 11, 11], dtype=int8)
    """
    population = check_population("population", population)
    if level not in (1, 2):
        raise InputError(f"level is {level!r}; expected 1 or 2; give one of them")
    ordered = population.transpose(..., "y", "x")
    found = _classified(ordered, land, built, level, rules, numbered=False)
    codes = ordered.copy(data=found).rename("degree_of_urbanisation")
    codes.attrs = {"long_name": f"degree of urbanisation, level {level}", "units": "1"}
    names = _NAMES[level]
    codes.attrs["description"] = ", ".join(f"{code} {name}" for code, name in names.items())
    codes.attrs |= flags([*names], [*names.values()])
    return codes.transpose(*population.dims)


def urban_centres(
    population: xr.DataArray,
    *,
    land: xr.DataArray | None = None,
    built: xr.DataArray | None = None,
    rules: UrbanisationRules = OFFICIAL,
) -> xr.DataArray:
    """Number the urban centres of every frame.

    Parameters
    ----------
    population : DataArray, (…, y, x)
        As for `degree_of_urbanisation`.
    land, built : DataArray, (y, x) or (…, y, x), optional
        As for `degree_of_urbanisation`.
    rules : UrbanisationRules, optional
        The official ones where left out.

    Returns
    -------
    DataArray of int32, (…, y, x)
        0, 1, … in every frame, by the first cell of each centre, row-major; -1 where
        `degree_of_urbanisation` does not give 30. Lazy, in the chunks of `population`.

    Raises
    ------
    InputError
        As for `degree_of_urbanisation`.

    Notes
    -----
    A centre is one cluster of dense cells with the cells that joined it by the majority rule and
    the holes that it encloses. Two centres that touch are still two. A hole that several centres
    enclose belongs to that of them whose cluster begins first.

    Examples
    --------
    Two towns of 60,000 people that meet at a corner, and a village:

    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 6000, 4000), "EPSG:3035", resolution=1000)
    >>> population = xr_zeros(grid, dtype="float32")
    >>> population[0:2, 0:2] = population[2:4, 2:4] = 15_000
    >>> population[0, 5] = 2000
    >>> urban_centres(population).values
    array([[ 0,  0, -1, -1, -1, -1],
           [ 0,  0, -1, -1, -1, -1],
           [-1, -1,  1,  1, -1, -1],
           [-1, -1,  1,  1, -1, -1]], dtype=int32)
    """
    population = check_population("population", population)
    ordered = population.transpose(..., "y", "x")
    found = _classified(ordered, land, built, 2, rules, numbered=True)
    centres = ordered.copy(data=found).rename("urban_centre")
    centres.attrs = {"long_name": "urban centre, −1 = none", "units": "1"}
    return centres.transpose(*population.dims)


def _classified(
    population: xr.DataArray,
    land: xr.DataArray | None,
    built: xr.DataArray | None,
    level: int,
    rules: UrbanisationRules,
    numbered: bool,
) -> da.Array:
    """Codes, or centres by number, of (…, y, x)."""
    check_instance("rules", rules, UrbanisationRules, "popdask.UrbanisationRules")
    area = cell_areas(population)
    land_share, built_share = (
        None if given is None else share_of_cell(name, given, population, area)
        for name, given in (("land", land), ("built", built))
    )
    plan = make_plan(rules, level, built is not None, _REACH, _STEPS)
    return classify(population.chunk().data, land_share, built_share, area, plan, numbered)


def cell_areas(population: xr.DataArray) -> NDArray[np.float64]:
    """Area of the cells of every row in km²; cells larger than 5 km are refused."""
    area = pixel_area_km2(population)
    if area.max() > LARGEST_KM2:
        raise InputError(
            f"the cells measure up to {area.max():.4g} km²; expected cells of 5 km or less, best "
            "of 1 km, to tell settlements by their density; give a finer raster"
        )
    return area


def in_square_metres(surface: xr.DataArray) -> bool:
    """Whether land or built-up area is given in m², by its units."""
    return _units(surface) in _SQUARE_METRES


def _units(surface: xr.DataArray) -> str:
    return str(surface.attrs.get("units", "")).strip().lower()


def share_of_cell(
    name: str, given: xr.DataArray, population: xr.DataArray, area: NDArray[np.float64]
) -> da.Array:
    """Land or built-up area as shares of the cell, on the frames of the population (…, y, x)."""
    check_array(name, given, "y", "x")
    _check_grid(name, given, population)
    given = given.transpose(..., "y", "x")
    units, metric = _units(given), in_square_metres(given)
    if units not in _SQUARE_METRES | _SHARES:
        raise InputError(
            f"{name} has the units {units!r}; expected m² or shares of the cell; convert it and "
            f"set {name}.attrs['units'] to 'm2' or '1'"
        )
    dims = [dim for dim in population.dims if dim in given.dims]
    index = tuple(slice(None) if dim in dims else None for dim in population.dims)
    data = da.broadcast_to(given.chunk().data[index], population.shape)
    data = data.rechunk(population.chunk().chunks)
    metres = area * 1e6 if metric else np.ones(len(area))
    rows = da.from_array(metres[:, None], chunks=(data.chunks[-2], 1))
    return da.map_blocks(_shared, data, rows, surface=name, metric=metric, dtype=np.float64)


def _shared(values: NDArray, whole: NDArray, surface: str, metric: bool) -> NDArray[np.float64]:
    """Shares of the cell, which are 1 at most."""
    most = 1.05 if metric else 1 + 1e-6
    share = values / whole
    largest, smallest = (float(of(share, initial=0)) for of in (np.nanmax, np.nanmin))
    if largest > most or smallest < 0:
        found = float(np.nanmax(values)) if largest > most else float(np.nanmin(values))
        raise InputError(
            f"{surface} has the value {found:g}; expected shares of the cell from 0 to 1, or m² no "
            f"larger than the cell; correct it (per cent are divided by 100), or where it is in m² "
            f'say so: by the attribute units of {surface}, or as units = "m2" in a job\'s '
            "[settlements]"
        )
    if metric and np.nanmax(values, initial=0) <= 1 and np.count_nonzero(values > 0) > _FEW:
        raise InputError(
            f"{surface} is said to be in m² but has no value above {np.nanmax(values):g}; expected "
            f"square metres; where it has shares of the cell say so: by the attribute units of "
            f"{surface}, '1', or as units = \"share\" in a job's [settlements]"
        )
    return share


def _check_grid(name: str, given: xr.DataArray, population: xr.DataArray) -> None:
    """Refuse another grid, other frames, and dimensions that the population lacks."""
    more = [dim for dim in given.dims if dim not in population.dims]
    if more:
        raise InputError(
            f"{name} has the dimension {more[0]!r}, which population lacks; expected (y, x) or "
            f"{population.dims}; select one, as in {name}.isel({more[0]}=0)"
        )
    ours, found = grid_of(population), given.odc.geobox
    theirs = None if found is None or found.crs is None else grid_of(given)
    rows, columns = given.sizes["y"], given.sizes["x"]
    same = (rows, columns) == ours.shape and (theirs is None or same_grid(ours, theirs))
    if not same:
        grid = f"{rows} × {columns} cells" if theirs is None else describe_grid(theirs)
        raise InputError(
            f"{name} has the grid {grid} but population has {describe_grid(ours)}; expected the "
            f"same; reproject it first, as in {name}.rio.reproject_match(population)"
        )
    for dim in given.dims:
        if dim in ("y", "x"):
            continue
        same = given.sizes[dim] == population.sizes[dim]
        if same and dim in given.coords and dim in population.coords:
            same = np.array_equal(given[dim].to_numpy(), population[dim].to_numpy())
        if not same:
            raise InputError(
                f"{name} has other values of {dim!r} than population; expected the same; select "
                f"those of the population, as in {name}.sel({dim}=population[{dim!r}])"
            )
