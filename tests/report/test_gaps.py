"""A report names frames that lack data, and says that no data is not nobody."""

import numpy as np
import pandas as pd
import pytest
import rasterio

from popdask.config import load_job
from popdask.report.places import _balance
from popdask.workflow import communities
from tests.pipelines.small import small_world, write_job
from tests.report.reading import Page


@pytest.fixture(scope="module")
def gappy(tmp_path_factory):
    """The two towns; of 2001 the southern half is missing, of 2002 everything."""
    folder = tmp_path_factory.mktemp("gappy")
    small_world().write(folder / "frames")
    for year, rows in ((2001, slice(33, None)), (2002, slice(None))):
        with rasterio.open(folder / "frames" / f"world_{year}.tif", "r+") as file:
            people = file.read(1)
            people[rows] = np.nan
            file.write(people, 1)
    tables = {"output": {"export": ["report"]}}
    path = write_job(folder / "gappy.toml", folder / "frames", folder / "gappy.icechunk", **tables)
    job = load_job(path)
    outcome = communities.run(job)
    (page,) = job.export_folder.glob("*.html")
    return outcome, Page(page.read_text(encoding="utf-8"))


def test_balance_and_report_name_frames_without_data(gappy):
    outcome, page = gappy
    assert outcome.balance["missing"].tolist() == [0, 0.5, 1, 0]
    assert set(outcome.tracks["event"]) >= {"appear"}
    words = " ".join(page.texts("p"))
    assert "2001 has no data in 50 % of its cells, 0 % in the one with most. 2002 has no data." in (
        " ".join(words.split())
    )
    assert "cells without data" in page.texts("th")
    assert {"50.0%", "100.0%"} <= set(page.texts("td"))


def test_nothing_vanishes_for_want_of_data(gappy):
    outcome, _ = gappy
    gone = outcome.tracks[outcome.tracks["event"] == "vanish"]
    early = gone[gone["time"].isin(pd.to_datetime(["2000", "2001"]))]
    ends = outcome.store.table("link_ends").query("side == 'source'")
    later = early.merge(ends, on=["time", "community"])
    known = later[later["missing"] < 1].groupby(["time", "community"])
    assert len(known) == len(early), "each was looked at again where there is data"
    assert (known["people_target"].last() < 0.1 * known["people_source"].last()).all()


def test_frames_that_are_whole_need_no_column():
    people = {"inside": [1.0], "outside": [2.0], "total": [3.0], "raster": [3.0]}
    balance = pd.DataFrame({"time": pd.to_datetime(["2001"]), **people})
    whole = balance.assign(difference=0.0, missing=0.0, beyond=0.0)
    words = "community", "communities"
    shown = _balance(whole, ["2001"], *words)
    assert len(shown["head"]) == len(shown["rows"][0]) == 6
    moved = _balance(whole.assign(beyond=[12.0], missing=[0.25]), ["2001"], *words)
    assert moved["head"][-2:] == ("cells without data", "beyond the grid")
    assert moved["rows"][0][-2:] == ("25.0%", "12.0") and "lie beyond the grid" in moved["note"]
    assert "has no data" not in moved["note"], "sea is sea in every frame"
