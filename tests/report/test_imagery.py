"""The reports of the imagery jobs: estimates with their scores, and groups of scenes."""

import numpy as np
import pytest

from popdask.workflow import population, scenes
from popdask.workflow.operations import report
from tests.pipelines.dots import job, write_world
from tests.pipelines.test_scenes import job as scenes_job
from tests.report.browsing import (
    DESK,
    NIGHT,
    PHONE,
    choose,
    findings,
    opened,
    redrawn,
    without_table,
)
from tests.report.reading import Page, amounts


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def estimated(world, tmp_path_factory):
    """A population job that was run: its store and its report."""
    settings = job(world, tmp_path_factory.mktemp("estimated") / "dots.icechunk")
    outcome = population.run(settings)
    return outcome.store, report(settings)


@pytest.fixture(scope="module")
def grouped(world, tmp_path_factory):
    """A scenes job that was run: its store and its report."""
    settings = scenes_job(world, tmp_path_factory.mktemp("grouped") / "dots.icechunk", export=())
    outcome = scenes.run(settings)
    return outcome.store, report(settings)


def test_the_estimate_is_that_of_the_store(estimated):
    store, path = estimated
    page, found = Page(path.read_text(encoding="utf-8")), store.dataset().load()
    assert page.setup["labels"] == ["2015", "2025"]
    for position in range(2):
        for layer in ("population", "presence"):
            true = found[layer].values[position]
            codes, told = page.frame(layer, position)
            shown = amounts(codes, told)
            np.testing.assert_array_equal(shown == 0, true == 0)
            some = true > told["low"]
            np.testing.assert_allclose(shown[some], true[some], rtol=0.03)
    people = found["population"].values[-1].sum(dtype=np.float64)
    assert f"{people:,.0f}" in page.texts("b")


def test_scores_stand_beside_those_of_baselines(estimated):
    store, path = estimated
    page = Page(path.read_text(encoding="utf-8"))
    cells = page.texts("td")
    for row in store.table("scores").itertuples():
        assert row.model in cells and f"{row.mae:,.1f}" in cells
    captions = page.texts("b")
    assert any(text.startswith("Estimate against truth: ") for text in captions)
    assert any(text.startswith("Where the estimate errs: ") for text in captions)
    assert any(text.startswith("How a model learned: ") for text in captions)
    assert "What speaks for people." in captions


def test_groups_are_those_of_the_store(grouped):
    store, path = grouped
    page, groups = Page(path.read_text(encoding="utf-8")), store.group("groups").load()
    layers = [layer["name"] for layer in page.setup["layers"]]
    assert layers == sorted(name for name in groups if groups[name].dtype.kind == "i")
    for layer in layers:
        np.testing.assert_array_equal(page.frame(layer, 0)[0] - 1.0, groups[layer])
    assert "How alike cells look." in page.texts("b")


@pytest.mark.parametrize("product", ["estimated", "grouped"])
def test_a_browser_shows_every_layer(browser, product, request):
    path = request.getfixturevalue(product)[1]
    layers = [layer["name"] for layer in Page(path.read_text(encoding="utf-8")).setup["layers"]]
    with opened(browser, path, **DESK) as page:
        seen = set()
        for layer in layers:
            choose(page, layer)
            page.wait_for_function(f"report.drawn.startsWith('{layer}-')")
            seen.add(redrawn(page, seen))


@pytest.mark.parametrize("how", [NIGHT, PHONE], ids=["night", "phone"])
@pytest.mark.parametrize("product", ["estimated", "grouped"])
def test_axe_finds_nothing_and_every_picture_has_a_table(browser, axe, product, how, request):
    with opened(browser, request.getfixturevalue(product)[1], **how) as page:
        assert page.locator("figure").count() > 0 and without_table(page) == []
        assert findings(axe, page) == []


def test_a_browser_shows_the_explained_cells_wide_enough_to_read(browser, estimated):
    path = estimated[1]
    with opened(browser, path, **DESK) as page:
        figure = page.locator("figure.wide")
        assert figure.locator("image").count() > 9  # of three groups, cells and their maps
        assert figure.locator("svg").bounding_box()["width"] > 1000
    with opened(browser, path, **PHONE) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
