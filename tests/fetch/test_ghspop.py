"""GHS-POP: tiles fetched from a server with the layout of the Joint Research Centre's."""

import json
import zipfile

import numpy as np
import pytest
import rasterio
from pyproj import Transformer

import popdask
from popdask.datasets import FetchError, fetch_ghspop, ghspop
from popdask.datasets.frames import MOLLWEIDE
from popdask.errors import InputError
from tests.fetch.rasters import publish_tile, tile, zipped

LILLEHAMMER = (9.0, 60.0, 12.0, 62.0)  # on R2_C19 and R3_C19


def fetch(site, downloads, folder, years="2000:2010", **options):
    return fetch_ghspop(years, folder, url=site.url, downloads=downloads, **options)


def archive_of(site, name="R3_C18", year=2020):
    stem = f"GHS_POP_E{year}_GLOBE_R2023A_54009_1000_V1_0_{name}"
    folder = f"GHS_POP_E{year}_GLOBE_R2023A_54009_1000/V1-0/tiles"
    return stem, f"{folder}/{stem}.zip"


def test_a_tile_becomes_a_cube(site, downloads, tmp_path):
    for year in (2000, 2005, 2010):
        publish_tile(site, "R3_C18", year)
    fetched = fetch(site, downloads, tmp_path / "wales", tile="r3_c18")
    assert fetched.new == 3 and sorted(fetched.frames) == [2000, 2005, 2010]
    assert fetched.frames[2005].name == "GHS_POP_E2005_GLOBE_R2023A_54009_1000_V1_0_R3_C18.tif"
    cube = popdask.open_frames(fetched.pattern)
    assert list(cube.time.dt.year.values) == [2000, 2005, 2010]
    assert cube.rio.crs.to_authority() == ("ESRI", "54009")
    assert cube.population.shape == (3, 100, 100)
    assert float(cube.population[1, 0, 0]) == pytest.approx(2_001_700.2005)


def test_a_rectangle_is_cut_from_its_tiles_cell_by_cell(site, downloads, tmp_path):
    tiles = MOLLWEIDE.tiles_in(LILLEHAMMER)
    assert len(tiles) == 2
    for name in tiles:
        publish_tile(site, name, 2000)
    fetched = fetch(site, downloads, tmp_path / "lillehammer", 2000, bounds=LILLEHAMMER)
    assert fetched.pattern.endswith(
        "/GHS_POP_E{time:%Y}_GLOBE_R2023A_54009_1000_V1_0_box_9_60_12_62.tif"
    )
    with rasterio.open(fetched.frames[2000]) as file:
        values, transform = file.read(1), file.transform
        assert file.nodata == -200
        left, bottom, right, top = MOLLWEIDE.project(LILLEHAMMER)
        assert file.bounds.left <= left < file.bounds.left + file.res[0]
        assert file.bounds.top >= top > file.bounds.top - file.res[1]
        assert file.bounds.right >= right > file.bounds.right - file.res[0]
        assert file.bounds.bottom <= bottom < file.bounds.bottom + file.res[1]
    rows, columns = np.indices(values.shape)
    x, y = transform @ (columns + 0.5, rows + 0.5)
    row = np.floor((MOLLWEIDE.top - y) / 10_000)  # a hundredth of a tile is a cell here
    column = np.floor((x - MOLLWEIDE.left) / 10_000)
    np.testing.assert_array_equal(values, row * 10_000 + column + 0.2)


def test_bounds_hold_the_rectangle_that_was_asked_for(site, downloads, tmp_path):
    for name in MOLLWEIDE.tiles_in(LILLEHAMMER):
        publish_tile(site, name, 2000)
    fetched = fetch(site, downloads, tmp_path, 2000, bounds=LILLEHAMMER)
    to_degrees = Transformer.from_crs("ESRI:54009", "EPSG:4326", always_xy=True)
    with rasterio.open(fetched.frames[2000]) as file:
        west, south, east, north = to_degrees.transform_bounds(*file.bounds)
    assert (
        west <= LILLEHAMMER[0]
        and south <= LILLEHAMMER[1]
        and east >= LILLEHAMMER[2]
        and north >= LILLEHAMMER[3]
    )


def test_degrees_are_cut_too(site, downloads, tmp_path):
    for name in ("R3_C19", "R3_C20"):
        publish_tile(site, name, 2020, code="4326_30ss", projection="wgs84")
    fetched = fetch(
        site, downloads, tmp_path, 2020, bounds=(9.0, 60.0, 11.0, 62.0), projection="wgs84"
    )
    cube = popdask.open_frames(fetched.pattern)
    assert cube.rio.crs.to_epsg() == 4326
    assert cube.population.shape == (1, 21, 21)
    assert not cube.population.isnull().any()


def test_tiles_of_the_sea_are_nodata_and_not_an_error(site, downloads, tmp_path):
    north, south = MOLLWEIDE.tiles_in(LILLEHAMMER)
    for year in (2000, 2005):
        publish_tile(site, south, year)
    fetched = fetch(site, downloads, tmp_path, "2000:2005", bounds=LILLEHAMMER)
    population = popdask.open_frames(fetched.pattern).population
    assert population.isnull().any(), north
    assert population.notnull().any()


