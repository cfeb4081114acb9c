"""The population job: from aerial images to people per cell, and what its promises are worth."""

import hashlib
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import rioxarray
import xarray as xr
from shapely.geometry import box

from popdask.config.jobs import Training
from popdask.config.settings import Drawn
from popdask.errors import InputError
from popdask.imagery.model import TrainedModel
from popdask.io import open_cube
from popdask.store import RegionStore
from popdask.workflow import communities, evaluation, population, population_outputs
from popdask.workflow.operations import verify
from popdask.workflow.population_inputs import (
    Sources,
    draw,
    labelled_cells,
    read_truth,
    training_configs,
)
from popdask.workflow.progress import Reporter
from tests.pipelines.dots import (
    GRID,
    PIXELS,
    SIDE,
    SOUTH,
    WEST,
    job,
    people,
    write_raster,
    write_world,
)

SMALL = {"blocks": 2, "base": 4, "hidden": 8, "extra": False}


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


@pytest.fixture
def trained(finished, tmp_path):
    """A copy of the finished store, whose cells and models serve other jobs on the same world."""
    return shutil.copytree(finished[1].store.path, tmp_path / "dots.icechunk")


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


def test_scores_have_intervals_and_the_regressor_is_scored_alone(finished):
    store = finished[1].store
    rows = store.table("scores").query("model == 'popdask'").set_index("where")
    assert {"people_low", "relative_error_high", "matthews_low"} <= set(rows)
    assert np.isnan(rows[["r2_low", "mae_high"]]).all(axis=None)  # the world is one square of ten
    alone = store.table("regressor")
    assert set(alone["of"]) == {"inhabited", "passed"} and set(alone["where"]) == {"validation"}


def test_the_rule_is_what_measures_better_and_told(world, trained, tmp_path):
    said = []

    class Notes(Reporter):
        def note(self, text):
            said.append(text)

    fixed = shutil.copytree(trained, tmp_path / "fixed.icechunk")
    settings = job(world, trained, estimate={"rule": "auto"})
    found = population.run(settings, Notes()).store
    (rule,) = found.records()["estimate"]["rules"]
    assert any("measures better on" in sentence for sentence in said)
    fixed = job(world, fixed, estimate={"rule": rule})
    xr.testing.assert_identical(
        found.dataset().compute(), population.run(fixed).store.dataset().compute()
    )
    authors = job(
        world, tmp_path / "other.icechunk", estimate={"rule": "auto"}, cells={"selection": 0}
    )
    assert population.run(authors).store.records()["estimate"]["rules"] == ["gate"]


def test_what_is_expected_is_presence_times_count(world, trained):
    settings = job(world, trained, estimate={"rule": "expected"})
    store = population.run(settings).store
    table = store.table("predictions").query("where == 'validation' and model == 'popdask'")
    np.testing.assert_allclose(table["prediction"], table["presence"] * table["count"], rtol=1e-6)
    assert (store.dataset()["population"] > 0).all()


def test_a_finished_job_has_nothing_to_do_and_verifies(finished):
    assert population.run(finished[0]).plan.done
    assert verify(finished[0]).differences == ()


def test_a_damaged_cell_is_noticed(world, trained):
    settings = job(world, trained)
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


def test_the_catalogue_has_no_checksums_of_files_that_were_replaced(world, trained):
    for truth in (None, {}):  # more is scored the second time
        settings = job(world, trained, truth=truth, output={"export": ["cog", "parquet", "stac"]})
        population.run(settings)
    found = pystac.Collection.from_file(str(settings.export_folder / "dots_collection.json"))
    assert {"scores", "worst"} <= set(found.assets)
    rasters = [asset for item in found.get_items() for asset in item.assets.values()]
    assert all("file:checksum" in asset.extra_fields for asset in rasters)
    for asset in [*found.assets.values(), *rasters]:
        digest = hashlib.sha256(Path(asset.get_absolute_href()).read_bytes()).hexdigest()
        assert asset.extra_fields.get("file:checksum", f"1220{digest}") == f"1220{digest}"


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


def test_a_mosaic_that_comes_while_a_run_begins_is_one_of_the_next_run(tmp_path):
    write_world(tmp_path, years=(2015,))
    settings = job(tmp_path, tmp_path / "x.icechunk", output={"export": ["cog"]})
    files = population.PIPELINE.files(settings, {})
    write_world(tmp_path)
    rasters = ["dots_population_2015.tif", "dots_presence_2015.tif"]
    assert population.PIPELINE.exports(settings, files) == rasters
    assert population.PIPELINE.decide(settings, files, {}).times == ("2015-01-01T00:00:00",)
    assert len(population.plan(settings).times) == 2


