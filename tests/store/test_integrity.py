"""All that readers of a store can reach is read, and what is lost of it is named with a remedy."""

import json
import shutil

import dask.array as da
import numpy as np
import pytest
import zarr

from popdask.errors import InputError
from popdask.store import MAIN, WORK, RegionStore, StoreError
from popdask.store.content import write_files
from tests.store.test_region import arrays, grid
from tests.store.test_retention import FRAMES, finish_runs, shown, tags


@pytest.fixture
def store(tmp_path):
    """Three finished runs, each with results of its own."""
    found = RegionStore(tmp_path / "region.icechunk")
    finish_runs(found, 1, 2, 3)
    return found


def problems(store):
    return [*store.run_problems(), *store.other_problems()]


def told(store, snapshot):
    return json.loads(store.repository().inspect_snapshot(snapshot))


def reached(store):
    """Snapshots of the last run and of all, and the manifests of each."""
    repository = store.repository()
    last, every = repository.lookup_branch(MAIN), repository.ancestry(branch=MAIN)
    return last, {
        commit.id: {part["id"] for part in told(store, commit.id)["manifests"]} for commit in every
    }


def test_nothing_is_wrong_with_a_store_as_it_was_written(store):
    assert problems(store) == []
    work = store.begin(grid(3))
    work.write_frames("communities", arrays(3, 4), [0, 1, 2], {"v": 4})
    assert problems(store) == []  # of a stopped run's stages either


def test_every_manifest_that_is_lost_is_named(store):
    last, manifests = reached(store)
    lost = set().union(*manifests.values())
    assert len(lost) > len(manifests[last])
    for manifest in lost:
        file = store.path / "manifests" / manifest
        content = file.read_bytes()
        for damage in (b"", content[:-1]):
            file.write_bytes(damage)
            (problem,) = RegionStore(store.path).other_problems()
            assert f"the manifest {manifest} has {len(damage)} bytes" in problem
            assert ("--force" if manifest in manifests[last] else "expire JOB") in problem
        file.unlink()
        assert (
            f"the manifest {manifest} is not there" in RegionStore(store.path).other_problems()[0]
        )
        file.write_bytes(content)
    assert problems(RegionStore(store.path)) == []


def test_a_run_by_force_mends_what_the_last_one_lost(store, tmp_path):
    last, manifests = reached(store)
    for number, manifest in enumerate(manifests[last]):
        copy = shutil.copytree(store.path, tmp_path / f"copy-{number}")
        (copy / "manifests" / manifest).write_bytes(b"")
        damaged = RegionStore(copy)
        damaged.mend()
        finish_runs(RegionStore(copy), 4)
        again = RegionStore(copy)
        assert shown(again) == 4 and again.run_problems() == []
        again.expire(keep_last=1)
        assert problems(again) == []


def test_a_run_by_force_goes_on_where_only_the_history_is_lost(store):
    repository = store.repository()
    first = [commit.id for commit in repository.ancestry(branch=MAIN)][-1]
    (store.path / "snapshots" / first).unlink()
    RegionStore(store.path).mend()
    finish_runs(RegionStore(store.path), 4)
    again = RegionStore(store.path)
    assert shown(again) == 4 and again.run_problems() == []
    (problem,) = again.other_problems()
    assert f"the snapshot {first} of the history cannot be read" in problem
    held = {part["id"] for part in told(again, repository.lookup_branch(MAIN))["manifests"]}
    (store.path / "manifests" / min(held)).unlink()
    with pytest.raises(StoreError, match=r"cannot be mended: the snapshot .* move the store away"):
        RegionStore(store.path).mend()


def test_a_repository_without_refs_is_no_foreign_folder(store):
    shutil.rmtree(store.path / "refs")
    with pytest.raises(InputError, match=r"without its refs/branch.main, .* run the job anew"):
        RegionStore(store.path).location.check()


def test_what_is_whole_needs_no_mending(store):
    before = store.repository().lookup_branch(WORK)
    store.mend()
    assert store.repository().lookup_branch(WORK) == before


def test_earlier_runs_that_cannot_be_read_are_dropped_by_expire(store):
    last, manifests = reached(store)
    for manifest in set().union(*manifests.values()) - manifests[last]:
        (store.path / "manifests" / manifest).unlink()
    store = RegionStore(store.path)
    assert len(store.other_problems()) > 1 and shown(store) == 3
    assert store.expire(keep_last=1).runs == ("run-2", "run-1")
    assert problems(store) == [] and shown(store) == 3


