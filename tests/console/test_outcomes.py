"""What is said of a run's results, and of trials."""

import pandas as pd
import pytest

from popdask import people_balance, summarize
from popdask.cli import console, show
from popdask.store import RegionStore
from popdask.synthetic import moving_cities
from popdask.tracking.link import link
from popdask.tracking.tracks import tracks
from popdask.workflow.communities import CommunitiesResult
from popdask.workflow.plan import Plan
from popdask.workflow.settlements import SettlementsResult


def test_a_split_is_told_by_its_pieces_and_by_the_tracks_that_they_begin(capsys, tmp_path):
    world = moving_cities()
    people, labels = world.population.population, world.labels
    summary = summarize(labels, people)
    found = tracks(link(labels, people, rule="overlap"), summary)
    store = RegionStore(tmp_path / "region")
    balance = people_balance(labels, people).assign(beyond=0.0)
    show.show_outcome(CommunitiesResult(Plan(()), summary, found, balance, store))
    said = capsys.readouterr().out
    assert "tracks of communities: 9 in the first frame; after it 1 appear, " in said
    assert " 2 split, 1 merge," in said
    assert "the 2 pieces that communities split into began 1 new track; the others go" in said
    assert "Communities: 9 in 2000, 9 in 2007; 2 came (1 appeared, 1 out of others), 2 went" in said
    assert " 2 went (1 vanished, 1 into others)\n" in said
    one = found.drop(found.index[found["event"] == "split"][0])
    show.show_outcome(CommunitiesResult(Plan(()), summary, one, balance, store))
    assert "the 1 piece that communities split into began" in capsys.readouterr().out


def test_nobody_is_there_in_a_first_frame_that_is_empty(capsys, tmp_path):
    world = moving_cities(frames=6)
    people, labels = world.population.population.copy(deep=True), world.labels.copy(deep=True)
    people[0], labels[0] = 0, -1  # they all come in the second
    summary = summarize(labels, people)
    found = tracks(link(labels, people, rule="overlap"), summary, times=labels["time"].values)
    store = RegionStore(tmp_path / "region")
    balance = people_balance(labels, people).assign(beyond=0.0)
    show.show_outcome(CommunitiesResult(Plan(()), summary, found, balance, store))
    began = (found["event"] == "appear").sum()
    said = f"tracks of communities: 0 in the first frame; after it {began} appear, "
    assert said in capsys.readouterr().out


def test_frames_that_lack_data_or_were_moved_are_named(capsys, tmp_path):
    world = moving_cities(frames=6)
    people, labels = world.population.population.copy(deep=True), world.labels
    people[2, :, :40] = float("nan")
    people[3] = float("nan")
    summary = summarize(labels, people)
    found = tracks(link(labels, people, rule="overlap"), summary)
    balance = people_balance(labels, people).assign(beyond=[0, 1250.0, 0, 0, 0, 0])
    store = RegionStore(tmp_path / "region")
    show.show_outcome(CommunitiesResult(Plan(()), summary, found, balance, store))
    said = capsys.readouterr().out.splitlines()
    share = 100 * 40 / people.sizes["x"]
    assert f"2002 has no data in {share:.3g} % of its cells, 3.39 % in the one with most" in said
    assert "2003 has no data" in said
    assert "1,250 people of 2001 lie beyond the grid" in said


@pytest.mark.parametrize("frames", [1, 2])
def test_the_largest_settlements_stand_in_a_line_each(capsys, monkeypatch, frames, tmp_path):
    """Of several frames with their growth, in 80 columns, too."""
    monkeypatch.setattr(console.out, "width", 80)
    time = pd.date_range("2000", periods=frames, freq="YS")
    name = "village at 49.61° N, 16.25° W"
    row = {"time": time, "name": name, "kind": "village", "population": 1_234_567.0}
    row |= {"density": 1251.0, "growth": 1.4, "growth_total": 107.8, "track": 0, "geometry": None}
    found = pd.DataFrame({"time": time, "inside": 9.0, "outside": 1.0, "raster": 10.0})
    found["missing"] = 0.0
    events = pd.DataFrame({"time": time, "track": 0, "event": ["appear", "continue"][:frames]})
    events["parent"] = [[], [0]][:frames]
    store = RegionStore(tmp_path / "region")
    table = pd.DataFrame(row)
    centres = table.assign(name="Storby", kind="urban centre")
    show._show_settled(SettlementsResult(Plan(()), table, events, found, store, centres))
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if name in line]
    assert all(any(line.startswith(begin) for line in lines) for begin in ("urban ", "Storby "))
    rates = ["+1.4 %", "+107.8 %"] if frames > 1 else []
    assert line.split("  ", 1)[0] == name
    assert all(rate in line for rate in rates) and ("%" in line) == bool(rates)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["2000"], ""),
        (["2000", "2001", "2002"], ""),
        (["2000-01", "2000-07"], ""),
        (["2000", "2005", "2010"], ", in steps of 5 years,"),
        (["1990", "2000", "2015"], ", in steps of 10 to 15 years,"),
        (["2000-01", "2000-03", "2003-03"], ", in steps of 1 to 3 years,"),
    ],
)
def test_events_of_frames_that_lie_years_apart_say_so(times, said):
    assert show._steps(pd.Series(pd.to_datetime(times))) == said


@pytest.mark.parametrize(("began", "said"), [(0, "+39.8 %"), (1, "+39.8 % from 2001"), (2, "–")])
def test_growth_since_a_later_start_says_since_when(began, said):
    times = pd.Series(pd.date_range("2000", periods=3, freq="YS"))
    assert show._since(39.8, times[began], times) == said


@pytest.mark.parametrize(("loss", "told"), [(0.25, "loss 0.25"), (float("nan"), "loss –")])
def test_a_trial_without_a_loss_has_none(capsys, loss, told):
    show.show_trial(pd.Series({"number": 3, "state": "pruned", "loss": loss}))
    assert capsys.readouterr().out == f"  trial 3: pruned, {told}\n"