def test_a_date_that_covers_more_leaves_the_estimates_of_the_others(world, tmp_path):
    for name in ("mosaic_2015.tif", "people.parquet"):
        shutil.copy(world / name, tmp_path)
    with rasterio.open(world / "mosaic_2025.tif") as small:
        profile, west = small.profile, small.transform @ small.transform.translation(-PIXELS, 0)
        wide = np.pad(small.read(1), ((0, PIXELS), (PIXELS, 0)), mode="wrap")
    profile |= {"height": len(wide), "width": wide.shape[1], "transform": west}
    with rasterio.open(tmp_path / "mosaic_2025.tif", "w", **profile) as file:
        file.write(wide, 1)
    told, tables = [], {"output": {"export": ["cog"]}, "truth": None}

    class Listener(Reporter):
        def note(self, text):
            told.append(text)

    store = tmp_path / "dots.icechunk"
    first = job(tmp_path, store, input={"end": "2015"}, **tables)
    population.run(first)
    before = arrays(store)
    both = job(tmp_path, store, **tables)
    plan = population.plan(both)
    assert plan["estimate"].stale == (1,) and plan["export"].stale == (0, 1)
    assert all(plan[name].done for name in ("cells", "presence", "count", "evaluation"))
    assert "the last run had other cells" in population.PIPELINE.extent(both)
    population.run(both, Listener())
    assert any(text.endswith("which had other cells: 2015-01-01") for text in told)
    after = arrays(store)
    assert after["population"].shape == (2, SIDE + 1, SIDE + 1)
    kept = after.sel(y=before["y"], x=before["x"]).isel(time=[0])
    for name in ("population", "presence"):
        np.testing.assert_array_equal(kept[name], before[name])
        assert after[name][0].count() == SIDE**2 and after[name][1].count() == (SIDE + 1) ** 2
    assert verify(both).differences == ()
    population.run(first)  # and back: a date that went away is taken away, its files too
    xr.testing.assert_equal(arrays(store), before)
    rasters = {path.name for path in first.export_folder.glob("*.tif")}
    assert rasters == {"dots_population_2015.tif", "dots_presence_2015.tif"}
    assert verify(first).differences == () and population.plan(first).done


def test_dates_of_one_column_keep_to_their_own_cells(world, tmp_path):
    with rasterio.open(world / "mosaic_2015.tif") as file:
        profile, pixels = file.profile, file.read(1)[:, :PIXELS]
    profile |= {"width": PIXELS}
    for year, rows in ((2015, slice(None)), (2025, slice(3 * PIXELS))):
        profile |= {"height": len(pixels[rows])}
        with rasterio.open(tmp_path / f"mosaic_{year}.tif", "w", **profile) as file:
            file.write(pixels[rows], 1)
    tables = {"input": {"mosaic": f"{tmp_path}/mosaic_{{time:%Y}}.tif"}, "truth": None}
    population.run(job(world, tmp_path / "dots.icechunk", **tables))
    found = arrays(tmp_path / "dots.icechunk")["population"]
    assert found.shape == (2, SIDE, 1)
    assert found.count(("y", "x")).values.tolist() == [SIDE, 3]


@pytest.mark.parametrize("missing", ["unknown", "zero"])
def test_counts_beyond_the_mosaic_are_told(world, tmp_path, missing):
    inside, outside = GRID.code(SOUTH, WEST), GRID.code(SOUTH + 500, WEST)
    table = pd.DataFrame({"cell": [inside, GRID.code(SOUTH + 1, WEST), outside], "people": 3})
    table.to_csv(tmp_path / "people.csv", index=False)
    cells = {"counts": f"{tmp_path}/people.csv", "missing": missing}
    settings = job(world, tmp_path / "x.icechunk", cells=cells)
    cells, dropped, beyond = labelled_cells(settings, Sources.of(settings))
    assert (dropped, beyond) == (0, 1)
    assert cells.sizes["cell"] == (2 if missing == "unknown" else SIDE**2)


def test_a_date_that_went_away_is_taken_away(world, trained):
    before = arrays(trained)["population"].sel(time="2015")
    fewer = job(world, trained, input={"end": "2015"}, truth=None)
    assert not population.plan(fewer).done
    population.run(fewer)
    xr.testing.assert_equal(arrays(trained)["population"], before)
    assert population.plan(fewer).done


