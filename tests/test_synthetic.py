"""Invented worlds: the same at any chunking, nobody lost, and a truth that fits the people."""

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from popdask.errors import InputError
from popdask.synthetic import City, World, moving_cities
from popdask.tracking.link import link
from popdask.tracking.tracks import EventRules, tracks

EXACT = EventRules(sigma=0, like_for_like=False)  # as the world tells its events
COLUMNS = ["time", "community", "track", "parent", "event"]


@pytest.fixture(scope="module")
def world():
    return moving_cities(seed=3)


def people_by_city(world):
    """Count people with the label maps alone: time, community, population."""
    people, labels = world.population.population.values, world.labels.values
    counts = [
        (time, city, people[frame][labels[frame] == city].sum(dtype=float))
        for frame, time in enumerate(world.times)
        for city in np.unique(labels[frame][labels[frame] >= 0])
    ]
    return pd.DataFrame(counts, columns=["time", "community", "population"])


def test_a_seed_gives_one_world_and_another_seed_another():
    first, again, other = (moving_cities(seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert first.population.equals(again.population)


@settings(max_examples=15)
@given(st.tuples(st.integers(1, 9), st.integers(50, 250), st.integers(50, 330)))
def test_any_chunking_gives_the_same_people(chunks):
    world = moving_cities(seed=3)
    lazy = world.lazy(chunks=chunks)
    assert lazy.population.chunks is not None
    assert lazy.compute().equals(world.population)


def test_a_lazy_world_costs_nothing_until_asked():
    """A world of 184 GB is too much to draw, but one corner of it is not."""
    small = moving_cities(seed=1, frames=6, sea=False, villages=0)
    big = World(small.cities, shape=(72_000, 107_000), frames=6)
    corner = big.lazy(chunks=(1, 4000, 4000)).population[:, :240, :320]
    assert corner.sum() == sum(sum(city.people) for city in small.cities)


def test_every_city_has_its_people_in_whole_persons(world):
    people = people_by_city(world).set_index(["time", "community"])["population"]
    for city in world.cities:
        times = world.times[city.start : city.last + 1]
        assert [people[time, city.track] for time in times] == list(city.people)
    values = world.population.population.values
    assert (np.nan_to_num(values) % 1 == 0).all()


@settings(max_examples=30)
@given(st.floats(12, 28), st.floats(12, 28), st.integers(0, 10**7))
def test_a_move_keeps_everyone(row, col, people):
    city = City(0, ((20.0, 20.0), (row, col)), (people, people), ((9.0, 11.0),) * 2)
    totals = [city.footprint(frame).sum() for frame in (0, 1)]
    assert totals == [people, people]


def test_a_split_and_a_merger_keep_everyone(world):
    for child in (city for city in world.cities if city.split_from is not None):
        mother = world.cities[child.split_from]
        before, after = mother.people[child.start - 1], mother.people[child.start]
        assert before == after + child.people[0]
    for guest in (city for city in world.cities if city.merges_into is not None):
        heir = world.cities[guest.merges_into]
        assert heir.people[guest.last + 1] == heir.people[guest.last] + guest.people[-1]


@pytest.mark.parametrize("seed", range(6))
def test_every_kind_of_event_happens_and_cities_never_touch(seed):
    world = moving_cities(seed=seed)
    counts = world.truth["event"].value_counts().to_dict()
    assert counts.pop("continue") > 50
    assert counts == {"appear": 10, "grow": 4, "shrink": 4, "split": 2, "merge": 1, "vanish": 1}
    for labels in world.labels.values:
        parts, count = ndimage.label(labels >= 0, structure=np.ones((3, 3)))
        assert count == len(np.unique(labels)) - 1
        assert all(len(np.unique(labels[parts == part])) == 1 for part in range(1, count + 1))


@pytest.mark.parametrize("rule", ["overlap", "cosine+overlap"])
def test_tracking_the_true_labels_gives_exactly_the_truth(world, rule):
    links = link(world.labels, world.population.population, rule=rule)
    found = tracks(links, people_by_city(world), rules=EXACT, times=world.times)
    pd.testing.assert_frame_equal(found[COLUMNS], world.truth[COLUMNS], check_dtype=False)


def test_the_cosine_rule_alone_loses_cities_that_stand_still(world):
    links = link(world.labels, world.population.population, rule="cosine")
    found = tracks(links, people_by_city(world), times=world.times)
    still = [c for c in world.cities if len(set(c.centres)) == 1 and len(set(c.people)) == 1]
    lost = found[(found["event"] == "vanish") & (found["time"] == world.times[0])]
    assert {city.track for city in still if city.start == 0} <= set(lost["community"])
    moving = [c.track for c in world.cities if len(set(c.centres)) == world.frames]
    assert len(moving) == 2
    followed = found[found["community"].isin(moving)].groupby("community")["event"].unique()
    assert [list(events) for events in followed] == [["appear", "continue"]] * 2


def test_tracking_dense_cells_gives_the_truth_as_well(world):
    """Without looking at the labels: connected cells with more people than a village."""
    population = world.population.population
    dense = np.stack([ndimage.label(frame > 40, np.ones((3, 3)))[0] for frame in population.values])
    community = population.copy(data=dense.astype(np.int32) - 1)
    found = tracks(
        link(community, population),
        pd.DataFrame(
            [
                (time, number, frame[labels == number].sum(dtype=float))
                for time, labels, frame in zip(
                    world.times, community.values, population.values, strict=True
                )
                for number in range(labels.max() + 1)
            ],
            columns=["time", "community", "population"],
        ),
        rules=EXACT,
    )
    by_time = [table.groupby(["time", "event"]).size() for table in (found, world.truth)]
    assert by_time[0].equals(by_time[1])


def test_the_sea_has_no_data_and_villages_belong_to_nobody(world):
    population = world.population.population
    sea = np.isnan(population.values)
    assert sea.any(axis=2).all()
    assert (sea == sea[0]).all()
    assert not (sea & (world.labels.values >= 0)).any()
    assert len(world.villages) == 16
    for row, col, people in world.villages:
        assert (population.values[:, row, col] == people).all()
        assert (world.labels.values[:, row, col] == -1).all()
    assert not np.isnan(moving_cities(sea=False).population.population).any()


def test_tiles_repeat_the_country_with_other_draws():
    world = moving_cities(tiles=(2, 1), frames=6)
    assert dict(world.population.sizes) == {"time": 6, "y": 480, "x": 320}
    assert [city.track for city in world.cities] == list(range(22))
    assert (world.truth["event"] == "merge").sum() == 2


def test_frames_on_disk_are_the_frames_in_memory(world, tmp_path):
    paths = world.write(tmp_path / "frames")
    assert [path.name for path in paths] == [f"world_{year}.tif" for year in range(2000, 2008)]
    for path, frame in zip(paths, world.population.population.values, strict=True):
        with rasterio.open(path) as file:
            assert file.crs.to_epsg() == 3035
            assert file.transform.to_gdal() == (2.4e6, 1000, 0, 3.4e6, 0, -1000)
            assert np.isnan(file.nodata)
            np.testing.assert_array_equal(file.read(1), frame)


def test_a_finer_grid_is_a_smaller_country():
    fine = moving_cities(resolution=250).population.population
    assert fine.rio.resolution() == (250.0, -250.0)
    assert fine.rio.crs.to_epsg() == 3035


def test_mistakes_are_named():
    with pytest.raises(InputError, match="frames is 5"):
        moving_cities(frames=5)
    with pytest.raises(InputError, match="tiles is"):
        moving_cities(tiles=(0, 1))
    with pytest.raises(InputError, match="city 7 has 1 centres, 2 counts"):
        City(7, ((5.0, 5.0),), (1, 1), ((2.0, 2.0),))
    with pytest.raises(InputError, match="city 0 leaves the land"):
        World((City(0, ((1.0, 5.0),), (10,), ((4.0, 4.0),)),), shape=(20, 20), frames=1)
    with pytest.raises(InputError, match="city 0 leaves the land"):
        World((City(0, ((9.0, 5.0),), (10,), ((4.0, 4.0),)),), shape=(20, 20), frames=1, sea=5)
    with pytest.raises(InputError, match="lives until frame 1"):
        World((City(0, ((9.0, 9.0),) * 2, (1, 1), ((4.0, 4.0),) * 2),), shape=(20, 20), frames=1)
