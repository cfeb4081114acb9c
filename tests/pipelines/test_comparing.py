"""Estimates of a job and tables from anywhere, scored side by side."""

import numpy as np
import pytest

from popdask.errors import InputError
from popdask.store import RegionStore
from popdask.workflow import evaluation, population, population_outputs
from popdask.workflow.evaluation import compare
from tests.pipelines.dots import job, write_world

DATES = ("2015-01-01", "2025-01-01")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def settings(world, tmp_path_factory):
    """A finished job with two dates of one place, whose people differ, and a low threshold."""
    store = tmp_path_factory.mktemp("finished") / "dots.icechunk"
    found = job(world, store, estimate={"threshold": 0.3})
    population.run(found)
    return found


@pytest.fixture(scope="module")
def truth(settings):
    """The known people of each date."""
    table = RegionStore(settings.output.store).table("predictions")
    table = table[(table["model"] == "popdask") & table["where"].isin(DATES)]
    return {where: rows[["cell", "truth"]] for where, rows in table.groupby("where")}


def write(path, truth, error=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = truth.assign(prediction=truth["truth"] + error)
    table.to_csv(path, index=False)
    return path


def rows_of(scores, model):
    return scores[scores["model"] == model].set_index("where")


@pytest.fixture(scope="module")
def compared(settings, truth, tmp_path_factory):
    """The job beside four tables, two of them called as models of the job are."""
    folder = tmp_path_factory.mktemp("tables")
    dates = dict.fromkeys(("others", "popdask", "mean-per-cell"), DATES[1]) | {"older": DATES[0]}
    tables = [write(folder / f"{name}.csv", truth[date]) for name, date in dates.items()]
    return *compare([settings], tables, folder / "out"), folder / "out"


def test_a_table_is_compared_with_the_date_whose_people_it_knows(compared):
    scores, written, folder = compared
    assert DATES[1] in rows_of(scores, "others").index
    assert DATES[0] not in rows_of(scores, "others").index
    assert rows_of(scores, "others")["mae"].eq(0).all()
    assert folder / f"agreement_{DATES[1]}_others.png" in written
    assert {folder / f"error_{DATES[1]}.png", folder / "loss_count.png"} <= set(written)
    assert DATES[0] in rows_of(scores, "older").index
    assert DATES[1] not in rows_of(scores, "older").index


def test_a_table_does_not_take_the_row_of_a_model_of_the_job(settings, compared):
    scores, written, folder = compared
    alone = RegionStore(settings.output.store).table("scores")
    for model in ("popdask", "mean per cell"):
        mine, before = rows_of(scores, model), rows_of(alone, model)
        assert set(mine.index) == {"validation", *DATES}
        for score in ("mae", "accuracy", "matthews"):
            np.testing.assert_array_equal(mine[score], before.loc[mine.index, score])
    added = set(scores["model"]) - set(alone["model"])
    assert added == {"others", "older", "popdask.csv", "mean-per-cell.csv"}
    assert len(set(written)) == len(written)
    assert folder / "agreement_validation_mean-per-cell.png" in written


def test_a_table_is_judged_by_the_threshold_of_the_run(settings, truth, tmp_path, monkeypatch):
    for drawing in ("_write", "_write_of_run"):  # what is drawn is looked at above
        monkeypatch.setattr(evaluation, drawing, lambda *_: [])
    known = truth[DATES[1]]
    known = known.assign(presence=np.where(known["truth"] > 0, 0.4, 0.2))
    table = write(tmp_path / "others.csv", known)
    later = settings.model_copy(
        update={"estimate": settings.estimate.model_copy(update={"threshold": 0.9})}
    )
    for one in (settings, later):  # what the run was made with counts, not what the file says now
        scores = rows_of(compare([one], [table])[0], "others")
        assert scores.loc[DATES[1], "matthews"] == 1
    assert compare([], [table])[0]["matthews"].eq(0).all()  # by 0.5: nobody


def test_a_table_that_fits_no_set_is_refused_and_told_why(settings, truth, tmp_path):
    wrong = truth["2025-01-01"].assign(truth=lambda table: table["truth"] + 100)
    with pytest.raises(InputError, match=r"others fits none .*2015-01-01: .* another truth"):
        compare([settings], [write(tmp_path / "others.csv", wrong)], tmp_path / "out")
    elsewhere = truth["2025-01-01"].assign(cell=lambda table: "x" + table["cell"])
    with pytest.raises(InputError, match="no cell in common"):
        compare([settings], [write(tmp_path / "others.csv", elsewhere)], tmp_path / "out")


def test_tables_of_one_name_each_have_their_row(truth, tmp_path):
    date = truth["2015-01-01"]
    tables = [write(tmp_path / folder / "cnn.csv", date, i) for i, folder in enumerate("ab")]
    scores, written = compare([], tables, tmp_path / "out")
    assert scores.set_index("model")["mae"].to_dict() == {"a/cnn.csv": 0.0, "b/cnn.csv": 1.0}
    assert len(set(written)) == len(written) and all(path.exists() for path in written)


def test_a_table_given_twice_is_one(truth, tmp_path):
    table = write(tmp_path / "cnn.csv", truth["2015-01-01"])
    scores, _ = compare([], [table, table])
    assert list(scores["model"]) == ["cnn"]


def test_two_jobs_of_one_name_are_told_apart_or_refused(settings):
    with pytest.raises(InputError, match="two of the jobs are called 'dots'"):
        compare([settings, settings], [])


def test_before_the_first_finished_run_there_is_nothing_to_evaluate_or_explain(world, tmp_path):
    begun = job(world, tmp_path / "dots.icechunk", truth=None)
    population.train(begun)
    for look in (lambda: compare([begun], []), lambda: population_outputs.explain(begun)):
        with pytest.raises(InputError, match=r"holds no finished results yet: run the job to its"):
            look()


def test_nothing_to_compare_is_refused():
    with pytest.raises(InputError, match="nothing to evaluate"):
        compare([], [])
