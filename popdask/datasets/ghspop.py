"""GHS-POP R2023A: people per cell of the whole world, every five years from 1975 to 2030.

The Joint Research Centre publishes it in tiles (`popdask.datasets.frames`), each a zipped GeoTIFF;
the last years are projections. Cells of the Mollweide grids have equal areas. The layout is that of
https://jeodpp.jrc.ec.europa.eu/ftp/jrc-opendata/GHSL, as of 2025; ``POPDASK_GHSPOP_URL`` names a
mirror of its folder GHS_POP_GLOBE_R2023A.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from popdask.datasets.frames import (
    MOLLWEIDE,
    WGS84,
    Bounds,
    Credit,
    Fetched,
    FrameFolder,
    TileGrid,
    Years,
    checked_bounds,
    checked_tile,
    join_parts,
    wanted_years,
)
from popdask.datasets.transfer import (
    Download,
    Downloads,
    FetchError,
    MissingFileError,
    root_of,
)
from popdask.errors import InputError
from popdask.io.paths import without_secrets

URL = "https://jeodpp.jrc.ec.europa.eu/ftp/jrc-opendata/GHSL/GHS_POP_GLOBE_R2023A"
YEARS = range(1975, 2031, 5)
CREDIT = Credit(
    "GHS-POP R2023A",
    "Schiavina M., Freire S., Carioli A., MacManus K. (2023): GHS-POP R2023A - GHS population grid "
    "multitemporal (1975-2030). European Commission, Joint Research Centre (JRC). "
    "doi:10.2905/2FF68A52-5B5B-4A22-8F40-C41DA8332CFE.",
    "https://human-settlement.emergency.copernicus.eu/ghs_pop2023.php",
)

#: An archive may unpack to so many bytes, or to so many times its own.
LARGE, RATIO = 256 << 20, 100


@dataclass(frozen=True)
class Product:
    """GHS-POP in one projection and resolution."""

    code: str  # how its files are called: 54009_1000, 54009_100, 4326_30ss or 4326_3ss
    grid: TileGrid  # where its tiles lie

    def stem(self, tile: str, year: int | str) -> str:
        """Name of a tile without its ending."""
        return f"GHS_POP_E{year}_GLOBE_R2023A_{self.code}_V1_0_{tile}"

    def path(self, tile: str, year: int) -> str:
        """Path of a tile below the root."""
        folder = f"GHS_POP_E{year}_GLOBE_R2023A_{self.code}/V1-0/tiles"
        return f"{folder}/{self.stem(tile, year)}.zip"


PRODUCTS = {
    ("mollweide", "1km"): Product("54009_1000", MOLLWEIDE),
    ("mollweide", "100m"): Product("54009_100", MOLLWEIDE),
    ("wgs84", "1km"): Product("4326_30ss", WGS84),
    ("wgs84", "100m"): Product("4326_3ss", WGS84),
}


def fetch_ghspop(
    years: Years,
    folder: Path | str,
    *,
    bounds: Bounds | None = None,
    tile: str | None = None,
    resolution: str = "1km",
    projection: str = "mollweide",
    url: str | None = None,
    downloads: Downloads | None = None,
) -> Fetched:
    """Fetch GHS-POP of a tile, or of a rectangle.

    Parameters
    ----------
    years : str, int or iterable of int
        A span such as ``"1990:2020"``, or years.
    folder : path
        Where the frames go.
    bounds : tuple of float, optional
        West, south, east and north in degrees: the tiles that this touches are put together and cut
        to it. In the Mollweide projection that is the rectangle around it. What lies on no
        published tile is sea, and nodata.
    tile : str, optional
        Name of a tile, instead of bounds; it is taken as it is.
    resolution : str
        ``1km`` (in WGS 84: 30 arc-seconds) or ``100m`` (3 arc-seconds).
    projection : str
        ``mollweide``, where all cells have one area, or ``wgs84``.
    url : str, optional
        Root of a mirror; by default ``POPDASK_GHSPOP_URL``, or else that of the Joint Research
        Centre.
    downloads : Downloads, optional
        The cache, and how files are brought.

    Returns
    -------
    Fetched
        The frames, their pattern and the credit that they ask for.

    Raises
    ------
    InputError
        If there is no such raster, or the folder has another file of its name.
    FetchError
        If a tile could not be brought, or is not what it should be.

    Examples
    --------
    >>> fetch_ghspop("1990:2020", "data/oslo", tile="3_18")
    Traceback (most recent call last):
    popdask.errors.InputError: tile is '3_18'; expected a name such as R3_C18; correct it.
    >>> fetched = fetch_ghspop("1990:2020", "data/oslo", bounds=(10, 59, 12, 61))  # doctest: +SKIP
    >>> cube = popdask.open_frames(fetched.pattern)                                # doctest: +SKIP
    """
    product = PRODUCTS.get((projection, resolution))
    if product is None:
        raise InputError(
            f"GHS-POP has no raster of {resolution!r} in {projection!r}; expected 1km or 100m in "
            "mollweide or wgs84."
        )
    if (bounds is None) == (tile is None):
        raise InputError("GHS-POP is fetched by bounds or by tile; give one of them.")
    found = wanted_years(years, YEARS, "GHS-POP R2023A")
    root = root_of(url, "POPDASK_GHSPOP_URL", URL)
    source = _Source(product, root, downloads or Downloads())
    if tile is not None:
        return _fetch_tile(source, checked_tile(tile), found, folder)
    assert bounds is not None
    return _fetch_bounds(source, checked_bounds(bounds), found, folder)


@dataclass(frozen=True)
class _Source:
    """Where tiles are from."""

    product: Product
    root: str
    downloads: Downloads

    @property
    def place(self) -> str:
        """The root, without secrets."""
        return without_secrets(self.root)

    def bring(self, tile: str, year: int) -> Download:
        url = f"{self.root}/{self.product.path(tile, year)}"
        return self.downloads.get(url, partial(_check_zip, member=self._member(tile, year)))

    def unzip(self, tile: str, year: int, source: Download, target: Path) -> None:
        """Write the raster of a zipped tile; the names in the archive decide nothing."""
        with (
            zipfile.ZipFile(source.path) as archive,
            archive.open(self._member(tile, year)) as member,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(member, file)

    def _member(self, tile: str, year: int) -> str:
        return f"{self.product.stem(tile, year)}.tif"


def _check_zip(path: Path, member: str) -> None:
    """Raise what is wrong if a file is not a sound archive with a member of that name."""
    name = f"{member.removesuffix('.tif')}.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            _check_unpacked(archive, name)
            broken, held = archive.testzip(), archive.namelist()
    except (zipfile.BadZipFile, zlib.error) as error:
        raise FetchError(f"{name} is not a sound zip archive ({error}); it is not kept.") from error
    if broken:
        raise FetchError(f"{name} is not a sound zip archive ({broken} is broken); it is not kept.")
    if member not in held:
        shown = ", ".join(map(repr, held[:5])) or "nothing"
        raise FetchError(f"{name} holds {shown}; expected {member}; it is not kept.")


def _check_unpacked(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse, before it is unpacked, what is far larger than a compressed raster can be."""
    packed = sum(entry.compress_size for entry in archive.infolist())
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > max(LARGE, RATIO * packed):
        raise FetchError(
            f"{name} would unpack from {packed:,} bytes to {unpacked:,}, which a raster does not: "
            "the server sent something else; it is not kept."
        )


