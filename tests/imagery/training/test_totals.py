"""The people of zones, shared among cells by what images show."""

import dask.array as da
import geopandas as gpd
import numpy as np
import pytest
import shapely

from popdask.errors import InputError
from popdask.imagery.cells import keep_whole_zones, make_cells, split_cells
from popdask.imagery.dasymetric import add_zones
from popdask.imagery.grid import CellGrid
from popdask.imagery.trainer import spread_totals

GRID = CellGrid(100, "EPSG:25832")
SIDE = 24


def brightly_lit(people, side=SIDE):
    """Cells of a square of the grid, the brighter the more people."""
    rng = np.random.default_rng(0)
    north, east = (axis.ravel() for axis in np.indices((side, side)))
    images = rng.normal(20, 2, (side**2, 1, 16, 16)) + 10 * people[:, None, None, None]
    return make_cells(da.from_array(images.astype("f4"), chunks=(64, -1, -1, -1)), people, north,
                      east, GRID)  # fmt: skip


def some_people(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 9, SIDE**2) * (rng.random(SIDE**2) < 0.3).astype(float)


@pytest.fixture(scope="module")
def learned():
    cells = add_zones(brightly_lit(some_people()), 3)
    cells = keep_whole_zones(split_cells(cells, block=6, validation=0.2))
    return cells, spread_totals(cells)


def test_totals_are_kept_and_nothing_is_told_of_other_cells(learned):
    cells, people = learned
    training = cells["split"].values == 0
    assert np.isfinite(people[training]).all() and np.isnan(people[~training]).all()
    sums = np.bincount(cells["zone"].values[training], people[training])
    totals = np.bincount(cells["zone"].values[training], cells["people"].values[training])
    np.testing.assert_allclose(sums, totals, atol=1e-9)


def test_people_are_found_within_their_zones(learned):
    cells, people = learned
    known = np.isfinite(people)
    truth = cells["people"].values[known]
    even = (cells["total"].values / 9)[known]
    wrong, evenly_wrong = (np.abs(said - truth).mean() for said in (people[known], even))
    assert wrong < 0.35 * evenly_wrong
    assert np.corrcoef(people[known] > 0, truth > 0)[0, 1] > 0.8


def test_the_people_of_single_cells_are_not_looked_at(learned):
    cells, people = learned
    moved = cells["people"].values.copy()
    for zone in np.unique(cells["zone"].values):
        here = cells["zone"].values == zone
        moved[here] = np.roll(moved[here], 1)
    other = spread_totals(cells.assign(people=("cell", moved)))
    np.testing.assert_array_equal(people, other)


def test_zones_stay_on_one_side(learned):
    cells, _ = learned
    split, zone = cells["split"].values, cells["zone"].values
    assert set(split) == {-1, 0, 1}
    assert not set(zone[split == 0]) & set(zone[split != 0])


def squares(folder, west):
    """Three squares of 12 cells with 10, 20 and 30 people, side by side from some cell on."""
    boxes = [shapely.box(x, 0, x + 1200, 1200) for x in (west, west + 1200, west + 2400)]
    frame = gpd.GeoDataFrame({"people": [10.0, 20.0, 30.0]}, geometry=boxes, crs=GRID.crs)
    frame.to_file(folder / "zones.geojson")
    return folder / "zones.geojson"


def test_polygons_that_are_whole_share_their_people_evenly_at_first(tmp_path):
    cells = brightly_lit(np.full(SIDE**2, np.nan))
    found = add_zones(cells, squares(tmp_path, 0))
    zone, total = found["zone"].values, found["total"].values
    here = (cells["north"].values < 12) & (cells["east"].values < 12)
    assert (total[here] == 10).all() and set(zone) == {-1, 0, 1}
    assert np.isnan(total[cells["north"].values >= 12]).all()  # in no zone
    assert found["people"].sum() == pytest.approx(30)
    without = add_zones(cells.isel(cell=slice(1, None)), squares(tmp_path, 0))
    assert set(without["zone"].values) == {-1, 1}


def test_what_cannot_be_learned_from_is_refused_in_a_sentence(tmp_path):
    cells = brightly_lit(np.full(SIDE**2, np.nan))
    with pytest.raises(InputError, match="lies wholly on the cells of the mosaic"):
        add_zones(cells, squares(tmp_path, 1300))
    nobody = add_zones(brightly_lit(np.zeros(SIDE**2)), 3)
    nobody = nobody.assign_coords(split=("cell", np.zeros(SIDE**2, np.int8)))
    with pytest.raises(InputError, match="64 zones with 0 people"):
        spread_totals(nobody)
    straddling = nobody.assign_coords(split=("cell", np.arange(SIDE**2) % 2))
    with pytest.raises(InputError, match="no zone lies wholly among the training cells"):
        keep_whole_zones(straddling)
