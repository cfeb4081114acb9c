"""Frames that lie apart are named before and after a run, and moved by whole cells on request."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin
from typer.testing import CliRunner

from popdask.cli import commands
from popdask.config import SettlementsJob
from popdask.store import RegionStore
from popdask.workflow import communities, frames, settlements
from popdask.workflow.operations import verify
from popdask.workflow.progress import Reporter
from tests.pipelines import small
from tests.tracking.worlds import country, moved

DATA = Path(os.environ.get("POPDASK_DATA", "../shared/data"))
SHIFT = (2, -3)  # of 2001, down and to the right
HINT = '([input] register = "shift")'


class Notes(Reporter):
    """Remembers what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def write_frame(path, people):
    profile = {"width": people.shape[1], "height": people.shape[0], "count": 1, "dtype": "float32"}
    grid = {"crs": "EPSG:3035", "transform": from_origin(4_000_000, 3_000_000, 1000, 1000)}
    with rasterio.open(path, "w", "GTiff", nodata=np.nan, **profile, **grid) as file:
        file.write(people, 1)


@pytest.fixture(scope="module")
def displaced(tmp_path_factory):
    """Four years of one country, of which 2001 lies elsewhere."""
    folder = tmp_path_factory.mktemp("displaced")
    people = country((90, 80))
    for year in range(2000, 2004):
        shift = SHIFT if year == 2001 else (0, 0)
        write_frame(folder / f"world_{year}.tif", moved(people, *shift))
    return folder


def people_of(folder, year):
    with rasterio.open(folder / f"world_{year}.tif") as file:
        return file.read(1)


def test_plan_and_run_name_frames_that_lie_apart(displaced, tmp_path):
    settings = small.job(displaced, tmp_path / "apart.icechunk")
    first, second = communities.plan(settings).warnings
    assert first.startswith("2000 lies 2.0 cells north and 3.0 cells east of 2001: ")
    assert second.startswith("2001 lies 2.0 cells south and 3.0 cells west of 2002: ")
    assert first.endswith(HINT) and second.endswith(HINT)
    read, again = Notes(), Notes()
    communities.run_only(settings, "population", read)
    assert read.notes == [first, second]
    communities.run(settings, Notes())
    communities.run(settings, again)
    assert again.notes == [first, second], "from the record"
    path = small.write_job(tmp_path / "job.toml", displaced, tmp_path / "apart.icechunk")
    shown = CliRunner().invoke(commands.app, ["plan", str(path)])
    assert shown.exit_code == 0 and first in shown.output and second in shown.output


def test_a_job_of_settlements_names_them_again_too(displaced, tmp_path):
    settings = SettlementsJob(
        name="apart",
        pipeline="settlements",
        input={"frames": f"{displaced}/world_{{time:%Y}}.tif", "end": "2001"},
        output={"store": str(tmp_path / "apart.icechunk")},
    )
    read, again = Notes(), Notes()
    settlements.run_only(settings, "population", read)
    settlements.run(settings)
    settlements.run(settings, again)
    assert again.notes == read.notes == list(settlements.plan(settings).warnings)
    (only,) = again.notes
    assert only.startswith("2000 lies 2.0 cells north") and only.endswith(HINT)


def test_frames_in_place_are_not_named(displaced, tmp_path):
    settings = small.job(displaced, tmp_path / "place.icechunk", input={"start": "2002"})
    assert communities.plan(settings).warnings == ()


def test_a_plan_of_too_many_cells_leaves_it_to_the_run(displaced, tmp_path):
    settings = small.job(displaced, tmp_path / "large.icechunk")
    files = communities.PIPELINE.files(settings, {})
    assert len(frames.displacements(settings, files, {}, most_cells=4 * 90 * 80)) == 3
    assert frames.displacements(settings, files, {}, most_cells=100).empty


@pytest.fixture(scope="module")
def registered(displaced, tmp_path_factory):
    store = tmp_path_factory.mktemp("registered") / "small.icechunk"
    settings = small.job(displaced, store, input={"register": "shift"})
    return settings, communities.run(settings)


def test_a_frame_is_moved_on_request_and_nobody_gets_lost(displaced, registered):
    settings, outcome = registered
    population = outcome.store.dataset()["population"]
    for year in range(2000, 2004):
        people = people_of(displaced, year)
        back = moved(people, *(-cells for cells in SHIFT)) if year == 2001 else people
        stored = population.sel(time=str(year)).squeeze()
        np.testing.assert_array_equal(stored.fillna(0), back)
    total = [people_of(displaced, year).sum(dtype=np.float64) for year in range(2000, 2004)]
    balance = outcome.balance
    np.testing.assert_allclose(balance["raster"] + balance["beyond"], total, rtol=1e-12)
    assert (balance["beyond"] == 0).all(), "the frame had lost them before"
    moves = outcome.store.run_record()["moved"]
    assert moves == {"2001-01-01T00:00:00": {"dy": -2, "dx": 3, "beyond": 0.0}}
    (said,) = communities.plan(settings).warnings
    assert said == "2001 is moved by 2 cells north and 3 cells east, to where most frames lie"
    assert verify(settings).differences == ()


