"""Results of stages that a job no longer has are taken away."""

import geopandas as gpd
import pytest
from shapely.geometry import box

from popdask.store import RegionStore
from popdask.workflow import population
from popdask.workflow.operations import verify
from tests.pipelines.dots import GRID, SIDE, SOUTH, WEST, job, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, years=(2015,))
    west, south = WEST * GRID.size, SOUTH * GRID.size
    place = box(west, south, west + SIDE * GRID.size, south + SIDE * GRID.size)
    zones = gpd.GeoDataFrame({"people": [900]}, geometry=[place], crs=GRID.crs)
    zones.to_file(folder / "zones.gpkg")
    return folder


def settings(world, store, **tables):
    return job(world, store, **{"truth": None, **tables})


def names(store):
    """Arrays, files and records that readers see."""
    region = RegionStore(store)
    return set(region.dataset().data_vars), set(region.files()), set(region.records())


def test_a_job_without_its_census_has_no_census(world, tmp_path):
    store = tmp_path / "dots.icechunk"
    population.run(settings(world, store, census={"zones": str(world / "zones.gpkg")}))
    assert "census_population" in names(store)[0] and "zones.parquet" in names(store)[1]
    without = settings(world, store)
    plan = population.plan(without)
    assert not plan.done and all(stage.done for stage in plan)
    population.run(without)
    arrays, files, records = names(store)
    assert "census_population" not in arrays and "zones.parquet" not in files
    assert not records & {"census", "zones"}
    assert population.plan(without).done and verify(without).differences == ()
    with pytest.raises(KeyError):
        RegionStore(store).table("zones")


def test_a_single_stage_leaves_nothing_of_two(world, tmp_path):
    store = tmp_path / "dots.icechunk"
    population.run(settings(world, store))
    assert "presence" in names(store)[0] and "presence.safetensors" in names(store)[1]
    single = settings(world, store, count={"kind": "weighted"})
    population.run(single)
    arrays, files, records = names(store)
    assert arrays == {"population"} and "presence.safetensors" not in files
    assert "presence" not in records
    assert verify(single).differences == () and population.plan(single).done


def test_a_stage_of_its_own_publishes_the_cleaned_store(world, tmp_path):
    store = tmp_path / "dots.icechunk"
    population.run(settings(world, store, census={"zones": str(world / "zones.gpkg")}))
    without = settings(world, store)
    assert population.run_only(without, "estimate").done
    assert "census_population" not in names(store)[0]
    assert population.plan(without).done
