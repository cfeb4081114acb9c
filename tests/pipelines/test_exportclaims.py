"""Exports never meet inputs or the files of others, and leave what was changed since."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.store import RegionStore
from popdask.workflow import communities
from popdask.workflow.exports import Claims, check_writable, export_place, file_sum
from popdask.workflow.operations import report
from tests.pipelines.small import job

FORMATS = ("cog", "geotiff", "geoparquet", "gpkg", "stac", "report")
NAMES = ("small_population_2000.tif", "small.gpkg", "small_links.parquet")


def settings(frames, store, formats=("geoparquet",), **years):
    return job(frames, store, output={"export": formats}, input=years)


@pytest.fixture(scope="module")
def finished(frames, tmp_path_factory):
    done = settings(frames, tmp_path_factory.mktemp("done") / "small.icechunk", FORMATS, end="2001")
    communities.run(done)
    return done


@pytest.fixture
def copy(finished, frames, tmp_path):
    shutil.copytree(finished.output.store, tmp_path / "small.icechunk")
    shutil.copytree(finished.export_folder, tmp_path / "small")
    return settings(frames, tmp_path / "small.icechunk", FORMATS, end="2001")


def sums(folder):
    return {path.name: file_sum(path) for path in folder.iterdir() if path.is_file()}


def test_all_that_is_written_was_named_before(finished):
    files = communities.PIPELINE.files(finished, {})
    named = communities.PIPELINE.exports(finished, files)
    written = {path.name for path in finished.export_folder.iterdir()}
    assert set(named) == {name for name in written if not name.endswith(".aux.xml")}


def test_exports_of_the_names_of_inputs_are_refused(frames, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    for year in range(2000, 2004):
        shutil.copy(frames / f"world_{year}.tif", folder / f"small_population_{year}.tif")
    before = sums(folder)
    own = settings(frames, tmp_path / "small.icechunk", ("cog",))
    frames_there = own.input.model_copy(
        update={"frames": f"{folder}/small_population_{{year}}.tif"}
    )
    own = own.model_copy(update={"input": frames_there})
    for verb in (communities.plan, communities.run):
        with pytest.raises(InputError, match=r"2000\.tif is one of the job's inputs"):
            verb(own)
    assert sums(folder) == before
    assert not RegionStore(own.output.store).latest_records()


def test_frames_that_are_exports_of_the_same_region_are_inputs(copy):
    frames_there = copy.input.model_copy(
        update={"frames": f"{copy.export_folder}/small_population_{{year}}.tif"}
    )
    with pytest.raises(InputError, match="one of the job's inputs"):
        communities.run(copy.model_copy(update={"input": frames_there}), force=True)


@pytest.mark.parametrize("name", [*NAMES[1:], "small_classes_2000.tif", "small_report.html"])
def test_the_files_of_others_are_left_alone(frames, tmp_path, name):
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} is there already, and this region has not"):
        communities.run(settings(frames, tmp_path / "small.icechunk", FORMATS))
    assert (folder / name).read_text() == "mine"
    assert not RegionStore(tmp_path / "small.icechunk").latest_records()


@pytest.mark.parametrize("name", ["small.gpkg", "small_classes_2000.tif.aux.xml"])
def test_links_that_lead_nowhere_are_of_others(frames, tmp_path, name):
    link = tmp_path / "small" / name
    link.parent.mkdir()
    link.symlink_to("nowhere")
    own = settings(frames, tmp_path / "small.icechunk", FORMATS)
    for verb in (communities.plan, communities.run):
        with pytest.raises(InputError, match=f"{name} is there already, and this region has not"):
            verb(own)
    assert link.is_symlink() and not link.exists()


def test_a_page_of_others_is_no_report(copy, frames):
    page = copy.export_folder / "small_report.html"
    assert report(copy) == page
    page.write_text("<html>edited</html>")
    assert report(copy) == page and len(page.read_text()) > 1000  # it is on record
    folder = copy.export_folder.with_name("elsewhere")
    folder.mkdir()
    (folder / page.name).write_text("<html>mine</html>")
    communities.run(settings(frames, copy.output.store, ("geoparquet",), end="2001"))
    output = copy.output.model_copy(update={"export": (), "folder": str(folder)})
    with pytest.raises(InputError, match="no report of popdask's"):
        report(copy.model_copy(update={"output": output}))
    assert (folder / page.name).read_text() == "<html>mine</html>"


def test_what_was_changed_is_neither_replaced_nor_taken_away(copy, frames):
    folder = copy.export_folder
    table, raster = folder / "small_links.parquet", folder / "small_classes_2000.tif"
    table.write_text("edited")
    raster.write_text("edited")
    longer = settings(frames, copy.output.store, FORMATS)
    with pytest.raises(InputError, match=r"small_links\.parquet was changed since it was written"):
        communities.run(longer)
    assert table.read_text() == "edited"
    communities.run(settings(frames, copy.output.store, ("gpkg",), end="2001"))
    left = {path.name for path in folder.iterdir()}
    assert left == {"small.gpkg", table.name, raster.name, f"{raster.name}.aux.xml"}


def test_force_replaces_what_was_changed(copy, frames):
    tables = settings(frames, copy.output.store, ("geoparquet",), end="2001")
    communities.run(tables)
    table = copy.export_folder / "small_links.parquet"
    before = file_sum(table)
    table.write_text("edited")
    communities.run_only(tables, "export", force=True)
    assert file_sum(table) == before


def test_a_run_that_was_stopped_while_it_wrote_goes_on(frames, tmp_path):
    own = settings(frames, tmp_path / "small.icechunk", end="2001")
    communities.run(own.model_copy(update={"output": own.output.model_copy(update={"export": ()})}))
    store = RegionStore(own.output.store)
    with store.lock():
        store.begin(store.dataset()).note("export", {"writing": ["small_links.parquet"]})
    own.export_folder.mkdir()
    (own.export_folder / "small_links.parquet").write_text("of the stopped run")
    communities.run(own)
    written = store.records()["export"]["written"]
    assert written == {name: file_sum(own.export_folder / name) for name in written}


KINDS = ("absent", "free", "foreign", "own", "changed", "input", "begun", "dangling")


@how(max_examples=60)
@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(KINDS), min_size=1))
def test_only_its_own_unchanged_files_are_touched(kinds):
    with TemporaryDirectory() as place:
        folder, written, inputs = Path(place, "out"), {}, set()
        folder.mkdir()
        for name, kind in kinds.items():
            if kind == "dangling":
                (folder / name).symlink_to("nowhere")
            elif kind not in ("absent", "free"):
                (folder / name).write_text(name)
            if kind in ("own", "changed", "absent", "dangling"):
                written[name] = {"size": len(name), "sha256": "0"}
            if kind == "own":
                written[name] = file_sum(folder / name)
            if kind == "input":  # by another name
                os.link(folder / name, Path(place, name))
                inputs.add(str(Path(place, name)))
                written[name] = file_sum(folder / name)
        begun = [name for name, kind in kinds.items() if kind == "begun"]
        records = {"export": {"written": written, "writing": begun}}
        output = {"store": f"{place}/small.icechunk", "folder": str(folder)}
        where = export_place(job(place, output["store"], output=output))
        claims = Claims(where, records, inputs)
        for name, kind in kinds.items():
            if kind in ("foreign", "input", "dangling"):
                with pytest.raises(InputError):
                    claims.free([name])
                assert not claims.is_removable(name)
            elif kind == "changed":
                assert claims.free([name]) == []
                with pytest.raises(InputError, match="was changed"):
                    claims.check_unchanged(name)
                assert not claims.is_removable(name)
            else:
                assert claims.free([name]) == ([name] if kind == "free" else [])
                claims.check_unchanged(name)
                assert claims.is_removable(name) == (kind != "begun")


@pytest.mark.parametrize("kind", ["pipe", "file", "/proc/exports", "/dev/null/exports"])
def test_a_place_that_takes_no_files_is_refused_before_anything_is_computed(frames, tmp_path, kind):
    place = Path(kind) if kind.startswith("/") else tmp_path / "exports"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "file":
        place.touch()
    output = {"export": ["cog"], "folder": str(place)}
    with pytest.raises(InputError, match=r"exports.* cannot be written .*give \[output\] folder"):
        communities.run(job(frames, tmp_path / "small.icechunk", output=output))
    assert not RegionStore(tmp_path / "small.icechunk").exists()


def test_a_stage_that_exports_nothing_needs_no_place_for_exports(frames, tmp_path):
    place, blocked = tmp_path / "exports", tmp_path / "file"
    blocked.touch()
    for folder in (place / "deep", blocked):
        output = {"export": ["cog"], "folder": str(folder)}
        there = job(frames, tmp_path / "small.icechunk", output=output)
        if folder is not blocked:
            check_writable(there, ["a name"])
        communities.run_only(there, "population", force=True)
        assert not place.exists()
