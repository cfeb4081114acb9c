"""Whatever differs from what was computed is found and named."""

import json
import shutil

import pytest
import zarr

from popdask.store import WORK, RegionStore, file_checksum, table_bytes
from popdask.store.content import write_files, write_records
from popdask.workflow import communities
from popdask.workflow.operations import verify
from tests.pipelines.small import assert_same, job


@pytest.fixture(scope="module")
def finished(frames, tmp_path_factory):
    store = tmp_path_factory.mktemp("finished") / "small.icechunk"
    return communities.run(job(frames, store)).store


@pytest.fixture
def settings(finished, frames, tmp_path):
    """The job, on a copy of the finished store."""
    return job(frames, shutil.copytree(finished.path, tmp_path / "copy.icechunk"))


def tamper(settings, change, said=None):
    """Change the stored results behind the back of their records, and let readers see it."""
    repository = RegionStore(settings.output.store).repository()
    session = repository.writable_session(WORK)
    change(session.store)
    session.commit("tamper", said)
    repository.reset_branch("main", repository.lookup_branch(WORK))


def test_all_is_well(settings):
    verified = verify(settings)
    assert verified.differences == () and (verified.frames, verified.files) == (20, 8)


@pytest.mark.parametrize("name", ["population", "u", "v", "classes", "community"])
def test_a_changed_cell_is_found(settings, name):
    def change(store):
        array = zarr.open_group(store, mode="r+")[name]
        array[2, 20, 24] = array[2, 20, 24] + 1

    tamper(settings, change)
    (difference,) = verify(settings).differences
    assert difference.startswith(f"{name} of 2002-01-01 is not what was computed")


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_chunk_that_is_gone_is_found_and_mended(settings, finished, place):
    """The largest chunk is that of the encoder's weights; tables and arrays follow."""
    store = RegionStore(settings.output.store)
    chunks = sorted((store.path / "chunks").iterdir(), key=lambda chunk: -chunk.stat().st_size)
    chunks[place].unlink()
    (difference,) = verify(settings).differences
    assert "cannot be read: No such file" in difference
    communities.run(settings, force=True)
    verified = verify(settings)
    assert verified.differences == verified.others  # the run before still lacks its chunk
    assert "bytes of chunks are not there" in verified.others[0]
    store.expire(keep_last=1)
    assert verify(settings).differences == ()
    assert_same(store, finished)


def test_a_changed_and_a_lost_table_are_found(settings):
    def change(store):
        table = RegionStore(settings.output.store).table("tracks").iloc[1:]
        write_files(store, {"tracks.parquet": table_bytes(table)}, remove=["links.parquet"])

    tamper(settings, change)
    differences = verify(settings).differences
    assert [difference.split(" is not")[0] for difference in differences] == [
        "the file links.parquet",
        "the file tracks.parquet",
    ]


def test_people_that_are_not_those_of_the_balance_are_found(settings):
    def change(store):
        table = RegionStore(settings.output.store).table("balance")
        table.loc[1, "inside"] += 1
        write_files(store, {"balance.parquet": table_bytes(table)})

    tamper(settings, change)
    (difference,) = verify(settings).differences
    assert "the file balance.parquet is not" in difference
    records = RegionStore(settings.output.store).records()
    content = RegionStore(settings.output.store).file("balance.parquet")
    records["summary"]["sha256"]["balance.parquet"] = file_checksum(content)
    tamper(settings, lambda session: write_records(session, records))
    (difference,) = verify(settings).differences
    assert difference.startswith("people inside of 2001-01-01 are")


def test_a_frame_without_a_checksum_is_told(settings):
    store = RegionStore(settings.output.store)
    records = store.records()
    del records["flow"]["checksums"]["2001-01-01T00:00:00"]
    tamper(settings, lambda session: write_records(session, records))
    assert verify(settings).differences == (
        "u of 2001-01-01 has no checksum on record.",
        "v of 2001-01-01 has no checksum on record.",
    )


def test_a_track_that_skips_a_frame_is_found(settings):
    """Though every checksum is that of the table."""
    store = RegionStore(settings.output.store)
    records, table = store.records(), store.table("tracks")
    going = table[(table["event"] == "continue") & (table["time"] == "2002-01-01")].iloc[0]
    gone = (table["track"] == going["track"]) & (table["time"] == going["time"])

    def change(session):
        content = table_bytes(table[~gone])
        records["tracks"]["sha256"]["tracks.parquet"] = file_checksum(content)
        write_files(session, {"tracks.parquet": content})
        write_records(session, records)

    tamper(settings, change)
    (difference,) = verify(settings).differences
    assert "absent from a frame between" in difference


def test_a_map_that_moved_is_found_and_mended(settings, finished):
    """By a coordinate, of which no frame's checksum knows."""
    store = RegionStore(settings.output.store)
    said = store.repository().lookup_snapshot(store.repository().lookup_branch("main")).metadata

    def change(session):
        axis = zarr.open_group(session, mode="r+")["x"]
        axis[:] = axis[:] + 8000

    tamper(settings, change, said)
    verified = verify(settings)
    assert verified.differences == ("the coordinate x is not what was computed.",)
    assert verified.others == ()
    communities.run(settings, force=True)
    assert verify(settings).differences == ()
    assert_same(store, finished)


@pytest.mark.parametrize("array", ["spatial_ref", "community"])
def test_a_manifest_that_is_gone_is_found_and_mended(settings, finished, array):
    """Commits that build on it would fail, so a run by force begins from nothing."""
    store = RegionStore(settings.output.store)
    (node,) = (
        node
        for node in inspected(store, store.kept_runs()[0].tag)["nodes"]
        if node["path"] == f"/{array}"
    )
    manifest = node["manifest_refs"][0]["id"]
    (store.path / "manifests" / manifest).unlink()
    assert f"the manifest {manifest} is not there" in verify(settings).others[0]
    communities.run(settings, force=True)
    verified = verify(settings)
    assert verified.differences == verified.others and len(verified.others) == 1
    store.expire(keep_last=1)
    assert verify(settings).differences == ()
    assert_same(store, finished)


def test_what_only_earlier_runs_need_is_no_fault_of_the_last(settings):
    cosine = settings.model_copy(
        update={"links": settings.links.model_copy(update={"rule": "cosine"})}
    )
    store = communities.run(cosine).store
    manifests = {
        run.tag: {part["id"] for part in inspected(store, run.tag)["manifests"]}
        for run in store.kept_runs()
    }
    last, before = (manifests[run.tag] for run in store.kept_runs())
    for manifest in before - last:
        (store.path / "manifests" / manifest).unlink()
    verified = verify(cosine)
    assert len(verified.differences) == len(before - last) > 0
    assert verified.others == verified.differences


def inspected(store, tag):
    repository = store.repository()
    return json.loads(repository.inspect_snapshot(repository.lookup_tag(tag)))
