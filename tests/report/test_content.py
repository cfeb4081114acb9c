"""What a report says is what the store has, as text, and in one file."""

import re

import numpy as np
import pytest

from popdask.errors import InputError
from popdask.report import write_report
from popdask.report.page import inline_json
from popdask.store import RegionStore
from tests.report.reading import Page, amounts


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text(encoding="utf-8"))


def test_communities_are_those_of_the_store(page, region):
    table = region.table("communities").sort_values(["time", "community"])
    found = page.tables["community"]["places"]
    times = region.dataset()["time"].values
    np.testing.assert_array_equal(times[found["frame"]], table["time"])
    assert found["community"] == table["community"].tolist()
    assert found["people"] == table["population"].tolist()
    assert found["area"] == table["area_km2"].tolist()
    assert found["cells"] == table["cells"].tolist()
    velocity = [np.nan if value is None else value for value in found["velocity"]]
    np.testing.assert_array_equal(velocity, table["velocity"])


def test_tracks_links_and_events_are_those_of_the_store(page, region):
    tracks, links, found = region.table("tracks"), region.table("links"), page.tables["community"]
    numbers = tracks.drop_duplicates(["time", "community"])
    assert found["places"]["track"] == numbers["track"].tolist()
    for name in ("source", "target", "people"):
        assert found["links"][name] == links[name].tolist()
    first = (tracks["event"] == "appear") & (tracks["time"] == tracks["time"].min())
    news = tracks[(tracks["event"] != "continue") & ~first]
    assert found["events"]["event"] == news["event"].tolist()
    assert found["events"]["parents"] == [list(parents) for parents in news["parent"]]


def test_the_map_shows_the_cells(page, region):
    arrays = region.dataset().load()
    for position in range(arrays.sizes["time"]):
        frame = arrays.isel(time=position)
        for layer in ("classes", "community"):
            np.testing.assert_array_equal(page.frame(layer, position)[0] - 1.0, frame[layer])
        shown = amounts(*page.frame("population", position))
        low = page.frame("population", position)[1]["low"]
        people = frame["population"].values
        np.testing.assert_array_equal(np.isnan(shown), np.isnan(people))
        np.testing.assert_array_equal(shown == 0, people == 0)
        np.testing.assert_allclose(shown[people > low], people[people > low], rtol=0.03)


def test_the_balance_and_the_record_are_told(page, region):
    cells = page.texts("td")
    for people in region.table("balance")["raster"]:
        assert f"{people:,.1f}" in cells
    for file in region.run_record()["inputs"].values():
        assert file["sha256"] in cells
    assert "communities.eps" in cells and "DBSCAN" not in page.texts("h1")
    assert "population" in cells and "all 4 frames" in cells


def test_nothing_is_loaded_from_elsewhere(written, page):
    for element in page.elements:
        for name in ("src", "href", "data", "action", "srcset"):
            assert not re.match(r"\s*(https?:)?//", element.get(name) or "")
        assert element["tag"] not in ("iframe", "object", "embed", "base")
    (style,) = page.texts("style")
    assert "@import" not in style and "url(" not in style


def test_texts_from_files_stay_texts(region, tmp_path):
    evil = "</script><script>hacked = 1</script><img src=x onerror=hacked=1>"
    record = {**region.run_record(), "name": evil}
    record["inputs"] = {evil: {"path": f"/data/{evil}", "sha256": evil}}
    path = write_report(region, tmp_path / "evil.html", record=record, credits=[evil])
    page = Page(path.read_text(encoding="utf-8"))
    assert page.texts("h1") == [evil] and page.texts("title") == [evil]
    assert evil in page.texts("p") and evil in page.texts("td")
    assert not any("onerror" in element for element in page.elements)
    assert not any("hacked" in text for text in page.texts("script"))
    assert "<" not in inline_json({"name": evil})


def test_the_same_store_gives_the_same_bytes(written, region, tmp_path):
    again = write_report(region, tmp_path / "again.html")
    assert again.read_bytes() == written.read_bytes()


def test_a_page_is_coarser_where_its_size_is_limited(written, region, tmp_path):
    most = written.stat().st_size
    assert write_report(region, tmp_path / "a.html", max_bytes=most).stat().st_size == most
    small = write_report(region, tmp_path / "b.html", max_bytes=most - 1)
    assert small.stat().st_size < most
    coarse, fine = (
        Page(path.read_text(encoding="utf-8")).setup["map"] for path in (small, written)
    )
    assert (fine["rows"], coarse["rows"]) == (66, 33)
    assert coarse["width"] == 2 * fine["width"]


def test_a_job_that_was_not_run_leaves_the_old_page(written, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(InputError, match="run the job first"):
        write_report(RegionStore(tmp_path / "nothing.icechunk"), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
