"""A population job says how sure it is, of cells and of squares of them, and what that is worth."""

import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from pydantic import ValidationError
from shapely.geometry import box

from popdask.config.jobs import Follow
from popdask.errors import InputError
from popdask.imagery.evaluation import REACH, intervals_by_size, learned_by_size
from popdask.store.repository import RegionStore
from popdask.workflow import communities, population
from popdask.workflow.population_stages import following
from popdask.workflow.progress import Reporter
from tests.pipelines.dots import GRID, SIDE, SOUTH, WEST, job, write_world

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
    corner = (WEST * GRID.size, SOUTH * GRID.size)
    sides = {"a cell": (1, 1), "a square": (2, 2), "a strip": (3, 1), "elsewhere": (-3, 1)}
    outlines = [
        box(*corner, *(low + size * GRID.size for low, size in zip(corner, side, strict=True)))
        for side in sides.values()
    ]
    outlines[0] = shapely.affinity.translate(outlines[0], 9 * GRID.size, 0)
    outlines[2:] = [shapely.affinity.translate(one, 0, 5 * GRID.size) for one in outlines[2:]]
    zones = gpd.GeoDataFrame({"called": list(sides)}, geometry=outlines, crs=GRID.crs)
    zones.to_file(folder / "zones.gpkg")
    return folder


def sure(world, store, **intervals):
    tables = {"presence": PLAIN, "count": PLAIN, "cells": CELLS, "intervals": intervals}
    return job(world, store, **tables, output={"export": ["cog", "geoparquet", "zarr"]})


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    zones = {"zones": f"{world}/zones.gpkg", "name": "called"}
    store = tmp_path_factory.mktemp("store") / "dots.icechunk"
    settings = sure(world, store, level=0.5, square=2, **zones)
    return settings, population.run(settings).store


def test_too_few_scored_cells_are_refused_before_models_are_trained(world, tmp_path):
    one_square = {"split": "random", "block": SIDE, "validation": 0.5}
    settings = job(world, tmp_path / "dots.icechunk", cells=one_square, intervals={})
    with pytest.raises(InputError, match=r"errors of 19 scored cells .* and 0 are there"):
        population.run(settings)
    assert not RegionStore(settings.output.store).latest_records()


def test_intervals_set_after_cells_were_cut_are_refused_before_models_are_trained(world, tmp_path):
    tables = {"presence": PLAIN, "count": PLAIN}
    tables["cells"] = {"split": "random", "block": SIDE, "validation": 0.5}
    store = tmp_path / "dots.icechunk"
    population.run_only(job(world, store, **tables), ["cells"])
    with pytest.raises(InputError, match=r"errors of 19 scored cells .* and 0 are there"):
        population.run(job(world, store, **tables, intervals={}))
    assert set(RegionStore(store).latest_records()) == {"cells"}


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


def test_communities_of_the_estimates_carry_the_intervals_of_their_people(
    world, finished, tmp_path
):
    settings, store = finished
    table = {
        "store": str(tmp_path / "followed.icechunk"),
        "encoder": {"epochs": 2},
        "classes": {"k": 6, "sample": 100},
        "communities": {"eps": 1, "min_samples": 2},
    }
    both = settings.model_copy(update={"follow": Follow.model_validate(table)})
    assert following(both, population.plan(both))[0].plan.computed == 0
    places = population.run(both).followed
    found = places.communities
    low, high = intervals_by_size(
        found["population"], found["cells"], learned_by_size(store.table("intervals"))
    )
    np.testing.assert_array_equal(found["population_low"], low)
    np.testing.assert_array_equal(found["population_high"], high)
    near = found["cells"] <= REACH * 3**2  # cells of the largest squares with enough people
    assert near.any() and (np.isfinite(high) == near).all()
    assert (low[near] <= found["population"][near]).all() and (high > low).any()
    towns = places.store.table("settlements")
    assert {"population_low", "population_high"} <= set(towns)
    assert communities.plan(both.followed()).done
    path = both.followed().input.intervals
    learned = pd.read_parquet(path)
    assert set(learned["cell_size"]) == {GRID.size}
    coarse = "learned on cells of 200.0 m, and the frames have cells of 100.0 m; expected cells of"
    lost = "lacks the columns cell_size, low; expected .* that a population job"
    others = {
        coarse: learned.assign(cell_size=2 * GRID.size),
        lost: learned.drop(columns=["low", "cell_size"]),
        "lacks the column cases; ": learned.drop(columns="cases"),
    }
    for message, other in others.items():
        other.to_parquet(tmp_path / "other.parquet")
        shutil.copy(tmp_path / "other.parquet", path)
        with pytest.raises(InputError, match=message):
            communities.run(both.followed())