def _fetch_tile(source: _Source, tile: str, years: list[int], folder: Path | str) -> Fetched:
    frames = FrameFolder(folder)
    pattern = f"{source.product.stem(tile, '{time:%Y}')}.tif"
    missing = frames.missing(pattern, years)
    for year, name in missing.items():
        try:
            zipped = source.bring(tile, year)
        except MissingFileError as error:
            raise InputError(
                f"GHS-POP R2023A has no tile {tile} in {year} ({source.place}): tiles without land "
                "are not published; choose another."
            ) from error
        frames.put(name, partial(source.unzip, tile, year, zipped), zipped.source, CREDIT)
    return frames.fetched(pattern, years, CREDIT, len(missing))


def _fetch_bounds(source: _Source, bounds: Bounds, years: list[int], folder: Path | str) -> Fetched:
    frames = FrameFolder(folder)
    tiles = source.product.grid.tiles_in(bounds)
    box = "box_" + "_".join(f"{number:g}" for number in bounds)
    pattern = f"{source.product.stem(box, '{time:%Y}')}.tif"
    missing = frames.missing(pattern, years)
    land: set[str] = set()
    for year, name in missing.items():
        zipped = _bring_all(source, tiles, year)
        land = land or set(zipped)
        if set(zipped) != land or not zipped:
            raise InputError(_gaps(source, tiles, land, set(zipped), year))
        made = f"cut to {', '.join(f'{number:g}' for number in bounds)} from {', '.join(zipped)}"
        parts = {tile: partial(source.unzip, tile, year, zipped[tile]) for tile in zipped}
        write = partial(join_parts, parts, source.product.grid.project(bounds))
        origins = {archive.url: archive.sha256 for archive in zipped.values()}
        frames.put(name, write, origins, CREDIT, made)
    return frames.fetched(pattern, years, CREDIT, len(missing))


def _bring_all(source: _Source, tiles: Iterable[str], year: int) -> dict[str, Download]:
    """Bring those of the tiles that are published."""
    zipped = {}
    for tile in tiles:
        try:
            zipped[tile] = source.bring(tile, year)
        except MissingFileError:  # sea
            continue
    return zipped


def _gaps(source: _Source, tiles: list[str], land: set[str], found: set[str], year: int) -> str:
    if not found:
        return (
            f"GHS-POP R2023A has none of the tiles {', '.join(tiles)} in {year} ({source.place}): "
            "tiles without land are not published; choose other bounds."
        )
    differing = ", ".join(sorted(land ^ found))
    return (
        f"{source.place} has the tile {differing} in some of the years and not in others ({year}); "
        "expected it in all or in none; the mirror is not complete, choose another."
    )
