"""A command imports what it needs: those that only look load nothing that computes or draws."""

import subprocess
import sys

import numpy as np
import pytest

from popdask.config import load_job
from popdask.imagery.evaluation import ConformalIntervals
from popdask.io.grids import middle_cell_m
from popdask.workflow import communities
from tests.pipelines import small

HEAVY = {
    *("bokeh", "dask.array", "dask_ml", "distributed", "geopandas", "matplotlib", "numba"),
    *("pandas", "pystac", "rasterio", "scipy", "sklearn", "torch", "xarray"),
}

#: What each command may import of these; the job is one of communities that was run.
MAY_IMPORT = {
    "--help": set(),
    "--version": set(),
    "history": set(),
    "status": {"pandas"},
    "plan": {"pandas", "rasterio"},
}

SCRIPT = """
import sys
from popdask import __main__ as entry
try:
    entry.main()
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *sorted(sys.modules))
"""


def imported(words):
    """Everything that is imported once a command has ended well."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("imported:")[2].split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the frames of a small world."""
    folder = tmp_path_factory.mktemp("imports")
    small.small_world().write(folder)
    return folder


@pytest.fixture(scope="module")
def job(folder):
    """The file of a job that was run."""
    tables = {
        "input": {"end": "2001"},
        "encoder": {"epochs": 1},
        "settlements": {"find": True, "names": "geonames"},
        "output": {"export": ["cog"]},
    }
    file = small.write_job(folder / "job.toml", folder, folder / "store.icechunk", **tables)
    communities.run(load_job(file))
    return file


@pytest.mark.parametrize("command", MAY_IMPORT)
def test_a_command_imports_what_it_needs(command, job):
    found = imported([command] if command.startswith("--") else [command, job])
    assert "popdask.cli.commands" in found
    assert found & HEAVY <= MAY_IMPORT[command]


def test_a_settlements_job_with_intervals_needs_no_network(folder):
    """Nor do its names and exports; workers load what their tasks need."""
    truth = np.arange(40.0)
    learned = ConformalIntervals.fit(truth[::-1], truth, level=0.5).table()
    metres = middle_cell_m(small.small_world().population["population"])
    learned.assign(size=1, cell_size=metres).to_parquet(folder / "intervals.parquet")
    file, cluster = folder / "settlements.toml", folder / "cluster.toml"
    cluster.write_text("workers = 1\n")
    file.write_text(
        f"""name = "sure"
pipeline = "settlements"
[input]
frames = "{folder}/world_{{time:%Y}}.tif"
end = "2001"
intervals = "{folder}/intervals.parquet"
[output]
store = "{folder}/sure.icechunk"
export = ["cog", "stac"]
[settlements]
names = "geonames"
"""
    )
    ran = imported(["run", file, "--cluster", cluster])
    assert "popdask.imagery.evaluation" in ran
    assert not ran & {"sklearn", "torch"}