def test_squares_are_sums_of_their_cells(finished):
    _, store = finished
    squares = store.table("squares")
    assert (squares["cells"] == 4).all() and len(squares) == 2 * (SIDE // 2) ** 2
    people = store.dataset()["population"].coarsen(y=2, x=2).sum().sortby(["y", "x"])
    np.testing.assert_allclose(squares["people"], people.values.ravel(), rtol=1e-6)
    assert (squares["low"] <= squares["people"]).all()
    assert squares["x"].min() == store.dataset()["x"].min() - GRID.size / 2


def test_polygons_have_the_intervals_of_squares_of_their_size(finished):
    settings, store = finished
    assert (settings.export_folder / "dots_polygons.parquet").exists()
    polygons = store.table("polygons").set_index("zone")
    now = polygons[polygons["time"] == polygons["time"].min()]
    assert now["cells"].to_dict() == {"a cell": 1, "a square": 4, "a strip": 3, "elsewhere": 0}
    corner = store.dataset().isel(time=0).sortby(["y", "x"]).isel(y=0, x=9)
    ends = [float(corner[f"population{end}"]) for end in ("_low", "", "_high")]
    np.testing.assert_allclose(now.loc["a cell", ["low", "people", "high"]].tolist(), ends, 1e-6)
    square = store.table("squares").sort_values(["time", "y", "x"]).iloc[0]
    for name in ("people", "low", "high"):
        assert now.loc["a square", name] == pytest.approx(square[name])
    assert np.isnan(now.loc["elsewhere", "low"]) and now.loc["elsewhere", "people"] == 0
    assert (now["low"][:3] <= now["people"][:3]).all() and now.loc["a strip", "high"] > 0


def test_polygons_that_are_set_or_edited_after_a_run_are_written(finished, world, tmp_path):
    _, store = finished
    shutil.copytree(store.path, tmp_path / "dots.icechunk")
    shutil.copy(world / "zones.gpkg", tmp_path / "zones.gpkg")
    own = {"zones": f"{tmp_path}/zones.gpkg", "name": "called"}

    def laid(**zones):
        changed = sure(world, tmp_path / "dots.icechunk", level=0.5, square=2, **zones)
        todo = {stage.name for stage in population.plan(changed) if not stage.done}
        population.run(changed)
        return changed.export_folder / "dots_polygons.parquet", todo

    assert not laid()[0].exists()
    path, todo = laid(**own)
    assert set(pd.read_parquet(path)["zone"]) == {"a cell", "a square", "a strip", "elsewhere"}
    assert todo == {"intervals", "export", "tables"}
    read = RegionStore(tmp_path / "dots.icechunk").records()["intervals"]["files"]
    assert own["zones"] in read
    fewer = gpd.read_file(own["zones"]).iloc[:2]
    fewer.to_file(own["zones"])
    assert len(pd.read_parquet(laid(**own)[0])) == 2 * 2


def test_too_few_squares_are_refused_in_a_sentence_and_cells_keep_theirs(world, tmp_path):
    outline = box(WEST, SOUTH, WEST + 3, SOUTH + 2)
    zones = gpd.GeoDataFrame(
        geometry=[shapely.affinity.scale(outline, *2 * [GRID.size], origin=(0, 0))], crs=GRID.crs
    )
    zones.to_file(tmp_path / "zones.gpkg")
    large = {"zones": f"{tmp_path}/zones.gpkg"}
    settings, notes = sure(world, tmp_path / "dots.icechunk", square=2, **large), Notes()
    store = population.run(settings, notes).store
    assert any(
        "16 squares have known people, and intervals of 90% need 19" in s for s in notes.said
    )
    assert "population_low" in store.dataset() and set(store.table("coverage")["of"]) == {"cells"}
    with pytest.raises(KeyError):
        store.table("squares")
    polygons = store.table("polygons")
    assert (polygons["cells"] == 6).all() and (polygons["people"] >= 0).all()
    assert polygons[["low", "high"]].isna().all(axis=None)
    assert any("no intervals of polygons (1) with more than 4 times" in s for s in notes.said)


def test_a_run_by_force_makes_anew_what_lost_all_of_its_manifests(finished, world, tmp_path):
    settings, store = finished
    lost = shutil.copytree(store.path, tmp_path / "dots.icechunk")
    for manifest in (lost / "manifests").iterdir():
        manifest.unlink()
    intervals = settings.intervals.model_dump()
    again = population.run(sure(world, lost, **intervals), force=True).store
    xr.testing.assert_identical(again.dataset().compute(), store.dataset().compute())
    pd.testing.assert_frame_equal(again.table("intervals"), store.table("intervals"))


def test_other_intervals_cost_no_training(finished):
    settings, _ = finished
    changed = settings.model_copy(
        update={"intervals": settings.intervals.model_copy(update={"level": 0.6})}
    )
    stale = {stage.name for stage in population.plan(changed) if not stage.done}
    assert stale == {"evaluation", "intervals", "export", "tables"}


def test_a_column_that_polygons_lack_is_refused_before_training(world, tmp_path):
    store = tmp_path / "dots.icechunk"
    settings = sure(world, store, zones=f"{world}/zones.gpkg", name="caled")
    with pytest.raises(InputError, match=r"\[intervals\] name is 'caled', .* called, geometry"):
        population.run(settings)
    assert not RegionStore(store).exists()


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
