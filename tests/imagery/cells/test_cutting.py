import os
import threading
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import xr_coords

from popdask.errors import InputError
from popdask.imagery.cells import cells_grid, coarsen_cells, open_cells, write_cells
from popdask.imagery.cutting import counts_from_raster, cut_cells, drop_padding
from popdask.imagery.grid import CellGrid
from popdask.imagery.mosaic import open_mosaic
from tests.imagery.image_files import invent

FLANDERS = Path(os.environ.get("POPDASK_DATA") or "/nonexistent") / "flanders_s2_10m"
GRID = CellGrid(100.0)


def picture(values, south=61390, west=6771, pixels=5, chunks=None, grid=GRID):
    """An image (band, y, x) whose lower left corner is that of a cell."""
    height, width = values.shape[1:]
    norths = range(south, south - (-height // pixels))
    box = grid.geobox(norths, range(west, west - (-width // pixels)), pixels=pixels)
    image = xr.DataArray(
        values if chunks is None else da.from_array(values, chunks=chunks),
        dims=("band", "y", "x"),
        coords=xr_coords(box[-height:, :width], dims=("y", "x")),
    )
    return image.rio.write_crs(grid.crs)


def table(rows):
    return pd.DataFrame(rows, columns=["north", "east", "people"])


def by_place(cells):
    """Cells as a dictionary from (north, east)."""
    places = zip(cells.north.values.tolist(), cells.east.values.tolist(), strict=True)
    return dict(zip(places, cells.images.values, strict=True))


def test_cells_are_the_slices_at_their_codes():
    values = invent((3, 40, 60))
    cells = cut_cells(picture(values), None, GRID)
    assert dict(cells.sizes) == {"cell": 96, "band": 3, "row": 5, "col": 5}
    assert cells.images.dtype == np.uint8
    found = by_place(cells)
    assert len(found) == 96
    for (north, east), image in found.items():
        row, column = (61397 - north) * 5, (east - 6771) * 5
        np.testing.assert_array_equal(image, values[:, row : row + 5, column : column + 5])
    assert np.isnan(cells.people).all()
    assert (cells.covered == 1).all()


def test_cells_say_where_they_are():
    cells = cut_cells(picture(invent((1, 20, 20))), None, "dk_100m", context=1)
    assert cells.attrs == {
        "cell_size": 100.0,
        "resolution": 20.0,
        "context": 1,
        "origin": [0.0, 0.0],
        "nodata": "0",
    }
    assert cells_grid(cells) == GRID
    assert cells.rio.crs.to_epsg() == 25832
    assert cells.north.dtype == cells.east.dtype == np.int64
    assert cells.people.dtype == np.float64


@pytest.mark.parametrize("context", [1, 2])
def test_a_ring_is_what_lies_around_a_cell(context):
    values = invent((2, 40, 35))
    cells = cut_cells(picture(values), None, GRID, context=context)
    ring = 5 * context
    padded = np.pad(values, [(0, 0), (ring, ring), (ring, ring)])
    span = 5 + 2 * ring
    assert cells.images.shape == (56, 2, span, span)
    for (north, east), image in by_place(cells).items():
        row, column = (61397 - north) * 5, (east - 6771) * 5
        np.testing.assert_array_equal(image, padded[:, row : row + span, column : column + span])


def test_beyond_the_image_a_ring_has_no_data():
    image = picture(invent((1, 5, 5)).astype(np.float32))
    ring = cut_cells(image, None, GRID, context=1).images[0, 0].values
    assert np.isnan(ring).sum() == 15 * 15 - 25
    image = picture(invent((1, 5, 5))).assign_attrs(nodata=255)
    ring = cut_cells(image, None, GRID, context=1).images[0, 0].values
    assert (ring == 255).sum() >= 15 * 15 - 25


@st.composite
def chunked_images(draw):
    """Size and ragged chunks of an image."""
    chunks = [
        draw(st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda c: sum(c) > 14))
        for _ in range(2)
    ]
    return tuple(tuple(c) for c in chunks)


@settings(max_examples=20)
@given(
    chunks=chunked_images(),
    corner=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    context=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 9),
)
def test_identical_in_any_chunks(chunks, corner, context, seed):
    values = invent((2, sum(chunks[0]), sum(chunks[1])), seed)
    rng = np.random.default_rng(seed)
    norths, easts = (first + np.arange(30) for first in corner)
    counts = table([(n, e, rng.poisson(9)) for n in norths for e in easts if (n + e) % 2])
    settings_ = {"context": context, "labelled": True, "outside": "drop"}

    def cut(chunks):
        image = picture(values, *corner, chunks=chunks)
        return cut_cells(image, counts, GRID, **settings_)

    whole = cut(-1).compute()
    xr.testing.assert_identical(cut(((1, 1), *chunks)).compute(), whole)


def test_the_image_may_lie_anywhere_on_the_pixels_of_the_grid():
    values = invent((1, 40, 40))
    whole = by_place(cut_cells(picture(values), None, GRID))
    part = by_place(cut_cells(picture(values)[:, 3:-2, 2:-1], None, GRID))
    assert len(whole) == 64
    assert len(part) == 36
    for place, image in part.items():
        np.testing.assert_array_equal(image, whole[place])


def test_rows_from_south_to_north_are_turned():
    image = picture(invent((1, 20, 20)))
    turned = image.isel(y=slice(None, None, -1))
    xr.testing.assert_identical(cut_cells(turned, None, GRID), cut_cells(image, None, GRID))
    flat = cut_cells(image.isel(band=0, drop=True), None, GRID)
    xr.testing.assert_identical(flat, cut_cells(image, None, GRID))


def test_building_the_graph_reads_nothing():
    def read():
        raise RuntimeError("a chunk was read")

    unread = da.map_blocks(
        read, chunks=((1,), (20, 20), (30, 10)), dtype="uint8", meta=np.empty((0, 0, 0), "uint8")
    )
    image = picture(np.zeros((1, 40, 40), np.uint8)).copy(data=unread)
    cells = coarsen_cells(cut_cells(image, None, GRID), 2)
    cut_cells(image, None, GRID, context=1)
    with pytest.raises(RuntimeError, match="a chunk was read"):
        cells.images.compute()


def test_blocks_without_wanted_cells_are_not_read():
    read = []

    def remember(block, block_id):
        read.append(block_id)
        return block

    values = da.from_array(invent((1, 160, 160)), chunks=(1, 40, 40))
    image = picture(np.zeros((1, 160, 160), np.uint8), south=61384, west=6776, pixels=5)
    image = image.copy(data=values.map_blocks(remember, dtype="uint8"))
    counts = table([(61384, 6776, 5.0), (61415, 6807, 6.0)])
    read.clear()
    cut_cells(image, counts, GRID, labelled=True).images.compute(scheduler="synchronous")
    assert set(read) == {(0, 3, 0), (0, 0, 3)}


def test_a_chunk_is_a_square_of_cells():
    image = picture(invent((1, 160, 160)), south=61384, west=6776)
    cells = cut_cells(image, None, GRID)
    assert cells.images.chunks == ((64,) * 16, (1,), (5,), (5,))
    for block in range(16):
        inside = cells.isel(cell=slice(64 * block, 64 * (block + 1)))
        assert np.ptp(inside.north.values) == np.ptp(inside.east.values) == 7


def test_people_come_from_a_table_or_a_raster():
    image = picture(invent((1, 10, 10)))
    counts = table([(61390, 6771, 5), (61391, 6772, 0)])
    cells = cut_cells(image, counts, GRID)
    places = zip(cells.north.values.tolist(), cells.east.values.tolist(), strict=True)
    people = dict(zip(places, cells.people.values, strict=True))
    assert people[61390, 6771] == 5
    assert people[61391, 6772] == 0
    assert np.isnan(people[61391, 6771])
    assert cut_cells(image, counts, GRID, labelled=True).sizes["cell"] == 2
    assert float(cut_cells(image, counts, GRID, missing=0).people.sum()) == 5
    assert np.isfinite(cut_cells(image, counts, GRID, missing=0).people).all()
    box = GRID.geobox(range(61380, 61400), range(6771, 6772))
    raster = xr.DataArray(
        np.arange(20.0)[:, None], dims=("y", "x"), coords=xr_coords(box, dims=("y", "x"))
    )
    cells = cut_cells(image, raster, GRID, labelled=True)
    assert cells.people.values.tolist() == [8.0, 9.0]
    assert cells.north.values.tolist() == [61391, 61390]


def test_counts_of_cells_that_are_not_there():
    image = picture(invent((1, 10, 10)))
    counts = table([(61390, 6771, 5), (61300, 6771, 7)])
    with pytest.raises(InputError, match=r"1 of 2 counts are of cells .* 100m_61300_6771"):
        cut_cells(image, counts, GRID)
    assert float(cut_cells(image, counts, GRID, outside="drop").people.sum()) == 5
    with pytest.raises(InputError, match=r"1 of 1 counts .*check the grid and the place"):
        cut_cells(image, counts[1:], GRID, outside="drop")


def test_joined_cells_are_those_of_the_larger_grid():
    values = invent((3, 100, 90))
    image = picture(values, chunks=(3, 33, 41))
    rng = np.random.default_rng(0)
    counts = table([(n, e, rng.poisson(9)) for n in range(61390, 61410) for e in range(6771, 6789)])
    joined = coarsen_cells(cut_cells(image, counts, GRID), 3)
    direct = cut_cells(image, None, CellGrid(300.0))
    assert joined.sizes["cell"] == direct.sizes["cell"] == 36
    xr.testing.assert_equal(joined.drop_vars("people"), direct.drop_vars("people"))
    assert cells_grid(joined) == CellGrid(300.0)
    totals = counts.groupby([counts.north // 3, counts.east // 3]).people.sum()
    for north, east, people in zip(joined.north, joined.east, joined.people, strict=True):
        assert float(people) == totals[int(north), int(east)]


def test_a_cell_lacking_one_of_nine_is_not_joined():
    cells = cut_cells(picture(invent((1, 30, 60)), south=61389, west=6771), None, GRID)
    assert coarsen_cells(cells, 3).sizes["cell"] == 8
    one = (cells.north == 61390) & (cells.east == 6774)
    joined = coarsen_cells(cells.isel(cell=~one.values), 3)
    assert joined.sizes["cell"] == 7
    assert (61389 // 3, 6774 // 3) not in by_place(joined)


def test_unknown_people_stay_unknown_when_joined():
    counts = table([(n, e, 1) for n in range(61389, 61392) for e in range(6771, 6777)])
    image = picture(invent((1, 15, 30)), south=61389)
    joined = coarsen_cells(cut_cells(image, counts[1:], GRID), 3)
    np.testing.assert_array_equal(np.sort(joined.people), [9, np.nan])


def test_what_cannot_be_joined_is_named():
    image = picture(invent((1, 15, 30)), south=61389)
    with pytest.raises(InputError, match="have a context of 1"):
        coarsen_cells(cut_cells(image, None, GRID, context=1), 3)
    with pytest.raises(InputError, match="hold no 7 × 7"):
        coarsen_cells(cut_cells(image, None, GRID), 7)


def test_padded_cells_are_dropped_and_counted():
    values = invent((3, 40, 40))
    values[:, :7] = 0  # the whole first row of cells, and part of the second
    values[:, 20:25, 10] = 0  # the edge of one cell
    values[:, 30:33, 32] = 0  # dark pixels within another
    kept, dropped = drop_padding(cut_cells(picture(values, chunks=20), None, GRID))
    assert (kept.sizes["cell"], dropped) == (64 - 17, 17)
    assert set(by_place(kept)) == {
        (north, east)
        for north in range(61390, 61396)
        for east in range(6771, 6779)
        if (north, east) != (61393, 6773)
    }


def test_any_pixel_without_data_is_padding_where_the_mosaic_says_so():
    image = picture(invent((1, 10, 10)))
    valid = np.ones((10, 10), bool)
    valid[2, 2] = False
    said = image.assign_coords(valid=(("y", "x"), valid))
    cells = cut_cells(said, None, GRID, context=1)
    assert sorted(cells.covered.values.tolist()) == pytest.approx([0.96, 1, 1, 1])
    assert drop_padding(cells)[1] == 1
    values = image.values.copy()
    values[0, 2, 2] = 0
    declared = image.copy(data=values).assign_attrs(nodata=0)
    assert drop_padding(cut_cells(declared, None, GRID))[1] == 1
    assert drop_padding(cut_cells(image.copy(data=values), None, GRID))[1] == 0
    holes = image.astype("float32").where(valid)
    assert drop_padding(cut_cells(holes, None, GRID))[1] == 1


def test_cells_are_stored_in_chunks_and_come_back(tmp_path):
    values = invent((3, 60, 75))
    cells = cut_cells(picture(values, chunks=25), None, GRID, context=1)
    cells = cells.assign_coords(split=("cell", np.arange(180).astype(np.int8)))
    write_cells(cells, tmp_path / "deep" / "cells.zarr")
    stored = open_cells(tmp_path / "deep" / "cells.zarr")
    assert stored.images.chunks[0] == (64, 64, 52)
    assert stored.images.dtype == np.uint8
    assert stored.split.dtype == np.int8
    assert not isinstance(stored.people.data, da.Array)
    xr.testing.assert_equal(stored, cells)
    assert stored.attrs == cells.attrs
    assert cells_grid(stored) == GRID
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["cells.zarr"]


def test_floats_with_missing_pixels_are_stored(tmp_path):
    image = picture(invent((1, 10, 10)).astype(np.float32))
    cells = cut_cells(image.where(image > 100), None, GRID)
    write_cells(cells, tmp_path / "cells.zarr")
    stored = open_cells(tmp_path / "cells.zarr")
    xr.testing.assert_equal(stored, cells)
    assert drop_padding(stored)[1] == drop_padding(cells)[1] == 4


def test_chosen_cells_can_be_stored(tmp_path):
    cells, _ = drop_padding(cut_cells(picture(invent((1, 60, 75), low=0)), None, GRID))
    write_cells(cells.isel(cell=slice(3, None, 2)), tmp_path / "cells.zarr")
    xr.testing.assert_equal(open_cells(tmp_path / "cells.zarr"), cells.isel(cell=slice(3, None, 2)))


def test_wrong_stores_get_one_sentence_and_lose_nothing(tmp_path):
    cells = cut_cells(picture(invent((1, 10, 10))), None, GRID)
    write_cells(cells, tmp_path / "cells.zarr")
    with pytest.raises(InputError, match=r"cells\.zarr exists; expected a new folder"):
        write_cells(cells, tmp_path / "cells.zarr")
    xr.testing.assert_equal(open_cells(tmp_path / "cells.zarr"), cells)
    with pytest.raises(InputError, match="there is no cell to write"):
        write_cells(cells.isel(cell=[]), tmp_path / "none.zarr")
    with pytest.raises(InputError, match=r"none\.zarr cannot be opened as Zarr"):
        open_cells(tmp_path / "none.zarr")
    xr.Dataset({"people": ("cell", [1.0])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(InputError, match=r"other\.zarr holds .*expected images"):
        open_cells(tmp_path / "other.zarr")


def test_a_write_that_fails_leaves_nothing(tmp_path):
    begun, ended = threading.Event(), threading.Event()

    def fail(block):
        assert begun.wait(60)
        raise RuntimeError("lost")

    def dawdle(block):
        begun.set()
        time.sleep(0.2)
        ended.set()
        return block

    cells = cut_cells(picture(invent((1, 10, 10))), None, GRID)
    for name, function in (("images", fail), ("covered", dawdle)):
        data = cells[name].data
        cells[name] = cells[name].copy(data=data.map_blocks(function, meta=data._meta))
    with pytest.raises(RuntimeError, match="lost"):
        write_cells(cells, tmp_path / "cells.zarr")
    assert ended.is_set() and not list(tmp_path.iterdir())


def test_wrong_images_get_one_sentence():
    image = picture(invent((1, 20, 20)))
    with pytest.raises(InputError, match="has no CRS"):
        cut_cells(image.drop_vars("spatial_ref"), None, 100)
    with pytest.raises(InputError, match=r"EPSG:25832 and the cells in EPSG:3035; .*align=True"):
        cut_cells(image, None, "eu_1km")
    with pytest.raises(InputError, match="expected cells no smaller than a pixel"):
        cut_cells(image, None, 10)
    with pytest.raises(InputError, match="do not fit into cells of 110m"):
        cut_cells(image, None, 110)
    with pytest.raises(InputError, match="do not fit into cells of 100m"):
        cut_cells(image.assign_coords(x=image.x + 3), None, 100)
    with pytest.raises(InputError, match="hold no whole cell of 1km"):
        cut_cells(image, None, 1000)
    with pytest.raises(InputError, match="hold no cell with a count of 100m"):
        cut_cells(image, None, 100, labelled=True)
    with pytest.raises(InputError, match="select one time"):
        cut_cells(image.expand_dims("time"), None, 100)
    with pytest.raises(InputError, match=r"context is 1\.5"):
        cut_cells(image, None, 100, context=1.5)


def test_flanders_has_97_covered_cells():
    if not FLANDERS.is_dir():
        pytest.skip("POPDASK_DATA does not hold the images of Flanders")
    grid = CellGrid.preset("eu_1km")
    counts = counts_from_raster(FLANDERS / "flanders_pop_1km_2021.tif", grid)
    assert (len(counts), counts.people.sum()) == (144, 17_440)
    (first, *_) = sorted(FLANDERS.glob("BEFL*.tif"))
    image = open_mosaic(first, grid=grid, align=True)
    cells = cut_cells(image, counts, grid, labelled=True, outside="drop")
    kept, dropped = drop_padding(cells)
    assert (kept.sizes["cell"], dropped) == (97, 47)
    assert float(kept.people.sum()) == 13_764
    assert kept.images.shape == (97, 3, 100, 100)
