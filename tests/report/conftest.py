"""A finished job and its report, and a browser to look at it."""

import shutil

import pytest

from popdask.pipelines import communities
from popdask.report import write_report
from popdask.store import RegionStore
from tests.pipelines.small import job, small_world


@pytest.fixture(scope="session")
def small_job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    small_world().write(folder / "frames")
    settings = job(folder / "frames", folder / "small.icechunk")
    communities.run(settings)
    return settings


@pytest.fixture(scope="session")
def region(small_job):
    return RegionStore(small_job.output.store)


@pytest.fixture(scope="session")
def written(region, tmp_path_factory):
    """The report of the two towns."""
    return write_report(region, tmp_path_factory.mktemp("page") / "small_report.html")


@pytest.fixture(scope="session")
def chromium():
    """The path of a Chromium that is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    return found
