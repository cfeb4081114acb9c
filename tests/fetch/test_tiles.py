"""The scheme of GHSL tiles, against tiles that were published and the places that they show."""

import pytest

from popdask.datasets.frames import MOLLWEIDE, WGS84, checked_bounds, checked_tile
from popdask.errors import InputError

# Longitude and latitude of places, and tiles that studies of them name.
PUBLISHED = [
    (MOLLWEIDE, (-2.99, 51.58), "R3_C18"),  # Newport
    (MOLLWEIDE, (118.78, 32.05), "R6_C29"),  # Nanjing
    (MOLLWEIDE, (80.27, 13.08), "R8_C26"),  # Chennai
    (MOLLWEIDE, (28.63, -12.97), "R11_C21"),  # Ndola, Copperbelt
    (WGS84, (2.17, 41.39), "R5_C19"),  # Barcelona
    (WGS84, (105.84, 21.02), "R7_C29"),  # Hanoi
    (WGS84, (12.55, 55.67), "R4_C20"),  # Copenhagen
    (WGS84, (-8.43, 40.21), "R5_C18"),  # Coimbra
    (WGS84, (-86.78, 36.16), "R6_C10"),  # Nashville
    (WGS84, (-112.07, 33.45), "R6_C7"),  # Phoenix
    (WGS84, (-82.46, 27.95), "R7_C10"),  # Tampa
    (WGS84, (100.5, 13.7), "R8_C29"),  # Bangkok
]


@pytest.mark.parametrize(("grid", "place", "tile"), PUBLISHED)
def test_a_place_lies_on_the_tile_that_is_published_of_it(grid, place, tile):
    assert grid.tile_at(*place) == tile


def test_punjab_lies_on_two_tiles_and_sri_lanka_on_four():
    assert {"R6_C25", "R6_C26"} <= set(MOLLWEIDE.tiles_in((70, 28, 75.5, 34)))
    sri_lanka = MOLLWEIDE.tiles_in((79.6, 5.9, 81.9, 9.9))
    assert sri_lanka == ["R8_C26", "R8_C27", "R9_C26", "R9_C27"]


def test_the_edges_of_a_published_tile_are_those_of_the_scheme():
    row, column = 5, 20  # R5_C20 of the 30 arc-seconds, by its GeoTIFF
    west, north = WGS84.left + (column - 1) * WGS84.side, WGS84.top - (row - 1) * WGS84.side
    assert (west, north) == pytest.approx((9.992083316153526, 49.09958333862941), abs=1e-6)


def test_a_rectangle_that_ends_on_an_edge_does_not_touch_the_next_tile():
    west, north = WGS84.left + 10, WGS84.top - 10
    assert WGS84.tiles_in((west, north - 10, west + 10, north)) == ["R2_C2"]


@pytest.mark.parametrize("grid", [MOLLWEIDE, WGS84])
def test_the_whole_world_is_all_tiles_and_none_beyond(grid):
    names = grid.tiles_in((-180, -89, 180, 89))
    rows = {int(name.split("_")[0][1:]) for name in names}
    columns = {int(name.split("_")[1][1:]) for name in names}
    assert rows == set(range(1, 19))
    assert columns == set(range(1, grid.columns + 1))


@pytest.mark.parametrize("tile", ["3_18", "R0_C1", "R3C18", "../R3_C18", "R3_C18/", "R3_C181"])
def test_what_is_no_tile(tile):
    with pytest.raises(InputError, match="expected a name such as R3_C18"):
        checked_tile(tile)


@pytest.mark.parametrize(
    "bounds",
    [(11, 59, 10, 60), (10, 60, 11, 59), (10, 59, 11), (10, 59, 181, 60), (0, 0, "nan", 1), None],
)
def test_what_is_no_rectangle(bounds):
    with pytest.raises(InputError, match="expected west, south, east and north in degrees"):
        checked_bounds(bounds)
