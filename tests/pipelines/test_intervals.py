"""A population job says how sure it is, of cells and of squares of them, and what that is worth."""

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

from popdask.workflow import population
from popdask.workflow.progress import Reporter
from tests.pipelines.dots import GRID, SIDE, job, write_world

PLAIN = {
    "network": {"network": "features", "trees": 20, "least": 5, "patches": 0, "rate": 0.2, "l2": 0}
}
CELLS = {"split": "blocks", "block": 5, "folds": 2}


class Notes(Reporter):
    """Keeps what a run says."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intervals")
    write_world(folder)
    return folder


def sure(world, store, **intervals):
    tables = {"presence": PLAIN, "count": PLAIN, "cells": CELLS, "intervals": intervals}
    return job(world, store, **tables, output={"export": ["cog", "geoparquet", "zarr"]})


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    settings = sure(world, tmp_path_factory.mktemp("store") / "dots.icechunk", level=0.5, square=2)
    return settings, population.run(settings).store


def test_every_cell_has_an_interval_in_the_store_and_the_exports(finished):
    settings, store = finished
    arrays = store.dataset()
    low, people, high = (arrays[f"population{end}"].values for end in ("_low", "", "_high"))
    assert (low >= 0).all() and (low <= people).all() and (people <= high).all()
    assert low.shape == (2, SIDE, SIDE) and (high > low).any()
    assert list(population.PIPELINE.check(store)) == []
    cube = xr.open_zarr(settings.export_folder / "dots.zarr", group="0")
    np.testing.assert_array_equal(cube["population_high"], high)
    written = {path.name for path in settings.export_folder.iterdir()}
    assert {"dots_population_low_2015.tif", "dots_squares.parquet", "dots_worst.parquet"} <= written


def test_what_intervals_are_worth_is_told_of_cells_that_taught_none(finished):
    _, store = finished
    coverage = store.table("coverage")
    told = coverage[coverage["of"] == "cells"].set_index("group")["coverage"]
    table = store.table("predictions")
    own = table[(table["where"] == "validation") & (table["model"] == "popdask")]
    held = (own["low"] <= own["truth"]) & (own["truth"] <= own["high"])
    assert told["all"] == pytest.approx(held.mean())
    assert told[["0", "1"]].tolist() == held.groupby(own["group"]).mean().tolist()
    scores = store.table("scores").set_index(["where", "model"])["coverage"]
    assert scores["validation", "popdask"] == told["all"] and scores["2015-01-01", "popdask"] > 0.5
    assert np.isnan(scores["validation", "mean per cell"])


def test_squares_are_sums_of_their_cells(finished):
    _, store = finished
    squares = store.table("squares")
    assert (squares["cells"] == 4).all() and len(squares) == 2 * (SIDE // 2) ** 2
    people = store.dataset()["population"].coarsen(y=2, x=2).sum().sortby(["y", "x"])
    np.testing.assert_allclose(squares["people"], people.values.ravel(), rtol=1e-6)
    assert (squares["low"] <= squares["people"]).all()
    assert squares["x"].min() == store.dataset()["x"].min() - GRID.size / 2


def test_too_few_squares_are_refused_in_a_sentence_and_cells_keep_theirs(world, tmp_path):
    settings, notes = sure(world, tmp_path / "dots.icechunk", square=2), Notes()
    store = population.run(settings, notes).store
    assert any(
        "16 squares have known people, and intervals of 90% need 19" in s for s in notes.said
    )
    assert "population_low" in store.dataset() and set(store.table("coverage")["of"]) == {"cells"}
    with pytest.raises(KeyError):
        store.table("squares")


def test_other_intervals_cost_no_training(finished):
    settings, _ = finished
    changed = settings.model_copy(
        update={"intervals": settings.intervals.model_copy(update={"level": 0.6})}
    )
    stale = {stage.name for stage in population.plan(changed) if not stage.done}
    assert stale == {"evaluation", "intervals", "export", "tables"}


def test_without_known_people_there_is_nothing_to_learn_from(world, tmp_path):
    given = {"weights": "model.safetensors"}
    with pytest.raises(ValidationError, match="are learned from errors on cells"):
        job(
            world,
            tmp_path / "dots.icechunk",
            cells={"counts": None},
            presence=given,
            count=given,
            intervals={},
        )
