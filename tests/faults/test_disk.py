"""A disk that is full or protected, and inputs that go bad: one sentence, and nothing is lost."""

import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros

from popdask.errors import InputError
from popdask.io import write_cogs, write_geoparquet, write_geotiff, write_gpkg
from popdask.store import RegionStore, StoreError
from popdask.workflow import communities
from popdask.workflow.progress import Reporter
from tests.faults.disk import filled, mount, small_disk
from tests.faults.process import finish
from tests.pipelines.small import assert_same, job, write_job

SIZE = 8 * 2**20


@pytest.fixture(scope="module")
def undisturbed(frames, tmp_path_factory):
    """The store of a run that nothing happened to, and of one with other communities after it."""
    store = tmp_path_factory.mktemp("undisturbed") / "small.icechunk"
    communities.run(job(frames, store))
    shutil.copytree(store, store.with_name("first.icechunk"))
    return communities.run(changed(frames, store)).store, RegionStore(
        store.with_name("first.icechunk")
    )


def changed(frames, store):
    return job(frames, store, communities={"eps": 5})


def contents(folder):
    """Every file of a folder, its bytes and when it was changed."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", SIZE) as folder:
        yield folder


def test_a_full_disk_is_named_and_costs_nothing_but_time(disk, frames, undisturbed):
    after, before = undisturbed
    shutil.copytree(before.path, disk / "small.icechunk")
    store = RegionStore(disk / "small.icechunk")
    with filled(disk):
        with pytest.raises(
            StoreError, match=r"small.icechunk cannot be read or written \(No space"
        ):
            communities.run(changed(frames, store.path))
        assert_same(store, before)
        assert store.holder() is None
    communities.run(changed(frames, store.path))
    assert_same(store, after)


def test_a_disk_that_fills_while_a_stage_is_written(disk, frames, undisturbed):
    """There is room for the lock and for the first stages, and then no more."""
    after, _ = undisturbed
    store = RegionStore(disk / "small.icechunk")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(SIZE - 200_000))
    with pytest.raises(StoreError, match="No space left on device"):
        communities.run(changed(frames, store.path))
    stages = [done.stage for done in store.stages_since()]
    assert stages and "tracks" not in stages, "it filled too early or too late"
    ballast.unlink()
    communities.run(changed(frames, store.path))
    assert [done.stage for done in store.history()[0].stages][: len(stages)] == stages
    assert_same(store, after)


def test_a_store_made_read_only_is_named_and_still_read(disk, frames, undisturbed, tmp_path):
    after, before = undisturbed
    shutil.copytree(before.path, disk / "small.icechunk")
    store = RegionStore(disk / "small.icechunk")
    mount("-o", "remount,ro", disk)
    with pytest.raises(StoreError, match="Read-only file system"):
        communities.run(changed(frames, store.path))
    assert_same(store, before)
    file = write_job(tmp_path / "small.toml", frames, store.path)
    held = contents(disk)
    for command in ("plan", "status", "history", "verify"):
        code, _, complaint = finish(file, command=command)
        assert code == 0, complaint
    assert contents(disk) == held
    mount("-o", "remount,rw", disk)
    communities.run(changed(frames, store.path))
    assert_same(store, after)


def test_a_report_of_a_store_made_read_only_changes_nothing_of_it(
    disk, frames, undisturbed, tmp_path
):
    _, before = undisturbed
    shutil.copytree(before.path, disk / "small.icechunk")
    output = {"folder": str(tmp_path / "told")}
    file = write_job(tmp_path / "small.toml", frames, disk / "small.icechunk", output=output)
    held = contents(disk)
    mount("-o", "remount,ro", disk)
    for command in ("report", "status"):
        code, said, complaint = finish(file, command=command)
        assert code == 0, complaint
    report = tmp_path / "told" / "small_report.html"
    assert "</html>" in report.read_text() and "small" in said
    assert contents(disk) == held


def test_a_frame_that_is_truncated_in_mid_run_is_named(frames, undisturbed, tmp_path):
    """It is whole when the run begins, and not when its cells are read."""
    _, before = undisturbed
    shutil.copytree(frames, tmp_path / "frames")
    store = RegionStore(tmp_path / "small.icechunk")
    frame = tmp_path / "frames" / "world_2002.tif"
    whole = frame.read_bytes()
    pipeline, settings = communities.PIPELINE, job(tmp_path / "frames", store.path)
    running = pipeline.begin(settings, store, pipeline.files(settings, {}), [])
    first = pipeline.stages[0]
    frame.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"world_2002.tif cannot be read .*it may be truncated"):
        first.compute(running, running.plan[first.name], Reporter())
    assert not store.records("work")
    frame.write_bytes(whole)
    communities.run(settings)
    assert_same(store, before)


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet", "a_2000.tif", "a.tif"])
def test_an_export_for_which_there_is_no_room_is_named(tmp_path, name):
    values = np.random.default_rng(0).random((1, 300, 300)).astype("float32")
    array = xr_zeros(GeoBox.from_bbox((0, 0, 300, 300), "EPSG:3035", resolution=1), "float32")
    array = array.expand_dims(time=pd.to_datetime(["2000"])).copy(data=values)
    points = gpd.GeoSeries.from_xy(*values.reshape(2, -1), crs=3035)
    table = gpd.GeoDataFrame({"people": values.ravel()[:45_000]}, geometry=points)
    with small_disk(tmp_path / "disk", 160 << 10) as disk:
        write = {
            "a.gpkg": lambda: write_gpkg({"towns": table}, disk / name),
            "a.parquet": lambda: write_geoparquet(table, disk / name),
            "a_2000.tif": lambda: write_cogs(array, disk, "a"),
            "a.tif": lambda: write_geotiff(array, disk / name),
        }[name]
        with pytest.raises(OSError, match=r"bytes are free|[Nn]o space") as caught:
            write()
        assert name in str(caught.value) and not list(disk.iterdir())
