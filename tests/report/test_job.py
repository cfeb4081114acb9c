"""The report as a job's own: its export, the command that writes it again, and its credits."""

import os
import subprocess
import sys

import pytest
import rasterio

from popdask.config import load_job
from popdask.workflow.inputs import credits_of
from popdask.workflow.operations import verify
from tests.pipelines.small import small_world
from tests.report.reading import Page


@pytest.fixture
def exported(job_file):
    return load_job(job_file).export_folder / "small_report.html"


def test_a_run_leaves_its_report(exported, region):
    page = Page(exported.read_text(encoding="utf-8"))
    assert page.texts("h1") == ["small"]
    assert len(page.tables["community"]["places"]["people"]) == len(region.table("communities"))
    captions = [text for text in page.texts("b") if text.endswith(".")]
    assert "How many classes." in captions and "How the encoder learned." in captions
    assert len(captions) == 9


def test_the_command_writes_the_same_bytes(exported, job_file):
    before = exported.read_bytes()
    exported.write_text("lost")
    command = [sys.executable, "-m", "popdask", "report", str(job_file)]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "COLUMNS": "500"}
    said = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert str(exported) in said.stdout
    assert exported.read_bytes() == before
    assert not verify(load_job(job_file)).differences


def test_credits_are_those_in_the_files(tmp_path):
    small_world().write(tmp_path)
    first, second, *_ = sorted(tmp_path.glob("*.tif"))
    with rasterio.open(first, "r+") as file:
        file.update_tags(source="Statistics Nowhere", license="CC BY 4.0")
    inputs = {name: {"path": str(path)} for name, path in (("a", first), ("b", second))}
    found = credits_of({"inputs": {**inputs, "c": {"path": "/not/there.tif"}}})
    assert found == ["Statistics Nowhere", "CC BY 4.0"]
