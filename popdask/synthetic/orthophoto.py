"""A drawn country seen from the air, with the people of every cell.

Everything is told site by site. A site of a jittered lattice is drawn by a generator of its own,
seeded by its lattice point, so a window needs the sites around it and nothing else. Sites keep off
lakes and roads; towns of five sizes follow one another in a fixed pattern, so that no window is
without one for long.

Towns, villages and farms lie among fields, woods and lakes; people live in houses, and every house
has its centre, its roof and its number of people. Barns, greenhouses, car parks, works and rocks
only look as if somebody lived there, and the edges of the cells cut houses in two: a house counts
where its centre lies.

Everything follows from the seed and the place, nothing from the window: the picture of any window
is computed alone, so a country has no size, and a mosaic larger than memory is drawn by strips.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import ceil, cos, exp, floor, pi, radians, sin, tan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import dask.array as da
import numpy as np
import rasterio
import rioxarray  # noqa: F401  (the accessor that carries the CRS)
import xarray as xr
from affine import Affine
from rasterio.windows import Window

from popdask.errors import InputError
from popdask.synthetic import _buildings
from popdask.synthetic._buildings import (
    ALWAYS,
    HOMES,
    SHARES,
    THING,
    Form,
    join,
    palette,
    settle,
    turned,
    uniform,
)
from popdask.synthetic._painting import (
    BLUR,
    SHORE,
    Canvas,
    cast_shadows,
    develop,
    expose,
    paint_ground,
    paint_things,
    plant,
    survey,
)

if TYPE_CHECKING:
    import geopandas

_TOWN, _LONE = 2000.0, 240.0  # metres between the sites
_TOWN_REACH, _LONE_REACH = 900.0, 90.0  # metres from a lattice cell that its site's things touch
_RADII = (110.0, 460.0, 150.0, 270.0, 240.0)  # metres, of five neighbouring towns
_FURTHEST = 1.3  # radii that a town may grow to
_APART = 110.0  # metres between a town and what stands alone
_DISTRICT = 0.12  # spread of the people per home from block to block

Box = tuple[float, float, float, float]
_DRAW: dict[str, Any] = {
    "works": lambda rng, district, born: _buildings.works(rng, born=born),
    "green": lambda rng, district, born: _buildings.green(rng, born=born),
    "flats": lambda rng, district, born: _buildings.slabs(rng, district, born=born),
    "rows": lambda rng, district, born: _buildings.terraces(rng, district, born=born),
}
PIXEL = 0.5
"""Side in metres of the pixels in which everything is drawn."""
_MARGIN = 64  # pixels drawn around a window: what stands there may throw its shadow into it


def things_near(box: Box, year: int, seed: int) -> np.ndarray:
    """Return the things of a year that may be seen in a box, in the order of painting."""
    towns = [_town(i, j, seed) for i, j in _lattice(box, _TOWN, _TOWN_REACH)]
    lone = [_lone(i, j, seed) for i, j in _lattice(box, _LONE, _LONE_REACH)]
    things = join([*towns, *lone])
    reach = 0.5 * np.hypot(things["length"], things["width"]) + 1.5 * things["height"]
    near = (things["x"] > box[0] - reach) & (things["x"] < box[2] + reach)
    near &= (things["y"] > box[1] - reach) & (things["y"] < box[3] + reach)
    near &= (things["born"] <= year) & (year < things["gone"])
    things = things[near]
    return things[np.lexsort((things["y"], things["x"], things["layer"]))]


def salt_of(seed: int) -> int:
    """Return the first of the numbers that tell the noises of a country apart."""
    return seed * 1_000_003


def _lattice(box: Box, spacing: float, reach: float) -> list[tuple[int, int]]:
    """Lattice points whose sites may reach into a box."""
    west, south, east, north = (
        floor((at + way) / spacing)
        for at, way in zip(box, (-reach, -reach, reach, reach), strict=True)
    )
    return [(i, j) for i in range(west, east + 1) for j in range(south, north + 1)]


def _generator(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng([seed, *(number % 2**32 for number in place)])


def _free(points: Any, seed: int, road: float, *, forest: bool) -> np.ndarray:
    """Return where one can build: above the shore, off the roads, and in forests if wanted."""
    x, y = np.asarray(points, float)
    height, away, trees = survey(x, y, salt_of(seed))
    return (height > SHORE + 0.02) & (away > road) & (forest | (trees == 0))


@dataclass(frozen=True)
class _Town:
    """The plan of a town."""

    x: float
    y: float
    radius: float  # Metres, in the first year
    angle: float  # of its streets
    growth: float  # radii per year
    works: float  # where its works lie, in the frame of its streets
    lobes: int
    phase: float

    @classmethod
    def drawn(cls, i: int, j: int, seed: int) -> Self:
        """Draw the town of a lattice point."""
        rng = _generator(seed, 1, i, j)
        x, y = (np.array([i, j]) + 0.5 + rng.uniform(-0.12, 0.12, 2)) * _TOWN
        radius = _RADII[(i + 2 * j + seed) % len(_RADII)] * rng.uniform(0.9, 1.1)
        growth = rng.choice([0.0, 0.012, 0.025] if radius < 400 else [0.0, 0.01])
        angles = rng.uniform(0, pi), rng.uniform(-pi, pi)
        lobes, phase = int(rng.integers(2, 5)), rng.uniform(0, 2 * pi)
        return cls(float(x), float(y), radius, angles[0], float(growth), angles[1], lobes, phase)

    def away(self, u: float, v: float) -> float:
        """How far out a point of the frame lies, in radii."""
        lobe = 1 + 0.15 * np.sin(self.lobes * np.arctan2(v, u) + self.phase)
        return float(np.hypot(u, v) * lobe / self.radius)

    def reached(self, away: Any) -> np.ndarray:
        """In which year the town reaches so far."""
        away = np.asarray(away, float)
        years = np.ceil((away - 1) / self.growth) if self.growth else np.full(away.shape, ALWAYS)
        return np.where(away <= 1, -ALWAYS, np.minimum(years, ALWAYS)).astype(int)

    def is_works(self, u: float, v: float) -> bool:
        """Return whether the works lie at a point of the frame."""
        turn = (np.arctan2(v, u) - self.works + pi) % (2 * pi) - pi
        return self.radius > 200 and abs(turn) < 0.5 and self.away(u, v) > 0.45

    def use(self, away: float, chance: float) -> str:
        """What a block is for, by a number in [0, 1)."""
        flats, rows, greens = 0.0, 0.0, 0.06
        if self.radius > 130:
            flats, rows, greens = (0.22, 0.5, 0.6) if away < 0.5 else (0.03, 0.12, 0.18)
        return (
            "flats"
            if chance < flats
            else "rows"
            if chance < rows
            else "green"
            if chance < greens
            else ""
        )


@lru_cache(maxsize=256)
def _town(i: int, j: int, seed: int) -> np.ndarray:
    """All things of the town at a lattice point, of all years."""
    town = _Town.drawn(i, j, seed)
    down, across = (ceil(1.2 * _FURTHEST * town.radius / side) for side in _buildings.BLOCK)
    blocks = []
    for p in range(-down, down + 1):
        for q in range(-across, across + 1):
            u, v = (p + 0.2) * _buildings.BLOCK[0], (q + 0.3) * _buildings.BLOCK[1]
            if town.away(u, v) < _FURTHEST:
                blocks.append(_block(_generator(seed, 2, i, j, p, q), town, u, v, seed))
    return join(blocks)


def _block(rng: np.random.Generator, town: _Town, u: float, v: float, seed: int) -> np.ndarray:
    """Draw a block of a town around a point of its frame; nothing where it cannot be built."""
    away, place = town.away(u, v), (*turned(u, v, town.x, town.y, town.angle), town.angle)
    use = "works" if town.is_works(u, v) else town.use(away, rng.random())
    district = exp(rng.normal(0, _DISTRICT))
    if not use:
        years = town.reached(away + rng.normal(0, 0.04, len(_buildings.PLOTS)))
        plots = turned(_buildings.PLOTS[:, 0], _buildings.PLOTS[:, 1], *place)
        keep = _free(plots, seed, 20, forest=True) & (years < ALWAYS)
        if not keep.any():
            return join([])
        around = _buildings.streets(int(years[keep].min()), bool(keep.all()))
        return settle([*around, *_buildings.detached(rng, district, years, keep)], *place)
    born = int(town.reached(away))
    corners = np.meshgrid(np.linspace(-75, 75, 7), np.linspace(-32, 32, 3))
    spots = [axis.ravel() for axis in turned(*corners, *place)]
    if born >= ALWAYS or not _free(spots, seed, 12, forest=True).all():
        return join([])
    return settle([*_buildings.streets(born, False), *_DRAW[use](rng, district, born)], *place)


@lru_cache(maxsize=1 << 15)
def _lone(i: int, j: int, seed: int) -> np.ndarray:
    """All things at a lone site, if there are any."""
    rng = _generator(seed, 3, i, j)
    x, y = ((np.array([i, j]) + 0.5 + rng.uniform(-0.22, 0.22, 2)) * _LONE).tolist()
    draw = SHARES[rng.choice(len(SHARES), p=[share for _, share in SHARES])][0]
    angle = rng.uniform(0, pi)
    around = x + np.array([0, 40, -40, 0, 0]), y + np.array([0, 0, 0, 40, -40])
    if draw is None or not _free(around, seed, 12, forest=False).all():
        return np.empty(0, THING)
    for p, q in _lattice((x, y, x, y), _TOWN, _TOWN_REACH):
        town = _town(p, q, seed)
        if (np.hypot(town["x"] - x, town["y"] - y) < _APART).any():
            return np.empty(0, THING)
    return settle(draw(rng), x, y, angle)


def photograph(
    top: int, left: int, shape: tuple[int, int], *, seed: int, year: int, bands: int
) -> np.ndarray:
    """Photograph a window of a country in a year."""
    rows, cols = (size + 2 * _MARGIN for size in shape)
    canvas = paint(top - _MARGIN, left - _MARGIN, (rows, cols), seed=seed, year=year)
    film = develop(canvas, palette(bands), salt_of(seed) + 50)
    inner = slice(_MARGIN - BLUR, BLUR - _MARGIN)
    salt = salt_of(seed) + 60 + 10 * year
    return expose(film[:, inner, inner], top - BLUR, left - BLUR, salt)


def paint(top: int, left: int, shape: tuple[int, int], *, seed: int, year: int) -> Canvas:
    """Paint a window of a country in a year: the ground, things in their light, trees."""
    rows, cols = shape
    canvas = Canvas(
        np.empty((rows, cols), np.uint8),
        np.empty((rows, cols), np.float32),
        np.zeros((rows, cols), bool),
        *(top, left, PIXEL),
    )
    west, north = left * PIXEL, -top * PIXEL
    things = things_near((west, north - rows * PIXEL, west + cols * PIXEL, north), year, seed)
    upright = things["form"] != Form.PATCH
    salt = salt_of(seed)
    sun = _sun(year, salt)
    paint_ground(canvas, year, salt)
    paint_things(canvas, things[~upright], sun, salt + 30)
    cast_shadows(canvas, things, sun)
    paint_things(canvas, things[upright], sun, salt + 30)
    plant(canvas, sun, salt + 40)
    return canvas


def _sun(year: int, salt: int) -> tuple[float, float]:
    """The way to the sun per metre of height, east and north, when a year's pictures are taken."""
    azimuth = radians(164 + 12 * uniform(year, 0, salt))
    away = 1 / tan(radians(44 + 3 * uniform(year, 1, salt)))
    return away * sin(azimuth), away * cos(azimuth)


