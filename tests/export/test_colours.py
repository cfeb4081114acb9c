"""Rasters of labels open in colour, with the type and the −1 that they have."""

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros

from popdask.errors import InputError
from popdask.io import write_cogs, write_colours
from popdask.plot import number_colours

GRID = GeoBox.from_bbox((0, 0, 40, 20), "EPSG:3035", resolution=1)


def labels(folder, dtype):
    array = xr_zeros(GRID, dtype)
    array.data[:, 20:] = -1
    array.data[10:] = 299
    return write_cogs(array, folder, "labels")[0]


@pytest.mark.parametrize("dtype", ["int16", "int32"])
def test_gdal_reads_the_colours_of_signed_and_many_labels(tmp_path, dtype):
    raster, colours = labels(tmp_path, dtype), number_colours(np.arange(300))
    before = raster.read_bytes()
    assert write_colours(raster, colours).name == "labels.tif.aux.xml"
    with rasterio.open(raster) as file:
        assert file.colorinterp == (rasterio.enums.ColorInterp.palette,)
        assert (file.dtypes, file.nodata) == ((dtype,), -1)
        table = file.colormap(1)
        assert set(np.unique(file.read(1))) == {-1, 0, 299}
    assert len(table) == 300
    for number in (0, 1, 299):
        assert table[number] == (*np.rint(colours[number] * 255).astype(int), 255)
    assert raster.read_bytes() == before


def test_a_frame_without_labels_opens_too(tmp_path):
    raster = labels(tmp_path, "int32")
    write_colours(raster, np.zeros((0, 3)))
    with rasterio.open(raster) as file:
        assert file.nodata == -1 and file.read(1).shape == GRID.shape


@pytest.mark.parametrize("colours", [np.zeros(3), np.zeros((3, 4)), np.full((1, 3), 255)])
def test_what_is_no_colour_is_refused(tmp_path, colours):
    raster = labels(tmp_path, "int16")
    with pytest.raises(InputError, match=r"the colours of labels\.tif are an array"):
        write_colours(raster, colours)
