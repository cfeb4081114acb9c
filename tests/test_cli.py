"""The command line: what it says, what it changes, and its exit codes."""

import errno
import io
import os
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from popdask import __main__ as entry
from popdask import __version__
from popdask.__main__ import known_failure
from popdask.io.paths import write_text
from popdask.store import RegionBusyError, RegionStore
from popdask.tracking.describe import LostPeopleError
from popdask.workflow import communities
from tests.pipelines.small import assert_same, job, write_job


@pytest.fixture(scope="module")
def finished(frames, tmp_path_factory):
    return communities.run(job(frames, tmp_path_factory.mktemp("done") / "small.icechunk")).store


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of threads in this process."""
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def place(frames, tmp_path):
    """A job file and the store that it names, which is not there yet."""
    store = tmp_path / "small.icechunk"
    return write_job(tmp_path / "small.toml", frames, store), RegionStore(store)


@pytest.fixture
def finished_place(place, finished):
    """The same, with a finished run."""
    shutil.copytree(finished.path, place[1].path)
    return place


@pytest.fixture
def popdask(monkeypatch, capsys, scheduler):
    """Calls the command line; gives its exit code, its output, and its complaints."""

    def call(command, *arguments):
        if command in ("run", "verify"):
            arguments = (*arguments, "--cluster", scheduler)
        monkeypatch.setattr("sys.argv", ["popdask", command, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            entry.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return call


def test_a_region_before_its_first_run(popdask, place):
    file, store = place
    code, said, _ = popdask("status", file)
    assert code == 0 and "see nothing yet" in said and "population (all 4 frames)" in said
    assert popdask("history", file)[1] == "no run is finished yet\n"
    code, _, complaint = popdask("verify", file)
    assert code == 2 and "holds no results yet" in complaint
    assert not store.path.exists() and not store.path.with_name("small.icechunk.lock").exists()


def test_run_says_what_it_does_and_a_second_time_that_nothing_is_to_do(popdask, place, finished):
    file, store = place
    code, said, _ = popdask("run", file)
    assert code == 0 and "✓ tracks" in said and "dashboard at" in said and "results:" in said
    assert_same(store, finished)
    code, said, _ = popdask("run", file)
    assert code == 0 and "nothing to do" in said and "✓" not in said and "dashboard" not in said
    assert len(store.history()) == 1


def test_status_tells_what_readers_see_and_what_is_to_do(popdask, finished_place, frames):
    file, store = finished_place
    said = popdask("status", file)[1]
    assert "4 frames, from 2000 to 2003" in said
    assert f"{store.table('tracks')['track'].nunique()} tracks" in said
    assert "to do    nothing" in said and "running  no\n" in said
    write_job(file, frames, store.path, links={"rule": "overlap"})
    said = popdask("status", file)[1]
    assert "to do    links (all 3 pairs), tracks (to do)" in said


def test_status_tells_who_holds_the_region(popdask, finished_place):
    file, store = finished_place
    with store.lock():
        said = popdask("status", file)[1]
        assert f"process {store.holder().process}" in said
        code, _, complaint = popdask("run", file)
        assert code == 75 and "another run holds" in complaint
    assert store.holder() is None


def test_history_lists_what_each_run_computed(popdask, finished_place, frames):
    file, store = finished_place
    write_job(file, frames, store.path, links={"rule": "overlap"})
    assert popdask("run", file)[0] == 0
    said = popdask("history", file)[1].splitlines()
    assert said[1].strip() == "links: all 3 pairs; tracks"
    assert said[2].startswith("run-") and "with popdask" in said[2]
    assert said[3].strip().startswith("population, flow, encoder")


def test_one_stage_alone(popdask, finished_place, frames, finished):
    file, store = finished_place
    write_job(file, frames, store.path, links={"rule": "cosine"})
    code, _, complaint = popdask("run", file, "--only", "tracks")
    assert code == 2 and "tracks needs stages" in complaint and "links (all 3 pairs)" in complaint
    code, said, _ = popdask("run", file, "--only", "links")
    assert code == 0 and "✓ links" in said and "computed too: tracks" in said
    assert_same(store, finished)  # readers do not see links without their tracks
    code, said, _ = popdask("run", file, "--only", "tracks")
    assert code == 0 and "readers see it now" in said
    assert not store.table("links").equals(finished.table("links"))
    assert len(store.history()) == 2 and not store.unfinished()


def test_an_unknown_stage_is_named_with_those_there_are(popdask, finished_place):
    code, _, complaint = popdask("run", finished_place[0], "--only", "clusters")
    assert code == 2 and "no stage 'clusters'" in complaint and "communities" in complaint


def test_force_computes_everything_again(popdask, finished_place, finished):
    file, store = finished_place
    code, said, _ = popdask("run", file, "--force")
    assert code == 0 and "✓ population" in said and "✓ encoder" in said
    assert_same(store, finished)
    code, said, _ = popdask("run", file, "--only", "communities", "--force")
    assert code == 0 and said.count("✓") == 1 and "readers see it now" in said
    assert_same(store, finished)


def test_verify_finds_everything_as_it_was_computed(popdask, finished_place):
    code, said, _ = popdask("verify", finished_place[0])
    assert code == 0 and "20 frames of arrays and 8 files are as they were computed" in said


def test_a_report_is_the_same_from_a_cluster(popdask, finished_place, scheduler):
    file, _ = finished_place
    pages = []
    for options in ((), ("--cluster", scheduler)):
        code, said, _ = popdask("report", file, *options)
        assert code == 0 and ("dashboard at" in said) == bool(options)
        pages.append(Path(said.splitlines()[-1]).read_bytes())
    assert pages[0] == pages[1]


def test_a_damaged_result_is_found_and_computed_anew(popdask, finished_place, finished):
    file, store = finished_place
    largest = max((store.path / "chunks").iterdir(), key=lambda chunk: chunk.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    code, _, complaint = popdask("verify", file)
    assert code == 1 and "1 difference in" in complaint and "JOB --force" in complaint
    assert popdask("run", file, "--force")[0] == 0
    assert popdask("verify", file)[0] == 0
    assert_same(store, finished)


def test_content_is_read_where_size_and_time_tell_nothing(
    popdask, finished_place, frames, tmp_path
):
    file, store = finished_place
    folder = shutil.copytree(frames, tmp_path / "frames")
    write_job(file, folder, store.path)
    assert popdask("run", file, "--force")[0] == 0  # which puts these files on record
    changed, other = folder / "world_2001.tif", folder / "world_2002.tif"
    stat = changed.stat()
    content = other.read_bytes()
    changed.write_bytes(content[: stat.st_size].ljust(stat.st_size, b"\0"))
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "population" not in popdask("run", file)[1]
    assert f"{'population':<18} 1 of 4 frames" in popdask("run", file, "--check-content")[1]


def test_a_frame_is_appended(popdask, place, frames, finished):
    file, store = place
    write_job(file, frames, store.path, input={"end": "2002"})
    assert popdask("run", file)[0] == 0
    before = store.dataset().load()
    write_job(file, frames, store.path)
    said = popdask("plan", file)[1]
    assert "1 of 4 frames" in said and "4 × 66 × 70 = 18,480 cells, in 1 chunk per" in said
    said = popdask("run", file)[1]
    assert f"✓ {'population':<18} 1 of 4 frames" in said and "encoder" not in said
    assert store.dataset().isel(time=[0, 1]).load().identical(before.isel(time=[0, 1]))
    assert popdask("verify", file)[0] == 0


def test_a_replaced_and_a_removed_frame_are_noticed(popdask, finished_place, frames, tmp_path):
    file, store = finished_place
    folder = shutil.copytree(frames, tmp_path / "frames")
    shutil.copy(folder / "world_2000.tif", folder / "world_2003.tif")
    write_job(file, folder, store.path)
    assert "population (1 of 4 frames)" in popdask("status", file)[1]
    assert popdask("run", file)[0] == 0
    found = store.dataset()["population"].load()
    assert found[3].drop_vars("time").equals(found[0].drop_vars("time"))
    (folder / "world_2003.tif").unlink()
    said = popdask("run", file)[1]
    assert "population" not in said and "✓ flow" in said
    assert store.dataset().sizes["time"] == 3
    assert popdask("verify", file)[0] == 0


@pytest.mark.parametrize("command", ["plan", "run", "status", "verify", "history"])
def test_a_job_file_that_is_not_there_is_one_sentence(popdask, tmp_path, command):
    code, _, complaint = popdask(command, tmp_path / "nowhere.toml")
    assert code == 2 and "there is no such job file" in complaint and "Traceback" not in complaint


def test_a_wrong_option_is_a_wrong_input(popdask, place):
    assert popdask("run", place[0], "--hard")[0] == 2


def test_failures_that_one_sentence_tells_are_told_from_bugs():
    lost = "3 people of 2001 are lost."
    assert known_failure(LostPeopleError(lost)) == (1, lost)
    assert known_failure(RegionBusyError("another run holds it."))[0] == 75
    assert known_failure(ZeroDivisionError()) is None
    assert known_failure(FileNotFoundError(2, "No such file", "style.css")) is None


def test_what_a_machine_has_no_more_of_is_one_sentence():
    with pytest.raises(MemoryError) as memory:
        np.empty(2**58)
    errors = {
        "the memory does not suffice (Unable to allocate": memory.value,
        "the memory does not suffice (no more": MemoryError(),
        "the memory does not suffice ([Errno 12]": OSError(errno.ENOMEM, "Cannot allocate memory"),
        "too many files are open": OSError(errno.EMFILE, "Too many open files", "pop.tif"),
        "no more threads or processes": RuntimeError("can't start new thread"),
        "no more threads or processes can": BlockingIOError(errno.EAGAIN, "Resource temporarily"),
    }
    for begin, error in errors.items():
        code, sentence = known_failure(error)
        assert code == 1
        assert sentence.startswith(begin) and sentence.endswith("is kept.")


def test_a_file_that_may_not_grow_is_named(tmp_path):
    path, limits = tmp_path / "report.html", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(OSError) as large:
            write_text(path, " " * 2**21)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    sentence = f"{path} cannot be read or written (File too large)."
    assert known_failure(large.value) == (1, sentence)


def test_a_terminal_without_its_signs_is_no_failure(monkeypatch, place):
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
    monkeypatch.setattr("sys.argv", ["popdask", "plan", str(place[0])])
    with pytest.raises(SystemExit) as end:
        entry.main()
    sys.stdout.flush()
    assert not end.value.code and b"4 ? 66 ? 70 = 18,480 cells" in shown.getvalue()


def test_a_place_that_cannot_be_written_is_one_sentence(popdask, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a folder")
    code, _, complaint = popdask("demo", "--output", file / "demo")
    assert (
        code == 1
        and complaint
        == f"popdask: {file}/demo/frames cannot be read or written (Not a directory).\n"
    )


def test_lost_chunks_are_one_sentence(popdask, finished_place):
    file, store = finished_place
    shutil.rmtree(store.path / "chunks")
    for command in ("status", "run", "figures"):
        code, _, complaint = popdask(command, file)
        assert code == 1 and complaint.count("\n") == 1 and "--force` computes it" in complaint


def test_it_tells_its_version(popdask):
    code, out, _ = popdask("--version")
    assert (code, out.strip()) == (0, f"popdask {__version__}")
