"""What is said of a result before it is believed."""

import re

import numpy as np
import pandas as pd
import pytest
from odc.geo.geobox import GeoBox

from popdask.blocks.sums import add_up
from popdask.tracking.describe import comings_and_goings, doubts, turnover
from popdask.workflow.inputs import count_squares, coverage_notes, squares_table

YEARS = pd.to_datetime(["2000", "2001", "2002", "2003"])


def listed(*rows):
    """The communities of the last year, by (cells, people) of each; a cell is 1 km²."""
    found = pd.DataFrame(rows, columns=["cells", "population"])
    return found.assign(time=YEARS[-1], area_km2=found["cells"])


def told(communities=((5, 9.0),) * 20, tracks=tuple(range(8)), people=(100.0, 101.0, 102.0, 103.0)):
    """The sentences on a result: communities of the last year, tracks that live through, people."""
    communities = listed(*communities)
    rows = [(YEARS[0], track, "appear") for track in range(10)]
    rows += [(YEARS[-1], track, "continue") for track in tracks]
    events = pd.DataFrame(rows, columns=["time", "track", "event"])
    return doubts(communities, events, pd.DataFrame({"time": YEARS, "raster": people}))


def test_a_sound_result_gives_no_doubt():
    assert told() == []


def test_a_community_of_a_tenth_of_all_cells_is_named():
    others = ((5, 9000.0),) * 19
    (sentence,) = told(((12, 516.0), *others))
    words = "the largest community of 2003 has 11 % of the cells of all, and 43 people per km²: "
    assert sentence.startswith(words)
    assert told(((12, 1300.0), *others)) == []  # the rim of a town is no land


def test_a_vanished_track_does_not_live_through():
    (sentence,) = told(tracks=range(4))
    assert sentence.startswith("4 of the 10 tracks of 2000 live to 2003")


@pytest.mark.parametrize(("people", "word"), [(90.0, "11 % fewer"), (112.0, "11 % more")])
def test_a_frame_that_jumps_is_named(people, word):
    (sentence,) = told(people=(100.0, people, 102.0, 103.0))
    assert f"the people of 2001 are {word} than" in sentence


@pytest.mark.parametrize(("frame", "beside"), [(0, "after"), (1, "around"), (3, "before")])
@pytest.mark.parametrize(("factor", "word"), [(0.85, "15 % fewer"), (1.2, "20 % more"), (0, "100")])
def test_the_frame_that_jumps_is_told_wherever_it_stands(frame, beside, factor, word):
    """In four frames one apart, and where they are not evenly so, a country grows by 1 % a year."""
    for years in ([2000, 2001, 2002, 2003], [1990, 2000, 2005, 2010, 2020]):
        at = len(years) - 1 if beside == "before" else frame
        people = 1e6 * 1.01 ** (np.array(years) - 2000.0)
        people[at] *= factor
        times = pd.to_datetime([str(year) for year in years])
        none = pd.DataFrame({"time": times[:0], "track": [], "event": []})
        (sentence,) = doubts(listed(), none, pd.DataFrame({"time": times, "raster": people}))
        assert sentence.startswith(f"the people of {years[at]} are {word}")
        assert f"than the frames {beside} it suggest" in sentence


def test_one_frame_and_none_found():
    balance = pd.DataFrame({"time": YEARS[:1], "raster": [0.0]})
    empty = pd.DataFrame({"time": YEARS[:0], "track": [], "event": []})
    assert doubts(listed(), empty, balance) == []


@pytest.mark.parametrize("chunk", [600, 170])
def test_a_frame_without_an_island_is_named(chunk):
    """As Iceland is absent from a grid of Europe: a thousandth of the people and of the cells."""
    people = np.random.default_rng(0).integers(0, 9, (4, 600, 600)).astype("float32")
    people[:, :300, :300] = 0
    people[:, 20:30, 30:40] = 50
    people[3, :300, :300] = 0
    people[0, 100:104, 100:104] = 7  # 16 cells that come and go are no part of a country
    corners = [(row, column) for row in range(0, 600, chunk) for column in range(0, 600, chunk)]
    sums = [
        add_up(
            [count_squares(frame[None, r : r + chunk, c : c + chunk], (r, c)) for r, c in corners]
        )
        for frame in people
    ]
    grid = GeoBox.from_bbox((0, 0, 6, 6), "EPSG:4326", resolution=0.01)
    (sentence,) = coverage_notes(squares_table(YEARS, sums), YEARS, grid)
    assert sentence == (
        "in 2003 nobody lives in 1 square of 256 × 256 cells where 5,112 people do in other years, "
        "as around 4.7° N, 1.3° E in 2000: look at its coverage"
    )


