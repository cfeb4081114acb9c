"""A population job learns from the totals of zones, and is scored where more is known."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from pydantic import ValidationError

from popdask.workflow import population
from tests.pipelines.dots import GRID, SIDE, SOUTH, WEST, job, people, write_world

PLAIN = {
    "network": {"network": "features", "trees": 20, "least": 5, "patches": 0, "rate": 0.2, "l2": 0}
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("totals")
    write_world(folder, years=(2015,))
    counts = people(0)
    rows = []
    for row in range(0, SIDE, 2):
        for column in range(0, SIDE, 2):
            x, y = GRID.corner(SOUTH + SIDE - 2 - row, WEST + column)
            box = shapely.box(x, y, x + 2 * GRID.size, y + 2 * GRID.size)
            known = float(counts[row : row + 2, column : column + 2].sum())
            rows.append({"inhabitants": known, "geometry": box})
    gpd.GeoDataFrame(rows, crs=GRID.crs).to_file(folder / "zones.gpkg")
    return folder


def learned(world, store, **cells):
    return job(world, store, presence=PLAIN, count=PLAIN, cells=cells)


def test_nothing_but_sums_is_learned_from_and_cells_are_scored(world, tmp_path):
    settings = learned(world, tmp_path / "dots.icechunk", totals=2)
    store = population.run(settings).store
    cells, shared = store.group("cells").load(), store.table("shared")["0"].to_numpy()
    split, truth = cells["split"].values, cells["people"].values
    assert (np.isnan(shared) == (split != 0)).all()
    zone = cells["zone"].values[split == 0]
    sums = [np.bincount(zone, weights) for weights in (shared[split == 0], truth[split == 0])]
    np.testing.assert_allclose(*sums, atol=1e-9)
    own = store.table("predictions").query("where == 'validation' and model == 'popdask'")
    assert own["truth"].sum() == truth[split == 1].sum() and len(own) == (split == 1).sum()
    assert population.plan(settings).done
    stale = population.plan(learned(world, tmp_path / "dots.icechunk"))
    assert not stale["cells"].done and "totals" not in stale.stages


def test_zones_are_scored_where_no_cells_are_known(world, tmp_path):
    zones = {"totals": f"{world}/zones.gpkg", "column": "inhabitants", "counts": None}
    settings = learned(world, tmp_path / "dots.icechunk", **zones)
    store = population.run(settings).store
    scored = store.table("scores").set_index(["where", "model"])
    own = store.table("predictions").query("where == 'validation' and model == 'popdask'")
    assert scored.loc[("validation", "popdask"), "cells"] == len(own) == 5
    known = set(gpd.read_file(world / "zones.gpkg")["inhabitants"])
    assert set(own["truth"].round(6)) <= known
    assert scored.loc[("2015-01-01", "popdask"), "cells"] == SIDE**2  # by [truth]
    changed = gpd.read_file(world / "zones.gpkg").assign(inhabitants=3.0)
    changed.to_file(world / "zones.gpkg")
    assert not population.plan(settings)["cells"].done


def test_what_does_not_fit_is_refused(world, tmp_path):
    store = tmp_path / "dots.icechunk"
    with pytest.raises(ValidationError, match="squares in which counts are added up"):
        learned(world, store, totals=2, counts=None)
    with pytest.raises(ValidationError, match="each file tells the people of its cell"):
        learned(world, store, totals=2, folder=str(world))
    with pytest.raises(ValidationError, match="are learned from errors on cells"):
        job(
            world,
            store,
            cells={"counts": None, "totals": f"{world}/zones.gpkg"},
            intervals={},
        )
