"""A report in a real browser, opened from disk: on a desk, on a phone, by night."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from popdask.report import write_report
from popdask.store import RegionStore
from popdask.workflow import communities
from tests.pipelines.small import job
from tests.report.browsing import DESK, PHONE, choose, opened, redrawn


def move_slider(page, frame):
    slider = page.locator("#frame")
    slider.focus()
    slider.press("Home")
    for _ in range(frame):
        slider.press("ArrowRight")


def place_of(page, region, time, community):
    """Where on the screen a cell in the midst of a community is."""
    labels = region.dataset()["community"].sel(time=time).values
    rows, cols = np.nonzero(labels == community)
    middle = np.argmin((rows - np.median(rows)) ** 2 + (cols - np.median(cols)) ** 2)
    page.locator("#part-map .canvas").scroll_into_view_if_needed()
    return page.evaluate(
        """([row, col]) => {
          const plot = report.map(), {rows, width, height} = report.grid;
          const box = document.getElementById("plot-map").getBoundingClientRect();
          const share = (value, range) => (value - range.start) / (range.end - range.start);
          const x = share((col + 0.5) * width, plot.x_range);
          const y = share((rows - row - 0.5) * height, plot.y_range);
          return [box.left + x * box.width, box.bottom - y * box.height];
        }""",
        [int(rows[middle]), int(cols[middle])],
    )


def check_panel(page, row, year):
    page.wait_for_selector(f"#about h3:has-text('Community {row.community} of {year}')")
    facts = {name: page.locator(f"dd[data-fact='{name}']").inner_text() for name in FACTS}
    assert facts["people"] == f"{row.population:,.0f}"
    assert facts["cells"] == f"{row.cells:,}"
    assert float(facts["area"].split()[0].replace(",", "")) == pytest.approx(row.area_km2, abs=0.06)


FACTS = ("people", "cells", "area")


def largest(region, time):
    table = region.table("communities")
    return table[table["time"] == time].sort_values("population").iloc[-1]


@pytest.mark.parametrize("how", [DESK, PHONE], ids=["desk", "phone"])
def test_a_community_is_found_on_the_map(browser, written, region, how):
    time = region.dataset()["time"].values[1]
    row = largest(region, time)
    with opened(browser, written, **how) as page:
        move_slider(page, 1)
        page.wait_for_function("document.querySelector('output').textContent === '2001'")
        x, y = place_of(page, region, time, row.community)
        (page.touchscreen.tap if "has_touch" in how else page.mouse.click)(x, y)
        check_panel(page, row, 2001)
        links = region.table("links")
        here = links[links["time"] == time]
        children = here[here["source"] == row.community]
        names = page.locator(".relatives a").all_inner_texts()
        for child in children["target"]:
            assert f"community {child} of 2002" in names
        page.locator(
            f".relatives a:has-text('community {children['target'].iloc[0]} of 2002')"
        ).click()
        table = region.table("communities")
        after = table[
            (table["time"] == region.dataset()["time"].values[2])
            & (table["community"] == children["target"].iloc[0])
        ].iloc[0]
        check_panel(page, after, 2002)
        assert page.locator("#frame").input_value() == "2"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_curves_are_those_of_the_table(browser, written, region):
    tracks = region.table("tracks").drop_duplicates(["time", "community"])
    table = region.table("communities").merge(tracks, on=["time", "community"])
    row = largest(region, region.dataset()["time"].values[0])
    track = table[(table["time"] == row.time) & (table["community"] == row.community)]["track"]
    life = table[table["track"] == track.iloc[0]].sort_values("time")
    with opened(browser, written, **DESK) as page:
        page.evaluate(f"location.hash = '2000/{row.community}'")
        page.wait_for_selector("#chosen:not([hidden])")
        curve = page.evaluate(
            "Object.fromEntries(Object.entries(Bokeh.documents[0].get_model_by_name('curve').data)"
            ".map(([name, values]) => [name, Array.from(values)]))"
        )
        assert curve["people"] == life["population"].tolist()
        assert curve["area"] == pytest.approx(life["area_km2"].tolist())


def test_tables_sort_and_search(browser, written, region):
    now = region.table("communities")
    now = now[now["time"] == now["time"].max()]
    with opened(browser, written, **DESK) as page:
        rows = page.locator("#table-places tbody tr")
        people = [float(text.replace(",", "")) for text in column(rows, 2)]
        assert people == sorted(now["population"], reverse=True)[: len(people)]
        page.locator("#table-places th button", has_text="people").first.click()
        people = [float(text.replace(",", "")) for text in column(rows, 2)]
        assert people == sorted(now["population"])[: len(people)]
        found = page.locator("#table-events tbody tr")
        when, what = (column(found, number)[0] for number in (0, 1))
        page.locator("#table-events input").fill(f"{what} {when}")
        assert set(column(found, 1)) == {what} and set(column(found, 0)) == {when}
        found.first.click()
        page.wait_for_selector(f"#about h3:has-text('of {when}')")


def column(rows, number):
    return [row.locator("td").nth(number).inner_text() for row in rows.all()]


def test_layers_and_themes_change_the_map(browser, written):
    with opened(browser, written, color_scheme="dark", **DESK) as page:
        seen = {redrawn(page, set())}
        for layer in ("population", "classes"):
            choose(page, layer)
            page.wait_for_function(f"report.drawn === '{layer}-3'")
            seen.add(redrawn(page, seen))
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("#theme").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
        redrawn(page, seen)


def test_the_slider_plays(browser, written):
    with opened(browser, written, **DESK) as page:
        page.locator("#play").click()
        page.wait_for_function("document.querySelector('output').textContent === '2003'")
        page.wait_for_function("document.getElementById('play').textContent.includes('play')")


def test_oslo(browser, tmp_path):
    """Real cells: the midst of Oslo in three years."""
    folder = os.environ.get("POPDASK_DATA")
    if not folder:
        pytest.skip("POPDASK_DATA names no folder with rasters")
    (tmp_path / "frames").mkdir()
    for year in (2002, 2010, 2019):
        crop(
            Path(folder, "oslo_250m", f"oslo_pop_250m_{year}.tif"),
            tmp_path / "frames" / f"world_{year}.tif",
        )
    settings = job(tmp_path / "frames", tmp_path / "oslo.icechunk")
    communities.run(settings)
    region = RegionStore(settings.output.store)
    path = write_report(region, tmp_path / "oslo_report.html")
    time = region.dataset()["time"].values[0]
    row = largest(region, time)
    with opened(browser, path, **DESK) as page:
        move_slider(page, 0)
        page.wait_for_function("document.querySelector('output').textContent === '2002'")
        page.mouse.click(*place_of(page, region, time, row.community))
        check_panel(page, row, 2002)


def crop(source, target):
    with rasterio.open(source) as file:
        window = Window(150, 130, 100, 90)
        profile = {**file.profile, "width": 100, "height": 90, "driver": "GTiff"}
        profile |= {"transform": file.window_transform(window), "tiled": False}
        profile = {key: profile[key] for key in profile if not key.startswith("block")}
        with rasterio.open(target, "w", **profile) as cut:
            cut.write(file.read(window=window))
