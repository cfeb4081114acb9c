"""A file is opened as what its name says, and its version is that of all that it reads."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from popdask import open_frames
from popdask.datasets.frames import check_raster
from popdask.datasets.transfer import FetchError
from popdask.errors import InputError
from popdask.imagery.mosaic import open_sheet
from popdask.io.rasters import (
    drivers_of,
    frame_fingerprint,
    frame_version,
    is_put_together,
    read_counts,
    sources_of,
    suffix_of,
)
from popdask.io.tables import read_features
from popdask.tracking.names import read_places
from popdask.workflow.inputs import credits_of, file_fingerprint, version_of
from tests.cube.claims import tiff_of_claims

POINTING = {
    "vrt": '<VRTDataset rasterXSize="2" rasterYSize="2"><SRS>EPSG:25833</SRS>'
    "<GeoTransform>0,1,0,2,0,-1</GeoTransform>"
    '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{0}</SourceFilename>'
    "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>",
    "wms": '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/{0}</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>2</UpperLeftY><LowerRightX>2</LowerRightX>"
    "<LowerRightY>0</LowerRightY><SizeX>2</SizeX><SizeY>2</SizeY></DataWindow>"
    "<Projection>EPSG:25833</Projection><BandsCount>1</BandsCount></GDAL_WMS>",
    "tiles": "<GDALTileIndexDataset><IndexDataset>{0}</IndexDataset></GDALTileIndexDataset>",
}


def raster(path, value=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"width": 2, "height": 2, "count": 1, "dtype": "float32", "crs": "EPSG:25833"}
    transform = rasterio.transform.from_origin(0, 2, 1, 1)
    with rasterio.open(path, "w", "GTiff", transform=transform, **profile) as file:
        file.write(np.full((2, 2), value, "float32"), 1)
    return path


def vrt(path, *sources):
    """A VRT of whole rasters, the later on top."""
    head, band = POINTING["vrt"].replace("Byte", "Float32").split("<SimpleSource>")
    source, tail = f"<SimpleSource>{band}".split("</VRTRasterBand>")
    parts = "".join(source.format(place) for place in sources)
    path.write_text(f"{head}{parts}</VRTRasterBand>{tail}")
    return str(path)


@given(
    st.sampled_from([".tif", ".TIFF", ".img", ".asc", ".png", ".nc", ".dat", "", ".bil", ".jp2"]),
    st.sampled_from(sorted(POINTING)),
    st.sampled_from(["", " \n", "<?xml version='1.0'?>\n"]),
)
def test_a_note_of_rasters_elsewhere_is_opened_under_no_other_name(
    tmp_path_factory, name, kind, top
):
    folder = tmp_path_factory.mktemp("planted")
    secret = raster(folder / "secret" / "shadow.tif", 7)
    planted = folder / f"pop_2020{name}"
    planted.write_text(top + POINTING[kind].format(secret))
    with pytest.raises(InputError, match="cannot be read"):
        read_counts(str(planted), slice(0, 2), slice(0, 2))
    with pytest.raises(InputError):
        open_sheet(planted)
    with pytest.raises(FetchError, match="is not a raster"):
        check_raster(planted, planted.name)


def test_a_vrt_that_says_so_is_read(tmp_path):
    place = vrt(tmp_path / "pop_2020.vrt", raster(tmp_path / "a.tif", 3))
    assert read_counts(place, slice(0, 2), slice(0, 2)).sum() == 12
    assert open_frames([place], times=["2020"])["population"].sum() == 12


def test_credits_are_read_of_nothing_but_rasters(tmp_path, caplog):
    planted = tmp_path / "pop.tif"
    planted.write_text(POINTING["vrt"].format(raster(tmp_path / "a.tif")))
    assert credits_of({"inputs": {"2020": {"path": str(planted)}}}) == []
    assert "whom to credit" in caplog.text


FOREIGN = ["[]", "1", "{", "{}", '{"files": []}', '{"files": {"a.tif": 3}}', "\udcff"]
FOREIGN += ['{"files": {"a.tif": {"credit": "x"}}}', '{"files": {"a.tif": {"credit": ["x"]}}}']
FOREIGN += ['{"files": {"a.tif": {"credit": "x"}}, "credits": {"x": {"name": "y"}}}']


@pytest.mark.parametrize("text", FOREIGN)
def test_a_record_beside_frames_that_is_anothers_ends_no_report(tmp_path, text):
    path = raster(tmp_path / "a.tif")
    (tmp_path / "fetched.json").write_bytes(text.encode(errors="surrogateescape"))
    assert credits_of({"inputs": {"2020": {"path": str(path)}}}) == []


@pytest.mark.parametrize("name", ["zones.geojson", "zones.gpkg", "zones.shp"])
def test_a_note_of_tables_elsewhere_is_refused(tmp_path, name):
    planted = tmp_path / name
    source = "<SrcDataSource>CSV:/etc/passwd</SrcDataSource>"
    planted.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="a">{source}</OGRVRTLayer></OGRVRTDataSource>'
    )
    for read in (read_features, lambda path: read_places(path, column="name")):
        with pytest.raises(InputError, match="is a note of where tables lie"):
            read(planted)


def test_names_stand_for_kinds():
    assert suffix_of("/vsizip/a.zip/POP.TIF") == suffix_of("s3://b/pop.tif") == ".tif"
    assert drivers_of("pop.tif.gz") == drivers_of("https://x.org/p.tif?a=b.vrt") == ("GTiff",)
    assert is_put_together("s3://b/mosaic.VRT") and "VRT" not in drivers_of("pop")


def test_a_source_that_changes_is_another_version_of_a_vrt(tmp_path):
    first, second = raster(tmp_path / "a.tif"), raster(tmp_path / "b.tif")
    inner = vrt(tmp_path / "inner.vrt", first)
    outer = vrt(tmp_path / "outer.vrt", inner, second)
    assert sources_of(outer) == [inner, str(second)]
    seen = set()
    for change in (lambda: None, lambda: raster(first, 2), lambda: raster(second, 3)):
        change()
        told = frame_fingerprint(outer)
        assert set(told["sources"]) == {inner, str(first), str(second)}
        seen.add(frame_version(told))
    vrt(tmp_path / "inner.vrt", second)
    seen.add(frame_version(frame_fingerprint(outer)))
    assert len(seen) == 4


def test_what_is_on_record_of_a_vrt_holds_while_its_sources_do(tmp_path):
    source = raster(tmp_path / "a.tif")
    place = vrt(tmp_path / "pop.vrt", source)
    known = file_fingerprint(place)
    source.write_bytes(source.read_bytes()[:-4] + b"\0\0\0A")
    assert file_fingerprint(place, known) != known
    without = {key: told for key, told in known.items() if key != "sources"}
    assert "sources" in file_fingerprint(place, without)  # on record by an earlier version


def test_a_source_that_is_lost_is_named(tmp_path):
    source = raster(tmp_path / "a.tif")
    place = vrt(tmp_path / "pop.vrt", source)
    source.unlink()
    with pytest.raises(InputError, match=r"a\.tif, of which .*pop\.vrt is put together"):
        frame_fingerprint(place)


def test_vrts_of_one_another_end(tmp_path):
    one, other = str(tmp_path / "one.vrt"), str(tmp_path / "other.vrt")
    vrt(Path(one), other), vrt(Path(other), one)
    assert set(frame_fingerprint(one)["sources"]) == {other}


def test_content_is_read_where_size_and_time_tell_nothing(tmp_path):
    source = raster(tmp_path / "a.tif")
    place = vrt(tmp_path / "pop.vrt", source)
    for path in (str(source), place):
        known = file_fingerprint(path)
        stat, content = source.stat(), source.read_bytes()
        source.write_bytes(content[:-4] + bytes(byte ^ 1 for byte in content[-4:]))
        os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert file_fingerprint(path, known) == known
        assert file_fingerprint(path)["sha256"] != known["sha256"]
        source.write_bytes(content)


@pytest.mark.parametrize("name", ["cells", "zones.shp"])
def test_a_folder_and_a_shapefile_are_as_old_as_their_parts(tmp_path, name):
    place = tmp_path / name
    parts = [place / "a" / "one.jpg", place / "two.jpg"]
    if name == "zones.shp":
        parts = [place, tmp_path / "zones.dbf"]
    for part in parts:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(f"people of {part.name}")
    path = str(place)
    known = {path: version_of(path, {})}
    os.utime(parts[1], ns=(0, 0))  # another time is no other version
    assert version_of(path, known)["sha256"] == known[path]["sha256"]
    known = {path: version_of(path, known)}
    parts[1].write_text("PEOPLE".ljust(parts[1].stat().st_size))
    assert version_of(path, known)["sha256"] != known[path]["sha256"]
    os.utime(parts[1], ns=(0, 0))  # content alone
    assert version_of(path, known) == known[path]
    assert version_of(path, {})["sha256"] != known[path]["sha256"]
    parts[1].rename(parts[1].with_stem(parts[1].stem + "s") if place.is_dir() else tmp_path / "x")
    assert version_of(path, {})["sha256"] != known[path]["sha256"]


@given(st.integers(200_000, 10**9))
def test_a_header_that_claims_more_than_its_file_holds_is_refused(tmp_path_factory, size):
    path = tiff_of_claims(tmp_path_factory.mktemp("claims") / "pop_2020.tif", size)
    for open_it in (lambda: open_frames([str(path)], times=["2020"]), lambda: open_sheet(path)):
        with pytest.raises(InputError, match=rf"claims {size:,} × {size:,} cells in a file of"):
            open_it()


def test_a_raster_of_nothing_but_empty_tiles_is_one(tmp_path):
    profile = {"width": 40_000, "height": 40_000, "count": 1, "dtype": "float32", "tiled": True}
    profile |= {"crs": "EPSG:25833", "transform": rasterio.transform.from_origin(0, 2, 1, 1)}
    with rasterio.open(tmp_path / "sea.tif", "w", "GTiff", sparse_ok=True, **profile):
        pass
    assert (tmp_path / "sea.tif").stat().st_size < 1 << 19
    assert open_sheet(tmp_path / "sea.tif").grid.shape == (40_000, 40_000)
