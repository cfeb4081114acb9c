"""The store keeps finished stages, appends frames, and shows readers only finished runs."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dask.array as da
import geopandas
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from shapely.geometry import Point

from popdask.errors import InputError
from popdask.store import (
    WORK,
    NoResultError,
    RegionBusyError,
    RegionStore,
    StoreError,
    read_table,
    table_bytes,
)


def grid(frames, start="2000", rows=30):
    coords = {
        "time": pd.date_range(start, periods=frames, freq="YS"),
        "y": np.arange(rows)[::-1] + 0.5,
        "x": np.arange(40) + 0.5,
    }
    return xr.Dataset(coords=coords).rio.write_crs("EPSG:25833")


def arrays(frames, value, rows=30):
    shape, chunks = (frames, rows, 40), (1, 16, 16)
    community = da.full(shape, value, chunks=chunks, dtype=np.int32)
    population = da.full(shape, value + 0.5, chunks=chunks, dtype=np.float32)
    dims = ("time", "y", "x")
    return xr.Dataset(
        {
            "community": (dims, community, {"long_name": "community"}),
            "population": (dims, population),
        }
    )


@pytest.fixture
def store(tmp_path):
    return RegionStore(tmp_path / "region.icechunk")


def test_what_is_written_is_read_with_its_grid(store):
    work = store.begin(grid(3))
    work.write_frames("communities", arrays(3, 7), [0, 1, 2], {"frames": {"a": "1"}})
    work.publish("run-1")
    found = store.dataset()
    assert (found["community"] == 7).all() and found["community"].dtype == np.int32
    assert (found["population"] == 7.5).all()
    assert found["community"].chunks[0] == (1, 1, 1)
    assert found.rio.crs == found["population"].rio.crs == "EPSG:25833"
    assert found["community"].attrs["long_name"] == "community"
    xr.testing.assert_equal(found["time"], grid(3)["time"])
    record = store.records()["communities"]
    assert record["frames"] == {"a": "1"}
    assert list(record["checksums"]) == [f"{year}-01-01T00:00:00" for year in (2000, 2001, 2002)]


def test_a_reader_sees_the_last_finished_run_only(store):
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, 1), [0, 1], {})
    work.publish("run-1")
    work.write_frames("communities", arrays(2, 2), [0, 1], {})
    assert (store.dataset()["community"] == 1).all()
    assert (store.dataset(WORK)["community"] == 2).all()
    assert store.unfinished()
    work.publish("run-2")
    assert (store.dataset()["community"] == 2).all()
    assert not store.unfinished()


def test_before_the_first_run_is_finished_there_is_nothing_to_read(store):
    store.begin(grid(2)).write_frames("communities", arrays(2, 1), [0, 1], {})
    for read in (store.dataset, lambda: store.table("links"), lambda: store.group("cells")):
        with pytest.raises(InputError, match="holds no finished results yet"):
            read()
    assert store.records() == {} and store.files() == {}
    assert set(store.latest_records()) == {"communities"}


def test_appended_frames_leave_the_stored_ones(store):
    store.begin(grid(2)).write_frames("communities", arrays(2, 1), [0, 1], {"v": 1})
    work = store.begin(grid(4))
    assert work.records()["communities"]["v"] == 1
    work.write_frames("communities", arrays(4, 5), [3], {})
    found = work.dataset()
    assert found["community"].isel(x=0, y=0).values.tolist() == [1, 1, -1, 5]
    xr.testing.assert_equal(found["time"], grid(4)["time"])


def test_frames_apart_are_written_in_one_commit(store):
    work = store.begin(grid(5))
    work.write_frames("communities", arrays(5, 3), [0, 1, 4], {})
    assert work.dataset()["community"].isel(x=0, y=0).values.tolist() == [3, 3, -1, -1, 3]


def test_another_grid_lays_out_anew_and_keeps_the_models(store):
    work = store.begin(grid(2))
    work.write_files("encoder", {"encoder.safetensors": b"weights"}, {"settings": "s"})
    work.write_frames("communities", arrays(2, 1), [0, 1], {})
    work = store.begin(grid(2, rows=20), keep=("encoder",))
    assert set(work.records()) == {"encoder"} and work.records()["encoder"]["settings"] == "s"
    assert work.files() == {"encoder.safetensors": b"weights"}
    assert not work.dataset().data_vars


@pytest.mark.parametrize("start", ["1998", "2001", "2003"])
def test_frames_before_and_after_come_and_go_and_the_others_stay(store, start):
    """Frames of 2000 ... 2003 are stored; the next run has four from another year on."""
    years = np.arange(int(start), int(start) + 4)
    work = store.begin(grid(4))
    values = np.arange(4, dtype=np.int32)[:, None, None]
    frames = arrays(4, 0).map(lambda a: a.copy(data=a.data + values.astype(a.dtype)))
    work.write_frames("communities", frames, range(4), {"frames": {f"{y}": 1 for y in range(4)}})
    work.write_files("links", {"links.parquet": b"links"}, {"settings": "s"})
    before = work.records()["communities"]["checksums"]
    work = store.begin(grid(4, start))
    found = work.dataset()["community"].isel(x=3, y=5).values
    assert found.tolist() == [y - 2000 if 2000 <= y < 2004 else -1 for y in years]
    times = {f"{y}-01-01T00:00:00" for y in years}
    kept = work.records()["communities"]["checksums"]
    assert kept == {time: value for time, value in before.items() if time in times}
    assert work.files() == {"links.parquet": b"links"}
    assert work.records()["links"]["settings"] == "s"


def test_a_forgotten_stage_has_no_record_but_keeps_its_data(store):
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, 1), [0, 1], {})
    work.forget(["communities", "links"])
    assert work.records() == {} and (work.dataset()["community"] == 1).all()


def test_files_that_a_stage_no_longer_writes_are_removed(store):
    work = store.begin(grid(1))
    work.write_files("encoder", {"shared": b"1", "other": b"2"}, {})
    work.write_files("encoder", {"shared": b"3"}, {}, anew=False)
    assert set(work.files()) == set(work.records()["encoder"]["sha256"]) == {"shared", "other"}
    work.write_files("encoder", {"frame": b"4"}, {})
    assert set(work.files()) == set(work.records()["encoder"]["sha256"]) == {"frame"}


def cells():
    return xr.Dataset({"people": ("cell", da.arange(6, chunks=3))})


def test_what_no_stage_has_is_dropped_before_readers_see_it(store):
    work = store.begin(grid(2))
    job = {"job": "here", "pipeline": "communities"}
    work.write_group("cells", "cells", cells(), {**job, "frames": {}})
    work.write_files("zones", {"zones.parquet": b"1"}, {"of": "census"})
    work.write_files("model", {"model": b"1"}, {})
    work.write_files("export", {}, {"written": ["here.tif"]})
    work.write_frames("communities", arrays(2, 1), [0, 1], {})
    work.publish("run-1")
    work.write_frames("communities", arrays(2, 1)[["community"]], [0, 1], {})
    work.tidy(["model", "communities"])
    work.publish("run-2")
    assert set(store.dataset().data_vars) == {"community"}
    assert set(store.files()) == {"model", "run.json"}
    with pytest.raises(InputError, match="no group 'cells'; it has none of that kind"):
        store.group("cells")
    assert set(store.records()) == {"model", "export", "communities"}
    assert job.items() <= store.records()["model"].items()  # whose store this is stays on record


def test_there_is_nothing_to_tidy_where_every_result_has_its_stage(store):
    work = store.begin(grid(2))
    work.write_group("cells", "cells", cells(), {})
    work.write_files("zones", {"zones.parquet": b"1"}, {"of": "census"})
    work.write_frames("census", arrays(2, 1), [0, 1], {})
    work.publish("run-1")
    work.tidy(["cells", "census"])
    assert not store.unfinished()


@pytest.mark.parametrize("start", ["1999", "2001"])
def test_groups_stay_where_frames_come_and_go(store, start):
    work = store.begin(grid(3))
    work.write_group("cells", "cells", cells(), {"v": 1})
    work.write_frames("communities", arrays(3, 1), range(3), {"frames": {}})
    work = store.begin(grid(3, start))
    assert work.records()["cells"]["v"] == 1
    assert work.group("cells")["people"].values.tolist() == list(range(6))


def test_what_was_written_outside_stays_on_record(store):
    work = store.begin(grid(2))
    work.write_files("export", {}, {"frames": {"a": "1"}, "written": ["here.tif"]})
    work.forget(["export"])
    assert work.records() == {"export": {"written": ["here.tif"], "again": True}}
    work = store.begin(grid(2, rows=20))
    assert work.records() == {"export": {"written": ["here.tif"]}}


def test_history_tells_each_run_and_what_it_computed(store):
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, 1), [0, 1], {"work": "all 2 frames"})
    assert [stage.work for stage in store.stages_since()] == ["all 2 frames"]
    work.publish("run-1", {"versions": {"popdask": "1"}})
    assert store.stages_since() == []
    work.write_files("links", {"links": b"1"}, {"work": "1 of 2 pairs"})
    work.publish("run-2")
    runs = store.history()
    assert [run.tag for run in runs] == ["run-2", "run-1"]
    assert [stage.stage for stage in runs[0].stages] == ["links"]
    assert runs[1].versions == {"popdask": "1"} and runs[1].stages[0].bytes > 0
    assert store.run_record()["tag"] == "run-2"


def test_what_a_stage_has_stored_is_known_without_a_list_of_the_store(store, monkeypatch):
    """A list of a bucket is a request for each thousand objects, and there are many."""
    noise = np.random.default_rng(0)
    people = arrays(2, 1)
    people["population"] = people["population"].copy(data=noise.random((2, 30, 40), np.float32))
    with monkeypatch.context() as patch:
        patch.delattr(type(store.location), "files")
        work = store.begin(grid(2))
        work.write_frames("population", people.chunk(), [0, 1], {})
        work.write_files("encoder", {"model": noise.bytes(5000)}, {})
        work.publish("run-1")
    stages = {stage.stage: stage.bytes for stage in store.history()[0].stages}
    assert 5000 <= stages["encoder"] < 5500
    chunks = {name: size for name, size in store.location.files().items() if "chunks/" in name}
    inline = 8 * 512  # smaller chunks lie in the manifests
    assert sum(chunks.values()) <= sum(stages.values()) <= sum(chunks.values()) + inline


def test_a_run_stopped_while_it_publishes_is_published_once(store):
    work = store.begin(grid(2))
    work.write_files("links", {"links": b"1"}, {})
    work.publish("run-1")
    repository = store.repository()
    first = list(repository.ancestry(branch=WORK))[-1].id
    repository.reset_branch("main", first)  # as if it had been stopped before this
    assert store.unfinished() and store.history() == []
    store.begin(grid(2)).publish("run-2")
    assert [run.tag for run in store.history()] == ["run-1"]
    assert not store.unfinished()


def test_a_write_that_fails_leaves_the_last_commit(store):
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, 1), [0, 1], {"v": 1})

    def fail(block):
        raise RuntimeError("the disk is full")

    broken = arrays(2, 2).map(lambda a: a.copy(data=a.data.map_blocks(fail, dtype=a.dtype)))
    with pytest.raises(RuntimeError, match="the disk is full"):
        work.write_frames("communities", broken, [0, 1], {"v": 2})
    assert (work.dataset()["community"] == 1).all()
    assert work.records()["communities"]["v"] == 1


def test_tables_survive_with_their_types(store):
    table = pd.DataFrame(
        {
            "time": pd.to_datetime(["2001", "2002"]),
            "parent": [[], [3, 4]],
            "forward": [True, False],
            "people": [1.5, np.nan],
        }
    )
    places = geopandas.GeoDataFrame({"community": [4]}, geometry=[Point(1, 2)], crs="EPSG:25833")
    work = store.begin(grid(1))
    files = {"links.parquet": table_bytes(table), "summary.parquet": table_bytes(places)}
    work.write_files("links", files, {})
    work.publish("run-1")
    found = store.table("links")
    assert found["parent"].map(list).tolist() == [[], [3, 4]]
    pd.testing.assert_frame_equal(found.drop(columns="parent"), table.drop(columns="parent"))
    assert store.table("summary").crs == "EPSG:25833"
    assert read_table(table_bytes(places)).geometry.iloc[0] == Point(1, 2)
    for read, name, held in ((store.table, "lanks", "links, summary"), (store.file, "a", "links.")):
        with pytest.raises(NoResultError, match=f"^the store has no .* these: {held}") as caught:
            read(name)
        assert isinstance(caught.value, InputError) and isinstance(caught.value, KeyError)
    assert store.find_table("lanks") is None
    assert store.find_table("links").equals(store.table("links"))


def test_a_second_run_is_told_who_holds_the_region(store):
    busy = pytest.raises(RegionBusyError, match=f"process {os.getpid()}, since 20")
    with store.lock(), busy, store.lock():
        pytest.fail("two runs hold one region")
    with store.lock():
        pass


def test_the_lock_of_a_killed_run_is_free(store):
    script = (
        "import os, signal, sys\n"
        "from popdask.store import RegionStore\n"
        "with RegionStore(sys.argv[1]).lock():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(store.path)], check=False)
    assert done.returncode == -9
    owner = json.loads((store.path.parent / f"{store.path.name}.owner").read_text())
    assert owner["process"] != os.getpid()
    with store.lock():
        pass


@pytest.mark.parametrize("note", [b"", b"[1]", b'{"who": "another version"}', b"\xff"])
def test_a_note_that_tells_no_owner_counts_for_nothing(store, note):
    (store.path.parent / f"{store.path.name}.owner").write_bytes(note)
    with store.lock():
        assert store.holder().process == os.getpid()


@pytest.mark.parametrize("kind", ["lock", "owner"])
@pytest.mark.parametrize("plant", [os.symlink, lambda _, place: os.mkfifo(place)])
def test_planted_links_and_pipes_are_not_followed(store, tmp_path, kind, plant):
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    place = tmp_path / f"{store.path.name}.{kind}"
    plant(victim, place)
    assert store.holder() is None
    if kind == "lock":
        with pytest.raises(InputError, match=r"\.lock is a link, a pipe or a folder"), store.lock():
            pytest.fail("a run holds somebody's file")
    else:
        with store.lock():
            assert store.holder() is None or store.holder().process == os.getpid()
    assert victim.read_text() == "years of work"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_locks_no_run_begins(store, tmp_path, code):
    source, shim = tmp_path / "flock.c", tmp_path / "flock.so"
    source.write_text(
        f"#include <errno.h>\nint flock(int file, int how) {{ errno = {code}; return -1; }}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source], check=True)
    script = (
        "import sys\n"
        "from popdask.store import RegionStore\n"
        "store = RegionStore(sys.argv[1])\n"
        "assert store.holder() is None\n"
        "with store.lock():\n"
        "    print('held')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.path)],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "InputError: [output] store" in done.stderr and not done.stdout
    assert f"without locks ({os.strerror(code)})" in done.stderr


def test_a_region_that_is_reached_by_two_names_has_one_lock(store, tmp_path):
    store.path.mkdir()
    (tmp_path / "maps").symlink_to(tmp_path)
    (tmp_path / "again.icechunk").symlink_to(store.path)
    others = [tmp_path / "maps" / store.path.name, tmp_path / "again.icechunk"]
    with store.lock():
        for other in map(RegionStore, others):
            assert other.holder().process == os.getpid()
            with pytest.raises(RegionBusyError), other.lock():
                pytest.fail("two runs hold one region")


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        RegionStore(tmp_path)
    assert (tmp_path / "thesis.docx").read_text() == "years of work"


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("gs://bucket/region", "local folders and on s3://"),
        ("s3://bucket", "names no object"),
    ],
)
def test_a_place_of_another_kind_is_refused(place, complaint):
    with pytest.raises(InputError, match=complaint):
        RegionStore(place)


def test_an_empty_place_holds_nothing(store):
    assert not store.exists() and not store.unfinished() and store.records() == {}
    with pytest.raises(InputError, match="holds no results yet"):
        store.dataset()


@pytest.mark.parametrize("kind", ["file", "within a file", "pipe", "dangling link", "device"])
def test_what_is_no_folder_holds_no_store(tmp_path, kind):
    place = tmp_path / "region.icechunk"
    if kind in ("file", "within a file"):
        place.write_text("not a folder")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place = Path("/dev/full")
    with pytest.raises(InputError, match=rf"{place.name} is a file, not the folder"):
        RegionStore(place / "region" if kind == "within a file" else place)


def test_where_nothing_can_be_made_no_run_is_said_to_hold_the_region():
    store = RegionStore("/proc/self/region.icechunk")
    assert store.holder() is None
    with pytest.raises(InputError, match=r"cannot be there .*; choose another place"), store.lock():
        pass


def test_a_store_that_cannot_be_read_is_named(store):
    store.begin(grid(1))
    branch = store.path / "refs" / "branch.main" / "ref.json"
    branch.write_text("{")  # a disk that is cut off; permissions would not keep root out
    with pytest.raises(StoreError, match=r"cannot be read or written \(") as error:
        RegionStore(store.path)
    assert "\n" not in str(error.value)


def test_lost_chunks_are_told_with_what_helps(store):
    work = store.begin(grid(1))
    work.write_frames("communities", arrays(1, 1), [0], {})
    work.write_files("links", {"links.parquet": table_bytes(pd.DataFrame({"a": range(999)}))}, {})
    work.publish("run-1")
    shutil.rmtree(store.path / "chunks")
    for read in (lambda: store.table("links"), lambda: work.table("links")):
        with pytest.raises(StoreError, match=r"cannot be read \(.*--force` computes it") as error:
            read()
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="the store has no table 'tracks'"):
        store.table("tracks")


def test_a_damaged_repository_is_named(store):
    store.begin(grid(2)).write_frames("communities", arrays(2, 1), [0, 1], {})
    shutil.rmtree(store.path / "snapshots")
    for read in (store.dataset, store.records, store.unfinished, lambda: store.begin(grid(2))):
        with pytest.raises(InputError, match="cannot be opened as an Icechunk repository"):
            read()
