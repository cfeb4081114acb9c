"""A finished job and its report, and a browser to look at it."""

import shutil

import pytest

from popdask.config import load_job
from popdask.report import write_report
from popdask.store import RegionStore
from popdask.workflow import communities
from tests.pipelines.small import small_world, write_job


@pytest.fixture(scope="session")
def job_file(tmp_path_factory):
    """The file of a job that was run, with the report among its exports."""
    folder = tmp_path_factory.mktemp("report")
    small_world().write(folder / "frames")
    tables = {"output": {"export": ["report"]}, "classes": {"k": "auto", "sample": 500}}
    tables["communities"] = {"min_density": 0}  # many, for all marks
    path = write_job(folder / "small.toml", folder / "frames", folder / "small.icechunk", **tables)
    communities.run(load_job(path))
    return path


@pytest.fixture(scope="session")
def region(job_file):
    return RegionStore(load_job(job_file).output.store)


@pytest.fixture(scope="session")
def written(region, tmp_path_factory):
    """The report of the two towns, without pictures."""
    return write_report(region, tmp_path_factory.mktemp("page") / "small_report.html")


@pytest.fixture(scope="session")
def browser():
    """A Chromium that is installed on this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe():
    return pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