def test_a_changed_count_leaves_cells_and_presence(finished):
    changed = finished[0].model_copy(
        update={"count": finished[0].count.model_copy(update={"epochs": 3})}
    )
    todo = {stage.name for stage in population.plan(changed) if not stage.done}
    assert todo == {"count", "estimate", "evaluation", "export", "tables"}


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


def test_census_totals_are_kept_in_every_zone(world, trained, tmp_path):
    halves([700, 300]).to_file(tmp_path / "zones.gpkg")
    settings = job(
        world,
        trained,
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


def test_features_and_the_mean_of_several_networks_are_models_of_a_job(world, tmp_path):
    plain = {"network": "features", "trees": 20, "least": 5}
    tables = {"presence": {"network": {}}, "count": {"network": [plain, SMALL, SMALL]}}
    settings = job(world, tmp_path / "dots.icechunk", **tables)
    said = []

    class Notes(Reporter):
        def note(self, text):
            said.append(text)

    store = population.run(settings, Notes()).store
    assert any("images of 16 pixels are too small for the published" in text for text in said)
    files = store.files()
    models = [
        TrainedModel.from_bytes(files[f"{name}.safetensors"]) for name in ("presence", "count")
    ]
    members = [[one["config"] for one in model.config["members"]] for model in models]
    assert [one["head"] for one in members[0]] == ["boosting", "ridge"]
    assert [one["network"] for one in members[1]] == ["features", "CountCNN", "CountCNN"]
    assert [one["seed"] for one in models[1].settings["members"]] == [0, 0, 1]
    first, again = (network.state_dict() for network in models[1].module.members[1:])
    assert any((first[name] != again[name]).any() for name in first)
    assert (store.dataset()["population"] >= 0).all()
    assert population.plan(settings).done
    with pytest.raises(InputError, match=r"\[count\] network has 3 networks: expected one to tune"):
        evaluation.tune(settings, "count", 1)


def test_a_network_that_is_listed_again_is_known_however_it_is_written():
    def seeds(kind="count", preset="100m", **networks):
        settings = Training(preset=preset, **networks)
        return [config.seed for config in training_configs(kind, settings, 200)]

    same = [{}, "CountCNN", {"network": "CountCNN", "base": 64}, {"dropout": 0.1}]
    assert seeds(network=same) == [0, 1, 2, 0]
    assert seeds(network=[{}, "CountCNN"], seed=5) == [5, 6]
    assert seeds(network=[{}, "CountCNN"], preset="300m") == [0, 0]  # published: four blocks
    assert seeds("presence", network=[{"widths": [8, 16]}, {}, {"widths": (8, 16)}]) == [0, 0, 1]
    assert seeds(network={}) == seeds(network="CountCNN") == [0]


def test_a_single_stage_needs_no_presence(world, tmp_path):
    settings = job(world, tmp_path / "single.icechunk", count={"kind": "weighted"}, truth=None)
    outcome = population.run(settings)
    assert "presence" not in outcome.plan.stages
    assert "presence" not in outcome.store.dataset()


def test_the_communities_of_the_estimates_are_followed(world, trained, tmp_path):
    settings = job(
        world,
        trained,
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
    assert communities.plan(settings.followed()).done


def halves(people):
    """Two zones, west and east, with their people."""
    west, south, side = WEST * GRID.size, SOUTH * GRID.size, SIDE * GRID.size
    middle, north = west + side / 2, south + side
    outlines = [box(west, south, middle, north), box(middle, south, west + side, north)]
    return gpd.GeoDataFrame({"people": people}, geometry=outlines, crs=GRID.crs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda zones: zones.rename(columns={"people": "folk"}), "no column 'people'"),
        (lambda zones: zones.assign(people=[-1, 2]), "has the total -1"),
        (lambda zones: zones.set_geometry(zones.translate(250, 0)), "reach beyond"),
        (lambda zones: zones.set_geometry(zones.scale(0.001, 0.001)), "but no cell with data"),
        (lambda zones: pd.concat([zones, zones.iloc[:1]], ignore_index=True), "overlap at"),
    ],
)
def test_zones_that_make_no_sense_are_refused_before_training(world, tmp_path, change, words):
    change(halves([700, 300])).to_file(tmp_path / "zones.gpkg")
    store = tmp_path / "dots.icechunk"
    settings = job(world, store, census={"zones": str(tmp_path / "zones.gpkg")})
    for planned_or_run in (population.plan, population.run):
        with pytest.raises(InputError, match=words):
            planned_or_run(settings)
    assert not RegionStore(store).records()


