"""The population job: from aerial images to people per cell, and what its promises are worth."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray
import xarray as xr
from shapely.geometry import box

from popdask.errors import InputError
from popdask.imagery.weights import TrainedModel
from popdask.pipelines import communities, population
from popdask.pipelines.verify import verify
from popdask.store import RegionStore
from tests.pipelines.dots import GRID, SIDE, SOUTH, WEST, job, people, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    settings = job(world, folder / "dots.icechunk", output={"export": ["cog", "parquet"]})
    return settings, population.run(settings)


def arrays(store):
    return RegionStore(store).dataset().compute()


def test_every_cell_of_every_date_is_estimated_on_the_grid(finished):
    found = finished[1].store.dataset()
    assert found["population"].shape == (2, SIDE, SIDE)
    assert found.rio.crs == GRID.crs
    assert found["x"].values[0] == WEST * GRID.size + GRID.size / 2
    assert found["y"].values[-1] == SOUTH * GRID.size + GRID.size / 2
    assert np.isfinite(found["population"]).all() and (found["population"] >= 0).all()
    assert ((found["presence"] >= 0) & (found["presence"] <= 1)).all()


def test_cells_that_look_empty_have_nobody(finished):
    found = finished[1].store.dataset().compute()
    empty = found["presence"] <= finished[0].estimate.threshold
    assert (found["population"].where(empty, 0) == 0).all()


def test_models_and_baselines_are_scored_on_validation_cells_and_on_each_mosaic(finished):
    scores = finished[1].scores
    assert set(scores["where"]) == {"validation", "2015-01-01", "2025-01-01"}
    assert set(scores["model"]) == {"popdask", "mean per cell", "regression"}
    on_mosaic = scores[(scores["where"] == "2025-01-01")]
    assert (on_mosaic["true_people"] == people(1).sum()).all()
    estimated = on_mosaic.set_index("model").loc["popdask", "people"]
    assert estimated == pytest.approx(float(finished[1].people["people"].iloc[1]), rel=1e-5)


def test_a_finished_job_has_nothing_to_do_and_verifies(finished):
    assert population.run(finished[0]).plan.done
    assert verify(finished[0]).differences == ()


def test_a_damaged_cell_is_noticed(world, tmp_path):
    settings = job(world, tmp_path / "dots.icechunk", truth=None)
    population.run(settings)
    store = RegionStore(settings.output.store)
    session = store.repository().writable_session("main")
    cells = xr.open_zarr(session.store, group="cells", consolidated=False)
    import zarr

    zarr.open_group(session.store, path="cells")["people"][0] = 99.0
    session.commit("damage")
    del cells
    (difference,) = verify(settings).differences
    assert "cells" in difference and "not what was computed" in difference


def test_exports_are_rasters_of_each_date_and_tables(finished):
    folder = finished[0].export_folder
    raster = rioxarray.open_rasterio(folder / "dots_population_2025.tif").squeeze()
    stored = finished[1].store.dataset()["population"].sel(time="2025").squeeze()
    np.testing.assert_array_equal(raster.values, stored.values)
    assert raster.rio.crs == GRID.crs
    assert len(pd.read_parquet(folder / "dots_scores.parquet")) == len(finished[1].scores)


def test_another_date_costs_its_own_estimates_and_keeps_the_models(world, tmp_path):
    store = tmp_path / "dots.icechunk"
    first = job(world, store, input={"end": "2015"}, truth=None)
    population.run(first)
    models = {k: v for k, v in RegionStore(store).files().items() if k.endswith(".safetensors")}
    both = job(world, store, truth=None)
    plan = population.plan(both)
    assert {stage.name for stage in plan if not stage.done} == {"estimate"}
    assert plan["estimate"].stale == (1,)
    before = arrays(store)["population"].isel(time=0)
    population.run(both)
    after = RegionStore(store).files()
    assert all(after[name] == content for name, content in models.items())
    xr.testing.assert_equal(
        arrays(store)["population"].isel(time=0).drop_vars("time"), before.drop_vars("time")
    )


def test_a_changed_count_leaves_cells_and_presence(finished):
    changed = finished[0].model_copy(
        update={"count": finished[0].count.model_copy(update={"epochs": 3})}
    )
    todo = {stage.name for stage in population.plan(changed) if not stage.done}
    assert todo == {"count", "estimate", "evaluation", "export"}


def test_the_same_job_gives_the_same_people(finished, world, tmp_path):
    again = job(world, tmp_path / "again.icechunk")
    population.run(again)
    xr.testing.assert_identical(
        arrays(again.output.store).drop_attrs(), arrays(finished[0].output.store).drop_attrs()
    )


def test_training_comes_first_where_it_is_asked_for(world, tmp_path):
    settings = job(world, tmp_path / "dots.icechunk", truth=None)
    left = population.train(settings)
    assert {stage.name for stage in left if not stage.done} == {"estimate", "evaluation"}
    assert not RegionStore(settings.output.store).history()  # readers see nothing yet
    population.run(settings)
    assert [s.stage for s in RegionStore(settings.output.store).history()[0].stages] == [
        "cells",
        "presence",
        "count",
        "estimate",
        "evaluation",
    ]


def test_stored_weights_estimate_without_any_counts(finished, world, tmp_path):
    files = finished[1].store.files()
    for stage in ("presence", "count"):
        (tmp_path / f"{stage}.safetensors").write_bytes(files[f"{stage}.safetensors"])
    settings = job(
        world,
        tmp_path / "given.icechunk",
        cells={"counts": None, "mosaic": None},
        presence={"weights": str(tmp_path / "presence.safetensors")},
        count={"weights": str(tmp_path / "count.safetensors")},
        truth=None,
    )
    outcome = population.run(settings)
    assert [stage.name for stage in outcome.plan] == ["presence", "count", "estimate"]
    np.testing.assert_array_equal(
        arrays(settings.output.store)["population"], finished[1].store.dataset()["population"]
    )


def test_weights_of_another_kind_are_refused(finished, world, tmp_path):
    path = tmp_path / "presence.safetensors"
    path.write_bytes(finished[1].store.file("count.safetensors"))
    settings = job(world, tmp_path / "x.icechunk", presence={"weights": str(path)})
    with pytest.raises(InputError, match=r"is a model of count, and .* asks for presence"):
        population.run(settings)


def test_folds_estimate_every_labelled_cell_by_a_model_that_has_not_seen_it(world, tmp_path):
    settings = job(
        world,
        tmp_path / "folds.icechunk",
        input={"end": "2015"},
        cells={"folds": 2, "split": "blocks", "block": 5},
        truth=None,
    )
    outcome = population.run(settings)
    store = outcome.store
    cells = store.group("cells").compute()
    models = [
        TrainedModel.from_bytes(store.file(f"presence-{fold}.safetensors")) for fold in (0, 1)
    ]
    presence = store.dataset()["presence"].isel(time=0).compute()
    for fold, model in enumerate(models):
        held_out = cells.isel(cell=np.flatnonzero(cells["fold"].values == fold))
        seen = {tuple(place) for place in model.training_cells.tolist()}
        places = list(zip(held_out["north"].values, held_out["east"].values, strict=True))
        assert places and not seen & set(places)
        corners = np.array([GRID.corner(*place) for place in places]) + GRID.size / 2
        x, y = (xr.DataArray(corners[:, axis], dims="cell") for axis in (0, 1))
        np.testing.assert_allclose(
            presence.sel(x=x, y=y), model.predict(held_out["images"].values), atol=1e-6
        )
    assert outcome.scores.set_index("model").loc["popdask", "cells"] == SIDE * SIDE


def test_census_totals_are_kept_in_every_zone(world, tmp_path):
    west, south = WEST * GRID.size, SOUTH * GRID.size
    side = SIDE * GRID.size
    halves = [
        box(west, south, west + side / 2, south + side),
        box(west + side / 2, south, west + side, south + side),
    ]
    zones = gpd.GeoDataFrame({"people": [700, 300]}, geometry=halves, crs=GRID.crs)
    zones.to_file(tmp_path / "zones.gpkg")
    settings = job(
        world,
        tmp_path / "census.icechunk",
        census={"zones": str(tmp_path / "zones.gpkg"), "whole": True},
        truth=None,
    )
    outcome = population.run(settings)
    fitted = arrays(settings.output.store)["census_population"]
    half = SIDE // 2
    for frame in fitted:
        assert frame[:, :half].sum() == 700 and frame[:, half:].sum() == 300
        assert (frame == frame.round()).all()
    assert len(outcome.zones) == 4 and verify(settings).differences == ()


def test_a_single_stage_needs_no_presence(world, tmp_path):
    settings = job(world, tmp_path / "single.icechunk", count={"kind": "weighted"}, truth=None)
    outcome = population.run(settings)
    assert "presence" not in outcome.plan.stages
    assert "presence" not in outcome.store.dataset()


def test_the_communities_of_the_estimates_are_followed(world, tmp_path):
    settings = job(
        world,
        tmp_path / "dots.icechunk",
        estimate={"threshold": 0.0},  # somebody everywhere
        output={"export": ["cog"]},
        follow={
            "store": str(tmp_path / "communities.icechunk"),
            "encoder": {"epochs": 2},
            "classes": {"k": 2, "sample": 100},
            "communities": {"eps": 2, "min_samples": 3},
        },
        truth=None,
    )
    outcome = population.run(settings)
    estimated = outcome.store.dataset()["population"].sum(("y", "x"), dtype="float64").values
    np.testing.assert_allclose(outcome.followed.balance["raster"], estimated, rtol=1e-9)
    assert communities.plan(settings.followed).done


def test_following_needs_the_rasters():
    with pytest.raises(ValueError, match='add "cog"'):
        job("world", "x.icechunk", follow={"store": "y.icechunk"})


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="no counts to learn from"):
        job("world", "x.icechunk", cells={"counts": None})


def test_counts_of_another_place_leave_the_store_untouched(world, tmp_path):
    table = pd.DataFrame({"cell": [GRID.code(SOUTH + 500, WEST)], "people": [3]})
    table.to_parquet(tmp_path / "elsewhere.parquet")
    settings = job(
        world, tmp_path / "x.icechunk", cells={"counts": str(tmp_path / "elsewhere.parquet")}
    )
    with pytest.raises(InputError, match="counts are of cells that the image does not have"):
        population.run(settings)
    assert not RegionStore(settings.output.store).history()


def test_the_best_typical_and_worst_cells_are_explained(finished):
    path = population.explain(finished[0], cells=1)
    assert path.exists() and path.stat().st_size > 10_000


def test_pictures_of_estimates_errors_and_losses(finished):
    names = {path.stem.removeprefix("dots_") for path in population.draw(finished[0])}
    assert {
        "population_2025-01-01",
        "error_2025-01-01",
        "scores_validation",
        "agreement_2025-01-01_popdask",
        "loss_presence",
        "loss_count",
    } <= names


def test_a_search_finds_settings_and_goes_on_where_it_was(world, tmp_path):
    settings = job(world, tmp_path / "dots.icechunk", truth=None)
    population.train(settings)
    first = population.tune(settings, "presence", 1, epochs=1)
    both = population.tune(settings, "presence", 2, epochs=1)
    assert len(first.trials) == 1 and len(both.trials) == 2
    assert both.trials["loss"].iloc[0] == first.trials["loss"].iloc[0]


def test_there_is_no_search_before_cells_are_cut(world, tmp_path):
    with pytest.raises(InputError, match=r"popdask train JOB.* cuts them|holds no results yet"):
        population.tune(job(world, tmp_path / "x.icechunk"), "presence", 1)
