"""What objects show of themselves in a notebook."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from popdask import CellGrid, InputError, TrainedModel, plan_job, run_job
from popdask._repr_html import html_card
from popdask.store import RegionStore
from popdask.tracking.autoencoder import FittedEncoder
from popdask.tracking.classify import fit_classes
from popdask.workflow.population import PopulationResult as Estimates
from popdask.workflow.scenes import ScenesResult as Groups
from tests.pipelines.small import job, small_world


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    small_world().write(folder)
    return job(folder, tmp_path_factory.mktemp("done") / "small.icechunk")


@pytest.fixture(scope="module")
def outcome(settings):
    return run_job(settings)


class _Rows(HTMLParser):
    """The cells of the tables of a page, and whether all that was opened is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.cells = [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("th", "td"):
            self.cells[-1] += data


def rows(shown):
    cells = _Rows(shown._repr_html_()).cells
    return dict(zip(cells[::2], cells[1::2], strict=True))


def test_what_is_told_cannot_break_the_page():
    page = html_card("<script>", {"a & b": "</td>"})
    assert _Rows(page).cells == ["a & b", "</td>"] and "<script>" not in page


def test_a_curve_falls_from_the_top_left_to_the_bottom_right():
    points = re.search(r'points="([^"]+)"', html_card("loss", {}, curve=[3.0, 1.0, 0.0]))[1].split()
    places = np.array([[float(n) for n in point.split(",")] for point in points])
    assert (np.diff(places[:, 0]) > 0).all() and (np.diff(places[:, 1]) > 0).all()
    assert "<svg" not in html_card("loss", {}, curve=[1.0])


def test_a_job_tells_every_setting(settings):
    told = rows(settings)
    assert told["output.store"] == settings.output.store and told["output.folder"] == "–"
    assert told["flow.centering"] == "0, 0, 0" and float(told["communities.eps"]) > 0


def test_a_store_tells_what_readers_see(settings, outcome):
    told = rows(outcome.store)
    assert told["frames"] == "4, 2000-01-01 to 2003-01-01"
    assert "66 × 70 cells" in told["grid"] and "community" in told["arrays"]
    assert told["tables"] == "balance, communities, link_ends, links, summary, tracks"
    assert "encoder" in told["models"] and "1 in all" in told["last run"]


def test_a_store_without_results_tells_that(tmp_path):
    assert "run the job" in rows(RegionStore(tmp_path / "new.icechunk"))["results"]


def test_a_store_tells_which_tables_there_are(outcome):
    with pytest.raises(InputError, match=r"no table .trakcs.; .* these: balance, communities, li"):
        outcome.store.table("trakcs")


def test_an_outcome_tells_what_was_found(settings, outcome):
    told = rows(outcome)
    assert told["people"] == "14,000 at first, 14,000 at last"
    assert told["computed"].startswith("population, flow") and "4 frames" in told["communities"]
    assert "continue" in repr(outcome) and len(repr(outcome)) < 1000
    assert rows(run_job(settings))["computed"] == "nothing, all was done"


def test_a_plan_tells_each_stage(settings, outcome):
    plan = plan_job(settings)
    assert plan.done and rows(plan)["flow"] == "done"
    assert repr(plan).startswith("Plan(population: done, flow: done")


def test_models_tell_their_settings_and_their_curve(outcome):
    encoder = FittedEncoder.from_bytes(outcome.store.file("encoder-shared.safetensors"))
    assert rows(encoder)["grid"] == "66 × 70 cells" and "<svg" in encoder._repr_html_()
    asked = fit_classes(np.arange(40.0).reshape(20, 2), k=3)
    assert repr(asked).startswith("ClassModel(3 classes of 2 latents")
    assert rows(asked)["number chosen"] == "as asked" and "<svg" not in asked._repr_html_()
    chosen = fit_classes(np.arange(40.0).reshape(20, 2), k="auto", ks=range(2, 6))
    assert rows(chosen)["number chosen"] == "the knee over 2 … 5"
    assert "<svg" in chosen._repr_html_()


def test_a_network_tells_what_it_sees_and_learned_from():
    network = {"network": "PresenceCNN", "widths": (4, 8), "hidden": (8,)}
    history = [{"epoch": 1, "validation": 0.7}, {"epoch": 2, "validation": 0.5}]
    fields = {"cell_size": 100.0, "history": history, "figures": {"matthews": 0.71}}
    model = TrainedModel.untrained("presence", network, pixels=20, **fields)
    told = rows(model)
    assert told["sees"] == "1 × 20 × 20 pixels, 1 × 1 cells of 100"
    assert told["learned from"] == "0 cells, 2 epochs"
    assert told["validation matthews"] == "0.71" and "<svg" in model._repr_html_()


def test_a_grid_tells_its_crs_by_name():
    told = rows(CellGrid.preset("eu_1km"))
    assert told["CRS"] == "EPSG:3035, ETRS89-extended / LAEA Europe"
    assert told["codes"] == "1km_<north>_<east>"


def test_outcomes_of_the_imagery_tell_people_and_cells(outcome):
    times = pd.to_datetime(["2015", "2025"])
    people = pd.DataFrame({"time": times, "people": [1200.0, 3400.0]})
    estimates = Estimates(outcome.plan, people, None, people, None, None, outcome.store)
    told = rows(estimates)
    assert told["people"] == "1,200 (2015-01-01), 3,400 (2025-01-01)"
    assert (told["scores"], told["zones"]) == ("none", "2 keep their totals")
    groups = rows(Groups(outcome.plan, people, outcome.store))
    assert groups["cells"] == "2" and groups["computed"].startswith("population, flow")