STAYS = [(0, 0, [], "appear"), *((year, 0, [0], "continue") for year in (1, 2, 3))]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "1 in 2003; 0 came, 0 went"),
        ([(0, 1, [], "appear"), (1, 1, [], "vanish")], "0 came, 1 went (1 vanished)"),
        ([(2, 1, [], "appear"), (3, 1, [1], "grow")], "1 came (1 appeared), 0 went"),
        ([(2, 1, [0], "split"), (3, 1, [1], "grow")], "1 came (1 out of others), 0 went"),
        ([(1, 1, [], "continue"), (3, 1, [1], "continue")], "1 came (1 formed), 0 went"),
        ([(0, 1, [], "appear"), (1, 1, [1], "grow")], "0 came, 1 went (1 no longer seen)"),
        ([(0, 1, [], "appear"), (2, 1, [1], "grow")], "0 came, 1 went (1 missing in 2003 alone)"),
        ([(2, 1, [], "appear"), (3, 0, [0, 1], "merge")], "(1 appeared), 1 went (1 into others)"),
        (
            [
                *((0, track, [], "appear") for track in (1, 2, 3)),
                *((2, track, [track], "continue") for track in (1, 2)),
                (2, 2, [], "vanish"),
                (3, 0, [0, 1], "merge"),
                (3, 4, [0], "split"),
                (3, 5, [], "appear"),
            ],
            "2 came (1 appeared, 1 out of others), "
            "3 went (1 vanished, 1 into others, 1 no longer seen)",
        ),
    ],
)
def test_what_came_and_went_is_told_by_how_and_adds_up(others, said):
    rows = [(YEARS[year], *rest) for year, *rest in (*STAYS, *others)]
    events = pd.DataFrame(rows, columns=["time", "track", "parent", "event"])
    times = YEARS.to_numpy()
    sentence = turnover(events, comings_and_goings(events, times), times, "places")
    assert said in sentence
    told = re.findall(r"(\d+) (?:in 200[03][,;]|came|went)", sentence)
    before, after, came, went = map(int, told)
    assert before + came - went == after


def test_which_came_and_went_is_listed_with_the_others():
    others = [
        (0, 1, [], "appear"),
        (1, 2, [0], "split"),
        (2, 0, [0, 1], "merge"),
        (2, 3, [], "grow"),
    ]
    others += [(year, 2, [2], "continue") for year in (2, 3)] + [(1, 1, [1], "continue")]
    rows = [(YEARS[year], *rest) for year, *rest in (*STAYS, *others)]
    events = pd.DataFrame(rows, columns=["time", "track", "parent", "event"])
    found = comings_and_goings(events, YEARS.to_numpy())
    assert found.assign(time=found["time"].dt.year).to_numpy().tolist() == [
        ["came", 2, 2001, "out of others", [0]],
        ["came", 3, 2002, "formed", []],
        ["went", 1, 2001, "into others", [0]],
        ["went", 3, 2002, "missing in 2003 alone", []],
    ]


@pytest.mark.parametrize(("found", "frames"), [(STAYS[:1], 1), ([], 1), ([], 4)])
def test_nobody_comes_to_one_frame_or_where_nothing_is_found(found, frames):
    rows = [(YEARS[year], *rest) for year, *rest in found]
    events = pd.DataFrame(rows, columns=["time", "track", "parent", "event"])
    events = events.astype({"time": YEARS.dtype, "track": np.int64})
    times = YEARS[:frames].to_numpy()
    sentence = turnover(events, comings_and_goings(events, times), times, "places")
    last, many = 1999 + frames, len(found)
    assert sentence == f"Places: {many} in 2000, {many} in {last}; 0 came, 0 went"
