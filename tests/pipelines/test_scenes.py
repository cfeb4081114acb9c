"""The scenes job: groups of cells that look alike, without labels."""

import pandas as pd
import pytest
import rioxarray

from popdask.config import ScenesJob
from popdask.store import RegionStore
from popdask.workflow import scenes
from popdask.workflow.operations import report, verify
from tests.pipelines.dots import GRID, SIDE, write_world

GROUPS = {
    "k": [2],
    "pca": 8,
    "dimensions": 2,
    "neighbours": 5,
    "epochs": 20,
    "min_cluster_size": 5,
    "min_samples": 2,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, years=(2015,))
    return folder


def job(world, store, *, export=("cog", "parquet"), **groups):
    """A scenes job on the mosaic of dots; settings of its groups are changed by name."""
    return ScenesJob.model_validate(
        {
            "name": "dots",
            "pipeline": "scenes",
            "input": {"mosaic": f"{world}/mosaic_2015.tif"},
            "cells": {"grid": "dk_100m"},
            "features": {"size": 32, "batch_size": 8},
            "groups": GROUPS | groups,
            "output": {"store": str(store), "export": list(export)},
        }
    )


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    store = tmp_path_factory.mktemp("finished") / "dots.icechunk"
    settings = job(world, store, export=("cog", "parquet", "report"))
    return settings, scenes.run(settings)


def exported(settings):
    """The exports, besides the colours, which lie beside the rasters."""
    names = {path.name for path in settings.export_folder.iterdir() if path.is_file()}
    colours = {name for name in names if name.endswith(".aux.xml")}
    assert colours == {f"{name}.aux.xml" for name in names if name.endswith(".tif")}
    return names - colours


def test_every_cell_has_its_groups_and_its_place_in_the_plot(finished):
    table = finished[1].groups
    assert len(table) == SIDE * SIDE
    assert set(table["kmeans_2"]) == {0, 1}
    store = finished[1].store
    assert store.group("groups")["kmeans_2"].shape == (SIDE, SIDE)
    assert f"{SIDE * SIDE} cells, in groups: kmeans_2 2" in scenes.PIPELINE.found(store)


def test_a_finished_job_has_nothing_to_do_and_verifies(finished):
    assert scenes.run(finished[0]).plan.done
    assert verify(finished[0]).differences == ()


def test_exports_are_a_raster_of_each_grouping_and_a_table(finished):
    settings, outcome = finished
    rasters, page = {"dots_kmeans_2.tif", "dots_hdbscan.tif"}, "dots_report.html"
    assert exported(settings) == {*rasters, "dots_scenes.parquet", page}
    assert report(settings).name == page
    assert verify(settings).differences == ()  # the page is the one that the run wrote
    raster = rioxarray.open_rasterio(settings.export_folder / "dots_kmeans_2.tif").squeeze()
    shown = outcome.store.group("groups")["kmeans_2"]
    assert (raster.values == shown.values).all() and raster.rio.crs == GRID.crs
    table = pd.read_parquet(settings.export_folder / "dots_scenes.parquet")
    assert len(table) == SIDE * SIDE


def test_another_number_of_groups_describes_nothing_again(world, tmp_path):
    store = tmp_path / "dots.icechunk"
    before = scenes.run(job(world, store))
    described = before.store.records()["features"]
    changed = job(world, store, k=[3])
    todo = {stage.name for stage in scenes.plan(changed) if not stage.done}
    assert todo == {"groups", "export"}
    after = scenes.run(changed)
    assert after.store.records()["features"] == described
    assert set(after.groups["kmeans_3"]) == {0, 1, 2} and "kmeans_2" not in after.groups
    assert exported(changed) == {"dots_kmeans_3.tif", "dots_hdbscan.tif", "dots_scenes.parquet"}
    assert verify(changed).differences == ()


def test_exports_of_before_go_where_everything_is_computed_again(world, tmp_path):
    store = tmp_path / "dots.icechunk"
    scenes.run(job(world, store, export=["cog"]))
    scenes.run(job(world, store, export=["cog"], k=[3]), force=True)
    assert exported(job(world, store)) == {"dots_kmeans_3.tif", "dots_hdbscan.tif"}


def test_the_same_job_gives_the_same_groups(finished, world, tmp_path):
    again = scenes.run(job(world, tmp_path / "again.icechunk"))
    pd.testing.assert_frame_equal(again.groups, finished[1].groups)


def test_pictures_of_the_map_and_the_plot(finished):
    written = scenes.PIPELINE.draw(finished[0])
    assert [path.name for path in written] == ["dots_scene_map.png", "dots_scene_plot.png"]
    assert all(path.stat().st_size > 5_000 for path in written)


def test_readers_see_nothing_of_a_stage_alone(world, tmp_path):
    settings = job(world, tmp_path / "dots.icechunk")
    left = scenes.run_only(settings, "features")
    assert [stage.name for stage in left if not stage.done] == ["groups", "export"]
    assert not RegionStore(settings.output.store).history()
