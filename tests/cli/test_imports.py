"""A command imports what it needs: those that only look load nothing that computes or draws."""

import subprocess
import sys

import pytest

from popdask.config import load_job
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
from popdask.cli import entry
try:
    entry.main()
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *sorted(sys.modules))
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The file of a job that was run."""
    folder = tmp_path_factory.mktemp("imports")
    small.small_world().write(folder)
    tables = {"settlements": {"find": True, "names": "geonames"}, "output": {"export": ["cog"]}}
    file = small.write_job(folder / "job.toml", folder, folder / "store.icechunk", **tables)
    communities.run(load_job(file))
    return file


@pytest.mark.parametrize("command", MAY_IMPORT)
def test_a_command_imports_what_it_needs(command, job):
    words = [command] if command.startswith("--") else [command, str(job)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.rpartition("imported:")[2].split())
    assert "popdask.cli.commands" in imported
    assert imported & HEAVY <= MAY_IMPORT[command]
