"""Fetched rasters laid as frames, with their years and credits, and frames made of tiles.

``fetched.json`` says of every frame where it is from and what its SHA-256 is, so that fetching
again compares instead of bringing; ``CREDITS.txt`` says whom to credit.

The tiles are those of the Global Human Settlement Layer, R2023A. Rows count from the north and
columns from the west, both from 1: ``R3_C18`` is a square of 1000 km in the Mollweide projection
(ESRI:54009), or of 10° in WGS 84. Tiles without land are not published.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from affine import Affine
from filelock import FileLock
from pyproj import Transformer
from rasterio.errors import RasterioError
from rasterio.merge import merge

from popdask.datasets.transfer import FetchError, checksum_of
from popdask.errors import InputError
from popdask.io.paths import write_text
from popdask.io.rasters import open_raster

CC_BY = "Creative Commons Attribution 4.0 International (CC BY 4.0)"
CC_BY_URL = "https://creativecommons.org/licenses/by/4.0/"


Bounds = tuple[float, float, float, float]

_TILE = re.compile(r"R([1-9]\d?)_C([1-9]\d?)")
Years = str | int | Iterable[int]
MANIFEST, CREDITS = "fetched.json", "CREDITS.txt"
_ROUNDING = 1e-3  # of a cell: published origins are rounded


@dataclass(frozen=True)
class Credit:
    """The credit that a data set asks for.

    Examples
    --------
    >>> credit = Credit("WorldPop", "WorldPop (2025).", "https://www.worldpop.org")
    >>> credit.licence_url.rpartition("/licenses/")[2]
    'by/4.0/'
    """

    title: str
    """Its name."""
    citation: str
    """How it is cited."""
    page: str
    """Where it is described."""
    licence: str = CC_BY
    """What may be done with it."""
    licence_url: str = CC_BY_URL
    """Where the licence is."""

    def __str__(self) -> str:
        return f"{self.title}: {self.citation} {self.licence}."


def credits_text(files: dict[str, dict[str, str]], credits: dict[str, Credit]) -> str:
    """Write the credits of a folder."""
    paragraphs = []
    for key, credit in sorted(credits.items()):
        names = sorted(name for name, file in files.items() if file["credit"] == key)
        lines = [credit.title, credit.citation, f"{credit.licence}, {credit.licence_url}"]
        lines += [credit.page, ""]
        for name in names:
            made = files[name]["made"]
            lines.append(f"  {name}  ({f'changed: {made}' if made else 'as published'})")
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


def wanted_years(years: Years, available: Sequence[int], source: str) -> list[int]:
    """Return which years are wanted."""
    if isinstance(years, str) and ":" in years:
        first, last = _numbers(years.split(":", 1), years)
        found = [year for year in available if first <= year <= last]
        absent = [year for year in (first, last) if not available[0] <= year <= available[-1]]
        if not absent and not found:
            absent = [first, last]
    else:
        numbers = _numbers(years.split(","), years) if isinstance(years, str) else years
        found = sorted({numbers} if isinstance(numbers, int) else {int(year) for year in numbers})
        absent = [year for year in found if year not in available]
    if absent or not found:
        shown = repr(years) if isinstance(years, str) else years
        raise InputError(
            f"years is {shown}, but {source} has {described(available)}; ask for those."
        )
    return found


def described(years: Sequence[int]) -> str:
    """Say which years there are."""
    first, last = years[0], years[-1]
    steps = {later - year for year, later in itertools.pairwise(years)}
    if not steps:
        return f"{first}"
    if len(steps) > 1:
        return ", ".join(map(str, years))
    (step,) = steps
    return f"{first} to {last}" + (f", every {step} years" if step > 1 else "")


def _numbers(texts: Sequence[str], years: object) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise InputError(
            f"years is {years!r}; expected a span such as 2000:2020, or years such as 2000,2010; "
            "correct it."
        ) from None


@dataclass(frozen=True)
class Fetched:
    """Frames that were fetched.

    Examples
    --------
    >>> credit = Credit("WorldPop", "WorldPop (2025).", "https://www.worldpop.org")
    >>> print(Fetched({}, "data/lux_{time:%Y}.tif", credit, new=0).setting)
    frames = "data/lux_{time:%Y}.tif"
    """

    frames: dict[int, Path]
    """File of each year."""
    pattern: str
    """Names them all, for `popdask.open_frames` and job files."""
    credit: Credit
    """Whom to credit."""
    new: int
    """How many of them were not in the folder before."""

    @property
    def setting(self) -> str:
        """The line for a job file."""
        return f"frames = {json.dumps(self.pattern, ensure_ascii=False)}"


class FrameFolder:
    """The folder of the frames."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path} cannot be the folder of the frames ({error.strerror}); expected a folder "
                "that may be made and written; choose another."
            ) from error

    def holds(self, name: str) -> bool:
        """Return whether a frame is here, as it was when it was fetched."""
        path = self.path / name
        if not path.exists():
            return False
        known = self._manifest()["files"].get(name)
        if known and checksum_of(path) == known["sha256"]:
            return True
        was = "is not as it was fetched" if known else "was not fetched by popdask"
        raise InputError(f"{path} is there and {was}; move it away or choose another folder.")

    def put(
        self,
        name: str,
        write: Callable[[Path], None],
        sources: Mapping[str, str],
        credit: Credit,
        made: str = "",
    ) -> None:
        """Let a frame be written, and put it in its place when it is whole."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".fetch-") as folder:
            fresh = Path(folder) / name
            write(fresh)
            check_raster(fresh, name)
            entry = {
                "sha256": checksum_of(fresh),
                "bytes": fresh.stat().st_size,
                "from": dict(sources),
                "made": made,
                "credit": credit.title,
                "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            with FileLock(self.path / ".fetched.lock"):
                self._record(name, entry, credit)
                fresh.replace(self.path / name)

    def missing(self, pattern: str, years: Iterable[int]) -> dict[int, str]:
        """Name the frames that are not here yet, by year."""
        names = {year: _name(pattern, year) for year in years}
        return {year: name for year, name in names.items() if not self.holds(name)}

    def fetched(self, pattern: str, years: Iterable[int], credit: Credit, new: int) -> Fetched:
        """Return the frames that are here now, by a pattern as `missing` takes it."""
        folder = self.path.absolute().as_posix().replace("{", "{{").replace("}", "}}")
        paths = {year: self.path / _name(pattern, year) for year in years}
        return Fetched(paths, f"{folder}/{pattern}", credit, new)

    def _manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            if not isinstance(manifest, dict):
                raise TypeError("it is no table")
            for part in ("credits", "files"):
                if not all(isinstance(entry, dict) for entry in manifest[part].values()):
                    raise TypeError(f"its {part} are none")
        except FileNotFoundError:
            return {"credits": {}, "files": {}}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.path / MANIFEST} is not what popdask writes ({error}); move it and the "
                "frames away, and fetch again."
            ) from error
        return manifest

    def _record(self, name: str, entry: dict[str, Any], credit: Credit) -> None:
        manifest = self._manifest()
        manifest["credits"][credit.title] = asdict(credit)
        manifest["files"][name] = entry
        credits = {key: Credit(**fields) for key, fields in manifest["credits"].items()}
        write_text(self.path / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        write_text(self.path / CREDITS, credits_text(manifest["files"], credits))


def _name(pattern: str, year: int) -> str:
    return pattern.replace("{time:%Y}", str(year))


def link(source: Path, target: Path) -> None:
    """Let a file be in two places; copy it where the disk is another one."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def check_raster(path: Path, name: str) -> None:
    """Raise what is wrong if a file is not a raster."""
    try:
        with open_raster(str(path)):
            pass
    except RasterioError as error:
        raise FetchError(
            f"{name} is not a raster that GDAL can open: the server sent something else; it is not "
            "kept."
        ) from error


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of one projection lie.

    Examples
    --------
    >>> TileGrid("EPSG:4326", -180.0, 90.0, 10.0, rows=18, columns=36).columns
    36
    """

    crs: str
    """The projection."""
    left: float
    """Western edge of the first column."""
    top: float
    """Northern edge of the first row."""
    side: float
    """Side of a tile, in the units of the projection."""
    rows: int
    """How many rows."""
    columns: int
    """How many columns."""

    def tile_at(self, longitude: float, latitude: float) -> str:
        """Name the tile of a place, given in degrees.

        Examples
        --------
        >>> MOLLWEIDE.tile_at(80.27, 13.08), WGS84.tile_at(2.2, 41.4)
        ('R8_C26', 'R5_C19')
        """
        x, y = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True).transform(
            longitude, latitude
        )
        (name,) = self._names((x, y, x, y))
        return name

    def tiles_in(self, bounds: Bounds) -> list[str]:
        """Name the tiles that a rectangle touches.

        Parameters
        ----------
        bounds
            West, south, east and north in degrees.

        Examples
        --------
        >>> WGS84.tiles_in((-132, 68, -128, 72))
        ['R2_C5', 'R2_C6', 'R3_C5', 'R3_C6']
        """
        return self._names(self.project(bounds))

    def project(self, bounds: Bounds) -> Bounds:
        """Return the smallest rectangle of the projection that holds one in degrees."""
        transformer = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
        left, bottom, right, top = transformer.transform_bounds(*bounds, densify_pts=101)
        return left, bottom, right, top

    def _names(self, box: Bounds) -> list[str]:
        left, bottom, right, top = box
        rows = _span(self.top - top, self.top - bottom, self.side, self.rows)
        columns = _span(left - self.left, right - self.left, self.side, self.columns)
        return [f"R{row}_C{column}" for row in rows for column in columns]


MOLLWEIDE = TileGrid("ESRI:54009", -18_041_000.0, 9_000_000.0, 1_000_000.0, 18, 37)
WGS84 = TileGrid("EPSG:4326", -180 - 0.95 / 120, 89.1 - 0.05 / 120, 10.0, 18, 36)


def checked_tile(name: str) -> str:
    """Return the name of a tile as it is published."""
    if not _TILE.fullmatch(name.upper()):
        raise InputError(f"tile is {name!r}; expected a name such as R3_C18; correct it.")
    return name.upper()


def checked_bounds(bounds: Bounds) -> Bounds:
    """Return a rectangle in degrees, if it is one."""
    try:
        west, south, east, north = map(float, bounds)
        fits = -180 <= west < east <= 180 and -90 <= south < north <= 90
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"bounds is {bounds}; expected west, south, east and north in degrees, such as "
            "10,59,11,60, and not across the date line; correct it."
        )
    return west, south, east, north


def _span(first: float, last: float, side: float, count: int) -> range:
    """Numbers of the tiles from one distance to another; where both meet, the one after."""
    begin = math.floor(first / side) + 1
    end = max(math.ceil(last / side), begin)
    return range(min(max(begin, 1), count), min(max(end, 1), count) + 1)


def join_parts(parts: Mapping[str, Callable[[Path], None]], bounds: Bounds, target: Path) -> None:
    """Let tiles be written beside a raster, and join them to it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        tiles = {Path(folder, f"{name}.tif"): write for name, write in parts.items()}
        for tile, write in tiles.items():
            write(tile)
        join(list(tiles), bounds, target)


