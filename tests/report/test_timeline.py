"""The timeline tells a story that is known: a town falls apart, and a part of it joins another."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import shapely

from popdask.plot.style import Grid
from popdask.report import places, plots
from popdask.tracking.tracks import tracks

TIMES = np.array(["2000-01-01", "2005-01-01", "2010-01-01"], "datetime64[ns]")
GRID = Grid(0.0, 0.0, 10, 10, (1.0, 1.0), (1e-3, 1e-3), True)


@pytest.fixture(scope="module")
def story():
    """Town 0 splits into 0 and 1 in 2005; in 2010 the piece 1 joins the neighbour 2."""
    there = pd.DataFrame(
        {
            "time": TIMES[[0, 0, 1, 1, 1, 2, 2]],
            "community": [0, 1, 0, 1, 2, 0, 1],
            "population": [100.0, 50.0, 60.0, 40.0, 50.0, 60.0, 90.0],
        }
    )
    there = there.assign(cells=4, area_km2=4.0, velocity=np.nan, heading=np.nan)
    there["centroid"] = shapely.points(np.arange(7.0), 2.0)
    links = pd.DataFrame(
        {
            "time": TIMES[[0, 0, 0, 1, 1, 1]],
            "source": [0, 0, 1, 0, 1, 2],
            "target": [0, 1, 2, 0, 1, 1],
            "people": [60.0, 40.0, 50.0, 60.0, 40.0, 50.0],
            "overlap": 4,
        }
    )
    found = tracks(links, there)
    columns = places.community_columns(there, found, TIMES, GRID)
    return columns, places.event_columns(found, TIMES), places.track_colours(found)


def data(plot, *names):
    for glyph in plot.renderers:
        if set(names) <= set(glyph.data_source.data):
            return {name: list(glyph.data_source.data[name]) for name in names}
    raise AssertionError(f"no glyph has {names}")


def test_events_are_counted_where_they_happened(story):
    counts = plots.timeline_plots(*story, TIMES)[0]
    found = data(counts, "split", "merge", "appear", "vanish")
    assert found["split"] == [0, 1, 0]  # the piece that went on is no track of its own
    assert found["merge"] == [0, 0, 1]
    assert found["appear"] == [0, 0, 0]  # that all appear in the first frame is no news
    assert found["vanish"] == [0, 0, 0]


def test_where_nothing_happens_nothing_is_told(story):
    there = {name: values[:2] for name, values in story[0].items()}  # both in the first frame
    found = pd.DataFrame(
        {"time": TIMES[[0, 0]], "community": [0, 1], "track": [0, 1], "parent": [[], []]}
    ).assign(event="appear")
    events = places.event_columns(found, TIMES)
    assert plots.timeline_plots(there, events, places.track_colours(found), TIMES) == []
    assert events["event"] == []


def test_frames_are_called_years_where_they_are(story):
    for span, called in (
        (["2000", "2001", "2002"], "year"),
        (["2000", "2005", "2010"], "frame"),  # three frames are not three years
        (["2000-03-01"] * 3, "frame"),
    ):
        tables_of = plots.timeline_tables(story[0], story[1], span)
        assert tables_of["events"]["head"][0] == called


def test_who_came_and_went_is_listed_by_name(story):
    """A piece begins in 2005 with 40 people, and the neighbour with 50 is a part of it in 2010."""
    names = ["Storby", "Nes", "Storby", "Vik", "Nes", "Storby", "Nes"]
    columns = story[0] | {"name": names}
    rows = [("came", 2, 1, "out of others", [0]), ("went", 2, 1, "into others", [1])]
    changes = pd.DataFrame(rows, columns=["verb", "track", "frame", "how", "others"])
    table = plots.turnover_table(columns, changes, "town", ["2000", "2005", "2010"])
    assert table["rows"] == [
        ("Vik", "2005", "came: out of others", "Storby", "40"),
        ("Vik", "2005", "went: into others", "Nes", "40"),
    ]
    nobody = {name: [] for name in columns}
    assert plots.turnover_table(nobody, changes[:0], "town", ["2000"])["rows"] == []


def test_few_frames_are_labelled_at_their_times():
    axis = plots.chart("few", TIMES, 100).xaxis[0]
    assert axis.ticker.ticks == plots.milliseconds(TIMES)
    assert list(axis.major_label_overrides.values()) == ["2000", "2005", "2010"]
    many = np.arange("2000", "2018", dtype="datetime64[Y]").astype("datetime64[ns]")
    assert not plots.chart("many", many, 100).xaxis[0].major_label_overrides


def test_lanes_are_families_and_lines_lead_to_parents(story):
    lanes = plots.timeline_plots(*story, TIMES)[1]
    assert lanes.tags == [[0, 2, 1]]  # the piece lies beside the town that it came from
    found = data(lanes, "x", "y0", "y1")
    assert sorted(zip(found["y0"], found["y1"], strict=True)) == [(0, 1), (1, 2)]
    halves = [(one + other) / 2 for one, other in pairwise(AT)]
    assert sorted(found["x"]) == halves


AT = plots.milliseconds(TIMES)


def test_a_quiet_world_has_no_lanes(story):
    columns, events, colours = story
    quiet = {name: values[:1] for name, values in events.items()} | {"event": ["appear"]}
    assert [plot.name for plot in plots.timeline_plots(columns, quiet, colours, TIMES)] == [
        "events-community"
    ]


def test_ids_count_from_one_whatever_was_drawn_before(story):
    one, other = (plots.document(plots.timeline_plots(*story, TIMES)) for _ in range(2))
    assert one == other and set(one["roots"]) == {"events-community", "lanes-community"}