def test_a_second_run_has_nothing_to_do_and_an_appended_frame_moves_no_other(displaced, tmp_path):
    store = tmp_path / "append.icechunk"
    tables = {"flow": {"centering": (0, 0, -1)}}
    early = small.job(displaced, store, input={"register": "shift", "end": "2002"}, **tables)
    communities.run(early)
    assert communities.run(early).plan.done
    whole = small.job(displaced, store, input={"register": "shift"}, **tables)
    plan = communities.plan(whole)
    assert [str(plan[name]) for name in ("population", "classes")] == ["1 of 4 frames"] * 2


def test_those_who_leave_the_grid_are_counted(tmp_path):
    """The frame that holds more than the others' grid, so that moving it costs people."""
    large = country((96, 88))
    for year in range(2000, 2003):
        top, left = (4, 5) if year == 2001 else (0, 0)
        write_frame(tmp_path / f"world_{year}.tif", large[top : top + 90, left : left + 80])
    settings = small.job(tmp_path, tmp_path / "out.icechunk", input={"register": "shift"})
    communities.run(settings)
    outcome = communities.run(settings)
    file = people_of(tmp_path, 2001).astype(np.float64)
    beyond = file.sum() - file[:86, :75].sum()
    assert beyond > 0
    np.testing.assert_array_equal(outcome.balance["beyond"], [0, beyond, 0])
    np.testing.assert_allclose(outcome.balance["raster"][1] + beyond, file.sum(), rtol=1e-12)
    np.testing.assert_allclose(outcome.balance["missing"], [0, 1 - 86 * 75 / (90 * 80), 0])
    path = small.write_job(
        tmp_path / "job.toml", tmp_path, tmp_path / "out.icechunk", input={"register": "shift"}
    )
    shown = CliRunner().invoke(commands.app, ["run", str(path)])
    said = " ".join(shown.output.split())
    assert "2001 is moved by 4 cells south and 5 cells east, to where most frames lie" in said
    assert f"{beyond:,.0f} people of 2001 lie beyond the grid" in said
    assert "2001 has no data in 10.4 % of its cells" in said


@pytest.mark.parametrize(
    ("steps", "moves"),
    [
        ([(0, 0), (0, 0)], {}),
        ([(0.1, -4.02), (-0.1, 4.03)], {2001: (0, 4)}),
        ([(3, 0), (0, 0)], {2000: (3, 0)}),
        ([(3, 0)], {2001: (-3, 0)}),
        ([(0, 1), (0, 1)], {2001: (0, -1), 2002: (0, -2)}),
        ([(np.nan, np.nan), (0, 2)], {2002: (0, -2)}),
    ],
)
def test_frames_move_to_where_most_lie_the_earliest_where_as_many(displaced, steps, moves):
    years = pd.to_datetime([f"{2000 + i}" for i in range(len(steps) + 1)])
    table = pd.DataFrame(steps, columns=["dy", "dx"]).assign(time=years[:-1], next=years[1:])
    table = table.assign(suspicious=np.hypot(table["dy"], table["dx"]) >= 0.5, part=False)
    settings = small.job(displaced, "nowhere.icechunk", input={"register": "shift"})
    found = frames.frame_shifts(settings, table)
    assert {int(time[:4]): shift for time, shift in found.items()} == moves
    assert frames.frame_shifts(small.job(displaced, "nowhere.icechunk"), table) == {}


def test_a_part_of_a_cell_is_told_as_one_and_moves_no_frame(tmp_path):
    """More than half a cell, which would be rounded to a whole one."""
    mean, part = country((300, 280)).astype(float), 0.55
    aside = (1 - part) * mean + part * np.roll(mean, 1, axis=1)
    for year, law in ((2000, mean), (2001, aside)):
        people = np.random.default_rng(year).poisson(law).astype("float32")
        write_frame(tmp_path / f"world_{year}.tif", people)
    for register in (None, "shift"):
        settings = small.job(tmp_path, tmp_path / "out.icechunk", input={"register": register})
        files = communities.PIPELINE.files(settings, {})
        table = frames.displacements(settings, files, {})
        assert table["dx"].round().tolist() == [1] and table["part"].all()
        assert frames.frame_shifts(settings, table) == {}
        (said,) = frames.apart_warnings(settings, table)
        assert "2000 lies 0.5 cells west of 2001: " in said and said.endswith("give finer cells")


@pytest.mark.skipif(not DATA.exists(), reason="the data for tests are not here")
def test_a_year_of_oslo_that_lies_4_cells_east_is_brought_back(tmp_path):
    years, true = (2002, 2003, 2004), {}
    for year in years:
        with rasterio.open(DATA / "oslo_250m" / f"oslo_pop_250m_{year}.tif") as file:
            true[year], profile = file.read(1), file.profile
        people = moved(true[year], 0, 4) if year == 2003 else true[year]
        with rasterio.open(tmp_path / f"world_{year}.tif", "w", **profile) as file:
            file.write(people, 1)
    settings = small.job(tmp_path, tmp_path / "oslo.icechunk")
    first, second = communities.plan(settings).warnings
    assert first.startswith("2002 lies 4.0 cells west of 2003: ")
    assert second.startswith("2003 lies 4.0 cells east of 2004: ")
    registered = small.job(tmp_path, tmp_path / "oslo.icechunk", input={"register": "shift"})
    communities.run_only(registered, "population")
    stored = RegionStore(registered.output.store).dataset("work")["population"]
    for year in years:
        inside = slice(0, -4 if year == 2003 else None)
        here = stored.sel(time=str(year)).squeeze().values
        np.testing.assert_array_equal(here[:, inside], true[year][:, inside])