def join(tiles: Sequence[Path], bounds: Bounds, target: Path) -> None:
    """Write what tiles have within a rectangle."""
    # Cells are copied, not resampled; those that are partly in the rectangle are taken as a
    # whole, and what no tile covers is nodata. A strip of the result is in memory at a time.
    try:
        with ExitStack() as stack:
            sources = [stack.enter_context(open_raster(str(tile))) for tile in tiles]
            first = sources[0]
            merge(
                sources,
                bounds=snapped(bounds, first.transform),
                res=first.res,
                nodata=first.nodata,
                dst_path=target,
                dst_kwds={
                    "driver": "GTiff",
                    "tiled": True,
                    "blockxsize": 256,
                    "blockysize": 256,
                    "compress": "deflate",
                    "bigtiff": "if_safer",
                },
            )
    except RasterioError as error:
        raise FetchError(f"the tiles of {target.name} cannot be put together ({error}).") from error


def snapped(bounds: Bounds, transform: Affine) -> Bounds:
    """Widen a rectangle to whole cells."""
    left, bottom, right, top = bounds
    column, row = ~transform @ (left, top)
    last_column, last_row = ~transform @ (right, bottom)
    begin = transform @ (math.floor(column + _ROUNDING), math.floor(row + _ROUNDING))
    end = transform @ (math.ceil(last_column - _ROUNDING), math.ceil(last_row - _ROUNDING))
    return begin[0], end[1], end[0], begin[1]
