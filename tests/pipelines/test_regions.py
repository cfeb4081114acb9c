"""Many regions in one run: each by itself, on one connection, and what is known of them later."""

import gc
import shutil
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dask
import pytest
from distributed import Client

from popdask.errors import InputError
from popdask.store import RegionStore
from popdask.workflow.operations import (
    SharedWorkers,
    exit_code,
    find_regions,
    run_regions,
    status_table,
)
from popdask.workflow.progress import Reporter
from popdask.workflow.runlog import End, read_runs
from tests.faults.process import wait_until
from tests.pipelines.small import assert_same, write_job

FEW = {"input": {"end": "2001"}, "encoder": {"epochs": 1}}


class StopsAt(Reporter):
    """Is interrupted when a stage of a region begins."""

    def __init__(self, region, stage):
        self._at, self._region = (region, stage), ""

    def note(self, text):
        if " " not in (head := text.split(":")[0]):  # a region, and no warning
            self._region = head

    def stage(self, name, work):
        if (self._region, name) == self._at:
            raise KeyboardInterrupt
        return super().stage(name, work)


@pytest.fixture(scope="module")
def done(frames, tmp_path_factory):
    """A folder with the job of a finished region, its store and its log."""
    folder = tmp_path_factory.mktemp("done")
    write(folder, "oslo", frames)
    (attempt,) = run_regions(find_regions([folder]))
    assert attempt.outcome is End.DONE
    return folder


@pytest.fixture
def folder(done, tmp_path):
    """A copy of it."""
    return shutil.copytree(done, tmp_path / "jobs")


def write(folder, name, frames, **tables):
    """Write the job file of a region."""
    file = write_job(folder / f"{name}.toml", frames, f"{name}.icechunk", **{**FEW, **tables})
    file.write_text(file.read_text().replace('name = "small"', f'name = "{name}"'))
    return file


def store(folder, name):
    return RegionStore(folder / f"{name}.icechunk")


def outcomes(told):
    return {attempt.region: attempt.outcome for attempt in told}


def lose_chunks(folder, name):
    """Take away what later stages read; gives the place where it is to be put back."""
    chunks = store(folder, name).path / "chunks"
    return chunks.rename(folder / "lost"), chunks


def test_a_region_that_fails_leaves_the_others_running(folder, frames):
    """One is done, one fails, one has no frames, one has a wrong file, one is held, one is new."""
    for name in ("failing", "held"):
        for of in ("icechunk", "icechunk.log"):
            shutil.copytree(folder / f"oslo.{of}", folder / f"{name}.{of}")
        file = write(folder, name, frames, links={"rule": "overlap"})
        file.write_text(file.read_text().replace(f'name = "{name}"', 'name = "oslo"'))
    lost, chunks = lose_chunks(folder, "failing")
    write(folder, "missing", folder / "nowhere")
    write(folder, "new", frames)
    (folder / "wrong.toml").write_text("name = 3\n")
    with store(folder, "held").lock():
        told = run_regions(find_regions([folder]))
    found = {
        region.file.stem: one for region, one in zip(find_regions([folder]), told, strict=True)
    }
    assert {name: one.outcome for name, one in found.items()} == {
        "failing": End.FAILED,
        "held": End.BUSY,
        "missing": End.WRONG,
        "new": End.DONE,
        "oslo": End.NOTHING,
        "wrong": End.WRONG,
    }
    assert exit_code(told) == 1
    assert "Error: " in found["failing"].error and found["failing"].log.endswith(".jsonl")
    assert "nowhere" in found["missing"].error and "wrong.toml" in found["wrong"].error
    assert "another run holds" in found["held"].error
    assert_same(store(folder, "new"), store(folder, "oslo"))

    shutil.copytree(lost, chunks, dirs_exist_ok=True)
    (folder / "wrong.toml").unlink()
    (folder / "missing.toml").unlink()
    again = run_regions(find_regions([folder]), retry=True)
    assert [one.outcome for one in again] == [End.DONE], "only the one that failed is run again"
    assert exit_code(again) == 0
    assert len(store(folder, "failing").history()) == 2


def test_only_busy_regions_are_left(folder):
    with store(folder, "oslo").lock():
        told = run_regions(find_regions([folder]))
    assert exit_code(told) == 75
    assert run_regions(find_regions([folder]), retry=True) == [], "its last attempt ended well"


def test_a_region_without_an_attempt_is_tried_again_too(folder, frames):
    write(folder, "bergen", frames)
    told = run_regions(find_regions([folder]), retry=True)
    assert outcomes(told) == {"bergen": End.DONE}


def test_all_regions_share_one_connection(folder, frames):
    """It is made when the first region has something to compute, and ends with the last."""
    seen = []

    @contextmanager
    def workers():
        seen.append("connected")
        yield
        seen.append("closed")

    assert outcomes(run_regions(find_regions([folder]), workers=workers)) == {"oslo": End.NOTHING}
    assert seen == []
    for name in ("a", "b"):
        write(folder, name, frames)
    told = run_regions(
        find_regions([folder]), workers=workers, on_attempt=lambda one: seen.append(one.region)
    )
    assert outcomes(told) == {"a": End.DONE, "b": End.DONE, "oslo": End.NOTHING}
    assert seen == ["connected", "a", "b", "oslo", "closed"]


def test_a_lost_connection_is_made_anew():
    def workers():
        return Client(processes=False, n_workers=1, dashboard_address=":0")

    # A client that is closed within its context leaves itself in Dask's configuration.
    with dask.config.set(scheduler=None), SharedWorkers(workers) as shared:
        with shared() as first:
            pass
        with shared() as same:
            assert same is first
            same.close()
        with shared() as other:
            assert other is not first and other.submit(sum, [1, 2]).result() == 3
    assert other.status == "closed"