@dataclass(frozen=True)
class OrthophotoWorld:
    """A window of the drawn country in one year: its picture, its houses, its people.

    Examples
    --------
    >>> OrthophotoWorld((0.2, 0.1), seed=1).shape_km
    (0.2, 0.1)
    """

    shape_km: tuple[float, float]
    """Extent northward and eastward."""
    seed: int = 0
    origin: tuple[float, float] = (600_000.0, 6_200_000.0)
    """Easting and northing of the lower left corner in metres."""
    year: int = 0
    """Years after the first picture: later, some houses are new and some are gone."""
    bands: int = 1
    """1 (grey), 3 (red, green, blue) or 4 (and near infrared)."""
    resolution: float = PIXEL
    """Side of a pixel in metres, a multiple of 0.5 that divides 100."""
    crs: str = field(default="EPSG:25832", repr=False)

    def __post_init__(self) -> None:
        if self.bands not in (1, 3, 4):
            raise InputError(
                f"bands is {self.bands}, expected 1 (grey), 3 (colour) or 4 (infrared)"
            )
        if self.resolution < PIXEL or self.resolution % PIXEL or 100 % self.resolution:
            raise InputError(
                f"resolution is {self.resolution} m, expected a multiple of 0.5 that divides 100"
            )
        if min(self.shape_km) <= 0 or any(round(km * 1000, 6) % 100 for km in self.shape_km):
            raise InputError(
                f"shape_km is {self.shape_km}, expected multiples of 0.1 km, as (3, 3)"
            )
        if any(metres % 100 for metres in self.origin):
            raise InputError(f"origin is {self.origin}, expected multiples of 100 m")
        if not 0 <= self.year <= 1000 or not 0 <= self.seed < 2**31:
            raise InputError(
                f"year is {self.year} and seed {self.seed}, expected 0 to 1000 and 0 up"
            )

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in metres."""
        west, south = self.origin
        return west, south, west + 1000 * self.shape_km[1], south + 1000 * self.shape_km[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        rows, cols = (round(1000 * km / self.resolution) for km in self.shape_km)
        return rows, cols

    @property
    def transform(self) -> Affine:
        """From (column, row) to easting and northing."""
        return self._affine(self.resolution)

    @cached_property
    def image(self) -> xr.DataArray:
        """``image(band, y, x)`` uint8, lazy, in chunks of a square kilometre."""
        return self.lazy()

    def lazy(self, chunks: Any = None) -> xr.DataArray:
        """Return the picture as a DataArray on a Dask array.

        Parameters
        ----------
        chunks
            Sizes of the chunks over (band, y, x), as Dask takes them; None stands for one square
            kilometre with all bands.

        Returns
        -------
        DataArray
            ``image(band, y, x)`` uint8, 1 to 254, with its CRS.
        """
        kilometre = round(1000 / self.resolution)
        chunks = (self.bands, kilometre, kilometre) if chunks is None else chunks
        shape = (self.bands, *self.shape)
        picture = da.map_blocks(
            _draw_block,
            replace(self),  # without what it has cached, which would travel with every task
            chunks=da.core.normalize_chunks(chunks, shape, dtype=np.uint8),
            dtype=np.uint8,
            meta=np.empty((0, 0, 0), np.uint8),
        )
        return self._located(picture, ("band", "y", "x"), self.resolution, "image")

    @cached_property
    def houses(self) -> geopandas.GeoDataFrame:
        """The homes whose centre lies in the window, as points.

        Columns kind ("detached", "row", "flats": one stairwell, "farm"), roof ("gable", "hip",
        "flat"), area (m² of the roof without its wing), height (m), people (int), expected (float,
        the mean number of people in homes that look the same).
        """
        import geopandas
        import pandas as pd

        homes = self._homes
        table = pd.DataFrame(
            {
                "kind": np.array(HOMES)[homes["home"]],
                "roof": [Form(form).name.lower() for form in homes["form"]],
                "area": homes["length"] * homes["width"],
                "height": homes["height"],
                "people": homes["people"],
                "expected": homes["expected"],
            }
        )
        points = geopandas.points_from_xy(homes["x"], homes["y"])
        return geopandas.GeoDataFrame(table, geometry=points, crs=self.crs)

    def people(self, cell_size: float = 100.0) -> xr.DataArray:
        """Count the people of the houses whose centre lies in each cell.

        Parameters
        ----------
        cell_size
            Side of a cell in metres; it divides the window.

        Returns
        -------
        DataArray
            ``people(y, x)`` float64.
        """
        return self._per_cell("people", cell_size)

    def expected(self, cell_size: float = 100.0) -> xr.DataArray:
        """Give what the perfect observer of houses would say: the sum of the means of such houses.

        How many live behind a roof cannot be seen. This observer knows every house, its area and
        its floors, and is still wrong by the spread of the families: its R² against
        :meth:`people` is the ceiling of every method, 0.97 to 0.98 for cells of 100 m.

        Parameters
        ----------
        cell_size
            Side of a cell in metres; it divides the window.

        Returns
        -------
        DataArray
            ``expected(y, x)`` float64, people per cell.
        """
        return self._per_cell("expected", cell_size)

    def write(self, path: str | Path, *, strip: int = 1024) -> Path:
        """Write the picture as a tiled GeoTIFF, strip by strip, holding only one strip.

        Parameters
        ----------
        path
            The file to write; its folder is made if needed.
        strip
            Rows of pixels that are held at a time, a multiple of 512.

        Returns
        -------
        Path
            The file.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, cols = self.shape
        profile = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": self.bands,
            "height": rows,
            "width": cols,
        }
        layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
        place = {"crs": self.crs, "transform": self.transform, "bigtiff": "IF_SAFER"}
        picture = self.lazy((self.bands, strip, 2048)).data
        with rasterio.open(path, "w", **profile, **layout, **place) as file:
            for top in range(0, rows, strip):
                part = picture[:, top : top + strip].compute()
                file.write(part, window=Window(0, top, cols, part.shape[1]))
        return path

    @cached_property
    def _homes(self) -> np.ndarray:
        """The things in the window that are homes."""
        west, south, east, north = self.bounds
        things = things_near(self.bounds, self.year, self.seed)
        inside = (things["x"] >= west) & (things["x"] < east)
        inside &= (things["y"] >= south) & (things["y"] < north)
        return things[inside & (things["home"] >= 0)]

    def _per_cell(self, what: str, cell_size: float) -> xr.DataArray:
        """Sum a column of the homes over cells."""
        shape = tuple(1000 * km / cell_size for km in self.shape_km)
        if any(abs(cells - round(cells)) > 1e-6 for cells in shape):
            raise InputError(
                f"cell_size is {cell_size} m, expected one that divides the window of "
                f"{self.shape_km[0]} × {self.shape_km[1]} km"
            )
        cells = np.zeros([round(count) for count in shape])
        west, _, _, north = self.bounds
        rows = np.ceil((north - self._homes["y"]) / cell_size).astype(int) - 1
        cols = np.floor((self._homes["x"] - west) / cell_size).astype(int)
        np.add.at(cells, (rows, cols), self._homes[what])
        return self._located(cells, ("y", "x"), cell_size, what)

    def _affine(self, side: float) -> Affine:
        return Affine(side, 0, self.bounds[0], 0, -side, self.bounds[3])

    def _located(self, values: Any, dims: tuple[str, ...], side: float, name: str) -> xr.DataArray:
        """Put an array onto the window, in cells of a side."""
        west, _, _, north = self.bounds
        rows, cols = values.shape[-2:]
        coords: dict[str, Any] = {
            "y": north - (np.arange(rows) + 0.5) * side,
            "x": west + (np.arange(cols) + 0.5) * side,
        }
        if "band" in dims:
            coords["band"] = np.arange(1, self.bands + 1)
        array = xr.DataArray(values, coords, dims, name=name)
        return array.rio.write_crs(self.crs).rio.write_transform(self._affine(side))


