"""People beyond the grid are counted, and a grid of all frames leaves nobody out."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from popdask.errors import InputError
from popdask.io import check_beyond, open_frames, people_beyond
from popdask.io.frames import covering_grid


def write(path, people, top=0.0, left=0.0, size=1000.0, crs="EPSG:3035"):
    transform = rasterio.transform.from_origin(4e6 + left, 3e6 - top, size, size)
    shape = {"height": people.shape[0], "width": people.shape[1], "count": 1}
    with rasterio.open(
        path, "w", "GTiff", dtype=people.dtype, crs=crs, transform=transform, **shape
    ) as file:
        file.write(people, 1)
    return str(path)


def expected_inside(people, shape, down, right):
    """People of cells shifted by quarters of a cell, on a grid of `shape`: by area, exactly."""
    total = Fraction(0)
    for (row, column), count in np.ndenumerate(people):
        y, x = row + down, column + right
        high = max(min(y + 1, shape[0]) - max(y, 0), 0)
        wide = max(min(x + 1, shape[1]) - max(x, 0), 0)
        total += int(count) * Fraction(high) * Fraction(wide)
    return float(total)


QUARTERS = st.integers(-16, 16).map(lambda quarters: Fraction(quarters, 4))


@how(max_examples=15)
@given(down=QUARTERS, right=QUARTERS, seed=st.integers(0, 99), chunk=st.integers(1, 5))
def test_who_is_beyond_is_counted_and_covered(tmp_path_factory, down, right, seed, chunk):
    folder = tmp_path_factory.mktemp("frames")
    people = np.random.default_rng(seed).integers(0, 100, (4, 5)).astype("int32")
    first = write(folder / "a.tif", np.ones((3, 4), "int32"))
    place = {"top": float(down) * 1000, "left": float(right) * 1000}
    frames = {2000: first, 2005: write(folder / "b.tif", people, **place)}
    inside = expected_inside(people, (3, 4), down, right)
    aligned = open_frames(frames, align=True, chunks=chunk).population
    assert float(aligned[1].sum(dtype="float64")) == pytest.approx(inside, rel=1e-6)
    told = people_beyond(frames)
    beyond = float(told["beyond"].sum())
    assert beyond == pytest.approx(people.sum() - inside, rel=1e-6, abs=1e-6)
    covered = open_frames(frames, align="cover", chunks=chunk).population
    np.testing.assert_allclose(covered.sum(("y", "x")), [12, people.sum()], rtol=1e-6)
    assert people_beyond(frames, align="cover")["beyond"].sum() == 0


def test_a_grid_of_all_keeps_the_cells_of_the_first():
    first = GeoBox.from_bbox((0, 0, 4, 4), "EPSG:3035", resolution=1)
    assert covering_grid([first]) == first
    inner = GeoBox.from_bbox((1.5, 1.5, 2, 2), "EPSG:3035", resolution=0.25)
    assert covering_grid([first, inner]) == first
    outer = GeoBox.from_bbox((-1, -1, 1, 6), "EPSG:3035", resolution=0.5)
    whole = covering_grid([first, outer])
    assert whole.boundingbox.bbox == (-1, -1, 4, 6)
    assert (whole.transform.a, whole.transform.e) == (1, -1)


def test_longitudes_beyond_180_cover_those_of_the_west():
    west = GeoBox.from_bbox((-180, 0, -170, 10), "EPSG:4326", resolution=1)
    east = GeoBox.from_bbox((185, 0, 195, 10), "EPSG:4326", resolution=1)
    assert covering_grid([west, east]).boundingbox.bbox == (-180, 0, -165, 10)


def test_a_frame_of_another_projection_is_covered(tmp_path):
    people = np.full((30, 30), 7, "int32")
    utm = write(tmp_path / "b.tif", people, 3e6 - 6.65e6, 2.6e5 - 4e6, crs="EPSG:25833")
    laea = write(tmp_path / "a.tif", np.ones((9, 9), "int32"), -1.1e6, 3.6e5)
    covered = open_frames({2000: laea, 2005: utm}, align="cover").population
    assert float(covered[1].sum(dtype="float64")) == pytest.approx(people.sum(), rel=1e-6)


def test_more_than_may_be_left_out_is_refused():
    table = pd.DataFrame({"time": [pd.Timestamp("2001")], "raster": [23629.0], "beyond": [12332.0]})
    with pytest.raises(InputError, match=r"12,332.0 of the 23,629.0 people of 2001 \(52.19%\)"):
        check_beyond(table, 0.01)
    check_beyond(table, 0.53)
