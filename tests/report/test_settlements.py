"""The report of a settlements job in a browser: places by name, ranked, filtered and followed."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from popdask.config import CommunitiesJob, SettlementsJob
from popdask.report import write_report
from popdask.workflow import communities, settlements
from tests.report.browsing import DESK, PHONE, choose, opened
from tests.report.reading import Page

TRANSFORM = from_origin(4_000_000, 3_300_000, 1000, 1000)
PLACES = {
    "Storby": (105, 104),
    "Nærby": (112, 105),
    "Fjernby": (200, 220),
    "Midtby": (102, 103),
}  # column, row


def country(frame):
    """A city, a suburb that grows and joins it in the last frame, and a town far away."""
    people = np.zeros((300, 300), np.float32)
    people[100:108, 100:108] = 2000
    people[104:107, 111:114] = 1500 * 1.1**frame
    people[219:222, 199:202] = 1200 * 0.9**frame
    if frame == 2:
        people[105, 108:111] = 900
    return people


def write_country(folder):
    """The frames, and the places that settlements are called after."""
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "crs": "EPSG:3035"}
    profile |= {"height": 300, "width": 300, "transform": TRANSFORM}
    for frame in range(3):
        with rasterio.open(folder / f"pop_{2000 + frame}.tif", "w", **profile) as file:
            file.write(country(frame), 1)
    x, y = np.array([TRANSFORM @ at for at in PLACES.values()]).T
    points = gpd.GeoDataFrame(
        {"name": list(PLACES), "population": [90_000, 9_000, 9_000, 500]},
        geometry=gpd.points_from_xy(x, y, crs="EPSG:3035"),
    )
    points.to_file(folder / "places.gpkg")


def job(folder, store, **tables):
    """The job on that country."""
    found = {
        "name": "country",
        "input": {"frames": f"{folder}/pop_{{time:%Y}}.tif"},
        "settlements": {"names": f"{folder}/places.gpkg"},
        "output": {"store": str(store)},
    }
    for name, table in tables.items():
        found[name] = found[name] | table if isinstance(table, dict) else table
    return SettlementsJob.model_validate(found)


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    folder = tmp_path_factory.mktemp("country")
    write_country(folder)
    return settlements.run(job(folder, folder / "country.icechunk")).store


@pytest.fixture(scope="module")
def page(region, tmp_path_factory):
    return write_report(region, tmp_path_factory.mktemp("page") / "country_report.html")


def names(page):
    return set(page.locator("#called span").all_inner_texts())


def wait_for_names(page, expected):
    page.wait_for_function(
        "([...names]) => {const found = new Set([...document.querySelectorAll('#called span')]"
        ".map((span) => span.textContent));"
        "return found.size === names.length && names.every((name) => found.has(name));}",
        arg=list(expected),
    )


def test_names_come_with_room_and_with_people(browser, page):
    with opened(browser, page, **DESK) as shown:
        assert shown.locator(".layers input:checked").input_value() == "settlement"
        shown.evaluate("location.hash = '2000'")
        wait_for_names(shown, ["Storby", "Fjernby"])  # no room for what lies beside the city
        shown.evaluate(
            "() => {const {x_range: x, y_range: y} = report.map();"
            "x.setv({start: 90, end: 130}); y.setv({start: 180, end: 214});}"
        )
        wait_for_names(shown, ["Storby", "Nærby"])
        shown.locator("#size").select_option("20000")
        wait_for_names(shown, ["Storby"])
        rows = shown.locator("#table-places tbody tr")
        assert rows.count() == 1 and "Storby" in rows.first.inner_text()
        shown.locator("#names").uncheck()
        wait_for_names(shown, [])


def test_a_name_at_the_edge_is_written_inward_and_whole(browser, page):
    with opened(browser, page, **DESK) as shown:
        shown.evaluate(
            "() => {const {x_range: x, y_range: y} = report.map(); location.hash = '2000';"
            "x.setv({start: 100, end: 201}); y.setv({start: 40, end: 120});}"
        )
        wait_for_names(shown, ["Fjernby"])  # its middle is at 200.5
        name, canvas = (
            shown.locator(at).bounding_box() for at in ("#called span", "#part-map .canvas")
        )
        assert name["x"] > canvas["x"]
        assert name["x"] + name["width"] < canvas["x"] + canvas["width"]


def test_rankings_lead_to_places(browser, page, region):
    table = region.table("settlements")
    now = table[table["time"] == table["time"].max()].set_index("name")["population"]
    with opened(browser, page, **DESK) as shown:
        lists = shown.locator("#rankings ol")
        largest = [text.split("\n")[0] for text in lists.nth(0).locator("li").all_inner_texts()]
        assert largest == now.sort_values(ascending=False).index.tolist() == ["Storby", "Fjernby"]
        told = shown.locator("#rankings").inner_text()
        assert "Shrinking fastest since their first year" in told
        assert lists.last.inner_text().split() == ["Fjernby", "−10.0", "%"]
        lists.last.locator("a").click()
        shown.wait_for_selector("#about h3:has-text('Fjernby of 2002')")
        assert shown.locator("dd[data-fact='people']").inner_text() == f"{now['Fjernby']:,.0f}"
        assert shown.locator("dd[data-fact='growth']").inner_text() == "−10.0 % per year"


def test_what_merged_is_told_by_name(browser, page):
    with opened(browser, page, **DESK) as shown:
        shown.locator("#table-events input").fill("merge")
        (row,) = shown.locator("#table-events tbody tr").all()
        assert all(word in row.inner_text() for word in ("Storby", "Nærby", "merged"))
        lanes = shown.evaluate(
            "Bokeh.documents[0].get_model_by_name('lanes-settlement')"
            ".left[0].major_label_overrides instanceof Map ? "
            "[...Bokeh.documents[0].get_model_by_name('lanes-settlement').left[0]"
            ".major_label_overrides.values()] : null"
        )
        assert set(lanes) == {"Storby", "Nærby"}


def test_a_town_that_another_names_is_found(browser, page):
    with opened(browser, page, **DESK) as shown:
        shown.locator("#table-places input").fill("midtby")
        shown.locator("#table-places tbody tr").click()
        shown.wait_for_selector("#about h3:has-text('Storby of 2002')")
        told = shown.locator("dd[data-fact='largest places in it']").inner_text()
        assert told == "Storby, Nærby, Midtby"


def test_a_number_is_found_whole(browser, page):
    with opened(browser, page, **DESK) as shown:
        find, rows = shown.locator("#table-events input"), shown.locator("#table-events tbody tr")
        everything = rows.count()
        find.fill("00")
        assert everything > 0 and rows.count() == 0
        find.fill("2001")
        assert 0 < rows.count() < everything
        people = rows.first.locator("td").nth(3).inner_text()
        find.fill(people)
        assert rows.count() > 0
        find.fill(people.replace(",", ""))
        assert rows.count() > 0


@pytest.mark.parametrize("how", [DESK, PHONE], ids=["desk", "phone"])
def test_the_map_fits_its_window_and_has_a_scale_in_km(browser, page, how):
    inside = """() => {
      const {x_range: x, y_range: y, inner_width, inner_height} = report.map();
      const [wide, high] = report.grid.size;
      const square = (x.end - x.start) / inner_width - (y.end - y.start) / inner_height;
      const whole = x.start <= 0.1 && y.start <= 0.1 && x.end >= wide - 0.1 && y.end >= high - 0.1;
      const tight = Math.min((x.end - x.start) / wide, (y.end - y.start) / high) < 1.01;
      return whole && tight && Math.abs(square) < 1e-6;
    }"""
    with opened(browser, page, **how) as shown:
        shown.wait_for_function(inside)
        size = shown.viewport_size
        shown.set_viewport_size({"width": size["width"] * 3 // 4, "height": size["height"] // 2})
        shown.wait_for_function(inside)
        shown.locator("#closer").click()
        assert not shown.evaluate(inside)
        shown.set_viewport_size(size)
        shown.locator("#whole").click()
        shown.wait_for_function(inside)
        scale = "Bokeh.documents[0].get_model_by_name('scale')"
        assert shown.evaluate(f"[{scale}.unit, ...{scale}.dimensional.include]") == [
            "km",
            "m",
            "km",
        ]


def test_geonames_is_credited_where_its_names_are(page, region, tmp_path):
    assert "GeoNames" not in " ".join(Page(page.read_text("utf-8")).texts("p"))
    record = region.run_record()
    record["settings"]["settlements"]["names"] = "geonames"
    credited = write_report(region, tmp_path / "credited.html", record=record)
    (credit,) = [text for text in Page(credited.read_text("utf-8")).texts("p") if "Geo" in text]
    assert credit.strip() == "Names of places: GeoNames (https://www.geonames.org), CC BY 4.0."


def test_communities_and_centres_are_layers_that_one_switches_to(browser, region, tmp_path):
    write_country(tmp_path)
    tables = job(tmp_path, tmp_path / "both.icechunk").model_dump(exclude_unset=True)
    tables |= {
        "settlements": {**tables["settlements"], "centres": True},
        "encoder": {"epochs": 2},
        "classes": {"k": 3, "sample": 2000},
        "communities": {"eps": 2, "min_samples": 4},
    }
    tables["pipeline"] = "communities"
    store = communities.run(CommunitiesJob.model_validate(tables)).store
    path = write_report(store, tmp_path / "both.html")
    with opened(browser, path, **DESK) as shown:
        offered = shown.locator(".layers span").all_inner_texts()
        assert offered == ["Settlements", "Population", "Urban centres", "Communities", "Classes"]
        assert shown.locator("#rankings li").count() > 0
        for layer, many in (("community", "communities"), ("urban_centre", "urban centres")):
            choose(shown, layer)
            shown.wait_for_function(f"report.drawn === '{layer}-2'")
            assert (
                shown.locator("#table-places input")
                .get_attribute("placeholder")
                .endswith(f"Find in {many} …")
            )
            assert shown.locator(f"[data-followed={layer}]").is_visible()
            assert not shown.locator("[data-followed=settlement]").is_visible()
            shown.locator("#table-places tbody tr").first.click()
            shown.wait_for_selector("#chosen:not([hidden])")
            assert shown.evaluate("location.hash").endswith(f"/{layer}")
            assert shown.locator("#plot-velocity").is_visible() == (layer == "community")
            assert shown.locator("#about h3").inner_text().endswith(" of 2002")
        shown.evaluate("location.hash = '2000/0'")
        shown.wait_for_selector("#about h3:has-text('Storby of 2000')")
        shown.wait_for_function("report.drawn === 'settlement-0'")


@pytest.mark.parametrize(("frames", "people"), [(1, 900), (1, 1), (3, 1)])
def test_one_frame_has_no_history_and_an_empty_country_no_settlements(
    browser, tmp_path, frames, people
):
    values = np.ones((300, 300), np.float32)
    values[100:103, 100:103] = people
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "crs": "EPSG:3035"}
    profile |= {"height": 300, "width": 300, "transform": TRANSFORM}
    for frame in range(frames):
        with rasterio.open(tmp_path / f"pop_{2000 + frame}.tif", "w", **profile) as file:
            file.write(values, 1)
    outcome = settlements.run(job(tmp_path, tmp_path / "x.icechunk", settlements={"names": None}))
    path = write_report(outcome.store, tmp_path / "x.html")
    with opened(browser, path, **DESK) as shown:
        lead = "Settlements found" if people > 1 else "No settlements found"
        assert lead in shown.locator("body").inner_text()
        assert shown.locator("#table-places tbody tr").count() == (people > 1)
        assert shown.locator("#part-timeline, #table-events").count() == (2 if frames > 1 else 0)
        if frames > 1:  # a sentence stands where chart and table would be empty
            quiet = "In these 3 years no settlement appeared where hardly anyone lived, vanished,"
            assert quiet in shown.locator("#part-timeline").inner_text()
            assert not shown.locator("#table-events table").is_visible()
        # Every chart has its place: Bokeh puts those that have none at the end of the page.
        assert shown.locator("body > .bk-Figure").count() == 0
        if people > 1:
            shown.locator("#table-places tbody tr").click()
            shown.wait_for_selector("#about h3:has-text('of 2000')")
            assert "follow" not in shown.locator("#about").inner_text()