def test_the_people_that_the_census_knows_are_followed_on_any_day(world, trained, tmp_path):
    for year, day in ((2015, "2015-06-01"), (2025, "2025-07-01")):
        shutil.copy(world / f"mosaic_{year}.tif", tmp_path / f"photo_{day}.tif")
    halves([700, 300]).to_file(tmp_path / "zones.gpkg")
    settings = job(
        world,
        trained,
        input={"mosaic": f"{tmp_path}/photo_{{time:%Y-%m-%d}}.tif"},
        census={"zones": str(tmp_path / "zones.gpkg")},
        output={"export": ["cog"]},
        follow={
            "store": str(tmp_path / "communities.icechunk"),
            "encoder": {"epochs": 2},
            "classes": {"k": 2, "sample": 100},
            "communities": {"eps": 2, "min_samples": 3},
        },
        truth=None,
    )
    balance = population.run(settings).followed.balance
    np.testing.assert_allclose(balance["raster"], 1000, rtol=1e-6)
    assert [f"{time:%m-%d}" for time in balance["time"]] == ["06-01", "07-01"]


def test_another_threshold_is_scored_anew(world, trained):
    before = population.run(job(world, trained, truth=None)).scores
    after = population.run(job(world, trained, estimate={"threshold": 0.0}, truth=None)).scores
    people = [scores.set_index("model").loc["popdask", "people"] for scores in (before, after)]
    assert people[1] > people[0]


