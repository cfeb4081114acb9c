import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from popdask.errors import InputError
from popdask.imagery.cells import (
    fold_cells,
    make_cells,
    open_cells,
    select_fold,
    split_cells,
    split_fingerprint,
    write_cells,
)
from popdask.imagery.grid import CellGrid


def some_cells(norths=30, easts=40, *, share=1.0, unknown=0.0, context=0, seed=0):
    """Cells of a rectangle, of which a share is there, some with unknown people."""
    rng = np.random.default_rng(seed)
    north, east = (a.ravel() for a in np.meshgrid(np.arange(norths) - 7, np.arange(easts) + 3))
    there = rng.permutation(len(north))[: round(share * len(north))]
    people = np.where(rng.random(len(there)) < unknown, np.nan, rng.poisson(2, len(there)))
    images = da.zeros((len(there), 1, 3, 3), dtype="uint8", chunks=50)
    return make_cells(images, people, north[there], east[there], CellGrid(100), context=context)


def by_place(cells, name="split"):
    rows = zip(cells.north.values, cells.east.values, cells[name].values, strict=True)
    return {(int(n), int(e)): int(s) for n, e, s in rows}


def distance(cells):
    """Cells, along rows and columns, between the nearest of the two sides."""
    places = np.stack([cells.north, cells.east], axis=1)
    split = cells.split.values
    return cdist(places[split == 0], places[split == 1], "chebyshev").min()


@pytest.mark.parametrize("validation", [0.2, 0.5, 0.33])
def test_a_random_split_has_exactly_its_share(validation):
    cells = split_cells(some_cells(unknown=0.1), kind="random", validation=validation)
    labelled = np.isfinite(cells.people.values)
    split = cells.split.values
    assert split.dtype == np.int8
    assert (split == 1).sum() == round(validation * labelled.sum())
    assert ((split >= 0) == labelled).all()
    assert cells.split.attrs == {"kind": "random", "gap": 0, "seed": 0}


def test_a_random_split_is_spread_evenly():
    cells = split_cells(some_cells(60, 60), kind="random")
    parts = cells.split.values[np.lexsort([cells.east, cells.north])].reshape(4, 15, 60)
    assert np.abs(parts.mean((1, 2)) - 0.2).max() < 0.05