def test_a_tile_that_is_there_in_some_years_only_is_a_gap(site, downloads, tmp_path):
    north, south = MOLLWEIDE.tiles_in(LILLEHAMMER)
    publish_tile(site, north, 2000)
    for year in (2000, 2005):
        publish_tile(site, south, year)
    with pytest.raises(InputError, match=rf"has the tile {north} in some of the years and not in"):
        fetch(site, downloads, tmp_path, "2000:2005", bounds=LILLEHAMMER)


def test_nothing_but_sea(site, downloads, tmp_path):
    with pytest.raises(InputError, match=r"none of the tiles R\d+_C\d+.* in 2000 .* without land"):
        fetch(site, downloads, tmp_path, 2000, bounds=(-30.0, 30.0, -29.0, 31.0))
    with pytest.raises(InputError, match=r"GHS-POP R2023A has no tile R3_C15 in 2000 \(http"):
        fetch(site, downloads, tmp_path, 2000, tile="R3_C15")


def test_the_record_says_what_was_changed(site, downloads, tmp_path):
    tiles = MOLLWEIDE.tiles_in(LILLEHAMMER)
    for name in tiles:
        publish_tile(site, name, 2000)
    fetched = fetch(site, downloads, tmp_path, 2000, bounds=LILLEHAMMER)
    file = json.loads((tmp_path / "fetched.json").read_text())["files"][fetched.frames[2000].name]
    assert len(file["from"]) == 2 and all(len(sha256) == 64 for sha256 in file["from"].values())
    changed = f"(changed: cut to 9, 60, 12, 62 from {', '.join(tiles)})"
    assert changed in (tmp_path / "CREDITS.txt").read_text()


def test_fetching_again_asks_for_nothing(site, downloads, tmp_path):
    for name in MOLLWEIDE.tiles_in(LILLEHAMMER):
        publish_tile(site, name, 2000)
    first = fetch(site, downloads, tmp_path, 2000, bounds=LILLEHAMMER)
    asked = len(site.requests)
    again = fetch(site, downloads, tmp_path, 2000, bounds=LILLEHAMMER)
    assert again.frames == first.frames and again.new == 0
    assert len(site.requests) == asked


def test_an_archive_without_the_tile_is_not_kept(site, downloads, tmp_path):
    stem, path = archive_of(site)
    site.add(path, zipped({"other.tif": tile("R3_C18", 2020)}))
    with pytest.raises(FetchError, match=rf"{stem}.zip holds 'other.tif'; expected {stem}.tif"):
        fetch(site, downloads, tmp_path / "wales", 2020, tile="R3_C18")
    publish_tile(site, "R3_C18", 2020)
    assert fetch(site, downloads, tmp_path / "wales", 2020, tile="R3_C18").new == 1


def test_names_in_an_archive_cannot_leave_the_folder(site, downloads, tmp_path):
    stem, path = archive_of(site)
    members = {"../../escaped.tif": b"x", "/escaped.tif": b"x", f"{stem}.tif": tile("R3_C18", 2020)}
    site.add(path, zipped(members))
    before = {found.name for found in tmp_path.rglob("*")}
    fetched = fetch(site, downloads, tmp_path / "a/wales", 2020, tile="R3_C18")
    after = {found.name for found in tmp_path.rglob("*")} - before
    assert fetched.frames[2020].parent == tmp_path / "a/wales"
    assert not [name for name in after if "escaped" in name]


@pytest.mark.parametrize("spoil", ["cut", "flipped", "text"])
def test_a_broken_archive_is_not_kept(site, downloads, tmp_path, spoil):
    stem, path = archive_of(site)
    publish_tile(site, "R3_C18", 2020)
    sound = site.files[f"/{path}"]
    middle = len(sound) // 2
    flipped = sound[:middle] + bytes([sound[middle] ^ 255]) + sound[middle + 1 :]
    site.add(path, {"cut": sound[:middle], "flipped": flipped, "text": b"<html>"}[spoil])
    with pytest.raises(FetchError, match=rf"{stem}.zip is not a sound zip archive"):
        fetch(site, downloads, tmp_path / "wales", 2020, tile="R3_C18")
    assert not list((tmp_path / "wales").glob("*.tif"))
    site.add(path, sound)
    assert fetch(site, downloads, tmp_path / "wales", 2020, tile="R3_C18").new == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "is fetched by bounds or by tile; give one of them"),
        ({"tile": "R3_C18", "bounds": LILLEHAMMER}, "is fetched by bounds or by tile"),
        ({"tile": "../R3_C18"}, "tile is '../R3_C18'; expected a name such as R3_C18"),
        ({"bounds": (12, 59, 9, 61)}, "expected west, south, east and north in degrees"),
        ({"tile": "R3_C18", "resolution": "250m"}, "no raster of '250m' in 'mollweide'"),
        ({"tile": "R3_C18", "years": "1960:2020"}, "has 1975 to 2030, every 5 years"),
    ],
)
def test_what_is_asked_for_wrongly(site, downloads, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        fetch(site, downloads, tmp_path, **options)
    assert not site.requests


def test_an_archive_that_swells_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(ghspop, "LARGE", 16 << 20)
    path = tmp_path / "tile.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("tile.tif", "w") as member,
    ):
        for _ in range(30):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(FetchError, match=r"tile\.zip would unpack from .* to 31,457,280"):
        ghspop._check_zip(path, "tile.tif")
