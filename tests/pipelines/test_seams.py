"""A community across the seam of a global raster is two, and that is said."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from scipy import ndimage

from popdask import open_frames
from popdask.io import grid_of
from popdask.tracking.dbscan import dbscan
from popdask.workflow import communities
from popdask.workflow.inputs import _meeting, seam_notes
from popdask.workflow.progress import Reporter
from tests.pipelines.small import job

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
WORLD = GeoBox.from_bbox((-180, -15, 180, 15), "EPSG:4326", resolution=5)


def on_grid(values, grid):
    array = wrap_xr(values, grid).rename(longitude="x", latitude="y")
    return array.expand_dims(time=np.array(["2020"], "datetime64[ns]"))


def island(width=2):
    """Cells of one class on both sides of the seam, and some that are elsewhere."""
    classes = np.full(WORLD.shape, -1, np.int16)
    classes[2:4, :width] = classes[2:4, -width:] = 3
    classes[2:4, 20:24] = 3
    return classes


def told(classes, grid, eps=1.5):
    array = on_grid(classes, grid)
    found = dbscan(array.chunk(x=20), eps=eps, min_samples=2)
    return int(found.max()) + 1, list(seam_notes(found, eps, "communities", array))


def test_a_community_across_the_seam_is_said_to_be_two():
    count, notes = told(island(), WORLD)
    assert count == 3 and len(notes) == 1
    assert notes[0].startswith("1 communities of 2020-01-01 go on at the other side of the raster")
    rolled = np.roll(island(), 10, axis=1)  # the seam lies elsewhere, and it is one
    assert told(rolled, WORLD) == (2, [])


def test_the_cut_is_moved_as_the_page_says(tmp_path, monkeypatch):
    people = np.zeros(WORLD.shape, "float32")
    people[2:4, :2], people[2:4, -2:] = 3, 7
    wrap_xr(people, WORLD, nodata=-1).rio.to_raster(tmp_path / "world_2020.tif")
    (recipe,) = re.findall("(?s)```python\n(.*?)```", PAGE.read_text())
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    moved = open_frames({"2020": "pacific_2020.tif"}).population[0]
    np.testing.assert_array_equal(moved, np.roll(people, -2, axis=1))
    assert grid_of(moved).boundingbox.bbox == (-170, -15, 190, 15)
    assert ndimage.label(moved.values > 0)[1] == 1


def test_where_the_sides_do_not_meet_nothing_is_said():
    assert told(island()[:, :-1], WORLD[:, :-1])[1] == []
    two = island()
    two[:, -2:][two[:, -2:] == 3] = 5  # of another class
    assert told(two, WORLD)[1] == []
    apart = island()
    apart[:, 0] = apart[:, -1] = -1
    assert told(apart, WORLD)[1] == [] and len(told(apart, WORLD, eps=3)[1]) == 1


def test_what_meets_is_what_lies_within_reach():
    labels = arrays.arrays(np.int32, (5, 3), elements=st.integers(-1, 3))
    kinds = arrays.arrays(np.int16, (5, 3), elements=st.integers(0, 1))

    @given(labels, labels, kinds, kinds, st.sampled_from([1, 1.5, 2, 2.9, 3]))
    def check(west, east, of_west, of_east, reach):
        wide = max(1, int(reach))
        sides = (west[:, :wide], east[:, -wide:])
        of_sides = (of_west[:, :wide], of_east[:, -wide:])
        near = {
            (int(west[y, x]), int(east[v, u]))
            for y, x in np.ndindex(5, 3)
            for v, u in np.ndindex(5, 3)
            if west[y, x] >= 0 and east[v, u] >= 0 and of_west[y, x] == of_east[v, u]
            if (y - v) ** 2 + (x + 3 - u) ** 2 <= reach**2
        }
        assert _meeting(sides, of_sides, reach) == {(a, b) for a, b in near if a != b}

    check()


class Told(Reporter):
    """Keeps what is noted."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize("around", [True, False])
def test_a_run_says_so(tmp_path, around):
    grid = GeoBox.from_bbox((-180, -60, 180, 60), "EPSG:4326", resolution=4)
    grid = grid if around else grid[:, :-1]
    people = np.full(grid.shape, np.nan, "float32")
    town = np.random.default_rng(0).integers(50, 60, (14, 24))
    people[8:22, :12], people[8:22, -12:] = town[:, 12:], town[:, :12]
    for year in (2000, 2001):
        wrap_xr(people, grid).rio.to_raster(tmp_path / f"world_{year}.tif")
    found = {
        "classes": {"k": 2, "sample": 500},
        "communities": {"eps": 3, "min_samples": 4, "min_density": 0},
    }
    told = Told()
    communities.run(job(tmp_path, tmp_path / "world.icechunk", **found), told)
    said = [text for text in told.notes if "at the other side of the raster's seam" in text]
    assert len(said) == (2 if around else 0)
