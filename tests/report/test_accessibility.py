"""A report for everybody: axe finds nothing, tables beside pictures, more than colours."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from popdask.config import SettlementsJob, load_job
from popdask.report import write_report
from popdask.report.places import figure_table
from popdask.workflow import settlements
from tests.pipelines.small import small_world
from tests.report.browsing import DESK, NIGHT, PHONE, findings, opened, without_table
from tests.report.reading import Page

#: Both layouts, and the colours of day and night.
WAYS = pytest.mark.parametrize("how", [NIGHT, PHONE], ids=["night", "phone"])


@pytest.fixture(scope="module")
def with_pictures(job_file):
    """The report that the job has written, with its figures."""
    return load_job(job_file).export_folder / "small_report.html"


@pytest.fixture(scope="module")
def of_settlements(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    small_world().write(folder / "frames")
    settings = {"name": "towns", "input": {"frames": f"{folder}/frames/world_{{time:%Y}}.tif"}}
    settings["output"] = {"store": str(folder / "towns.icechunk")}
    store = settlements.run(SettlementsJob.model_validate(settings)).store
    return write_report(store, folder / "towns_report.html")


@WAYS
def test_axe_finds_nothing(browser, axe, with_pictures, how):
    with opened(browser, with_pictures, **how) as page:
        assert findings(axe, page) == []
        page.locator("#table-places tbody tr").first.press("Enter")
        page.wait_for_selector("#chosen:not([hidden])")
        assert findings(axe, page) == []


def test_axe_finds_nothing_where_settlements_are_told(browser, axe, of_settlements):
    with opened(browser, of_settlements, **DESK) as page:
        assert findings(axe, page) == []


def test_a_place_is_picked_and_let_go_by_keys_alone(browser, written):
    with opened(browser, written, **DESK) as page:
        rows = page.locator("#table-places tbody tr")
        rows.nth(1).focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#chosen:not([hidden])")
        assert rows.nth(1).evaluate("(row) => row === document.activeElement")  # Tab goes on here
        page.keyboard.press("Escape")
        page.wait_for_selector("#chosen", state="hidden")
        before = page.input_value("#frame")
        page.focus("#frame")
        page.keyboard.press("ArrowLeft")
        assert int(page.input_value("#frame")) == int(before) - 1
        style = "(part) => getComputedStyle(part).outlineStyle"
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.locator(".bk-Figure:focus-within").count():
                break
        assert page.locator(".bk-Figure:focus-within").first.evaluate(style) == "solid"


def test_axe_finds_what_is_wrong(browser, axe, written):
    with opened(browser, written, **DESK) as page:
        page.evaluate("document.getElementById('frame').removeAttribute('aria-label')")
        assert {rule for rule, _ in findings(axe, page)} == {"label"}


def test_every_picture_has_a_table(browser, with_pictures):
    with opened(browser, with_pictures, **DESK) as page:
        page.locator("#table-places tbody tr").first.click()
        page.wait_for_selector("#chosen:not([hidden])")
        pictures = page.locator("#plot-map, .plot, figure")
        assert pictures.count() > 8
        assert without_table(page) == []


def test_the_map_in_numbers_is_what_is_drawn(written, region):
    page = Page(written.read_text(encoding="utf-8"))
    people = region.dataset()["population"].load()
    told = [row for row in rows_of(page, "The map in numbers") if row[0] == "Population"]
    assert [row[1] for row in told] == ["2000", "2001", "2002", "2003"]
    for row, frame in zip(told, people, strict=True):
        assert int(row[3].replace(",", "")) == int((frame > 0).sum())
        assert float(row[4].replace(",", "")) == pytest.approx(float(frame.max()), rel=1e-3)


def rows_of(page, label):
    """The rows of a table of the page, as texts."""
    regions = [at for at, found in enumerate(page.elements) if "aria-label" in found]
    first = next(at for at in regions if page.elements[at]["aria-label"] == label)
    last = next((at for at in regions if at > first), None)
    cells = [found["text"] for found in page.elements[first:last] if found["tag"] == "td"]
    width = sum(found["tag"] == "th" for found in page.elements[first:last])
    return [cells[at : at + width] for at in range(0, len(cells), width)]


def test_tracks_are_told_apart_by_more_than_colour(browser, written, region):
    tracks = sorted(set(region.table("tracks")["track"].tolist()))
    with opened(browser, written, **DESK) as page:
        told = page.evaluate("(all) => all.map((one) => [markOf(one), dashOf(one)])", tracks)
        get = "(name) => Bokeh.documents[0].get_model_by_name(name).data"
        spots, trails = page.evaluate(get, "spots"), page.evaluate(get, "trails")
    assert 10 < len(tracks) == len({str(pair) for pair in told}) <= 35
    assert len(set(spots["mark"])) == 7 and set(spots["mark"]) == {mark for mark, _ in told}
    assert {str(dash) for dash in trails["dash"]} <= {str(dash) for _, dash in told}


def test_a_figure_is_told_mark_by_mark():
    figure = Figure()
    above, below = figure.subplots(2)
    above.plot([1, 2], [30, 10], label="found")
    above.set_title("How many")
    below.bar(["a", "b"], [5, 7])
    below.scatter(np.arange(100), np.arange(100) / 2, label="cells")
    below.set_ylabel("people")
    assert figure_table(figure)["rows"] == [
        ("How many", "found", "1", "30"),
        ("How many", "found", "2", "10"),
        ("people", "bars", "a", "5"),
        ("people", "bars", "b", "7"),
        ("people", "cells", "100: 0 to 99", "100: 0 to 49.5"),
    ]
