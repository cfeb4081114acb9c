"""The map's overview: sums of people, commonest labels, as fine as the budget allows."""

import json

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from popdask.report.plots import finest, pyramid
from tests.report.reading import amounts, unpack


def blocks(values, factor):
    rows, cols = (-(-length // factor) for length in values.shape)
    pad = [
        (0, side * factor - length) for side, length in zip((rows, cols), values.shape, strict=True)
    ]
    padded = np.pad(values.astype(float), pad, constant_values=np.nan)
    return padded.reshape(rows, factor, cols, factor).transpose(0, 2, 1, 3).reshape(rows, cols, -1)


def decoded(maps, layer, position):
    told = maps.frames[layer][position]
    codes = np.frombuffer(unpack(told["codes"]), told["dtype"]).reshape(maps.rows, maps.cols)
    return codes, told


@pytest.fixture(scope="module")
def layers():
    draw = np.random.default_rng(0)
    people = draw.gamma(0.2, 300, (2, 450, 610)).astype(np.float32)
    people[:, :100] = 0
    people[:, 300:350, 500:] = np.nan
    labels = draw.integers(-1, 300, (2, 45, 61)).repeat(10, axis=1).repeat(10, axis=2)
    return {"people": people, "labels": labels.astype(np.int32)}


def rasters(layers, chunk=128):
    return {
        name: xr.DataArray(da.from_array(values, (1, chunk, chunk)), dims=("time", "y", "x"))
        for name, values in layers.items()
    }


@pytest.mark.parametrize("most_cells, factor", [(10**6, 1), (100_000, 2), (31_000, 3)])
def test_people_are_added_and_labels_are_the_commonest(layers, most_cells, factor):
    maps = pyramid(rasters(layers), most_cells=most_cells)[0]
    assert maps.factor == factor
    assert (maps.rows, maps.cols) == (-(-450 // factor), -(-610 // factor))
    for position in range(2):
        shown = amounts(*decoded(maps, "people", position))
        cells = blocks(layers["people"][position], factor)
        nothing = np.isnan(cells).all(axis=2)
        true = np.where(nothing, np.nan, np.nansum(cells, axis=2))
        np.testing.assert_array_equal(np.isnan(shown), nothing)
        np.testing.assert_array_equal(shown == 0, true == 0)
        np.testing.assert_allclose(shown[true > 1], true[true > 1], rtol=0.03)
        labels, _ = decoded(maps, "labels", position)
        same = blocks(layers["labels"][position], factor)
        uniform = np.nanmin(same, axis=2) == np.nanmax(same, axis=2)
        np.testing.assert_array_equal(labels[uniform] - 1.0, np.nanmax(same, axis=2)[uniform])


def test_the_finest_level_within_the_budget_is_taken(layers):
    levels = pyramid(rasters(layers))
    sizes = [level.bytes for level in levels]
    assert sizes == sorted(sizes, reverse=True)
    for level, size in zip(levels, sizes, strict=True):
        assert finest(levels, size) is level
        assert finest(levels, size + 100, around=lambda level: 100) is level
    assert finest(levels, sizes[0] - 1) is levels[1]
    assert finest(levels, 0) is levels[-1]


def test_the_same_under_any_chunking(layers):
    one, other = (pyramid(rasters(layers, chunk)) for chunk in (64, 200))
    assert [json.dumps(level.frames) for level in one] == [
        json.dumps(level.frames) for level in other
    ]


def test_a_large_raster_is_drawn_from_its_overview():
    """A country of which the cells alone would fill a page many times over."""
    draw = da.random.default_rng(0)
    people = draw.random((1, 4000, 3000), chunks=(1, 1000, 1000)).astype("float32")
    levels = pyramid({"people": xr.DataArray(people, dims=("time", "y", "x"))})
    assert levels[0].rows * levels[0].cols <= 4_000_000
    maps = finest(levels, 1_000_000)
    assert maps.factor == 4 and maps.bytes <= 1_000_000


def test_labels_beyond_a_byte_keep_their_numbers():
    labels = xr.DataArray(np.array([[[-1, 70_000], [254, 0]]]), dims=("time", "y", "x"))
    codes, told = decoded(pyramid({"labels": labels})[0], "labels", 0)
    assert told["dtype"] == "uint32" and codes.tolist() == [[0, 70_001], [255, 1]]