def test_a_run_that_loses_its_connection_is_told_why_by_the_connection():
    closed = []

    @contextmanager
    def workers():
        with Client(processes=False, n_workers=1, dashboard_address=":0") as client:
            try:
                yield client
            except OSError as error:
                raise InputError("the scheduler has gone.") from error
            finally:
                closed.append(client)

    with dask.config.set(scheduler=None), SharedWorkers(workers) as shared:
        with pytest.raises(InputError, match="the scheduler has gone"), shared() as first:
            first.close()
            raise OSError("the connection is broken")
        assert closed == [first]
        with shared() as other:
            assert other.submit(sum, [1, 2]).result() == 3
    assert closed == [first, other]


def test_a_connection_that_fails_is_not_tried_again(folder, frames):
    tried = []

    def workers():
        tried.append(1)
        raise InputError("no scheduler answers.")

    write(folder, "a", frames)
    write(folder, "b", frames)
    told = run_regions(find_regions([folder]), workers=workers)
    assert outcomes(told) == {"a": End.FAILED, "b": End.FAILED, "oslo": End.NOTHING}
    assert [one.error for one in told[:2]] == ["ClusterError: no scheduler answers."] * 2
    assert len(tried) == 1


def test_a_stop_ends_all_and_what_was_finished_is_kept(folder, frames):
    write(folder, "paris", frames)
    write(folder, "turin", frames)
    with pytest.raises(KeyboardInterrupt):
        run_regions(find_regions([folder]), StopsAt("paris", "links"))
    assert store(folder, "paris").unfinished() and not store(folder, "turin").exists()
    (last,) = read_runs(find_regions([folder / "paris.toml"])[0].job)
    assert last.outcome is End.STOPPED
    told = run_regions(find_regions([folder]), retry=True)
    assert outcomes(told) == {"paris": End.DONE, "turin": End.DONE}
    assert_same(store(folder, "paris"), store(folder, "oslo"))


def test_a_folder_stands_for_its_job_files(folder, frames, tmp_path):
    other = write(tmp_path, "other", frames)
    found = find_regions([other, folder, folder / "oslo.toml", tmp_path / "nowhere.toml"])
    assert [region.name for region in found] == ["other", "oslo", "nowhere"]
    assert "there is no such job file" in found[2].problem
    with pytest.raises(InputError, match="holds no job file"):
        find_regions([frames])


def test_standings_tell_runs_frames_ages_and_failures(folder, frames):
    """Nothing is created by it."""
    write(folder, "new", frames)
    write(folder, "wrong", frames, classes={"k": 0})
    later = datetime.now(UTC) + timedelta(days=3)
    before = sorted(folder.rglob("*"))
    new, oslo, wrong = status_table(find_regions([folder]), now=later)
    assert sorted(folder.rglob("*")) == before
    assert (new.state, new.run, new.frames, new.age) == ("never run", None, 0, None)
    (run,) = store(folder, "oslo").history()
    assert (oslo.state, oslo.run, oslo.finished) == ("done", run.tag, run.finished)
    assert (oslo.frames, oslo.failures, oslo.error) == (2, 0, None)
    assert 3 * 86400 <= oslo.age < 3 * 86400 + 600
    assert wrong.state == "wrong" and "classes" in wrong.error


def test_failures_are_counted_since_the_last_good_run(folder, frames):
    file = write(folder, "oslo", folder / "nowhere")
    for _ in range(2):
        run_regions(find_regions([folder]))
    (oslo,) = status_table(find_regions([folder]))
    assert (oslo.state, oslo.failures, oslo.frames) == ("wrong", 2, 2)
    assert "nowhere" in oslo.error and oslo.run is not None
    assert run_regions(find_regions([write(folder, "oslo", frames)]))[0].good
    (oslo,) = status_table(find_regions([file]))
    assert (oslo.state, oslo.failures, oslo.error) == ("nothing to do", 0, None)


def test_a_region_that_runs_is_told_as_running(folder):
    with store(folder, "oslo").lock():
        (oslo,) = status_table(find_regions([folder]))
    assert (oslo.state, oslo.failures) == ("running", 0)


def test_a_store_that_cannot_be_opened_is_told(folder):
    shutil.rmtree(folder / "oslo.icechunk")
    (folder / "oslo.icechunk").mkdir()
    (folder / "oslo.icechunk" / "letter.txt").write_text("dear reader")
    (oslo,) = status_table(find_regions([folder]))
    assert oslo.state == "wrong" and "holds other files" in oslo.error


def test_one_region_that_cannot_be_read_leaves_the_others_in_the_table(folder, frames):
    write(folder, "new", frames)
    (folder / "oslo.icechunk.log" / "20990101T000000.000000Z.jsonl").mkdir()
    new, oslo = status_table(find_regions([folder]))
    assert (new.state, oslo.state) == ("never run", "unreadable")
    assert "cannot be read" in oslo.error and "20990101" in oslo.error


def open_files():
    """What this process has open, by what it leads to; garbage is none of it."""
    gc.collect()
    found = Counter()
    for link in [Path("/proc/self/fd", place.name) for place in Path("/proc/self/fd").iterdir()]:
        with suppress(FileNotFoundError):  # another thread has closed it
            found[str(link.readlink())] += 1
    return found


def test_regions_leave_nothing_open(folder, frames):
    """Nothing that this process had not open before, once threads of the background are done."""
    run_regions(find_regions([write(folder, "warm", frames)]))
    before = open_files()
    for name in ("a", "b"):
        write(folder, name, frames)
    told = run_regions(find_regions([folder]))
    assert all(one.good for one in told), told
    wait_until(lambda: open_files() <= before)
