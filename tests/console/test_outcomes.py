"""What is said of a run's results, and of trials."""

import pandas as pd
import pytest

from popdask import people_balance, summarize
from popdask.cli import show
from popdask.store import RegionStore
from popdask.synthetic import moving_cities
from popdask.tracking.link import link
from popdask.tracking.tracks import tracks
from popdask.workflow.communities import CommunitiesResult
from popdask.workflow.plan import Plan


def test_a_split_is_told_by_its_pieces_and_by_the_tracks_that_they_begin(capsys, tmp_path):
    world = moving_cities()
    people, labels = world.population.population, world.labels
    summary = summarize(labels, people)
    found = tracks(link(labels, people, rule="overlap"), summary)
    store = RegionStore(tmp_path / "region")
    show.show_outcome(
        CommunitiesResult(Plan(()), summary, found, people_balance(labels, people), store)
    )
    said = capsys.readouterr().out
    assert " 2 split, 1 merge," in said
    assert "the 2 pieces that communities split into began 1 new track; the others go" in said
    one = found.drop(found.index[found["event"] == "split"][0])
    show.show_outcome(
        CommunitiesResult(Plan(()), summary, one, people_balance(labels, people), store)
    )
    assert "the 1 piece that communities split into began" in capsys.readouterr().out


@pytest.mark.parametrize(("loss", "told"), [(0.25, "loss 0.25"), (float("nan"), "loss –")])
def test_a_trial_without_a_loss_has_none(capsys, loss, told):
    show.show_trial(pd.Series({"number": 3, "state": "pruned", "loss": loss}))
    assert capsys.readouterr().out == f"  trial 3: pruned, {told}\n"