def test_new_totals_of_a_zone_are_noticed(world, trained, tmp_path):
    totals = tmp_path / "totals.csv"
    zones = np.repeat([[1] * (SIDE // 2) + [2] * (SIDE // 2)], SIDE, axis=0).astype(np.int16)
    write_raster(tmp_path / "zones.tif", zones, 1)
    census = {"zones": str(tmp_path / "zones.tif"), "table": str(totals)}
    settings = job(world, trained, census=census, truth=None)
    for people_of_zones in ((700, 300), (70, 30)):
        totals.write_text("zone,total\n1,{}\n2,{}\n".format(*people_of_zones))
        outcome = population.run(settings)
        np.testing.assert_allclose(outcome.people["people"], sum(people_of_zones), rtol=1e-6)


def test_new_totals_in_a_shapefile_are_noticed(world, tmp_path):
    census = {"zones": str(tmp_path / "zones.shp")}
    settings = job(world, tmp_path / "dots.icechunk", census=census, truth=None)
    versions, outlines = [], []
    for people_of_zones in ([700, 300], [70, 30]):
        halves(people_of_zones).to_file(tmp_path / "zones.shp")
        outlines.append((tmp_path / "zones.shp").read_bytes())
        versions.append(Sources.of(settings).fingerprints({})[census["zones"]]["sha256"])
    assert outlines[0] == outlines[1] and versions[0] != versions[1]


def test_an_appended_date_leaves_the_zones_of_the_others(world, tmp_path):
    halves([700, 300]).to_file(tmp_path / "zones.gpkg")
    census = {"zones": str(tmp_path / "zones.gpkg")}
    store = tmp_path / "dots.icechunk"
    population.run(job(world, store, input={"end": "2015"}, census=census, truth=None))
    both = job(world, store, census=census, truth=None)
    assert population.plan(both)["census"].stale == (1,)
    assert len(population.run(both).zones) == 4


def test_truth_of_other_times_is_told(world, tmp_path):
    shutil.copy(world / "people_2015.tif", tmp_path / "people_1999.tif")
    truth = {"counts": f"{tmp_path}/people_{{time:%Y}}.tif"}
    with pytest.raises(InputError, match="times 1999-01-01, the mosaics 2015-01-01, 2025-01-01"):
        population.run(job(world, tmp_path / "x.icechunk", truth=truth))


def test_zones_of_cells_need_a_table(world, tmp_path):
    census = {"zones": str(world / "people_2015.tif")}
    settings = job(world, tmp_path / "x.icechunk", census=census)
    with pytest.raises(InputError, match=r"2015\.tif, a raster of zone .* give \[census\] table"):
        Sources.of(settings)
    given = job(world, tmp_path / "x.icechunk", census=census | {"table": "totals.csv"})
    assert Sources.of(given).others["census.table"] == "totals.csv"


@pytest.mark.parametrize("join", [1, 2])
def test_truth_that_tells_a_cell_twice_is_refused(world, tmp_path, join):
    settings = job(world, tmp_path / "x.icechunk", cells={"join": join})
    paths = [str(world / "people_2015.tif"), str(world / "people_2025.tif")]
    with pytest.raises(InputError, match=r"people_2025\.tif has 100 cells twice, first"):
        read_truth(settings, paths, GRID.joined(join))


def test_cells_that_models_were_trained_on_are_told_as_leakage(world, tmp_path):
    told = []

    class Listener(Reporter):
        def note(self, text):
            told.append(text)

    population.run(job(world, tmp_path / "dots.icechunk"), Listener())
    leaks = [text for text in told if "leakage" in text]
    assert leaks and all("2015-01-01" in text or "2025-01-01" in text for text in leaks)


def test_the_people_are_exported_as_a_cube(world, trained):
    settings = job(world, trained, output={"export": ["zarr"]}, truth=None)
    population.run(settings)
    exported = open_cube(settings.export_folder / "dots.zarr")["population"]
    np.testing.assert_array_equal(exported, arrays(settings.output.store)["population"])
    named = settings.model_copy(update={"institution": "The town"})
    assert [stage.name for stage in population.plan(named) if not stage.done] == ["tables"]


def test_nothing_is_drawn_by_asking(tmp_path):
    drawn = {"folder": str(tmp_path / "drawn")}
    settings = job(tmp_path, tmp_path / "x.icechunk", drawn=drawn)
    with pytest.raises(InputError, match="has no country yet: `popdask run JOB` draws it"):
        population.plan(settings)
    assert not list(tmp_path.iterdir())


def test_a_country_is_drawn_once(tmp_path):
    settings = Drawn(
        folder=str(tmp_path), training_km=(0.2, 0.2), mosaic_km=(0.1, 0.2), resolution=5.0
    )
    draw(settings)
    names = {path.name for path in tmp_path.iterdir()}
    assert {
        "training.tif",
        "training_people.parquet",
        "mosaic_2015.tif",
        "people_2025.tif",
    } <= names
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    draw(settings)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("table", ["follow", "scenes"])
def test_a_job_that_follows_has_a_store_of_its_own(table):
    with pytest.raises(ValueError, match="choose one of its own"):
        job("world", "x.icechunk", output={"export": ["cog"]}, **{table: {"store": "x.icechunk"}})


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
    path = population_outputs.explain(finished[0], cells=1)
    assert path.exists() and path.stat().st_size > 10_000


def test_pictures_of_estimates_errors_and_losses(finished):
    names = {path.stem.removeprefix("dots_") for path in population.PIPELINE.draw(finished[0])}
    assert {
        "population_2025-01-01",
        "error_2025-01-01",
        "relative_2025-01-01",
        "overlaid_2025-01-01",
        "worst",
        "scores_validation",
        "agreement_2025-01-01_popdask",
        "spread_2025-01-01_popdask",
        "loss_presence",
        "loss_count",
    } <= names


def test_pictures_without_known_people_need_no_mosaics(world, trained, tmp_path):
    for year in (2015, 2025):
        shutil.copy(world / f"mosaic_{year}.tif", tmp_path / f"gone_{year}.tif")
    gone = {"input": {"mosaic": f"{tmp_path}/gone_{{time:%Y}}.tif"}, "truth": None}
    settings = job(world, trained, **gone)
    population.run(settings)
    for mosaic in tmp_path.glob("gone_*.tif"):
        mosaic.unlink()
    names = {path.stem for path in population.PIPELINE.draw(settings)}
    assert "dots_population_2025-01-01" in names and "dots_scores_validation" in names


def test_a_search_finds_settings_and_goes_on_where_it_was(world, trained):
    settings = job(world, trained, truth=None)
    population.train(settings)
    first = evaluation.tune(settings, "presence", 1, epochs=1)
    both = evaluation.tune(settings, "presence", 2, epochs=1)
    assert len(first.trials) == 1 and len(both.trials) == 2
    assert both.trials["loss"].iloc[0] == first.trials["loss"].iloc[0]


def test_a_search_on_predicted_cells_needs_the_model_that_predicts(world, tmp_path):
    count = {"learns_from": "predicted"}
    settings = job(world, tmp_path / "dots.icechunk", count=count, truth=None)
    population.run_only(settings, "cells")
    with pytest.raises(InputError, match="no model of presence yet"):
        evaluation.tune(settings, "count", 1, epochs=1)


def test_there_is_no_search_before_cells_are_cut(world, tmp_path):
    with pytest.raises(InputError, match=r"popdask train JOB.* cuts them|holds no results yet"):
        evaluation.tune(job(world, tmp_path / "x.icechunk"), "presence", 1)


def test_cells_of_a_folder_have_no_surroundings(tmp_path):
    with pytest.raises(ValueError, match=r"\[cells\] context is 1, and files of cells show no"):
        job(tmp_path, tmp_path / "s", cells={"folder": "cells", "context": 1})
