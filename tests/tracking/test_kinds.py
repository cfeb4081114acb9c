"""Cities, towns and villages: as the codes of their cells and their people say, at any chunking."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import popdask
from popdask.errors import InputError
from popdask.tracking.settlements import held_kinds

from .test_settlements import on_grid

CODES = [10, 11, 12, 13, 21, 22, 23, 30]


def plain(labels, people, codes):
    rows = []
    for time, frame in enumerate(labels):
        for number in sorted(set(frame[frame >= 0].tolist())):
            here = frame == number
            own = set(codes[time][here].tolist())
            town = own & {22, 23} or np.nansum(people[time][here]) >= 5000
            rows.append(
                (2000 + time, number, "city" if 30 in own else "town" if town else "village")
            )
    return rows


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, n) for n in (3, 9, 11)]))
def test_kinds_equal_the_rules_at_any_chunking(seed, chunks):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 12, (3, 9, 11)).astype(np.int32)
    people = rng.choice([0, 1500.5, np.nan], labels.shape, p=[0.6, 0.3, 0.1])
    codes = rng.choice(CODES, labels.shape, p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.04, 0.03, 0.03])
    arrays = [on_grid(a) for a in (labels, people, codes.astype(np.int8))]
    cut = [a.chunk(dict(zip(a.dims, chunks, strict=True))) for a in arrays]
    found = popdask.settlement_kinds(*cut)
    assert list(found.itertuples(index=False, name=None)) == plain(labels, people, codes)
    pd.testing.assert_frame_equal(found, popdask.settlement_kinds(*arrays))


def country():
    """A city of 16 km², a village beside it, and a town that grows; cells of 500 m."""
    people = np.full((2, 24, 40), 1.0, np.float32)
    people[:, 4:12, 4:12] = 1000
    people[:, 20:22, 4:6] = 200
    people[:, 4:8, 24:30] = np.array([100, 300])[:, None, None]
    return on_grid(people, 500)


def test_a_drawn_country_has_a_city_a_town_and_a_village():
    population = country()
    labels = popdask.settlements(population)
    km = popdask.to_1km(population)
    found = popdask.settlement_kinds(labels, population, popdask.degree_of_urbanisation(km))
    assert found["kind"].tolist() == ["city", "village", "village", "city", "town", "village"]
    again = popdask.settlement_kinds(labels, km, popdask.degree_of_urbanisation(km))
    pd.testing.assert_frame_equal(found, again)


def test_a_kind_stays_while_it_has_half_of_the_people_that_make_it():
    table = pd.DataFrame(
        [
            *((8, 2000 + t, kind, 4600.0) for t, kind in enumerate(["village", "town", "village"])),
            *((3, 2000, "town", 5200.0), (3, 2001, "village", 2500.0), (3, 2002, "village", 2400)),
            *((5, 2000, "city", 6e4), (5, 2001, "town", 3e4), (5, 2002, "village", 4000)),
            (9, 2002, "village", 4900.0),
        ],
        columns=["track", "time", "kind", "population"],
    )
    expected = [
        *("village", "town", "town"),
        *("town", "town", "village"),
        *("city", "city", "town"),
        "village",
    ]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(table))
        assert held_kinds(table.iloc[order]).tolist() == [expected[row] for row in order]
        known = table["time"] < 2002  # a frame that is appended changes none before
        assert held_kinds(table[known]).tolist() == np.array(expected)[known].tolist()


def test_other_grids_and_levels_are_refused():
    population = country()
    labels, km = popdask.settlements(population), popdask.to_1km(population)
    with pytest.raises(InputError, match=r"codes hold .*; expected .* at level 2"):
        popdask.settlement_kinds(labels, population, popdask.degree_of_urbanisation(km, level=1))
    with pytest.raises(InputError, match="codes has 6 × 10 cells; expected the 24 × 40"):
        popdask.settlement_kinds(labels, population, km[:, :6, :10].astype(int))


DATA = Path(os.environ.get("POPDASK_DATA") or "/nonexistent") / "oslo_250m"


@pytest.mark.skipif(not DATA.exists(), reason="needs POPDASK_DATA")
def test_oslo_is_a_city_among_towns_and_villages():
    frames = {year: DATA / f"oslo_pop_250m_{year}.tif" for year in (2002, 2003)}
    population = popdask.open_frames(frames, chunks=150).population
    labels = popdask.settlements(population)
    codes = popdask.degree_of_urbanisation(popdask.to_1km(population))
    kinds = popdask.settlement_kinds(labels, population, codes)
    assert set(kinds["kind"]) == {"city", "town", "village"}
    oslo = labels.sel(x=262_500, y=6_650_000, method="nearest").values
    cities = kinds.loc[kinds["kind"] == "city", "settlement"]
    assert oslo.tolist() == cities.tolist()
