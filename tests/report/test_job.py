"""The report as a job's own: its export, and the command that writes it again."""

import pytest

from popdask import cli
from popdask.pipelines import communities
from popdask.pipelines.credits import credits_of
from popdask.pipelines.verify import verify
from popdask.store import RegionStore
from popdask.synthetic import moving_cities
from tests.pipelines.small import job, small_world, write_job
from tests.report.reading import Page


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    small_world().write(folder)
    return folder


@pytest.fixture(scope="module")
def place(frames, tmp_path_factory):
    """A job that was run with the report among its exports, and its file."""
    folder = tmp_path_factory.mktemp("job")
    tables = {"output": {"export": ["report"]}}
    communities.run(job(frames, folder / "small.icechunk", **tables))
    return write_job(folder / "small.toml", frames, folder / "small.icechunk", **tables)


def test_a_run_leaves_its_report(place):
    page = Page((place.parent / "small" / "small_report.html").read_text(encoding="utf-8"))
    region = RegionStore(place.parent / "small.icechunk")
    assert page.texts("h1") == ["small"]
    assert len(page.tables["communities"]["people"]) == len(region.table("communities"))
    captions = [text for text in page.texts("b") if text.endswith(".")]
    assert "How many classes." in captions and "How the encoder learned." in captions
    assert len(captions) == 7


def test_the_command_writes_the_same_page(place, monkeypatch, capsys):
    path = place.parent / "small" / "small_report.html"
    before = path.read_bytes()
    path.write_text("lost")
    monkeypatch.setattr("sys.argv", ["popdask", "report", str(place)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code and str(path) in capsys.readouterr().out.replace("\n", "")
    assert path.read_bytes() == before
    assert not verify(cli.load_job(place)).differences


def test_a_lost_report_is_written_again(place):
    path = place.parent / "small" / "small_report.html"
    path.unlink()
    settings = cli.load_job(place)
    assert [stage.name for stage in communities.plan(settings) if not stage.done] == ["export"]
    communities.run(settings)
    assert path.exists()


def test_credits_are_those_in_the_files(frames, tmp_path):
    import rasterio

    moving_cities(seed=0).write(tmp_path)
    first, second = sorted(tmp_path.glob("*.tif"))[:2]
    with rasterio.open(first, "r+") as file:
        file.update_tags(source="Statistics Nowhere", license="CC BY 4.0")
    inputs = {name: {"path": str(path)} for name, path in (("a", first), ("b", second))}
    found = credits_of({"inputs": {**inputs, "c": {"path": "/not/there.tif"}}})
    assert found == ["Statistics Nowhere", "CC BY 4.0"]