def drawn_orthophoto(
    shape_km: tuple[float, float] = (3.0, 3.0),
    *,
    seed: int = 0,
    origin: tuple[float, float] = (600_000.0, 6_200_000.0),
    year: int = 0,
    bands: int = 1,
    resolution: float = PIXEL,
) -> OrthophotoWorld:
    """Draw a window of a country from the air, with the people who live in it.

    About 88 % of its cells of 100 m are empty, and the busiest has some 150 people. Windows of one
    seed are windows of one country: where two overlap, they show the same. Other seeds are other
    countries, built and lit alike.

    Parameters
    ----------
    shape_km
        Extent northward and eastward in kilometres, multiples of 0.1.
    seed
        Of the country.
    origin
        Easting and northing of the lower left corner in metres, multiples of 100: the picture lies
        on the Danish grid of 100 m.
    year
        Years after the first picture. Later, districts have grown, single houses are new or gone,
        fields bear other crops and the sun stands elsewhere.
    bands
        1 (grey), 3 (red, green, blue) or 4 (and near infrared).
    resolution
        Side of a pixel in metres, a multiple of 0.5 that divides 100; coarser pixels are means.

    Returns
    -------
    OrthophotoWorld
        Its lazy picture, its houses and its people; nothing is drawn yet.

    Raises
    ------
    InputError
        If the window does not lie on the grid, or there is no such resolution or number of bands.

    Examples
    --------
    >>> world = drawn_orthophoto((0.4, 0.6), origin=(604_200, 6_204_800), resolution=1.0)
    >>> dict(world.image.sizes), str(world.image.dtype), world.image.rio.crs.to_epsg()
    ({'band': 1, 'y': 400, 'x': 600}, 'uint8', 25832)
    >>> later = drawn_orthophoto((0.4, 0.6), origin=(604_200, 6_204_800), year=20)
    >>> dict(world.people(100).sizes), int(world.people().sum()), int(later.people().sum())
    ({'y': 4, 'x': 6}, 379, 706)
    """
    return OrthophotoWorld(shape_km, seed, origin, year, bands, resolution)


def _draw_block(world: OrthophotoWorld, block_info: Any = None) -> np.ndarray:
    """Draw one block (band, row, column) of a world's picture."""
    (b0, b1), *spans = block_info[None]["array-location"]
    west, _, _, north = world.bounds
    fine = round(world.resolution / PIXEL)
    rows, cols = ((stop - start) * fine for start, stop in spans)
    top = spans[0][0] * fine - round(north / PIXEL)
    left = spans[1][0] * fine + round(west / PIXEL)
    options = {"seed": world.seed, "year": world.year, "bands": world.bands}
    film = photograph(top, left, (rows, cols), **options)[b0:b1]
    bands, rows, cols = film.shape
    squares = np.clip(film, 1, 254).reshape(bands, rows // fine, fine, cols // fine, fine)
    return (squares.mean((2, 4)) + 0.5).astype(np.uint8)
