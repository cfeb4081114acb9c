"""The whole job on a small world: resumed, repeated, changed, appended; and nobody gets lost."""

import shutil
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import xarray as xr

from popdask.blocks.sampling import domain
from popdask.errors import InputError
from popdask.store import MAIN, RegionBusyError, RegionStore
from popdask.store.content import read_records, write_records
from popdask.tracking.autoencoder import FittedEncoder
from popdask.tracking.classify import ClassModel, classify
from popdask.tracking.encoding import encode, stack_features
from popdask.tracking.tracks import tracks, verify_tracks
from popdask.workflow import communities, communities_outputs, operations
from popdask.workflow.operations import report
from popdask.workflow.progress import Reporter
from tests.cube.raster_files import write_raster
from tests.pipelines.small import assert_same, job, small_world


class Diary(Reporter):
    """Remembers which stages ran, and stops before one of them if told to."""

    def __init__(self, stop_before=None):
        self.stages, self.notes = {}, []
        self.stop_before = stop_before

    def note(self, text):
        self.notes.append(text)

    def stage(self, name, work):
        if name == self.stop_before:
            raise KeyboardInterrupt(f"stopped before {name}")
        self.stages[name] = work
        return super().stage(name, work)


@pytest.fixture(scope="module")
def finished(frames, tmp_path_factory):
    """A finished run, in a store that tests copy before they change it."""
    store = tmp_path_factory.mktemp("finished") / "small.icechunk"
    return communities.run(job(frames, store))


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished store."""
    return shutil.copytree(finished.store.path, tmp_path / "copy.icechunk")


def test_a_run_leaves_every_product(finished):
    found = finished.store.dataset()
    assert set(found.data_vars) == {"population", "u", "v", "classes", "community"}
    assert found.sizes == {"time": 4, "y": 66, "x": 70}
    assert found["community"].dtype == np.int32 and found["classes"].dtype == np.int16
    assert found.rio.crs == "EPSG:3035"
    assert set(finished.store.files()) >= {
        "encoder-shared.safetensors",
        "classifier-shared.safetensors",
        "communities.parquet",
        "tracks.parquet",
        "links.parquet",
        "balance.parquet",
    }


def test_nobody_gets_lost(finished):
    truth = small_world().population["population"].sum(("y", "x"), dtype=np.float64)
    balance = finished.balance
    np.testing.assert_allclose(balance["raster"], truth, rtol=1e-12)
    np.testing.assert_allclose(balance["inside"] + balance["outside"], truth, rtol=1e-9)
    inside = finished.communities.groupby("time")["population"].sum()
    np.testing.assert_allclose(inside, balance["inside"], rtol=1e-12)


def test_the_town_that_moves_is_seen_to_move(frames, copy):
    """By classes that are let go of: a cell that holds its class lags behind a town on its way."""
    loose = communities.run(job(frames, copy, classes={"hold": 0}))
    world, community = small_world(), loose.store.dataset()["community"]
    labels, table = world.labels, loose.communities
    speed = {}
    for town in (0, 1):
        inside = community.where(labels == town).isel(time=-1).values
        members = np.unique(inside[np.isfinite(inside) & (inside >= 0)])
        rows = table[(table["time"] == world.times[-1]) & table["community"].isin(members)]
        speed[town] = np.average(rows["velocity"], weights=rows["population"])
    assert speed[0] == pytest.approx(2.0, abs=0.7)  # 2 cells of 1 km each year
    assert speed[1] == pytest.approx(0.0, abs=0.5)


def test_classes_are_given_within_the_domain_only(finished):
    found = finished.store.dataset()
    settled = domain(found["population"], "settled")
    assert ((found["classes"] >= 0) == settled).all()


def test_a_second_run_has_nothing_to_do(finished, frames, copy):
    diary = Diary()
    again = communities.run(job(frames, copy), diary)
    assert again.plan.done and not diary.stages
    assert len(again.store.history()) == len(finished.store.history())
    assert_same(again.store, finished.store)


def test_a_changed_setting_recomputes_what_depends_on_it(finished, frames, copy):
    diary = Diary()
    outcome = communities.run(job(frames, copy, links={"rule": "overlap", "share": 1}), diary)
    assert list(diary.stages) == ["links", "tracks"]
    assert not outcome.store.table("links").equals(finished.store.table("links"))


def test_a_run_stopped_before_each_stage_resumes_and_ends_the_same(finished, frames, tmp_path):
    settings = job(frames, tmp_path / "stopped.icechunk")
    stages = [stage.name for stage in finished.plan]
    for before, stage in pairwise(stages):
        diary = Diary(stop_before=stage)
        with pytest.raises(KeyboardInterrupt):
            communities.run(settings, diary)
        assert list(diary.stages) == [before]
    diary = Diary()
    outcome = communities.run(settings, diary)
    assert list(diary.stages) == stages[-1:]
    assert_same(outcome.store, finished.store)


def test_a_reader_sees_the_last_finished_run_during_another(finished, frames, copy):
    settings = job(frames, copy, communities={"eps": 5})
    with pytest.raises(KeyboardInterrupt):
        communities.run(settings, Diary(stop_before="links"))
    store = type(finished.store)(copy)
    xr.testing.assert_identical(store.dataset(MAIN).load(), finished.store.dataset().load())
    assert store.unfinished()


@pytest.fixture(scope="module", params=[0, -1], ids=["centred", "looking back"])
def appended(request, frames, tmp_path_factory):
    """A run of three frames, and one of all four in its store."""
    settings = {"flow": {"centering": (0, 0, request.param)}}
    store, diary = tmp_path_factory.mktemp("append") / "append.icechunk", Diary()
    first = communities.run(job(frames, store, input={"end": "2002"}, **settings))
    before = first.store.dataset().load()
    second = communities.run(job(frames, store, **settings), diary)
    return SimpleNamespace(
        centred=request.param == 0,
        settings=settings,
        first=first,
        before=before,
        second=second,
        diary=diary,
    )


def test_an_appended_frame_costs_what_depends_on_it(appended):
    stages, second = appended.diary.stages, appended.second
    assert stages["population"] == "1 of 4 frames"
    fresh = "2 of 4 frames" if appended.centred else "1 of 4 frames"
    assert stages["flow"] == stages["classes"] == fresh
    assert not {"encoder", "classifier"} & set(stages)
    after, old = second.store.dataset().load(), slice(0, 2 if appended.centred else 3)
    xr.testing.assert_identical(after.isel(time=old), appended.before.isel(time=old))
    assert len(second.balance) == 4 and second.communities["time"].is_monotonic_increasing
    assert second.store.table("links")["time"].nunique() == 3


def test_tracks_keep_their_numbers_when_a_frame_is_appended(appended):
    first, second, labels = appended.first, appended.second, appended.before["community"]
    key = ["time", "community", "track"]
    before, after = (run.tracks[key].drop_duplicates() for run in (first, second))
    settled = before[before["time"] < "2002" if appended.centred else before["time"] < "2003"]
    assert len(settled.merge(after)) == len(settled)
    # The frame labelled anew: most of its people are where they were, in the tracks they were in.
    relabelled = second.store.dataset()["community"].sel(time="2002").squeeze().values
    people = second.store.dataset()["population"].sel(time="2002").squeeze().values
    last = labels.sel(time="2002").squeeze().values
    numbers = [
        table[table["time"] == "2002"].set_index("community")["track"] for table in (before, after)
    ]
    inside = (last >= 0) & (relabelled >= 0)
    same = numbers[0].loc[last[inside]].to_numpy() == numbers[1].loc[relabelled[inside]].to_numpy()
    assert people[inside][same].sum() > 0.9 * people[inside].sum()


def test_another_analysis_numbers_its_tracks_from_0(finished, frames, copy):
    fresh = communities.run(job(frames, copy, communities={"eps": 5}))
    assert fresh.tracks["track"].min() == 0
    assert fresh.tracks["track"].nunique() == fresh.tracks["track"].max() + 1


def test_a_removed_frame_leaves_no_trace(frames, copy):
    outcome = communities.run(job(frames, copy, input={"start": "2001"}))
    assert outcome.store.dataset().sizes["time"] == 3
    assert outcome.communities["time"].nunique() == len(outcome.balance) == 3


def test_one_frame_is_a_job_too(frames, tmp_path):
    settings = job(frames, tmp_path / "one.icechunk", input={"end": "2000"})
    outcome = communities.run(settings)
    assert len(outcome.store.table("links")) == 0
    assert set(outcome.tracks["event"]) == {"appear"}
    assert communities.run(settings).plan.done


def test_each_frame_may_have_its_own_models(frames, tmp_path):
    settings = job(frames, tmp_path / "own.icechunk", encoder={"scope": "frame"})
    outcome = communities.run(settings)
    models = [name for name in outcome.store.files() if name.startswith("encoder-")]
    assert sorted(models)[0] == "encoder-2000-01-01T000000.safetensors" and len(models) == 4
    assert len(set(map(outcome.store.files().get, models))) == 4


def test_min_people_dissolves_small_communities(frames, tmp_path):
    settings = job(frames, tmp_path / "large.icechunk", communities={"min_people": 500})
    outcome = communities.run(settings)
    assert outcome.communities["population"].min() >= 500


@pytest.mark.parametrize("scope", ["frame", "shared"])
def test_land_between_places_is_in_no_community(frames, tmp_path, scope):
    """The towns are what they are beside the land; who lives on land is outside, and told so."""
    tables, stores = {"encoder": {"scope": scope}}, []
    for least in (0, 10, 1e6):
        tables["communities"] = {"min_density": least}
        folder, diary = tmp_path / f"{least:g}.icechunk", Diary()
        stores.append(communities.run(job(frames, folder, **tables), diary).store)
        assert any(f"fewer than {least:g} people per km²" in note for note in diary.notes) == (
            least > 0
        )
    every, towns = (store.dataset()["community"].values for store in stores[:2])
    for frame, kept in zip(every, towns, strict=True):
        held = np.unique(frame[(kept >= 0)])
        np.testing.assert_array_equal(np.isin(frame, held) & (frame >= 0), kept >= 0)
        assert np.unique(np.stack([frame, kept])[:, kept >= 0], axis=1).shape[1] == len(held)
    models = {n: data for n, data in stores[0].files().items() if n.startswith("classifier-")}
    thin = [ClassModel.from_bytes(data).density < 10 for _, data in sorted(models.items())]
    classes = stores[0].dataset()["classes"].values
    for land, frame, kept, cell in zip(
        thin if len(thin) > 1 else thin * len(every), every, towns, classes, strict=True
    ):
        assert land.any() and not land.all()
        np.testing.assert_array_equal(kept >= 0, (frame >= 0) & ~land[cell])
    listed = [len(store.table("communities")) for store in stores]
    assert listed[1] == sum(len(np.unique(kept[kept >= 0])) for kept in towns)
    assert listed[0] > listed[1] > listed[2] == 0
    outside = stores[2].table("balance")["outside"]
    np.testing.assert_array_equal(outside, stores[2].table("balance")["raster"])


def test_the_density_of_classes_in_degrees_is_by_the_area_of_each_row(tmp_path):
    """From 60 to 27 degrees north the area of a cell grows by three quarters."""
    replace(small_world(), crs="EPSG:4326", resolution=0.5, origin=(5.0, 60.0)).write(tmp_path)
    tables = {"encoder": {"epochs": 1}, "classes": {"sample": 20_000, "hold": 0}}  # all cells
    tables["communities"] = {"min_density": 0.005}
    store = communities.run(job(tmp_path, tmp_path / "degrees.icechunk", **tables)).store
    model = ClassModel.from_bytes(store.files()["classifier-shared.safetensors"])
    found = store.dataset().load()
    earth, km2 = pyproj.Geod(ellps="WGS84"), []
    for y in found["y"].values:
        corners = [0, 0.5, 0.5, 0], [y - 0.25, y - 0.25, y + 0.25, y + 0.25]
        km2.append(earth.polygon_area_perimeter(*corners)[0] / 1e6)
    area = xr.zeros_like(found["population"]) + xr.DataArray(km2, dims="y")
    kinds = [found["classes"] == number for number in range(model.k)]
    people = np.array([found["population"].where(kind).sum() for kind in kinds])
    true = people / [area.where(kind).sum() for kind in kinds]
    np.testing.assert_allclose(model.density, true, rtol=1e-4)
    flat = people / [kind.sum() * np.mean(km2) for kind in kinds]
    assert np.abs(flat / true - 1).max() > 0.01, "the same area in every row is no answer"
    land = np.isin(found["classes"], np.flatnonzero(true < 0.005))
    assert land.any() and (found["community"].values[land] == -1).all()
    assert (found["community"] >= 0).any()


def test_a_distance_is_as_good_as_cells(finished, frames, copy):
    outcome = communities.run(job(frames, copy, communities={"eps": "3 km"}))
    xr.testing.assert_identical(outcome.store.dataset().load(), finished.store.dataset().load())


def test_the_number_of_classes_can_be_found(frames, tmp_path):
    outcome = communities.run(job(frames, tmp_path / "auto.icechunk", classes={"k": "auto"}))
    assert 2 <= outcome.store.dataset()["classes"].max() < 20


def test_exports_open_elsewhere(frames, tmp_path):
    settings = job(frames, tmp_path / "exported.icechunk", output={"export": ("cog", "geoparquet")})
    outcome = communities.run(settings)
    folder = tmp_path / "exported"
    with rasterio.open(folder / "small_community_2003.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        found = outcome.store.dataset()["community"].isel(time=3)
        np.testing.assert_array_equal(file.read(1), found)
    events = pd.read_parquet(folder / "small_events.parquet")
    assert len(events) == len(outcome.tracks)


def test_exports_follow_the_frames(frames, tmp_path):
    store, folder = tmp_path / "exported.icechunk", tmp_path / "exported"
    export = {"export": ("cog",)}
    communities.run(job(frames, store, output=export, input={"end": "2001"}))
    first = folder / "small_community_2000.tif"
    before = first.stat().st_mtime_ns
    more = {"output": export, "input": {"end": "2002"}}
    communities.run(job(frames, store, **more))
    assert first.stat().st_mtime_ns == before  # an appended frame leaves the files of the others
    assert (folder / "small_community_2002.tif").exists()
    first.unlink()
    diary = Diary()
    communities.run(job(frames, store, **more), diary)
    assert list(diary.stages) == ["export"] and first.exists()
    communities.run(job(frames, store, output=export, input={"start": "2001", "end": "2002"}))
    assert not first.exists()


def test_a_truncated_frame_stops_the_run_and_leaves_the_results(finished, frames, copy, tmp_path):
    damaged = shutil.copytree(frames, tmp_path / "damaged")
    file = damaged / "world_2003.tif"
    file.write_bytes(file.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"world_2003\.tif"):
        communities.run(job(damaged, copy))
    store = type(finished.store)(copy)
    xr.testing.assert_identical(store.dataset().load(), finished.store.dataset().load())


def test_two_runs_do_not_share_a_region(finished, frames, copy):
    store = type(finished.store)(copy)
    with store.lock(), pytest.raises(RegionBusyError, match="another run holds"):
        communities.run(job(frames, copy, classes={"k": 4}))


def test_a_plan_computes_nothing(frames, tmp_path):
    store = tmp_path / "planned.icechunk"
    plan = communities.plan(job(frames, store))
    assert not plan.done and str(plan["links"]) == "all 3 pairs"
    assert not store.exists()


def test_another_grid_under_the_same_settings_starts_anew(frames, tmp_path):
    store = tmp_path / "moved.icechunk"
    models = {"encoder": {"scope": "frame", "epochs": 1}, "input": {"end": "2001"}}
    communities.run(job(frames, store, **models))
    moved = tmp_path / "moved"
    replace(small_world(), shape=(68, 72)).write(moved)
    outcome = communities.run(job(moved, store, **models))
    assert outcome.store.dataset().sizes == {"time": 2, "y": 68, "x": 72}
    assert outcome.tracks["track"].min() == 0


def test_the_store_of_another_job_is_refused(finished, frames, copy):
    other = job(frames, copy).model_copy(update={"name": "bergen"})
    for ask in (
        communities.run,
        communities.plan,
        communities.PIPELINE.draw,
        report,
        operations.roll_back,
        partial(operations.expire, keep=1),
    ):
        with pytest.raises(InputError, match="holds the region 'small', not 'bergen'"):
            ask(other)
    assert communities.run(job(frames, copy)).plan.done


def test_the_store_of_a_forced_run_that_was_stopped_is_not_anybodys(finished, frames, copy):
    work = RegionStore(copy).begin(RegionStore(copy).dataset())
    work.forget(list(work.records()))
    other = job(frames, copy).model_copy(update={"name": "bergen"})
    with pytest.raises(InputError, match="holds the region 'small', not 'bergen'"):
        communities.run(other)


def test_a_reach_on_a_grid_without_metres_is_refused_before_any_stage(frames, tmp_path):
    degrees = tmp_path / "degrees"
    replace(small_world(), crs="EPSG:4326", resolution=0.01, origin=(5.0, 60.0)).write(degrees)
    diary = Diary()
    with pytest.raises(InputError, match=r"metres|degrees|geographic"):
        communities.run(job(degrees, tmp_path / "d.icechunk", communities={"eps": "2 km"}), diary)
    assert not diary.stages


def test_held_classes_are_those_of_the_verb(finished):
    """The stage holds by what it has stored, the verb by what it computes."""
    files, stored = finished.store.files(), finished.store.dataset()
    encoder = FittedEncoder.from_bytes(files["encoder-shared.safetensors"])
    model = ClassModel.from_bytes(files["classifier-shared.safetensors"])
    features = stack_features(stored["population"], stored[["u", "v"]])
    latent = encode(features, encoder, mask=domain(stored["population"], "settled"))
    for hold, same in ((0.5, True), (0.0, False)):
        classes = classify(latent, model, hold=hold)
        assert (stored["classes"] == classes).all() == same


def test_an_appended_frame_gives_what_all_frames_at_once_give(appended, frames, tmp_path):
    """But for numbers and models: the models are those of the first run, in both."""
    store = appended.second.store.path
    again = shutil.copytree(store, tmp_path / "again.icechunk")
    every = ("flow", "classes", "communities", "summary", "links", "tracks")
    repository = RegionStore(again).repository()
    session = repository.writable_session("work")
    records = read_records(session.store)
    write_records(session.store, {k: v for k, v in records.items() if k not in every})
    session.commit("forget")
    anew = communities.run(job(frames, again, **appended.settings)).store
    one, other = RegionStore(store), anew
    xr.testing.assert_identical(one.dataset().load(), other.dataset().load())
    for name in ("links", "link_ends"):
        pd.testing.assert_frame_equal(one.table(name), other.table(name))
    events = [run.table("tracks").drop(columns=["track", "parent"]) for run in (one, other)]
    pd.testing.assert_frame_equal(*events)


def tracks_of_cells(outcome):
    """The numbers of the tracks of all cells, -1 where in none, and their people."""
    rows = outcome.tracks[outcome.tracks["event"] != "vanish"]
    found = outcome.store.dataset().load()
    numbers = xr.full_like(found["community"], -1)
    for row in rows.drop_duplicates(["time", "community"]).itertuples():
        here = found["community"].sel(time=row.time) == row.community
        numbers.loc[{"time": row.time}] = numbers.sel(time=row.time).where(~here, row.track)
    return numbers, found["population"]


@pytest.mark.parametrize("scope", ["frame", "shared"])
def test_histories_that_are_edited_are_whole_and_no_number_is_given_twice(frames, tmp_path, scope):
    """Years go and come back, at the end and in between; shared models are fitted anew then."""
    store, given = tmp_path / "edited.icechunk", {}
    for end, start in (("2003", "2000"), ("2001", "2000"), ("2003", "2000"), ("2003", "2001")):
        settings = job(
            frames,
            store,
            input={"start": start, "end": end},
            encoder={"scope": scope, "epochs": 1},
        )
        outcome = communities.run(settings)
        numbers, people = tracks_of_cells(outcome)
        now, before = xr.align(numbers, given.get("numbers", numbers))
        both = people.where((now >= 0) & (before >= 0))
        assert both.where(now == before).sum() > 0.6 * both.sum()  # by fit, 70 to 100 %
        links, times = outcome.store.table("links"), outcome.balance["time"]
        verify_tracks(outcome.tracks, links, times=times)
        ends = outcome.store.table("link_ends")
        scratch = tracks(links, outcome.communities, ends=ends, memory=1, times=times)
        pd.testing.assert_frame_equal(
            scratch.drop(columns=["track", "parent"]),
            outcome.tracks.drop(columns=["track", "parent"]),
        )
        fresh = set(outcome.tracks["track"]) - set(given.get("last", []))
        assert not fresh & given.get("ever", set())
        given = {
            "numbers": numbers,
            "last": set(outcome.tracks["track"]),
            "ever": given.get("ever", set()) | set(outcome.tracks["track"]),
        }
        assert outcome.store.records()["tracks"]["next_number"] == max(given["ever"]) + 1


def test_a_region_without_people_has_empty_results_until_they_come(tmp_path):
    for year in (2000, 2001):
        write_raster(tmp_path / f"world_{year}.tif", np.zeros((40, 40), "float32"))
    output = {"export": ["geoparquet", "gpkg"]}
    settings = job(tmp_path, tmp_path / "nobody.icechunk", output=output)
    result = communities.run(settings)
    assert result.balance["raster"].tolist() == [0, 0]
    assert result.communities.empty and result.tracks.empty
    assert (result.store.dataset()["classes"] == -1).all()
    found = result.store.dataset()
    models = communities_outputs._models(settings, result.store, found)
    charts = communities_outputs.analysis_charts(settings, found, models)
    assert [name for name, _ in charts] == ["loss"]
    assert communities.run(settings).plan.done
    town = np.zeros((40, 40), "float32")
    town[10:25, 10:25] = np.random.default_rng(0).poisson(500, (15, 15))
    write_raster(tmp_path / "world_2002.tif", town)
    later = communities.run(settings)
    assert later.plan["encoder"].whole and later.balance["inside"].iloc[-1] > 50_000
