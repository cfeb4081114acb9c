"""Fill values that nobody declared are no people."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.io import MemoryFile

import popdask
from popdask.errors import InputError
from popdask.io.rasters import read_counts
from tests.cube.raster_files import TRANSFORM, write_raster

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
SHAPE = 5, 7


def raster(file, values, nodata=None):
    """Write a raster into memory; give the name under which GDAL opens it."""
    with file.open(
        driver="GTiff", count=1, height=SHAPE[0], width=SHAPE[1], dtype=values.dtype,
        crs="EPSG:3035", transform=TRANSFORM, nodata=nodata,
    ) as out:  # fmt: skip
        out.write(values, 1)
    return file.name


@given(
    dtype=st.sampled_from(INTEGERS),
    cells=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=9),
    declared=st.sampled_from(["largest", "zero", "setting", "other setting", None]),
    step=st.integers(1, 7),
)
def test_the_largest_value_is_people_only_where_that_can_be(dtype, cells, declared, step):
    largest = int(np.iinfo(dtype).max)
    values = np.full(SHAPE, 3, dtype)
    for cell in cells:
        values[cell] = largest
    if declared == "largest" and dtype.endswith("64"):  # rasterio writes the 64 bits' first digit
        declared = "setting"
    nodata = {"largest": largest, "zero": 0}.get(declared)
    setting = {"setting": largest, "other setting": -1}.get(declared)
    with MemoryFile() as file:
        path = raster(file, values, nodata)
        parts = [
            lambda at=at: read_counts(
                path, slice(0, 5), slice(at, min(at + step, 7)), nodata=setting
            )
            for at in range(0, 7, step)
        ]
        known = declared in ("largest", "setting") or (declared and largest <= 65535)
        if len(cells) > 1 and not known:
            for at, part in zip(range(0, 7, step), parts, strict=True):
                if (values[:, at : at + step] == largest).any():
                    with pytest.raises(InputError, match=f"holds {largest}, the largest"):
                        part()
                else:
                    assert (part() == 3).all()
            return
        found = np.concatenate([part() for part in parts], axis=1)
    expected = values.astype("float32")
    if declared in ("largest", "setting"):
        expected[values == largest] = np.nan
    np.testing.assert_array_equal(found, expected)


def test_a_sea_of_65535_is_refused_and_mended(tmp_path):
    values = np.full((40, 30), 2, "uint16")
    values[:12] = 65535
    path = write_raster(tmp_path / "pop_2000.tif", values)
    population = popdask.open_frames({2000: path}, chunks=7).population
    with pytest.raises(InputError, match=r"pop_2000.tif holds 65535, the largest value of uint16"):
        population.compute()
    assert popdask.open_frames({2000: path}, nodata=65535).population.sum() == 28 * 30 * 2
    with rasterio.open(path, "r+") as file:
        file.nodata = 65535
    assert popdask.open_frames({2000: path}).population.sum() == 28 * 30 * 2


@pytest.mark.parametrize("fill", [3.4028234663852886e38, 9.969209968386869e36, 1e20])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_cell_holds_more_people_than_any_integer(tmp_path, dtype, fill):
    values = np.ones(SHAPE, dtype)
    values[1, 2] = fill
    path = write_raster(tmp_path / "pop.tif", values)
    with pytest.raises(InputError, match=r"pop.tif holds .*e\+\d\d at row 1, column 2"):
        read_counts(path, slice(0, 5), slice(0, 7))
    declared = write_raster(tmp_path / "declared.tif", values, nodata=values[1, 2])
    assert np.isnan(read_counts(declared, slice(0, 5), slice(0, 7))).sum() == 1


def test_a_masked_cell_is_not_asked(tmp_path):
    values = np.full((2, 3), 255, "uint8")
    path = write_raster(tmp_path / "pop.tif", values)
    with rasterio.open(path, "r+") as file:
        file.write_mask(np.array([[0, 255, 255], [0, 0, 0]], "uint8"))
    assert np.nansum(read_counts(path, slice(0, 2), slice(0, 3))) == 510