@settings(max_examples=20)
@given(
    block=st.integers(2, 9),
    gap=st.integers(1, 3),
    share=st.sampled_from([0.4, 1.0]),
    seed=st.integers(0, 99),
)
def test_neighbours_are_never_on_both_sides_of_blocks(block, gap, share, seed):
    cells = some_cells(share=share, unknown=0.1, seed=seed)
    try:
        split = split_cells(cells, kind="blocks", block=block, gap=gap, seed=seed)
    except InputError as error:
        assert "away from the validation cells" in str(error)
        assert gap >= block // 2
        return
    assert distance(split) > gap
    chosen = {(n // block, e // block) for (n, e), s in by_place(split).items() if s == 1}
    for (north, east), side in by_place(split).items():
        inside = (north // block, east // block) in chosen
        assert side == 1 or not inside or np.isnan(people_at(cells, north, east))


def people_at(cells, north, east):
    here = (cells.north.values == north) & (cells.east.values == east)
    return float(cells.people.values[here][0])


def test_only_training_cells_near_validation_cells_are_left_out():
    split = split_cells(some_cells(), kind="blocks", block=10)
    places = by_place(split)
    validation = np.array([p for p, s in places.items() if s == 1])
    for place, side in places.items():
        away = np.abs(validation - place).max(1).min()
        assert side == (1 if away == 0 else -1 if away == 1 else 0)
    assert split.split.attrs == {"kind": "blocks", "block": 10, "gap": 1, "seed": 0}


def test_blocks_come_near_to_their_share():
    cells = some_cells(100, 100)
    shares = [
        float((split_cells(cells, kind="blocks", block=5, seed=seed).split == 1).mean())
        for seed in range(5)
    ]
    np.testing.assert_allclose(shares, 0.2, atol=0.002)
    assert len(set(shares)) > 1 or len(shares) == 5


def test_with_context_no_pixel_is_seen_on_both_sides():
    cells = split_cells(some_cells(60, 60, context=2), kind="blocks", block=12)
    assert cells.split.attrs["gap"] == 4
    assert distance(cells) == 5  # the rings of 2 do not overlap


@settings(max_examples=15)
@given(
    kind=st.sampled_from(["random", "blocks"]),
    seed=st.integers(0, 9),
    order=st.randoms(use_true_random=False),
)
def test_the_split_does_not_depend_on_the_order_of_the_cells(kind, seed, order):
    cells = some_cells(20, 20, share=0.7, unknown=0.2)
    shuffled = list(range(cells.sizes["cell"]))
    order.shuffle(shuffled)
    here = split_cells(cells, kind=kind, block=4, seed=seed)
    there = split_cells(cells.isel(cell=shuffled), kind=kind, block=4, seed=seed)
    assert by_place(here) == by_place(there)
    assert split_fingerprint(here) == split_fingerprint(there)
    labelled = cells.isel(cell=np.isfinite(cells.people.values))
    alone = split_cells(labelled, kind=kind, block=4, seed=seed)
    assert split_fingerprint(alone) == split_fingerprint(here)


def test_another_seed_gives_another_split():
    cells = some_cells()
    prints = {split_fingerprint(split_cells(cells, kind="random", seed=seed)) for seed in range(4)}
    prints |= {split_fingerprint(split_cells(cells, kind="blocks", seed=seed)) for seed in range(4)}
    assert len(prints) == 8


def test_the_fingerprint_tells_grids_and_single_cells_apart():
    cells = split_cells(some_cells())
    known = split_fingerprint(cells)
    assert len(known) == 64
    moved = cells.assign_coords(north=cells.north + 1)
    changed = cells.split.values.copy()
    changed[0] = 1 - changed[0]
    flipped = cells.assign_coords(split=("cell", changed))
    other = cells.rio.write_crs("EPSG:25833")
    assert len({known, *map(split_fingerprint, (moved, flipped, other))}) == 4


def test_the_split_is_stored_with_the_cells(tmp_path):
    cells = fold_cells(split_cells(some_cells(), kind="blocks"), 3, block=10)
    write_cells(cells, tmp_path / "cells.zarr")
    stored = open_cells(tmp_path / "cells.zarr")
    xr.testing.assert_identical(stored.split, cells.split)
    assert split_fingerprint(stored) == split_fingerprint(cells)
    xr.testing.assert_identical(select_fold(stored, 2).split, select_fold(cells, 2).split)


@pytest.mark.parametrize(("kind", "folds"), [("random", 7), ("blocks", 2), ("blocks", 5)])
def test_folds_share_the_cells_evenly(kind, folds):
    cells = fold_cells(some_cells(unknown=0.1), folds, kind=kind, block=5)
    fold = cells.fold.values
    labelled = np.isfinite(cells.people.values)
    assert ((fold >= 0) == labelled).all()
    sizes = np.bincount(fold[labelled], minlength=folds)
    assert np.ptp(sizes) <= (1 if kind == "random" else 25)
    if kind == "blocks":
        squares = {}
        for (north, east), f in by_place(cells, "fold").items():
            if f >= 0:
                squares.setdefault((north // 5, east // 5), set()).add(f)
        assert all(len(found) == 1 for found in squares.values())


def test_every_labelled_cell_is_validated_once_and_apart_from_training():
    cells = fold_cells(some_cells(unknown=0.1), 4, block=8)
    validated = np.zeros(cells.sizes["cell"], int)
    for fold in range(4):
        split = select_fold(cells, fold)
        validated += split.split.values == 1
        assert distance(split) > 1
        assert split.split.attrs["fold"] == fold
    np.testing.assert_array_equal(validated, np.isfinite(cells.people.values))


@pytest.mark.parametrize(
    ("given_settings", "sentence"),
    [
        ({"validation": 0}, "validation is 0; expected a share between 0 and 1"),
        ({"validation": 1.0}, r"validation is 1\.0"),
        ({"kind": "stripes"}, "the kind of split is 'stripes'"),
        ({"kind": "blocks", "block": 0}, "block is 0"),
        ({"seed": -1}, "seed is -1; expected a whole number"),
        ({"kind": "blocks", "gap": 0}, "gap is 0; expected at least 1 cell between blocks"),
        ({"kind": "blocks", "block": 100}, "all cells with known people lie in one square"),
        ({"kind": "blocks", "block": 10, "gap": 40}, "no training cell is more than 40 cells away"),
    ],
)
def test_wrong_settings_get_one_sentence(given_settings, sentence):
    cells = some_cells(30, 20)
    cells = cells.assign_coords(north=cells.north + 7, east=cells.east - 3)
    with pytest.raises(InputError, match=sentence):
        split_cells(cells, **given_settings)


def test_cells_without_people_cannot_be_split():
    with pytest.raises(InputError, match="none of the 1200 cells has known people"):
        split_cells(some_cells(unknown=1.1))
    with pytest.raises(InputError, match="the cells have no split"):
        split_fingerprint(some_cells())
    with pytest.raises(InputError, match="the cells have no folds, and fold 0"):
        select_fold(some_cells(), 0)
    with pytest.raises(InputError, match="the cells have 3 folds, and fold 3"):
        select_fold(fold_cells(some_cells(), 3, block=4), 3)
    with pytest.raises(InputError, match="folds is 1 for 1200 cells"):
        fold_cells(some_cells(), 1, kind="random")
    with pytest.raises(InputError, match=r"folds is 99 for \d+ squares of cells"):
        fold_cells(some_cells(), 99)