def test_a_gap_in_the_history_is_told_and_stops_nobody(store, caplog):
    commits = list(reached(store)[1])
    (store.path / "snapshots" / commits[-2]).unlink()
    store = RegionStore(store.path)
    (problem,) = store.other_problems()
    assert f"the snapshot {commits[-2]} of the history cannot be read" in problem
    assert "move the store away" in problem
    assert [run.tag for run in store.history()] == ["run-3", "run-2", "run-1"]
    assert "the history has a gap" in caplog.text
    with pytest.raises(StoreError, match=r"no run can be expired: the snapshot .* of the history"):
        store.expire(keep_last=1)
    assert tags(store) == ["run-3", "run-2", "run-1"]
    finish_runs(store, 4)
    assert shown(store) == 4 and tags(store)[0] == "run-4"


def test_a_run_that_is_lost_is_none_to_go_back_to(store):
    repository = store.repository()
    (store.path / "snapshots" / repository.lookup_tag("run-2")).unlink()
    store = RegionStore(store.path)
    assert tags(store) == ["run-3", "run-1"]
    assert "of the run run-2 cannot be read" in store.other_problems()[0]


def test_what_a_stopped_run_has_lost_is_computed_anew(store):
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, 4), FRAMES, {"v": 4})
    tip = store.repository().lookup_branch(WORK)
    (store.path / "snapshots" / tip).unlink()
    store = RegionStore(store.path)
    assert f"the snapshot {tip} of the run work cannot be read" in store.other_problems()[0]
    finish_runs(store, 5)
    assert shown(store) == 5 and problems(store) == []


def publish_over(store, change):
    """Change what readers see, and keep what the run's commit says of itself."""
    repository = store.repository()
    metadata = repository.lookup_snapshot(repository.lookup_branch(MAIN)).metadata
    session = repository.writable_session(WORK)
    change(session.store)
    session.commit("tamper", dict(metadata))
    repository.reset_branch(MAIN, repository.lookup_branch(WORK))


@pytest.mark.parametrize("name", ["time", "y", "x"])
def test_a_coordinate_that_moves_is_found_and_mended(store, name):
    def move(session):
        axis = zarr.open_group(session, mode="r+")[name]
        axis[:] = np.asarray(axis[:]) + 8000

    publish_over(store, move)
    assert store.run_problems() == [f"the coordinate {name} is not what was computed"]
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, 3), FRAMES, {"frames": {}, "v": 3})
    work.publish("run-4")
    assert store.run_problems() == []
    assert "of the earlier run" not in " ".join(store.other_problems())


def test_another_crs_is_found(store):
    def move(session):
        attributes = zarr.open_group(session, mode="r+")["spatial_ref"].attrs
        wkt = grid(2).rio.crs.to_wkt().replace("500000", "400000")
        attributes.update(crs_wkt=wkt, spatial_ref=wkt)

    publish_over(store, move)
    assert store.run_problems() == ["the coordinate crs is not what was computed"]


def test_the_same_crs_in_other_words_is_as_it_was(store):
    frames = grid(2)
    words = frames.rio.crs.to_wkt(version="WKT1_ESRI")
    again = frames.drop_vars("spatial_ref").rio.write_crs(words)
    assert again.rio.crs.to_wkt() != frames.rio.crs.to_wkt()
    work = store.begin(again)
    work.write_frames("communities", arrays(2, 4), FRAMES, {"frames": {}, "v": 4})
    work.publish("run-4", {"value": 4})
    assert problems(store) == []


def test_a_record_that_was_changed_is_found(store):
    publish_over(store, lambda session: write_files(session, {"run.json": b"{}"}))
    (problem,) = store.run_problems()
    assert problem.startswith("the file run.json is not what was computed")


def test_a_chunk_that_only_an_earlier_run_needs_is_missed(store):
    noise = da.random.default_rng(0).random((2, 30, 40), chunks=(1, 16, 16), dtype=np.float32)
    work = store.begin(grid(2))
    work.write_frames(
        "communities", arrays(2, 4).assign(population=(("time", "y", "x"), noise)), FRAMES, {"v": 4}
    )
    work.publish("run-4")
    finish_runs(store, 5)
    assert problems(store) == []
    chunk = min((store.path / "chunks").iterdir())
    content = chunk.read_bytes()
    for change in (lambda: chunk.write_bytes(content[:-9]), chunk.unlink):
        change()
        told = problems(RegionStore(store.path))
        assert told and all("of the earlier run run-4, population of 200" in one for one in told)
        assert all("cannot be read" in one and "expire JOB --keep 1" in one for one in told)


def test_a_rollback_keeps_what_is_known_of_coordinates(store):
    entry = store.rollback("run-1")
    assert entry.tag and problems(store) == []
    publish_over(
        store, lambda session: zarr.open_group(session, mode="r+")["x"].__setitem__(0, 9.0)
    )
    assert store.run_problems() == ["the coordinate x is not what was computed"]
