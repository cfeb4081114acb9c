"""The commands for many regions: what they say, and their exit codes."""

import json
import re
import time

import dask
import geopandas as gpd
import pytest
import rasterio
import shapely
from distributed import LocalCluster

from popdask import __main__ as entry
from popdask.cluster import CONNECT_TIMEOUT
from popdask.store import RegionStore
from tests.pipelines.small import write_job


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of threads in this process."""
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def popdask(monkeypatch, capsys):
    """Calls the command line; gives its exit code, its output, and its complaints."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["popdask", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            entry.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return call


@pytest.fixture
def jobs(frames, tmp_path):
    """A folder with the job files of two regions."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    for name in ("bergen", "oslo"):
        write(folder, name, frames)
    return folder


def write(folder, name, frames, **tables):
    """Write the job file of a region."""
    few = {"input": {"end": "2001"}, "encoder": {"epochs": 1}} | tables
    file = write_job(folder / f"{name}.toml", frames, f"{name}.icechunk", **few)
    file.write_text(file.read_text().replace('name = "small"', f'name = "{name}"'))


def test_a_schedule_from_its_first_night_to_a_failure_and_its_mending(
    popdask, jobs, frames, scheduler
):
    assert popdask("status", jobs)[1].count("never run") == 2
    code, said, complaint = popdask("schedule", jobs, "--cluster", scheduler)
    assert code == 0, complaint
    assert said.count("dashboard at") == 1, "one connection for all"
    assert said.count("✓ tracks") == 2 and "bergen: done" in said and "oslo: done" in said
    code, said, _ = popdask("schedule", jobs, "--cluster", "tcp://localhost:1")
    assert code == 0 and said.count("nothing to do") == 4, "nothing to do needs no cluster"

    write(jobs, "bergen", jobs / "nowhere")
    (jobs / "wrong.toml").write_text("name = 3\n")
    code, said, complaint = popdask("schedule", jobs, "--cluster", "tcp://localhost:1")
    assert code == 2 and "oslo: nothing to do" in said
    assert "bergen: " in complaint and "wrong: " in complaint and "Traceback" not in complaint
    assert len(list((jobs / "bergen.icechunk.log").iterdir())) == 3

    code, said, complaint = popdask("status", jobs, "--json")
    bergen, oslo, wrong = json.loads(said)
    assert code == 2, "a job file is wrong"
    assert (bergen["state"], bergen["failures"], bergen["frames"]) == ("wrong", 1, 2)
    assert "nowhere" in bergen["error"] and 0 < bergen["age"] < 3600
    assert (oslo["state"], oslo["failures"]) == ("nothing to do", 0)
    assert oslo["run"] == RegionStore(jobs / "oslo.icechunk").history()[0].tag
    assert (wrong["region"], wrong["run"], wrong["frames"]) == ("wrong", None, 0)
    code, said, complaint = popdask("status", jobs)
    assert code == 2 and "last good run" in said and "nothing to do" in said
    assert "bergen: " in complaint and "wrong: " in complaint

    (jobs / "wrong.toml").unlink()
    write(jobs, "bergen", frames)
    code, said, _ = popdask("schedule", jobs, "--retry")
    assert code == 0 and "bergen: nothing to do" in said
    assert "oslo" not in said and "1 left out: their last run ended well" in said


def test_regions_lie_where_their_frames_do_whether_planned_or_run(
    popdask, jobs, frames, scheduler, tmp_path
):
    assert popdask("run", jobs / "oslo.toml", "--cluster", scheduler)[0] == 0
    write(jobs, "lost", tmp_path / "nowhere")
    told = json.loads(popdask("status", jobs, "--geojson")[1])
    by_name = {each["properties"]["region"]: each for each in told["features"]}
    states = {name: each["properties"]["state"] for name, each in by_name.items()}
    assert states == {"bergen": "never run", "lost": "never run", "oslo": "done"}
    assert by_name["lost"]["geometry"] is None
    (tmp_path / "regions.geojson").write_text(json.dumps(told))
    found = gpd.read_file(tmp_path / "regions.geojson").set_index("region").to_crs(3035)
    with rasterio.open(next(frames.glob("*.tif"))) as file:
        box = shapely.box(*file.bounds)
    for name in ("bergen", "oslo"):
        outline = found.geometry[name]
        assert outline.symmetric_difference(box).area < 1e-3 * box.area
        assert by_name[name]["bbox"] == pytest.approx(
            shapely.bounds(gpd.GeoSeries([box.segmentize(1000)], crs=3035).to_crs(4326)[0]),
            abs=0.01,
        )


def test_regions_that_others_hold_leave_with_75(popdask, jobs, tmp_path):
    with (
        RegionStore(jobs / "oslo.icechunk").lock(),
        RegionStore(jobs / "bergen.icechunk").lock(),
    ):
        code, said, complaint = popdask("schedule", jobs, "--log", tmp_path / "logs")
        assert code == 75 and said.count("busy") == 2 and complaint.count("another run holds") == 2
        assert popdask("status", jobs)[1].count("running") == 2
    assert len(list((tmp_path / "logs" / "oslo.log").iterdir())) == 1


def test_a_folder_without_jobs_is_one_sentence(popdask, tmp_path):
    for command in ("schedule", "status"):
        code, _, complaint = popdask(command, tmp_path)
        assert code == 2 and "holds no job file" in complaint and "Traceback" not in complaint


def test_the_run_of_one_region_is_logged_too(popdask, jobs, frames, scheduler):
    file = jobs / "oslo.toml"
    assert popdask("run", file, "--cluster", scheduler)[0] == 0
    (jobs / "bergen.toml").unlink()
    (oslo,) = json.loads(popdask("status", jobs, "--json")[1])
    assert (oslo["state"], oslo["failures"]) == ("done", 0)
    assert "see run-" in popdask("status", file)[1], "one job file is told at length"


def test_back_to_an_earlier_run_and_old_ones_away(popdask, jobs, frames, scheduler):
    file, store = jobs / "oslo.toml", RegionStore(jobs / "oslo.icechunk")
    code, _, complaint = popdask("rollback", file)
    assert code == 2 and "no earlier run" in complaint
    tables = []
    for rule in ("overlap", "cosine"):
        write(jobs, "oslo", frames, links={"rule": rule})
        assert popdask("run", file, "--cluster", scheduler)[0] == 0
        tables.append(store.table("links"))
    assert not tables[0].equals(tables[1])
    second, first = (run.tag for run in store.history())

    time.sleep(1)  # times of runs are kept to the second
    code, said, _ = popdask("rollback", file)
    assert code == 0 and f"back to {first}, from {second}" in said
    assert store.table("links").equals(tables[0])
    said = popdask("history", file)[1]
    assert f"back to {first}" in said and f"can be gone back to as well: {second}\n" in said
    code, _, complaint = popdask("rollback", file)
    assert code == 2 and "see an earlier run already" in complaint and second in complaint
    code, _, complaint = popdask("rollback", file, "run-0")
    assert code == 2 and "no finished run 'run-0'" in complaint
    assert popdask("rollback", file, second)[0] == 0
    assert store.table("links").equals(tables[1])
    assert "nothing to do" in popdask("run", file)[1], "the second run is what the job wants"

    code, said, _ = popdask("expire", file, "--older-than", "30")
    assert code == 0 and said.startswith("0 runs and 0 logs taken away") and "4 runs kept" in said
    code, said, _ = popdask("expire", file, "--keep", "1")
    assert code == 0 and said.startswith("3 runs and 1 log taken away") and "1 run kept" in said
    assert len(store.kept_runs()) == 1 and store.table("links").equals(tables[1])
    assert popdask("verify", file, "--cluster", scheduler)[0] == 0
    for days in ("1e12", "30000000", "nan"):
        code, _, complaint = popdask("expire", file, "--older-than", days)
        assert code == 2 and "more than the calendar has" in complaint
    code, _, complaint = popdask("expire", file)
    assert code == 2 and "neither a number of runs nor an age" in complaint
    with store.lock():
        assert popdask("expire", file, "--keep", "1")[0] == 75
        assert popdask("rollback", file, second)[0] == 75


@pytest.mark.parametrize("cluster", ["slrum", "tcp:/localhost:8786", "tcp://localhost", "no.toml"])
def test_a_mistyped_cluster_is_no_fault_of_the_regions(popdask, jobs, cluster):
    for arguments in (("schedule", jobs), ("run", jobs / "oslo.toml")):
        code, _, complaint = popdask(*arguments, "--cluster", cluster)
        assert code == 2 and cluster in complaint and "Traceback" not in complaint
    assert not list(jobs.glob("*.log")), "no attempt at a region"


def test_a_scheduler_that_is_down_is_a_failure_that_is_tried_again(popdask, jobs, scheduler):
    down = ("--cluster", "tcp://localhost:1")
    with dask.config.set({CONNECT_TIMEOUT: "0.1s"}):
        for arguments in (("schedule", jobs), ("schedule", jobs, "--retry")):
            code, said, complaint = popdask(*arguments, *down)
            assert code == 1 and len(re.findall(r"(oslo|bergen) +failed", said)) == 2
            assert complaint.count("no Dask scheduler answers at tcp://localhost:1") == 2, complaint
        code, _, complaint = popdask("run", jobs / "oslo.toml", *down)
    assert code == 1 and "no Dask scheduler answers" in complaint and "Traceback" not in complaint
    states = [one["state"] for one in json.loads(popdask("status", jobs, "--json")[1])]
    assert states == ["failed", "failed"]
    assert popdask("schedule", jobs, "--retry", "--cluster", scheduler)[0] == 0
