"""The catalogue is valid STAC, says where and when everything is, and can be moved."""

import hashlib
import os
import shutil

import numpy as np
import pandas as pd
import pystac
import pystac.validation
import pytest
import rasterio
import shapely.geometry
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from xarray import DataArray

from popdask.errors import InputError
from popdask.io import write_catalog, write_cogs, write_colours, write_geoparquet

GRID = GeoBox((40, 60), Affine(250, 0, 250_000, 0, -250, 6_650_000), "EPSG:25833")  # Oslo


def cogs(folder, kind, dtype, grid=GRID):
    times = pd.to_datetime(["2006", "2011"])
    coords = {"time": times, **xr_coords(grid, dims=("y", "x"))}
    array = DataArray(np.zeros((2, *grid.shape), dtype), coords, ("time", "y", "x"))
    paths = write_cogs(array.assign_attrs(units="1"), folder, f"oslo_{kind}")
    return dict(zip(times, paths, strict=True))


@pytest.fixture
def written(tmp_path):
    people, classes = cogs(tmp_path, "people", "float32"), cogs(tmp_path, "classes", "int16")
    for path in classes.values():
        write_colours(path, np.array([[1, 0, 0], [0, 0.2, 1]]))
    table = write_geoparquet(pd.DataFrame({"people": [3, 5]}), tmp_path / "oslo_links.parquet")
    frames = {time: {"people": people[time], "classes": classes[time]} for time in people}
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in people.values()}
    return write_catalog(tmp_path, "oslo", frames, {"links": table}, sha256=sums)


def validate(part):
    """Validate against the core schemas, which pystac has on board."""
    told = part.to_dict(include_self_link=False)
    pystac.validation.validate_dict(told, extensions=[])


def test_items_and_collection_are_valid(written):
    assert [path.name for path in written] == [
        "oslo_2006.json", "oslo_2011.json", "oslo_collection.json",
    ]  # fmt: skip
    collection = pystac.Collection.from_file(str(written[-1]))
    items = list(collection.get_items())
    for part in (collection, *items):
        validate(part)
    assert [item.id for item in items] == ["oslo_2006", "oslo_2011"]
    with pytest.raises(pystac.STACValidationError):
        pystac.validation.validate_dict(items[0].to_dict() | {"links": None}, extensions=[])


def test_a_catalogue_says_where_and_when(written):
    collection = pystac.Collection.from_file(str(written[-1]))
    item = next(iter(collection.get_items()))
    assert item.datetime.isoformat() == "2006-01-01T00:00:00+00:00"
    assert item.properties["proj:code"] == "EPSG:25833"
    assert item.properties["proj:shape"] == [40, 60]
    assert item.properties["proj:transform"] == list(GRID.transform)[:6]
    west, south, east, north = item.bbox
    assert 10 < west < 10.6 < east < 11 and 59 < south < 59.9 < north < 60.2
    assert collection.extent.spatial.bboxes == [item.bbox]
    first, last = collection.extent.temporal.intervals[0]
    assert (first.year, last.year) == (2006, 2011)


def test_assets_say_what_they_are(written):
    collection = pystac.Collection.from_file(str(written[-1]))
    people, classes = next(iter(collection.get_items())).assets.values()
    assert people.media_type == pystac.MediaType.COG
    assert (people.extra_fields["data_type"], people.extra_fields["nodata"]) == ("float32", "nan")
    with open(people.get_absolute_href(), "rb") as file:  # noqa: PTH123
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert people.extra_fields["file:checksum"] == f"1220{digest}"
    assert people.extra_fields["file:size"] == os.stat(people.get_absolute_href()).st_size  # noqa: PTH116
    assert (classes.extra_fields["data_type"], classes.extra_fields["nodata"]) == ("int16", -1)
    told = classes.extra_fields["classification:classes"]
    assert [(one["value"], one["color_hint"]) for one in told] == [(0, "FF0000"), (1, "0033FF")]
    links = collection.assets["links"]
    assert links.extra_fields["table:row_count"] == 2
    assert links.extra_fields["table:columns"] == [{"name": "people", "type": "int64"}]


def test_a_catalogue_can_be_moved(written, tmp_path):
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    shutil.move(written[0].parent, moved)
    collection = pystac.Collection.from_file(f"{moved}/oslo_collection.json")
    for item in collection.get_items():
        assert str(tmp_path) not in (moved / f"{item.id}.json").read_text()
        assert item.get_collection().id == "oslo"
        for asset in item.assets.values():
            assert asset.href.startswith("./")
            with rasterio.open(asset.get_absolute_href()) as file:
                assert file.shape == GRID.shape


def test_a_raster_across_the_antimeridian_is_cut(tmp_path):
    fiji = GeoBox((40, 60), Affine(10_000, 0, 1_700_000, 0, -10_000, 4_200_000), "EPSG:3460")
    frames = {time: {"people": path} for time, path in cogs(tmp_path, "people", "u1", fiji).items()}
    written = write_catalog(tmp_path, "fiji", frames)
    item = pystac.Item.from_file(str(written[0]))
    validate(item)
    west, _, east, _ = item.bbox
    assert west > 170 and east < -170  # as GeoJSON has it
    assert item.geometry["type"] == "MultiPolygon"


@pytest.mark.parametrize(
    ("west", "ends", "kind"),
    [
        (179.5, (179.5, -179.9), "MultiPolygon"),
        (180.0, (-180.0, -179.4), "Polygon"),
        (-180.6, (179.4, 180.0), "Polygon"),
    ],
)
def test_longitudes_beyond_180_are_those_of_the_other_side(tmp_path, west, ends, kind):
    fiji = GeoBox((40, 60), Affine(0.01, 0, west, 0, -0.01, -16), "EPSG:4326")
    frames = {time: {"people": path} for time, path in cogs(tmp_path, "people", "u1", fiji).items()}
    item = pystac.Item.from_file(str(write_catalog(tmp_path, "fiji", frames)[0]))
    validate(item)
    assert item.bbox == pytest.approx([ends[0], -16.4, ends[1], -16])
    assert item.geometry["type"] == kind
    assert shapely.geometry.shape(item.geometry).area == pytest.approx(0.6 * 0.4)


def test_rows_that_run_northward_lie_in_the_same_place(tmp_path, written):
    upward = GRID.transform @ Affine(1, 0, 0, 0, -1, GRID.shape[0])
    people = cogs(tmp_path / "upward", "people", "float32", GeoBox(GRID.shape, upward, GRID.crs))
    frames = {time: {"people": path} for time, path in people.items()}
    upright, turned = (
        pystac.Item.from_file(str(path))
        for path in (written[0], write_catalog(tmp_path / "upward", "oslo", frames)[0])
    )
    assert turned.bbox == upright.bbox
    assert turned.properties["proj:bbox"] == upright.properties["proj:bbox"]


def test_the_same_files_give_the_same_catalogue(written):
    folder = written[0].parent
    before = [path.read_bytes() for path in written]
    frames = {
        str(year): {kind: folder / f"oslo_{kind}_{year}.tif" for kind in ("people", "classes")}
        for year in (2011, 2006)
    }
    sums = {
        rasters["people"]: hashlib.sha256(rasters["people"].read_bytes()).hexdigest()
        for rasters in frames.values()
    }
    links = {"links": folder / "oslo_links.parquet"}
    again = write_catalog(folder, "oslo", frames, links, sha256=sums)
    assert again == written and [path.read_bytes() for path in again] == before


def test_a_catalogue_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="the catalogue of oslo has no rasters"):
        write_catalog(tmp_path, "oslo", {})
